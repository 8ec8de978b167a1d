"""Reductions over some axes: sums, products, extrema, truth, and mean with variance.

Every record takes ``axes``, a sorted tuple of distinct axes that the result no longer has. The
order in which elements are combined is section 4's of the design, whatever the strides; what is
written here is only how one element is taken in and two partial results are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, prod
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import (
    LINEAR,
    NEXT_AXES,
    ErrorSample,
    Forward,
    Gradient,
    Joint,
    NoGradient,
    Op,
    Reduction,
    Sample,
)
from treadle.ops.elementwise import (
    DISCRETE,
    add,
    cast,
    div,
    eq,
    full_like,
    mul,
    sub,
    where,
)
from treadle.ops.movement import concatenate, expand, permute, reshape, slice_
from treadle.ops.project import project
from treadle.ops.registry import (
    ALL,
    FLOATS,
    check_dtype,
    elements_cost,
    floats,
    numpy_function,
    register,
)
from treadle.ops.source import number

if TYPE_CHECKING:
    from treadle.ir.loop import Builder, Operand

Accumulators: TypeAlias = "tuple[Operand, ...]"
_INDEX = dtypes.int64
Identities = list[tuple[DType, float | int | bool]]


def restore(node: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """A reduced value repeated along ``axes``, so that it has the ``shape`` it came from."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return expand(reshape(node, shape=kept), shape=shape)


# --- types ----------------------------------------------------------------------------------------


def _reduced_shape(name: str, kind: Type, axes: Any) -> Shape:
    """The shape without ``axes``, which are checked."""
    if tuple(axes) != tuple(sorted({*axes})) or any(not 0 <= a < kind.ndim for a in axes):
        raise ShapeError(
            f"{name}: got axes {tuple(axes)} for a tensor of shape {kind.shape}; they must be "
            f"distinct, in ascending order, and name some of its {kind.ndim} axes 0, 1, ..."
        )
    return tuple(size for axis, size in enumerate(kind.shape) if axis not in axes)


def _check_not_empty(name: str, kind: Type, axes: tuple[int, ...]) -> None:
    if prod(kind.shape[a] for a in axes) == 0:
        raise ShapeError(
            f"{name}: got a tensor of shape {kind.shape} and axes {axes}, along which there is no "
            f"element to choose; reduce axes of size 1 or more, or skip empty tensors"
        )


def _infer(
    name: str,
    allowed: Sequence[DType],
    result: Callable[[DType], DType],
    takes_empty: bool = True,
    one_axis: bool = False,
) -> Callable[[Sequence[Type], dict[str, Any]], Type]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        (kind,), axes = types, attrs["axes"]
        check_dtype(name, kind, allowed)
        if one_axis and len(axes) != 1:
            raise ShapeError(
                f"{name}: got axes {tuple(axes)} for a tensor of shape {kind.shape}; it takes "
                f"exactly one axis: reshape the tensor to (-1,) first to search all of it"
            )
        shape = _reduced_shape(name, kind, axes)
        if not takes_empty:
            _check_not_empty(name, kind, axes)
        return type_of(result(kind.dtype), shape, kind.device)

    return infer


def _same(dtype: DType) -> DType:
    return dtype


def _accumulated(dtype: DType) -> DType:
    """Integers and truth values are summed in int64, as in PyTorch."""
    return dtype if dtype.kind == "f" else dtypes.int64


def _wide(dtype: DType) -> DType:
    """The dtype to compute in: float32 for the 16-bit floats."""
    return dtypes.float32 if dtype.kind == "f" and dtype.bits == 16 else dtype


# --- samples --------------------------------------------------------------------------------------

_SAMPLES: tuple[tuple[Shape, tuple[int, ...]], ...] = (
    ((7,), (0,)), ((3, 5), (0,)), ((3, 5), (1,)), ((2, 3, 4), (0, 2)), ((2, 3, 4), (0, 1, 2)),
    ((19, 9), (0,)), ((2, 37), (1,)), ((2, 0), (0,)),
)  # fmt: skip
_NO_AXIS: tuple[tuple[Shape, tuple[int, ...]], ...] = (((), ()), ((3,), ()))
_NO_ELEMENT: tuple[tuple[Shape, tuple[int, ...]], ...] = (((0,), (0,)), ((3, 0), (1,)))


def _sample(
    cases: Iterable[tuple[Shape, tuple[int, ...]]], low: float = -2.0, smooth: bool = True
) -> Callable[[], Iterable[Sample]]:
    def samples() -> Iterable[Sample]:
        for seed, (shape, axes) in enumerate(cases):
            yield Sample((floats(*shape, low=low, seed=seed),), {"axes": axes}, smooth)

    return samples


def _refused(name: str, takes_empty: bool, one_axis: bool) -> Callable[[], Iterable[ErrorSample]]:
    def errors() -> Iterable[ErrorSample]:
        for axes in ((2,), (1, 0), (0, 0), (-1,)):
            text = f"{name}: got axes {axes} for a tensor of shape (2, 3)"
            yield ErrorSample((floats(2, 3),), {"axes": axes}, ShapeError, text)
        if one_axis:
            text = f"{name}: got axes (0, 1) for a tensor of shape (2, 3); it takes exactly one"
            yield ErrorSample((floats(2, 3),), {"axes": (0, 1)}, ShapeError, text)
        if not takes_empty:
            text = f"{name}: got a tensor of shape (0, 3) and axes (0,), along which there is no"
            yield ErrorSample((floats(0, 3),), {"axes": (0,)}, ShapeError, text)

    return errors


def _define(
    name: str,
    lower: Reduction,
    reference: Callable[..., Any],
    gradient: Gradient | NoGradient,
    doc: str,
    *,
    result: Callable[[DType], DType] = _same,
    residuals: tuple[int | str, ...] = (),
    takes_empty: bool = True,
    one_axis: bool = False,
    jvp: Forward | None = None,
) -> Op:
    """One record; its samples and errors follow from what it takes."""
    cases = (*_SAMPLES, *(() if one_axis else _NO_AXIS), *(_NO_ELEMENT if takes_empty else ()))
    if one_axis:
        cases = tuple(case for case in cases if len(case[1]) == 1)
    return register(
        Op(
            name=name, family="reduce", traits=frozenset({"reduction"}),
            infer=_infer(name, ALL, result, takes_empty, one_axis), gradient=gradient,
            jvp=jvp, batch=NEXT_AXES,
            residuals=residuals, lower=lower, reference=reference, samples=_sample(cases),
            errors=_refused(name, takes_empty, one_axis), cost=elements_cost(1), dtypes=ALL,
            doc=doc,
        )
    )  # fmt: skip


def _numpy(x: np.ndarray) -> np.ndarray:
    """What NumPy can compute with: floats (bfloat16 is not one of its own) as float64."""
    return x if x.dtype.kind in "iub" else x.astype(np.float64)


def _total(function: Callable[..., Any]) -> Callable[..., Any]:
    """The reference of a sum or product."""

    def reference(x: np.ndarray, axes: tuple[int, ...]) -> Any:
        if x.dtype.kind in "iub":
            return function(x, axis=axes, dtype=np.int64)
        return function(_numpy(x), axis=axes).astype(x.dtype)

    return reference


def _statement(name: str) -> Callable[..., Accumulators]:
    """Merges by one statement of the loop IR."""
    return lambda k, a, b: (k.op(name, a[0], b[0]),)


def _lift_to(target: Callable[[DType], DType]) -> Callable[..., Accumulators]:
    return lambda k, x, r: (k.convert(x, target(x.dtype)),)


# --- sums and products ----------------------------------------------------------------------------


def _sum_dtype(dtype: DType) -> DType:
    return _wide(_accumulated(dtype))


def _sum_identity(dtype: DType) -> Identities:
    """-0: what changes no number (-0 + +0 is +0, but +0 + -0 would lose the sign)."""
    target = _sum_dtype(dtype)
    return [(target, -0.0 if target.kind == "f" else 0)]


def _sum_finish(k: Builder, acc: Accumulators, n: Operand) -> Accumulators:
    """The sum of no element is +0."""
    total = acc[0]
    if total.dtype.kind != "f":
        return acc
    return (k.select(k.op("eq", n, 0), k.const(0.0, total.dtype), total),)


reduce_sum = _define(
    "reduce_sum",
    Reduction(_sum_identity, _lift_to(_sum_dtype), _statement("add"), _sum_finish),
    _total(numpy_function("sum")),
    (lambda g, n: restore(g, n.inputs[0].shape, n.attrs["axes"]),),
    "the sum; integers and truth values give int64; 16-bit floats are summed in float32",
    result=_accumulated,
    jvp=LINEAR,
)


def _others(x: Node) -> Node:
    """For each element of a row of ``x`` (rows, n), the product of all others in the row.

    Up a tree of products of pairs and down again: O(n) multiplications and no division, so zeros
    are nothing special, here and in all further derivatives.
    """
    rows, n = x.shape
    if n <= 1:
        return full_like(x, 1)
    if n % 2:
        x = concatenate(x, expand(number(1, x.dtype), shape=(rows, 1)), axis=1)
    half = x.shape[1] // 2
    left, right = (
        slice_(x, starts=(0, start), sizes=(rows, half), steps=(1, 2)) for start in (0, 1)
    )
    above = _others(mul(left, right))
    pairs = [reshape(mul(above, sibling), shape=(rows, half, 1)) for sibling in (right, left)]
    flat = reshape(concatenate(*pairs, axis=2), shape=(rows, 2 * half))
    return slice_(flat, starts=(0, 0), sizes=(rows, n), steps=(1, 1))


def _prod_gradient(g: Node, n: Node) -> Node:
    """g times the product of the other elements."""
    x, axes = n.inputs[0], n.attrs["axes"]
    kept = tuple(axis for axis in range(len(x.shape)) if axis not in axes)
    order = (*kept, *axes)
    moved = permute(cast(x, _wide(x.dtype)), axes=order)
    rows = prod(x.shape[a] for a in kept)
    others = _others(reshape(moved, shape=(rows, prod(x.shape[a] for a in axes))))
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    back = permute(reshape(others, shape=moved.shape), axes=inverse)
    return mul(restore(g, x.shape, axes), cast(back, x.dtype))


reduce_prod = _define(
    "reduce_prod",
    Reduction(
        lambda dtype: [(_sum_dtype(dtype), 1)], _lift_to(_sum_dtype), _statement("mul"),
        lambda k, acc, n: acc,
    ),
    _total(numpy_function("prod")),
    (_prod_gradient,),
    "the product; integers and truth values give int64; 16-bit floats are multiplied in float32",
    result=_accumulated, residuals=(0,),
)  # fmt: skip


# --- extrema --------------------------------------------------------------------------------------


def _lowest(dtype: DType) -> float | int | bool:
    if dtype.kind == "f":
        return -np.inf
    return False if dtype.kind == "b" else int(np.iinfo(dtype.numpy).min)


def _highest(dtype: DType) -> float | int | bool:
    if dtype.kind == "f":
        return np.inf
    return True if dtype.kind == "b" else int(np.iinfo(dtype.numpy).max)


def _extremum_gradient(g: Node, n: Node) -> Node:
    """Shared equally among the elements that are equal to the extremum, as PyTorch's amax."""
    x, axes = n.inputs[0], n.attrs["axes"]
    won = eq(x, restore(n, x.shape, axes))
    ties = reduce_sum(cast(won, g.dtype), axes=axes)
    share = where(won, restore(g, x.shape, axes), full_like(x, 0))
    return div(share, restore(ties, x.shape, axes))


def _smaller(k: Builder, a: Operand, b: Operand) -> Operand:
    """The IEEE minimum, in three instructions where a processor has one for ``a < b ? a : b``.

    Both orders of that differ for zeros and NaN only, where the bits together are right: -0 is all
    bits of both zeros, and NaN with the bits of a number is NaN.
    """
    word = dtypes.uint32 if a.dtype is dtypes.float32 else dtypes.uint64
    orders = (k.select(k.compare("lt", x, y), x, y) for x, y in ((a, b), (b, a)))
    return k.bitcast(k.op("or", *(k.bitcast(x, word) for x in orders)), a.dtype)


def _extremum(name: str, statement: str, worst: Callable[[DType], Any], doc: str) -> Op:
    """The maximum of floats is the minimum of their negatives."""
    function = numpy_function("max" if statement == "maximum" else "min")
    turned = statement == "maximum"

    def lift(k: Builder, x: Operand, r: Operand) -> Accumulators:
        value = k.convert(x, _wide(x.dtype))
        return (k.op("neg", value) if turned and value.dtype.kind == "f" else value,)

    def merge(k: Builder, a: Accumulators, b: Accumulators) -> Accumulators:
        is_float = a[0].dtype.kind == "f"
        return (_smaller(k, a[0], b[0]) if is_float else k.op(statement, a[0], b[0]),)

    def finish(k: Builder, acc: Accumulators, n: Operand) -> Accumulators:
        return (k.op("neg", acc[0]) if turned and acc[0].dtype.kind == "f" else acc[0],)

    def identity(dtype: DType) -> Any:
        return np.inf if dtype.kind == "f" else worst(dtype)

    return _define(
        name,
        Reduction(
            lambda dtype: [(_wide(dtype), identity(_wide(dtype)))], lift, merge, finish
        ),
        lambda x, axes: function(_numpy(x), axis=axes).astype(x.dtype),
        (_extremum_gradient,), doc, residuals=(0, "out"), takes_empty=False,
    )  # fmt: skip


reduce_max = _extremum(
    "reduce_max", "maximum", _lowest, "the largest element; NaN wins; +0 is larger than -0"
)
reduce_min = _extremum(
    "reduce_min", "minimum", _highest, "the smallest element; NaN wins; -0 is smaller than +0"
)


def _choose(statement: str) -> Callable[[Builder, Accumulators, Accumulators], Accumulators]:
    """Merges (value, index): NaN before all numbers, then the better value, then the lower index.

    Stripes do not come in the order of indices, so ties are decided by comparing these.
    """

    def merge(k: Builder, a: Accumulators, b: Accumulators) -> Accumulators:
        (x, i), (y, j) = a, b
        better, tied = k.op(statement, y, x), k.op("eq", y, x)
        if x.dtype.kind == "f":
            x_is_nan, y_is_nan = k.op("ne", x, x), k.op("ne", y, y)
            better = k.op("or", better, k.op("and", y_is_nan, k.op("not", x_is_nan)))
            tied = k.op("or", tied, k.op("and", x_is_nan, y_is_nan))
        take = k.op("or", better, k.op("and", tied, k.op("lt", j, i)))
        return k.select(take, y, x), k.select(take, j, i)

    return merge


def _keep_or_take(
    worse: str,
) -> Callable[[Builder, Accumulators, Accumulators], Accumulators]:
    """The same where ``b`` comes later: only what is better, or the first NaN, takes over.

    An element as bad as the identity does not: ``_first_of_worst`` sees to that.
    """

    def step(k: Builder, a: Accumulators, b: Accumulators) -> Accumulators:
        (x, i), (y, j) = a, b
        take = k.op("not", k.op(worse, y, x))  # true for NaN
        if x.dtype.kind == "f":
            take = k.op("and", take, k.op("eq", x, x))
        return k.select(take, y, x), k.select(take, j, i)

    return step


def _first_of_worst(k: Builder, acc: Accumulators, n: Operand) -> Accumulators:
    """The index; where no element was better than the identity all are equal to it."""
    index = acc[1]
    return (k.select(k.op("eq", index, int(_highest(_INDEX))), 0, index),)


def _position(name: str, statement: str, worst: Callable[[DType], Any], doc: str) -> Op:
    function = numpy_function("argmax" if statement == "gt" else "argmin")
    return _define(
        name,
        Reduction(
            lambda dtype: [(_wide(dtype), worst(_wide(dtype))), (_INDEX, _highest(_INDEX))],
            lambda k, x, r: (k.convert(x, _wide(x.dtype)), r), _choose(statement),
            _first_of_worst, _keep_or_take({"gt": "le", "lt": "ge"}[statement]),
        ),
        lambda x, axes: function(_numpy(x), axis=axes[0]), DISCRETE, doc,
        result=lambda dtype: _INDEX, takes_empty=False, one_axis=True,
    )  # fmt: skip


argmax = _position(
    "argmax", "gt", _lowest,
    "the index of the largest element along one axis: the first NaN, or the first of equals",
)  # fmt: skip
argmin = _position(
    "argmin", "lt", _highest,
    "the index of the smallest element along one axis: the first NaN, or the first of equals",
)  # fmt: skip


# --- truth ----------------------------------------------------------------------------------------


def _truth(name: str, statement: str, identity: bool, function: str, doc: str) -> Op:
    holds = numpy_function(function)
    return _define(
        name,
        Reduction(
            lambda dtype: [(dtypes.bool_, identity)], _lift_to(lambda dtype: dtypes.bool_),
            _statement(statement), lambda k, acc, n: acc,
        ),
        lambda x, axes: holds(_numpy(x) != 0, axis=axes), DISCRETE, doc,
        result=lambda dtype: dtypes.bool_,
    )  # fmt: skip


reduce_any = _truth(
    "reduce_any", "or", False, "any", "whether some element is not 0 (NaN is not 0)"
)
reduce_all = _truth("reduce_all", "and", True, "all", "whether no element is 0 (NaN is not 0)")


# --- moments --------------------------------------------------------------------------------------


def _moments_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, Type]:
    kind = types[0]
    check_dtype("moments", kind, FLOATS)
    out = type_of(_wide(kind.dtype), _reduced_shape("moments", kind, attrs["axes"]), kind.device)
    return out, out


def _moments_lift(k: Builder, x: Operand, r: Operand) -> Accumulators:
    wide = k.convert(x, dtypes.float64)
    return wide, wide


def _moments_step(k: Builder, acc: Accumulators, x: Accumulators) -> Accumulators:
    """S1 + x, and S2 + x^2 rounded once (the square of a float32 is exact in float64)."""
    return k.add(acc[0], x[0]), k.fma(x[1], x[1], acc[1])


def _moments_finish(k: Builder, acc: Accumulators, n: Operand) -> Accumulators:
    """Mean S1/n and variance max(0, (S2 - S1^2/n)/n); both NaN where there is no element."""
    s1, s2 = acc
    count = k.convert(n, dtypes.float64)
    spread = k.sub(s2, k.div(k.mul(s1, s1), count))
    return k.div(s1, count), k.maximum(k.div(spread, count), k.const(0.0, dtypes.float64))


def _moments_gradient(g: tuple[Node | None, Node | None], n: Node) -> Sequence[Node | None]:
    """d mean/dx = 1/n and d var/dx = 2 (x - mean)/n."""
    x, axes = n.inputs[0], n.attrs["axes"]
    g_mean, g_var = g
    count = prod(x.shape[a] for a in axes)

    def spread(node: Node) -> Node:
        return restore(node, x.shape, axes)

    total: Node | None = None
    if g_mean is not None:
        total = spread(div(g_mean, full_like(g_mean, count)))
    if g_var is not None:
        scale = div(add(g_var, g_var), full_like(g_var, count))
        mean = project(n, index=0)
        centred = sub(cast(x, mean.dtype), spread(mean))
        through = mul(centred, spread(scale))
        total = through if total is None else add(total, through)
    return (None if total is None else cast(total, x.dtype),)


def _moments_reference(x: np.ndarray, axes: tuple[int, ...]) -> tuple[Any, Any]:
    dtype = x.dtype if x.dtype.itemsize > 2 else np.dtype(np.float32)
    wide = _numpy(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        count = np.float64(prod(x.shape[a] for a in axes))
        mean = wide.sum(axis=axes) / count
        centred = wide - np.expand_dims(mean, axes)
        return mean.astype(dtype), ((centred**2).sum(axis=axes) / count).astype(dtype)


moments = register(
    Op(
        name="moments", family="reduce", traits=frozenset({"reduction"}), infer=_moments_infer,
        gradient=Joint(_moments_gradient), residuals=(0, "out"), batch=NEXT_AXES,
        lower=Reduction(
            lambda dtype: [(dtypes.float64, -0.0), (dtypes.float64, -0.0)], _moments_lift,
            lambda k, a, b: (k.add(a[0], b[0]), k.add(a[1], b[1])), _moments_finish,
            _moments_step,
        ),
        reference=_moments_reference, samples=_sample((*_SAMPLES, *_NO_AXIS)),
        errors=lambda: (
            *_refused("moments", takes_empty=True, one_axis=False)(),
            ErrorSample(
                (np.ones(3, np.int64),), {"axes": (0,)}, DTypeError,
                "moments: got an operand of dtype int64",
            ),
        ),
        cost=elements_cost(4), dtypes=FLOATS,
        doc="mean and biased variance (divided by n): the sums of x and x^2 in float64, the "
        "variance max(0, (S2 - S1^2/n)/n), both rounded to the input's dtype (float32 for 16-bit "
        "floats)",
    )
)  # fmt: skip

__all__ = [
    "argmax", "argmin", "moments", "reduce_all", "reduce_any", "reduce_max", "reduce_min",
    "reduce_prod", "reduce_sum", "restore",
]  # fmt: skip
