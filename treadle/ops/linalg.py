"""Systems of linear equations, inverses and determinants, by NumPy's LAPACK.

All take matrices in batches of any shape, the operands in the same. Where a matrix has no answer
the error says which one of the batch it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from treadle.base import dtypes
from treadle.base.errors import LinAlgError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import ANY_LEADING, Cost, ErrorSample, Joint, Library, NoGradient, Op, Sample
from treadle.ops import elementwise as e
from treadle.ops import matrices as m
from treadle.ops.complex import REALS, part
from treadle.ops.project import project
from treadle.ops.reduce import reduce_sum
from treadle.ops.registry import check_dtype, check_same, floats, register

Array: TypeAlias = "np.ndarray[Any, Any]"
INEXACT = (*REALS, *dtypes.COMPLEX)


# --- what the records share ---------------------------------------------------------------------


def _cost(inputs: Sequence[Type], out: Any, attrs: dict[str, Any]) -> Cost:
    kind = inputs[0]
    outs = out if isinstance(out, tuple) else (out,)
    small, large = sorted(kind.shape[-2:])
    work = 2 * prod(kind.shape[:-2]) * small * small * large
    return Cost(work, sum(t.nbytes for t in (*inputs, *outs)))


SHARED: dict[str, Any] = {
    "family": "linalg", "traits": frozenset({"linalg", "holds_complex"}), "cost": _cost,
    "batch": ANY_LEADING, "dtypes": INEXACT,
}  # fmt: skip


def check_matrix(name: str, kind: Type, square: bool = True) -> None:
    """Refuses what is no (square) matrix of inexact numbers."""
    check_dtype(name, kind, INEXACT)
    if kind.ndim < 2 or (square and kind.shape[-1] != kind.shape[-2]):
        raise ShapeError(
            f"{name}: got a tensor of shape {kind.shape}; it takes "
            f"{'square ' if square else ''}matrices, in batches of any shape"
        )


def square_infer(name: str) -> Callable[..., Type]:
    """The same type for square matrices."""

    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        check_matrix(name, types[0])
        return types[0]

    return infer


def one_by_one(name: str, why: str, call: Callable[..., Any], *arrays: Array) -> Any:
    """``call(*arrays)``; where NumPy refuses, the error names the first matrix that it refuses."""
    try:
        return call(*arrays)
    except np.linalg.LinAlgError as refusal:
        batch = arrays[0].shape[:-2]
        for index in np.ndindex(*batch):
            try:
                call(*[a[index] for a in arrays])
            except np.linalg.LinAlgError:
                which = f"matrix {list(index)} of the batch" if index else "the matrix"
                raise LinAlgError(f"{name}: {which} {why}") from None
        raise LinAlgError(f"{name}: {refusal}") from None


def square_samples(*sizes: int) -> Iterable[Sample]:
    """Square matrices that are far from singular, one alone and a batch."""
    for seed, n in enumerate(sizes or (1, 3, 4)):
        for batch in ((), (2,)):
            noise = floats(*batch, n, n, low=-0.5, high=0.5, seed=seed)
            yield Sample((noise + np.diag(np.arange(n) + 2).astype(np.float32),))


def square_errors(name: str) -> Callable[[], Iterable[ErrorSample]]:
    """What an op of square matrices refuses."""
    return lambda: (
        ErrorSample((floats(2, 3),), {}, ShapeError, f"{name}: got a tensor of shape (2, 3)"),
    )


SINGULAR = (
    "is singular: it has no inverse; add a small multiple of the identity, or use linalg.lstsq or "
    "linalg.pinv"
)

# --- equations ----------------------------------------------------------------------------------


def _solve_call(a: Array, b: Array) -> Array:
    return one_by_one("linalg.solve", SINGULAR, np.linalg.solve, a, b)


def _solve_infer(name: str) -> Callable[..., Type]:
    """The type of B, which has as many rows as A, in the same batches."""

    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        a, b = types
        check_matrix(name, a)
        check_same(name, (type_of(a.dtype, ()), type_of(b.dtype, ())))
        if b.shape[:-1] != a.shape[:-1]:
            raise ShapeError(
                f"{name}: got A of shape {a.shape} and B of shape {b.shape}; all but the last "
                f"size must be equal here"
            )
        return b

    return infer


def _solve_gradient(g: Node, n: Node) -> Sequence[Node]:
    back = solve(m.adjoint(n.inputs[0]), g)
    return e.neg(m.product(back, m.adjoint(n))), back


def _system_samples() -> Iterable[Sample]:
    for (a,), *_ in square_samples():
        yield Sample((a, floats(*a.shape[:-1], 2, seed=5)))


solve: Op = register(
    Op(
        name="linalg_solve", infer=_solve_infer("linalg.solve"), gradient=Joint(_solve_gradient),
        residuals=(0, "out"), lower=Library(_solve_call), reference=_solve_call,
        samples=_system_samples,
        errors=lambda: (
            ErrorSample(
                (floats(2, 2), floats(3, 1)), {}, ShapeError, "linalg.solve: got A of shape (2, 2)"
            ),
        ),
        doc="x with A x = B", **SHARED,
    )
)  # fmt: skip


def _triangular_call(a: Array, b: Array, upper: bool, unit: bool) -> Array:
    """An upper triangle is its own U: what ``solve`` does with it is substitution alone.

    A lower one is turned round. A zero on the diagonal divides by zero, as LAPACK's trtrs does.
    """
    n = a.shape[-1]
    a = np.triu(a) if upper else np.tril(a)
    if unit:
        a[..., range(n), range(n)] = 1
    if not upper:
        a, b = a[..., ::-1, ::-1], b[..., ::-1, :]
    singular = (np.diagonal(a, axis1=-2, axis2=-1) == 0).any(-1)
    if singular.any():
        x = _substituted(a, b)
    else:
        x = np.linalg.solve(a, b)
    return x if upper else x[..., ::-1, :]


def _substituted(a: Array, b: Array) -> Array:
    """Substitution from the last row to the first, dividing by whatever is there."""
    x = b.copy()
    for i in reversed(range(a.shape[-1])):
        x[..., i, :] /= a[..., i, i, None]
        x[..., :i, :] -= a[..., :i, i, None] * x[..., i, None, :]
    return x


def _triangular_gradient(g: Node, n: Node) -> Sequence[Node]:
    upper, unit = n.attrs["upper"], n.attrs["unit"]
    back = solve_triangular(m.adjoint(n.inputs[0]), g, upper=not upper, unit=unit)
    full = e.neg(m.product(back, m.adjoint(n)))
    return m.triangle(full, not upper, (1 if upper else -1) if unit else 0), back


solve_triangular: Op = register(
    Op(
        name="linalg_solve_triangular", infer=_solve_infer("linalg.solve_triangular"),
        gradient=Joint(_triangular_gradient),
        residuals=(0, "out"), lower=Library(_triangular_call), reference=_triangular_call,
        samples=lambda: (
            Sample(s.args, {"upper": upper, "unit": unit})
            for s in _system_samples() for upper in (True, False) for unit in (True, False)
        ),
        errors=lambda: (
            ErrorSample(
                (floats(2, 2), floats(3, 1)), {"upper": True, "unit": False}, ShapeError,
                "linalg.solve_triangular: got A of shape (2, 2)",
            ),
        ),
        doc="x with A x = B for the upper or lower triangle of A", **SHARED,
    )
)  # fmt: skip


def _inv_call(a: Array) -> Array:
    return one_by_one("linalg.inv", SINGULAR, np.linalg.inv, a)


inv: Op = register(
    Op(
        name="linalg_inv", infer=square_infer("linalg.inv"),
        gradient=(lambda g, n: e.neg(m.product(m.adjoint(n), g, m.adjoint(n))),),
        residuals=("out",), lower=Library(_inv_call), reference=_inv_call, samples=square_samples,
        errors=square_errors("linalg.inv"), doc="the inverse", **SHARED,
    )
)  # fmt: skip

# --- Cholesky -----------------------------------------------------------------------------------


def _cholesky_call(a: Array, check: bool) -> tuple[Array, Array]:
    """The factor, and for each matrix 0 or the order of the first minor that is not positive."""
    info = np.zeros(a.shape[:-2], np.int32)
    try:
        return np.linalg.cholesky(a), info
    except np.linalg.LinAlgError:
        factor = np.full_like(a, np.nan)
    for index in np.ndindex(*a.shape[:-2]):
        try:
            factor[index] = np.linalg.cholesky(a[index])
        except np.linalg.LinAlgError:
            info[index] = _first_bad_minor(a[index])
            if check:
                which = f"matrix {list(index)} of the batch" if index else "the matrix"
                raise LinAlgError(
                    f"linalg.cholesky: {which} is not positive definite (its leading minor of "
                    f"order {info[index]} is not positive); add a small multiple of the identity"
                ) from None
    return factor, info


def _first_bad_minor(a: Array) -> int:
    low, high = 0, len(a)  # the minor of order ``low`` is positive, that of order ``high`` is not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            np.linalg.cholesky(a[:middle, :middle])
            low = middle
        except np.linalg.LinAlgError:
            high = middle
    return high


def _cholesky_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    check_matrix("linalg.cholesky", types[0])
    return types[0], type_of(dtypes.int32, types[0].shape[:-2], types[0].device)


def _cholesky_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    """A+ = L^-H S L^-1, S half of L^H L+ below the diagonal, its adjoint above."""
    if g[0] is None:
        return (None,)
    factor = project(n, index=0)
    whole = m.product(m.adjoint(factor), g[0])
    below = m.triangle(whole, True, -1)
    inner = m.scaled(m.on_diagonal(e.add(below, m.adjoint(below)), whole), 0.5)
    upper = m.adjoint(factor)
    left = solve_triangular(upper, inner, upper=True, unit=False)
    return (m.adjoint(solve_triangular(upper, m.adjoint(left), upper=True, unit=False)),)


def _positive_samples() -> Iterable[Sample]:
    for (a,), *_ in square_samples():
        yield Sample((a @ a.swapaxes(-1, -2),), {"check": True}, smooth=False)


cholesky: Op = register(
    Op(
        name="linalg_cholesky", infer=_cholesky_infer, gradient=Joint(_cholesky_gradient),
        residuals=("out",), lower=Library(_cholesky_call), reference=_cholesky_call,
        samples=_positive_samples,
        errors=lambda: (
            ErrorSample((floats(2, 3),), {"check": True}, ShapeError, "linalg.cholesky: got a"),
        ),
        doc="L with L L^H = A, of the lower triangle of A; and which minor is not positive",
        **SHARED,
    )
)  # fmt: skip

# --- LU -----------------------------------------------------------------------------------------

_PANEL = 32  # columns eliminated one by one before the rest is updated by a product


def _size(x: Array) -> Array:
    """|x| as LAPACK's pivots compare it."""
    return np.abs(x.real) + np.abs(x.imag) if np.iscomplexobj(x) else np.abs(x)


def _lu_call(a: Array) -> tuple[Array, Array]:
    """L (without its diagonal) and U in one matrix, and the rows exchanged, counted from 1."""
    shape = a.shape
    count = prod(shape[:-2])
    rows, columns = shape[-2:]
    a = a.reshape(count, rows, columns).copy()
    steps = min(rows, columns)
    pivots = np.zeros((count, steps), np.int32)
    every = np.arange(count)
    for first in range(0, steps, _PANEL):
        last = min(first + _PANEL, steps)
        for j in range(first, last):
            p = _size(a[:, j:, j]).argmax(1) + j
            pivots[:, j] = p + 1
            a[every, j], a[every, p] = a[every, p], a[every, j].copy()
            pivot = a[:, j, None, j]
            a[:, j + 1 :, j] /= np.where(pivot == 0, 1, pivot)
            a[:, j + 1 :, j + 1 : last] -= a[:, j + 1 :, j, None] * a[:, None, j, j + 1 : last]
        for i in range(first + 1, last):
            a[:, i, last:] -= (a[:, i, None, first:i] @ a[:, first:i, last:])[:, 0]
        a[:, last:, last:] -= a[:, last:, first:last] @ a[:, first:last, last:]
    return a.reshape(shape), pivots.reshape(*shape[:-2], steps)


def _lu_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    kind = types[0]
    check_matrix("linalg.lu_factor", kind, square=False)
    return kind, type_of(dtypes.int32, (*kind.shape[:-2], min(kind.shape[-2:])), kind.device)


def _permuted_call(b: Array, pivots: Array, back: bool) -> Array:
    b = b.copy()
    count = prod(b.shape[:-2])
    flat, exchanged = b.reshape(count, *b.shape[-2:]), pivots.reshape(count, pivots.shape[-1])
    every = np.arange(count)
    order = range(pivots.shape[-1])
    for j in reversed(order) if back else order:
        p = exchanged[:, j] - 1
        flat[every, j], flat[every, p] = flat[every, p], flat[every, j].copy()
    return flat.reshape(b.shape)


def _exchange_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    check_matrix("exchange_rows", types[0], square=False)
    return types[0]


exchange_rows: Op = register(
    Op(
        name="linalg_exchange_rows", infer=_exchange_infer,
        gradient=(
            lambda g, n: exchange_rows(g, n.inputs[1], back=not n.attrs["back"]),
            NoGradient("pivots are whole numbers"),
        ),
        residuals=(1,), lower=Library(_permuted_call), reference=_permuted_call,
        samples=lambda: (
            Sample((floats(3, 2), np.array([3, 3, 3], np.int32)), {"back": back})
            for back in (True, False)
        ),
        errors=lambda: (
            ErrorSample(
                (floats(3), np.array([1], np.int32)), {"back": False}, ShapeError,
                "exchange_rows: got a tensor of shape (3,); it takes matrices",
            ),
        ),
        doc="row j exchanged with row pivots[j] - 1 for j = 0, 1, ..., or from the last j on back",
        **SHARED,
    )
)  # fmt: skip


def _lu_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    """Of L and U in blocks: the square part that both have, and the rest of the longer one."""
    if g[0] is None:
        return (None,)
    packed = project(n, index=0)
    rows, columns = packed.shape[-2:]
    k = min(rows, columns)
    square, g_square = (m.block(x, (0, 0), (k, k)) for x in (packed, g[0]))
    lower, g_lower = (m.triangle(x, True, -1) for x in (square, g_square))
    lower = e.add(lower, m.identity(lower.type, k))
    upper, g_upper = (m.triangle(x, False) for x in (square, g_square))
    rest = None
    if rows > k:
        low, g_low = (m.block(x, (k, 0), (rows - k, k)) for x in (packed, g[0]))
        rest = _right_divided(g_low, upper)
        g_upper = e.sub(g_upper, m.triangle(m.product(m.adjoint(low), rest), False))
    elif columns > k:
        right, g_right = (m.block(x, (0, k), (k, columns - k)) for x in (packed, g[0]))
        rest = solve_triangular(m.adjoint(lower), g_right, upper=True, unit=True)
        g_lower = e.sub(g_lower, m.triangle(m.product(rest, m.adjoint(right)), True, -1))
    inner = e.add(
        m.triangle(m.product(m.adjoint(lower), g_lower), True, -1),
        m.triangle(m.product(g_upper, m.adjoint(upper)), False),
    )
    inner = solve_triangular(m.adjoint(lower), inner, upper=True, unit=True)
    back = _right_divided(inner, upper)
    if rest is not None:
        back = m.above(back, rest) if rows > k else m.beside(back, rest)
    return (exchange_rows(back, project(n, index=1), back=True),)


def _right_divided(x: Node, upper: Node) -> Node:
    """x U^-H."""
    return m.adjoint(solve_triangular(upper, m.adjoint(x), upper=True, unit=False))


def _any_samples() -> Iterable[Sample]:
    for seed, shape in enumerate(((3, 3), (4, 2), (2, 4), (2, 3, 3))):
        x = floats(*shape, low=-0.5, high=0.5, seed=seed)
        yield Sample((x + 2 * np.eye(*shape[-2:], dtype=np.float32),))


lu: Op = register(
    Op(
        name="linalg_lu", infer=_lu_infer, gradient=Joint(_lu_gradient), residuals=("out",),
        lower=Library(_lu_call), reference=_lu_call, samples=_any_samples,
        errors=lambda: (
            ErrorSample((floats(2),), {}, ShapeError, "linalg.lu_factor: got a tensor"),
        ),
        doc="L and U in one matrix, by partial pivoting; and the rows exchanged", **SHARED,
    )
)  # fmt: skip

# --- determinants -------------------------------------------------------------------------------


def _no_matrix(name: str, parts: int) -> Callable[..., Any]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Any:
        kind = types[0]
        check_matrix(name, kind)
        first = type_of(kind.dtype, kind.shape[:-2], kind.device)
        if parts == 1:
            return first
        return first, type_of(kind.dtype.to_real(), kind.shape[:-2], kind.device)

    return infer


def _det_call(a: Array) -> Array:
    return np.asarray(np.linalg.det(a))


det: Op = register(
    Op(
        name="linalg_det", infer=_no_matrix("linalg.det", 1),
        gradient=(lambda g, n: m.times(m.rows(m.rows(g)), cofactor(n.inputs[0])),), residuals=(0,),
        lower=Library(_det_call), reference=_det_call, samples=square_samples,
        errors=square_errors("linalg.det"), doc="the determinant", **SHARED,
    )
)  # fmt: skip


def _cofactor_call(a: Array) -> Array:
    """conj(det A) A^-H from the singular values, which exists for singular matrices too."""
    u, s, vh = np.linalg.svd(a)
    n = s.shape[-1]
    others = np.stack([np.delete(s, i, -1).prod(-1) for i in range(n)], -1) if n else s
    phase = np.linalg.det(u) * np.linalg.det(vh)
    return np.conj(phase)[..., None, None] * (u * others[..., None, :]) @ vh


def _cofactor_gradient(g: Node, n: Node) -> Node:
    """(sum(conj(g) C) - C g^H) A^-H."""
    rank = len(g.shape)
    inner = m.times(m.conj(g), n)
    traced = reduce_sum(inner, axes=(rank - 2, rank - 1))
    weights = m.diagonal_matrix(e.expand(m.rows(traced), shape=g.shape[:-1]))
    weights = e.sub(weights, m.product(n, m.adjoint(g)))
    return m.product(weights, m.adjoint(inv(n.inputs[0])))


cofactor: Op = register(
    Op(
        name="linalg_cofactor", infer=square_infer("linalg.det"), gradient=(_cofactor_gradient,),
        residuals=(0, "out"), lower=Library(_cofactor_call), reference=_cofactor_call,
        samples=lambda: square_samples(2, 3), errors=square_errors("linalg.det"),
        doc="the gradient of the determinant: conj(det A) A^-H", **SHARED,
    )
)  # fmt: skip


def _slogdet_call(a: Array) -> tuple[Array, Array]:
    sign, size = np.linalg.slogdet(a)
    return np.asarray(sign), np.asarray(size)


def _slogdet_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    a = n.inputs[0]
    weight = g[1]
    if a.dtype.kind == "c" and g[0] is not None:
        turn = part(e.mul(m.conj(g[0]), project(n, index=0)), 1)
        from treadle.ops.complex import join

        weight = join(e.full_like(turn, 0) if weight is None else weight, e.neg(turn))
    if weight is None:
        return (None,)
    return (m.times(m.rows(m.rows(weight)), m.adjoint(inv(a))),)


slogdet: Op = register(
    Op(
        name="linalg_slogdet", infer=_no_matrix("linalg.slogdet", 2),
        gradient=Joint(_slogdet_gradient), residuals=(0, "out"), lower=Library(_slogdet_call),
        reference=_slogdet_call, samples=square_samples, errors=square_errors("linalg.slogdet"),
        doc="the sign of the determinant and the logarithm of its size", **SHARED,
    )
)  # fmt: skip

__all__ = [
    "INEXACT", "SHARED", "SINGULAR", "check_matrix", "cholesky", "cofactor", "det", "exchange_rows",
    "inv", "lu", "one_by_one", "slogdet", "solve", "solve_triangular", "square_errors",
    "square_infer", "square_samples",
]  # fmt: skip
