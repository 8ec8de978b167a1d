"""Elementwise arithmetic, comparison and selection. Operands have one shape and one dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, Type, record_pair, type_of
from treadle.ir.op import LINEAR, Elementwise, ErrorSample, Gradient, NoGradient, Op, Sample
from treadle.ops.movement import expand
from treadle.ops.registry import (
    ALL,
    FLOATS,
    INTS,
    NUMERIC,
    check_dtype,
    check_same,
    elements_cost,
    floats,
    numpy_function,
    register,
)
from treadle.ops.source import number

if TYPE_CHECKING:
    from treadle.ir.loop import Builder, Operand

DISCRETE = NoGradient("its result is not a floating-point number")


def full_like(node: Node, value: complex) -> Node:
    """``value`` in the shape and dtype of ``node``."""
    return expand(number(value, node.dtype), shape=node.shape)


def _flat(g: Node, n: Node) -> Node:
    """The gradient of what is constant wherever it can be differentiated."""
    return full_like(g, 0)


def _same_type(op_name: str, allowed: Sequence[DType]) -> Callable[..., Type]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        check_dtype(op_name, types[0], allowed)
        check_same(op_name, types)
        return types[0]

    return infer


def _bool_type(op_name: str, allowed: Sequence[DType]) -> Callable[..., Type]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        check_dtype(op_name, types[0], allowed)
        check_same(op_name, types)
        return type_of(dtypes.bool_, types[0].shape, types[0].device)

    return infer


def sample_pair(low: float, high: float, arity: int) -> Callable[[], Iterable[Sample]]:
    """Samples of ``arity`` floats of one shape between ``low`` and ``high``."""

    def samples() -> Iterable[Sample]:
        for seed, shape in enumerate(((), (1,), (17,), (3, 5), (2, 0, 3), (4, 33))):
            yield Sample(tuple(
                floats(*shape, low=low, high=high, seed=10 * seed + i) for i in range(arity)
            ))  # fmt: skip

    return samples


def refused(op_name: str, arity: int, allowed: Sequence[DType]) -> Callable[[], Any]:
    """Error samples: a dtype that is not allowed and, for two operands, shapes that differ."""

    def errors() -> Iterable[ErrorSample]:
        for dtype in ALL:
            if dtype not in allowed:
                arrays = (np.ones(2, dtype.numpy),) * arity
                yield ErrorSample(arrays, {}, DTypeError, f"{op_name}: got an operand of dtype")
                break
        if arity > 1:
            short, long = (np.ones(n, allowed[0].numpy) for n in (2, 3))
            arrays = (short, *(long,) * (arity - 1))
            yield ErrorSample(arrays, {}, ShapeError, f"{op_name}: got shapes (2,) and (3,)")

    return errors


# Statements that give the same bits with their two operands exchanged.
_COMMUTATIVE = frozenset({"add", "mul", "eq", "ne", "maximum", "minimum", "and", "or", "xor"})


def define(
    name: str,
    arity: int,
    emit: Callable[..., Operand] | str,
    reference: Callable[..., Any] | str,
    gradient: Gradient | NoGradient,
    doc: str,
    *,
    residuals: tuple[int | str, ...] = (),
    allowed: Sequence[DType] = NUMERIC,
    to_bool: bool = False,
    compute: str = "own",
    domain: tuple[float, float] = (-2.0, 2.0),
    flops: int = 1,
) -> Op:
    """One record. A string for ``emit`` names the loop-IR statement that does it, one for
    ``reference`` NumPy's function."""
    traits = {"elementwise"}
    if isinstance(emit, str):
        statement = emit
        if statement in _COMMUTATIVE:
            traits.add("commutative")

        def emit(k: Builder, *operands: Operand) -> Operand:
            return k.op(statement, *operands)

    infer = _bool_type(name, allowed) if to_bool else _same_type(name, allowed)
    return register(
        Op(
            name=name, family="elementwise", traits=frozenset(traits), infer=infer,
            gradient=gradient, residuals=residuals, lower=Elementwise(emit, compute),
            reference=numpy_function(reference) if isinstance(reference, str) else reference,
            samples=sample_pair(*domain, arity),
            errors=refused(name, arity, allowed), cost=elements_cost(flops),
            dtypes=tuple(allowed), doc=doc,
        )
    )  # fmt: skip


def mathlib_function(name: str) -> Callable[..., Operand]:
    """The polynomial of that name, looked up when a kernel is built."""

    def emit(k: Builder, *x: Operand) -> Operand:
        from treadle.ops import mathlib

        return getattr(mathlib, name)(k, *x)

    return emit


# --- arithmetic ----------------------------------------------------------------------------------

add: Op = define("add", 2, "add", "add", (lambda g, n: g, lambda g, n: g), "x + y")
sub: Op = define("sub", 2, "sub", "subtract", (lambda g, n: g, lambda g, n: neg(g)), "x - y")
mul: Op = define(
    "mul", 2, "mul", "multiply",
    # record_pair, not mul(...): the shortest way for the commonest rule there is
    (
        lambda g, n: record_pair(mul, g, n.inputs[1]),
        lambda g, n: record_pair(mul, g, n.inputs[0]),
    ), "x * y",
    residuals=(0, 1),
)  # fmt: skip
div: Op = define(
    "div", 2, "div", "divide",
    (
        lambda g, n: div(g, n.inputs[1]),
        lambda g, n: neg(div(mul(g, n), n.inputs[1])),
    ),
    "x / y, correctly rounded", residuals=(1, "out"), allowed=FLOATS, domain=(0.5, 2.0),
)  # fmt: skip
neg: Op = define("neg", 1, "neg", "negative", (lambda g, n: neg(g),), "-x")
abs_: Op = define(
    "abs", 1, "abs", "abs", (lambda g, n: mul(g, sign(n.inputs[0])),), "|x|", residuals=(0,)
)


def _remainder(k: Builder, x: Operand, y: Operand) -> Operand:
    """x - y*floor(x/y) by the exact C remainder, moved to the sign of y."""
    rest = k.rem(x, y)
    zero = k.const(0, x.dtype)
    if x.dtype.kind == "u":
        return rest
    other_sign = k.op("ne", k.op("lt", rest, zero), k.op("lt", y, zero))
    move = k.op("and", k.op("ne", rest, zero), other_sign)
    return k.select(move, k.add(rest, y), rest)


def _floor_divide(k: Builder, x: Operand, y: Operand) -> Operand:
    """floor(x / y) computed from the exact remainder, as PyTorch does."""
    rest = k.rem(x, y)
    zero, one = k.const(0, x.dtype), k.const(1, x.dtype)
    if x.dtype.kind == "u":
        return k.div(x, y)
    other_sign = k.op("ne", k.op("lt", rest, zero), k.op("lt", y, zero))
    move = k.op("and", k.op("ne", rest, zero), other_sign)
    if x.dtype.kind == "i":
        quotient = k.div(x, y)
        return k.select(move, k.sub(quotient, one), quotient)
    quotient = k.div(k.sub(x, rest), y)
    quotient = k.select(move, k.sub(quotient, one), quotient)
    floored = k.op("floor", quotient)
    near = k.op("gt", k.sub(quotient, floored), k.const(0.5, x.dtype))
    whole = k.select(near, k.add(floored, one), floored)
    # A quotient of zero keeps the sign of x / y, and x / 0 is IEEE's.
    plain = k.div(x, y)
    signed_zero = k.op("mul", zero, plain)
    result = k.select(k.op("ne", quotient, zero), whole, signed_zero)
    return k.select(k.op("eq", y, zero), plain, result)


remainder: Op = define(
    "remainder", 2, _remainder, "remainder",
    (
        lambda g, n: g,
        lambda g, n: neg(mul(g, floor_divide(n.inputs[0], n.inputs[1]))),
    ),
    "x - y * floor(x / y): the sign of y (integers: x mod 0 is 0 here; tensors refuse it)",
    residuals=(0, 1), compute="f32", domain=(0.6, 2.0),
)  # fmt: skip
floor_divide: Op = define(
    "floor_divide", 2, _floor_divide, "floor_divide", (_flat, _flat), "floor(x / y)",
    compute="f32", domain=(0.6, 2.0),
)  # fmt: skip
fmod: Op = define(
    "fmod", 2, "rem", "fmod",
    (lambda g, n: g, lambda g, n: neg(mul(g, trunc(div(n.inputs[0], n.inputs[1]))))),
    "the C remainder: the sign of x", residuals=(0, 1), compute="f32", domain=(0.6, 2.0),
)  # fmt: skip


# --- choosing -------------------------------------------------------------------------------------


def _share(g: Node, winner: Node, loser: Node, out: Node) -> Node:
    """The gradient of maximum and minimum: ties are shared equally, as in PyTorch."""
    zero = full_like(g, 0)
    tie = mul(g, full_like(g, 0.5))
    won = where(eq(winner, out), g, zero)
    return where(eq(winner, loser), tie, won)


maximum: Op = define(
    "maximum", 2, "maximum", "maximum",
    (
        lambda g, n: _share(g, n.inputs[0], n.inputs[1], n),
        lambda g, n: _share(g, n.inputs[1], n.inputs[0], n),
    ),
    "the larger of x and y; NaN wins; +0 is larger than -0", residuals=(0, 1, "out"), allowed=ALL,
)  # fmt: skip
minimum: Op = define(
    "minimum", 2, "minimum", "minimum",
    (
        lambda g, n: _share(g, n.inputs[0], n.inputs[1], n),
        lambda g, n: _share(g, n.inputs[1], n.inputs[0], n),
    ),
    "the smaller of x and y; NaN wins; -0 is smaller than +0", residuals=(0, 1, "out"),
    allowed=ALL,
)  # fmt: skip


def _where_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    check_dtype("where", types[0], (dtypes.bool_,))
    check_same("where", types[1:])
    if types[0].shape != types[1].shape:
        raise ShapeError(
            f"where: got shapes {types[0].shape} and {types[1].shape}; they must be equal here"
        )
    return types[1]


where: Op = register(
    Op(
        name="where", family="elementwise", traits=frozenset({"elementwise"}),
        infer=_where_infer,
        gradient=(
            DISCRETE,
            lambda g, n: where(n.inputs[0], g, full_like(g, 0)),
            lambda g, n: where(n.inputs[0], full_like(g, 0), g),
        ),
        residuals=(0,), lower=Elementwise(lambda k, c, x, y: k.select(c, x, y)),
        reference=numpy_function("where"),
        samples=lambda: (
            Sample((floats(*s) > 0, floats(*s, seed=1), floats(*s, seed=2)))
            for s in ((), (7,), (3, 5), (0,))
        ),
        errors=lambda: (
            ErrorSample(
                (floats(2), floats(2), floats(2)), {}, DTypeError,
                "where: got an operand of dtype float32",
            ),
            ErrorSample(
                (floats(3) > 0, floats(2), floats(2)), {}, ShapeError, "where: got shapes (3,)"
            ),
        ),
        cost=elements_cost(1), dtypes=(dtypes.bool_,), doc="x where the condition holds, else y",
    )
)  # fmt: skip

# --- comparison -----------------------------------------------------------------------------------

_compare: dict[str, Any] = {"to_bool": True, "gradient": DISCRETE, "allowed": ALL}
eq = define("eq", 2, "eq", "equal", doc="x == y", **_compare)
ne = define("ne", 2, "ne", "not_equal", doc="x != y", **_compare)
lt = define("lt", 2, "lt", "less", doc="x < y", **_compare)
le = define("le", 2, "le", "less_equal", doc="x <= y", **_compare)
gt = define("gt", 2, "gt", "greater", doc="x > y", **_compare)
ge = define("ge", 2, "ge", "greater_equal", doc="x >= y", **_compare)

# --- bits -----------------------------------------------------------------------------------------

_WHOLE = (*INTS, dtypes.bool_)
_bits: dict[str, Any] = {"gradient": DISCRETE, "allowed": _WHOLE}
bitwise_and = define("bitwise_and", 2, "and", "bitwise_and", doc="x & y", **_bits)
bitwise_or = define("bitwise_or", 2, "or", "bitwise_or", doc="x | y", **_bits)
bitwise_xor = define("bitwise_xor", 2, "xor", "bitwise_xor", doc="x ^ y", **_bits)
bitwise_not = define("bitwise_not", 1, "not", "invert", doc="~x", **_bits)
_shifts: dict[str, Any] = {"gradient": DISCRETE, "allowed": INTS}
shift_left = define("shift_left", 2, "shl", "left_shift", doc="x << y", **_shifts)
shift_right = define("shift_right", 2, "shr", "right_shift", doc="x >> y", **_shifts)

# --- rounding -------------------------------------------------------------------------------------


def _sign(k: Builder, x: Operand) -> Operand:
    zero = k.const(0, x.dtype)
    one = k.const(1, x.dtype)
    positive = k.select(k.op("gt", x, zero), one, x)  # zeros keep their sign, NaN stays
    if x.dtype.kind == "u":
        return positive
    return k.select(k.op("lt", x, zero), k.const(-1, x.dtype), positive)


_steps: dict[str, Any] = {"gradient": (_flat,), "allowed": FLOATS, "compute": "f32"}
floor: Op = define("floor", 1, "floor", "floor", doc="the largest integer <= x", **_steps)
ceil: Op = define("ceil", 1, "ceil", "ceil", doc="the smallest integer >= x", **_steps)
trunc: Op = define("trunc", 1, "trunc", "trunc", doc="x without its fraction", **_steps)
round_: Op = define(
    "round", 1, "roundeven", "round", doc="the nearest integer, halves to even", **_steps
)
sign: Op = define("sign", 1, _sign, "sign", (_flat,), "-1, 0 or 1 (zeros and NaN stay as they are)")

# --- functions ------------------------------------------------------------------------------------

FLOAT: dict[str, Any] = {"allowed": FLOATS, "compute": "f32"}
sqrt: Op = define(
    "sqrt", 1, "sqrt", "sqrt",
    (lambda g, n: div(g, add(n, n)),), "the square root, correctly rounded",
    residuals=("out",), domain=(0.5, 4.0), **FLOAT,
)  # fmt: skip
exp: Op = define(
    "exp", 1, mathlib_function("exp"), "exp", (lambda g, n: mul(g, n),), "e^x", residuals=("out",),
    flops=15, **FLOAT,
)  # fmt: skip
expm1: Op = define(
    "expm1", 1, mathlib_function("expm1"), "expm1", (lambda g, n: mul(g, add(n, full_like(n, 1))),),
    "e^x - 1, accurate near 0", residuals=("out",), flops=20, **FLOAT,
)  # fmt: skip
log: Op = define(
    "log", 1, mathlib_function("log"), "log", (lambda g, n: div(g, n.inputs[0]),),
    "the natural logarithm", residuals=(0,), domain=(0.2, 4.0), flops=20, **FLOAT,
)  # fmt: skip
log1p: Op = define(
    "log1p", 1, mathlib_function("log1p"), "log1p",
    (lambda g, n: div(g, add(n.inputs[0], full_like(n, 1))),), "log(1 + x), accurate near 0",
    residuals=(0,), domain=(-0.5, 4.0), flops=25, **FLOAT,
)  # fmt: skip
sin: Op = define(
    "sin", 1, mathlib_function("sin"), "sin", (lambda g, n: mul(g, cos(n.inputs[0])),), "the sine",
    residuals=(0,), flops=30, **FLOAT,
)  # fmt: skip
cos: Op = define(
    "cos", 1, mathlib_function("cos"), "cos", (lambda g, n: neg(mul(g, sin(n.inputs[0]))),),
    "the cosine", residuals=(0,), flops=30, **FLOAT,
)  # fmt: skip
tanh: Op = define(
    "tanh", 1, mathlib_function("tanh"), "tanh",
    (lambda g, n: mul(g, sub(full_like(n, 1), mul(n, n))),), "the hyperbolic tangent",
    residuals=("out",), flops=25, **FLOAT,
)  # fmt: skip
sigmoid: Op = define(
    "sigmoid", 1, mathlib_function("sigmoid"), lambda x: 1 / (1 + np.exp(-x)),
    (lambda g, n: mul(g, mul(n, sub(full_like(n, 1), n))),), "1 / (1 + e^-x)",
    residuals=("out",), flops=20, **FLOAT,
)  # fmt: skip


def _erf_reference(x: np.ndarray) -> np.ndarray:
    import math

    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


def _erf_gradient(g: Node, n: Node) -> Node:
    x = n.inputs[0]
    bell = exp(neg(mul(x, x)))
    return mul(g, mul(full_like(n, 1.1283791670955126), bell))  # 2/sqrt(pi) e^(-x^2)


erf: Op = define(
    "erf", 1, mathlib_function("erf"), _erf_reference, (_erf_gradient,),
    "2/sqrt(pi) times the integral of e^(-t^2) from 0 to x", residuals=(0,), flops=30, **FLOAT,
)  # fmt: skip


def _pow_base(g: Node, n: Node) -> Node:
    """y x^(y-1), and 0 where y is 0."""
    x, y = n.inputs
    slope = mul(g, mul(y, pow_(x, sub(y, full_like(y, 1)))))
    return where(eq(y, full_like(y, 0)), full_like(g, 0), slope)


def _pow_exponent(g: Node, n: Node) -> Node:
    """x^y log x, and 0 where x is 0 and y >= 0."""
    x, y = n.inputs
    zero = full_like(g, 0)
    flat = bitwise_and(eq(x, zero), ge(y, zero))
    return where(flat, zero, mul(g, mul(n, log(x))))


def _pow(k: Builder, x: Operand, y: Operand) -> Operand:
    """The square is one rounding, whether the exponent was known or not."""
    square = k.op("eq", y, k.const(2, y.dtype))
    return k.select(square, k.mul(x, x), mathlib_function("pow")(k, x, y))


pow_: Op = define(
    "pow", 2, _pow, "power", (_pow_base, _pow_exponent),
    "x^y with the special cases of IEEE 754 pow; x^2 is x*x", residuals=(0, 1, "out"),
    domain=(0.3, 2.0), flops=50, **FLOAT,
)  # fmt: skip


def _integer_power(k: Builder, x: Operand, y: Operand) -> Operand:
    """Square and multiply over the bits of y; wraps; y < 0 gives 0 except for x = 1 and -1."""
    zero, one = k.const(0, x.dtype), k.const(1, x.dtype)
    result: Operand = one
    base: Operand = x
    for bit in range(x.dtype.bits - (x.dtype.kind == "i")):
        is_set = k.op("ne", k.op("and", k.op("shr", y, k.const(bit, x.dtype)), one), zero)
        result = k.select(is_set, k.mul(result, base), result)
        base = k.mul(base, base)
    if x.dtype.kind == "u":
        return result
    odd = k.op("ne", k.op("and", y, one), zero)
    minus = k.const(-1, x.dtype)
    inverse: Operand = k.select(k.op("eq", x, one), one, zero)
    inverse = k.select(k.op("eq", x, minus), k.select(odd, minus, one), inverse)
    return k.select(k.op("lt", y, zero), inverse, result)


integer_pow: Op = register(
    Op(
        name="integer_pow", family="elementwise", traits=frozenset({"elementwise"}),
        infer=_same_type("integer_pow", INTS), gradient=DISCRETE, residuals=(),
        lower=Elementwise(_integer_power), reference=numpy_function("power"),
        samples=lambda: (
            Sample((np.array([2, 3, -2, 1, 0], np.int64), np.array([5, 4, 3, 0, 0], np.int64))),
            Sample((np.arange(-4, 5, dtype=np.int32), np.full(9, 3, np.int32))),
        ),
        errors=refused("integer_pow", 2, INTS), cost=elements_cost(100), dtypes=INTS,
        doc="x^y of integers, wrapping; a negative y gives 0 unless x is 1 or -1",
    )
)  # fmt: skip

# --- dtypes ---------------------------------------------------------------------------------------


def _convert_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    return type_of(attrs["dtype"], types[0].shape, types[0].device)


def _convert_back(g: Node, n: Node) -> Node | None:
    source = n.inputs[0].dtype
    return convert(g, dtype=source) if source.is_inexact else None


convert: Op = register(
    Op(
        name="convert", family="elementwise", traits=frozenset({"elementwise"}),
        infer=_convert_infer, gradient=(_convert_back,), residuals=(), jvp=LINEAR,
        lower=Elementwise(lambda k, x, dtype: k.convert(x, dtype)),
        reference=lambda x, dtype: x.astype(dtype.numpy),
        samples=lambda: (
            Sample((floats(9, low=0, high=100),), {"dtype": d}, smooth=d is dtypes.float64)
            for d in ALL
        ),
        errors=lambda: (), cost=elements_cost(1), dtypes=ALL,
        doc="x in another dtype: floats round to nearest even; float to integer cuts the "
        "fraction, saturates, and NaN gives 0",
    )
)  # fmt: skip


def cast(node: Node, dtype: DType) -> Node:
    """The node in that dtype."""
    return node if node.dtype is dtype else convert(node, dtype=dtype)
