"""Elementwise functions of tensors: promotion, broadcasting, operators."""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType, result_type_of
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shapes import Shape, broadcast_shapes
from treadle.ir.node import Node, located, record, record_pair
from treadle.ir.op import Op
from treadle.ops import elementwise as e
from treadle.ops.movement import expand
from treadle.ops.source import number
from treadle.tensor.composed import recorded_call
from treadle.tensor.handle import Handle, wrap

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Number = complex | float | int | bool
Operand = Any  # a Tensor or a Number
_NUMBERS = (float, int, bool, complex)
_KINDS: tuple[type, ...] = (bool, int, float, complex)  # a bool is an int too
cast = e.cast


def refuse(name: str, value: Any) -> TypeError:
    """The error for an operand that is neither a tensor nor a number."""
    return located(TypeError(
        f"{name}: got a {type(value).__name__}; it takes tensors and Python numbers; make a tensor "
        f"with treadle.tensor(value)"
    ))  # type: ignore[return-value]  # fmt: skip


def stretch(node: Node, shape: Shape) -> Node:
    """The node broadcast to that shape."""
    return node if node.shape == shape else expand(node, shape=shape)


def common_dtype(name: str, *operands: Operand) -> DType:
    """The result type of tensors and numbers by PyTorch's rules."""
    tensors: list[tuple[DType, int]] = []
    scalars: list[type] = []
    for x in operands:
        if isinstance(x, Handle):
            kind = x.node.type
            tensors.append((kind.dtype, kind.ndim))
        elif isinstance(x, _NUMBERS):
            scalars.append(next(kind for kind in _KINDS if isinstance(x, kind)))
        elif hasattr(x, "__float__") and getattr(x, "ndim", None) == 0:
            scalars.append({"b": bool, "f": float, "c": complex}.get(x.dtype.kind, int))
        else:
            raise refuse(name, x)
    return result_type_of(tensors, scalars)


def operand_nodes(name: str, dtype: DType, *operands: Operand) -> list[Node]:
    """The operands as nodes of one dtype and one shape."""
    nodes = []
    for x in operands:
        if isinstance(x, Handle):
            nodes.append(cast(x.node, dtype))
        else:
            value = x if isinstance(x, _NUMBERS) else x.item()
            try:
                nodes.append(number(value, dtype))
            except OverflowError as error:
                raise located(OverflowError(f"{name}: {error}")) from None
    return _stretched(name, nodes)


def _stretched(name: str, nodes: list[Node]) -> list[Node]:
    first = nodes[0].shape
    if all(n.shape == first for n in nodes):
        return nodes
    try:
        shape = broadcast_shapes(*(n.shape for n in nodes))
    except ShapeError as error:
        raise located(ShapeError(f"{name}: {error}")) from None
    return [stretch(n, shape) for n in nodes]


def widened(node: Node) -> Node:
    """The node in float32 where it is a 16-bit float: composed functions round once, at the end."""
    narrow = node.dtype.is_floating_point and node.dtype.bits == 16
    return e.convert(node, dtype=dtypes.float32) if narrow else node


def _rounded_once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A composed function of tensors, computed in float32 for 16-bit floats."""

    @functools.wraps(function)
    def rounded(*args: Any, **options: Any) -> Tensor:
        given = [x for x in (*args, *options.values()) if isinstance(x, Handle)]
        dtype = common_dtype(function.__name__, *given) if given else dtypes.float32
        if not dtype.is_floating_point or dtype.bits != 16:
            return function(*args, **options)
        wide = [wrap(widened(x.node)) if isinstance(x, Handle) else x for x in args]
        for name, x in options.items():
            options[name] = wrap(widened(x.node)) if isinstance(x, Handle) else x
        return wrap(cast(function(*wide, **options).node, dtype))

    return rounded


def binary(op: Op, x: Operand, y: Operand) -> Tensor:
    """Records a two-operand op after promotion and broadcasting."""
    if isinstance(x, Handle):
        a = x._node if x._base is None else x.node
        kind = a.type.dtype
        if isinstance(y, Handle):
            b = y._node if y._base is None else y.node
            if a.type is b.type and kind in op.dtypes:
                return wrap(record_pair(op, a, b))
            if kind is b.type.dtype and kind in op.dtypes and a.type.ndim and b.type.ndim:
                return wrap(recorded_call(_broadcast, op, (a, b)))
        elif type(y) in (float, int) and kind.is_floating_point and kind in op.dtypes:
            return wrap(recorded_call(_broadcast, op, (a, number(y, kind))))
    elif type(x) in (float, int) and isinstance(y, Handle):
        b = y._node if y._base is None else y.node
        kind = b.type.dtype
        if kind.is_floating_point and kind in op.dtypes:
            return wrap(recorded_call(_broadcast, op, (number(x, kind), b)))
    dtype = common_dtype(op.name, x, y)
    return wrap(record(op, operand_nodes(op.name, dtype, x, y), {}))


def _broadcast(op: Op, a: Node, b: Node) -> Node:
    """Two operands of one dtype in their common shape, which is as ``operand_nodes`` does it."""
    return record(op, _stretched(op.name, [a, b]), {})


def unary(op: Op, x: Tensor) -> Tensor:
    """Records a one-operand op."""
    if not isinstance(x, Handle):
        raise refuse(op.name, x)
    return wrap(record(op, (x.node,), {}))


def unary_float(op: Op, x: Tensor) -> Tensor:
    """Records a function of real numbers: integers become the default float first."""
    if not isinstance(x, Handle):
        raise refuse(op.name, x)
    node = x.node
    if not node.dtype.is_inexact:
        node = cast(node, dtypes.get_default_dtype())
    return wrap(record(op, (node,), {}))


# --- arithmetic ----------------------------------------------------------------------------------


def add(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """``input + alpha * other`` with broadcasting and promotion; for bools the logical or."""
    if isinstance(input, Handle) and isinstance(other, Handle) and alpha == 1:
        a = input._node if input._base is None else input.node
        b = other._node if other._base is None else other.node
        if a.type is b.type and a.type.dtype is not dtypes.bool_:
            return wrap(record_pair(e.add, a, b))
    if alpha != 1:
        other = mul(other, alpha) if isinstance(other, Handle) else other * alpha
    return _with_bool(e.add, e.bitwise_or, input, other)


def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """``input - alpha * other`` with broadcasting and promotion."""
    if alpha != 1:
        other = mul(other, alpha) if isinstance(other, Handle) else other * alpha
    return binary(e.sub, input, other)


def mul(input: Operand, other: Operand) -> Tensor:
    """``input * other`` with broadcasting and promotion; for bools the logical and."""
    if isinstance(input, Handle) and isinstance(other, Handle):
        a = input._node if input._base is None else input.node
        b = other._node if other._base is None else other.node
        if a.type is b.type and a.type.dtype is not dtypes.bool_:
            return wrap(record_pair(e.mul, a, b))
    return _with_bool(e.mul, e.bitwise_and, input, other)


def _with_bool(op: Op, logical: Op, x: Operand, y: Operand) -> Tensor:
    if type(y) in (float, int) or type(x) in (float, int):
        return binary(op, x, y)
    dtype = common_dtype(op.name, x, y)
    chosen = logical if dtype.kind == "b" else op
    return wrap(record(chosen, operand_nodes(op.name, dtype, x, y), {}))


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; integers give floats. ``rounding_mode`` "floor" or "trunc" rounds."""
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode not in (None, "trunc"):
        raise located(ValueError(
            f"div: got rounding_mode {rounding_mode!r}; it is None, 'floor' or 'trunc'"
        ))  # fmt: skip
    dtype = common_dtype("div", input, other)
    if rounding_mode == "trunc":
        return _truncated_division(dtype, input, other)
    real = dtype if dtype.is_inexact else dtypes.get_default_dtype()
    return wrap(record(e.div, operand_nodes("div", real, input, other), {}))


def _truncated_division(dtype: DType, input: Operand, other: Operand) -> Tensor:
    if dtype.is_floating_point:
        x, y = map(widened, operand_nodes("div", dtype, input, other))
        return wrap(cast(e.trunc(e.div(x, y)), dtype))
    _refuse_zero("div", other)
    x, y = operand_nodes("div", dtype, input, other)
    return wrap(e.floor_divide(e.sub(x, e.fmod(x, y)), y))  # a division without a rest


def _whole_division(op: Op, x: Operand, y: Operand) -> Tensor:
    dtype = common_dtype(op.name, x, y)
    if not dtype.is_floating_point:
        _refuse_zero(op.name, y)
    return wrap(record(op, operand_nodes(op.name, dtype, x, y), {}))


def _refuse_zero(name: str, divisor: Operand) -> None:
    """Integer division by zero is an error, as in PyTorch; floats follow IEEE."""
    is_tensor = isinstance(divisor, Handle)
    if bool(wrap(_any_zero(divisor.node)).item()) if is_tensor else divisor == 0:
        raise located(ZeroDivisionError(
            f"{name}: got an integer division by zero; mask the zeros or divide floats"
        ))  # fmt: skip


def _any_zero(node: Node) -> Node:
    from treadle.ops.reduce import reduce_any

    zeros = e.eq(node, e.full_like(node, 0))
    return reduce_any(zeros, axes=tuple(range(len(node.shape)))) if node.shape else zeros


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """``floor(input / other)``."""
    return _whole_division(e.floor_divide, input, other)


def remainder(input: Operand, other: Operand) -> Tensor:
    """``input - other * floor(input / other)``: the sign of ``other``, as Python's %."""
    return _whole_division(e.remainder, input, other)


def fmod(input: Operand, other: Operand) -> Tensor:
    """The C remainder: the sign of ``input``."""
    return _whole_division(e.fmod, input, other)


def pow(input: Operand, exponent: Operand) -> Tensor:
    """``input ** exponent``; integers stay integers."""
    squared = isinstance(exponent, _NUMBERS) and exponent == 2 and isinstance(input, Handle)
    if squared and input.node.dtype.is_inexact:
        return mul(input, input)  # what the op itself does with an exponent of 2
    dtype = common_dtype("pow", input, exponent)
    if dtype.kind == "b":
        raise located(DTypeError("pow: got bool operands; convert them with .to(dtype) first"))
    if not dtype.is_inexact and isinstance(exponent, int) and exponent < 0:
        raise located(ValueError(
            f"pow: got an integer tensor and the negative exponent {exponent}; convert the tensor "
            f"to a float dtype first"
        ))  # fmt: skip
    if dtype.kind == "c" and isinstance(exponent, int) and 0 <= exponent <= _FEW:
        return _repeated_product(wrap(cast(input.node, dtype)), exponent)
    op = e.pow_ if dtype.is_inexact else e.integer_pow
    return wrap(record(op, operand_nodes("pow", dtype, input, exponent), {}))


_FEW = 64  # up to this exponent a complex power is products


def _repeated_product(x: Tensor, exponent: int) -> Tensor:
    """The power of a complex tensor by squaring."""
    result = None
    while exponent:
        if exponent & 1:
            result = x if result is None else mul(result, x)
        exponent >>= 1
        x = mul(x, x) if exponent else x
    return wrap(e.full_like(x.node, 1)) if result is None else result


def neg(input: Tensor) -> Tensor:
    """``-input``."""
    return unary(e.neg, input)


def abs(input: Tensor) -> Tensor:
    """``|input|``."""
    return unary(e.abs_, input)


def _comparison(op: Op) -> Callable[[Operand, Operand], Tensor]:
    def compare(input: Operand, other: Operand) -> Tensor:
        return binary(op, input, other)

    compare.__name__ = compare.__qualname__ = op.name
    compare.__doc__ = f"``{op.doc}``, elementwise, as a bool tensor."
    return compare


eq, ne, lt, le, gt, ge = map(_comparison, (e.eq, e.ne, e.lt, e.le, e.gt, e.ge))


# --- bits and logic ------------------------------------------------------------------------------


def _bits(op: Op, name: str, doc: str) -> Callable[[Operand, Operand], Tensor]:
    def function(input: Operand, other: Operand) -> Tensor:
        return binary(op, input, other)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{op.doc}`` of integers{doc}."
    return function


bitwise_and = _bits(e.bitwise_and, "bitwise_and", " or bools")
bitwise_or = _bits(e.bitwise_or, "bitwise_or", " or bools")
bitwise_xor = _bits(e.bitwise_xor, "bitwise_xor", " or bools")
bitwise_left_shift = _bits(e.shift_left, "bitwise_left_shift", "")
bitwise_right_shift = _bits(e.shift_right, "bitwise_right_shift", "")


def bitwise_not(input: Tensor) -> Tensor:
    """``~input`` of integers, or the logical not of bools."""
    return unary(e.bitwise_not, input)


def _as_bool(x: Operand) -> Tensor:
    return ne(x, 0) if not isinstance(x, Handle) or x.node.dtype.kind != "b" else x  # type: ignore[return-value]


def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """True where both are nonzero."""
    return bitwise_and(_as_bool(input), _as_bool(other))


def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """True where either is nonzero."""
    return bitwise_or(_as_bool(input), _as_bool(other))


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """True where exactly one is nonzero."""
    return bitwise_xor(_as_bool(input), _as_bool(other))


def logical_not(input: Tensor) -> Tensor:
    """True where zero."""
    return bitwise_not(_as_bool(input))


def maximum(input: Operand, other: Operand) -> Tensor:
    """The larger one, elementwise; NaN wins."""
    return binary(e.maximum, input, other)


def minimum(input: Operand, other: Operand) -> Tensor:
    """The smaller one, elementwise; NaN wins."""
    return binary(e.minimum, input, other)


def where(condition: Tensor, input: Operand, other: Operand) -> Tensor:
    """``input`` where the condition holds, else ``other``; all three broadcast."""
    if not isinstance(condition, Handle):
        raise refuse("where", condition)
    dtype = common_dtype("where", input, other)
    mask = condition.node
    if mask.dtype.kind != "b":
        raise located(DTypeError(
            f"where: got a condition of dtype {mask.dtype.name}; it must be bool: compare first, "
            f"as in x > 0"
        ))  # fmt: skip
    x, y = operand_nodes("where", dtype, input, other)
    try:
        shape = broadcast_shapes(mask.shape, x.shape)
    except ShapeError as error:
        raise located(ShapeError(f"where: {error}")) from None
    return wrap(e.where(stretch(mask, shape), stretch(x, shape), stretch(y, shape)))


def clamp(input: Tensor, min: Operand = None, max: Operand = None) -> Tensor:
    """``minimum(maximum(input, min), max)``; NaN stays; the gradient flows inside the bounds."""
    if min is None and max is None:
        raise located(ValueError("clamp: got neither min nor max; give at least one of them"))
    bounds = [b for b in (min, max) if b is not None]
    if (
        isinstance(input, Handle)
        and input.dtype.is_floating_point
        and all(type(b) in (float, int) for b in bounds)
    ):
        nodes = (input.node, *(number(b, input.dtype) for b in bounds))
        which = min is not None, max is not None
        return wrap(recorded_call(_clamped, which, nodes))
    dtype = common_dtype("clamp", input, *bounds)
    out = wrap(cast(input.node, dtype))
    if min is not None:
        out = where(lt(out, min), min, out)
    if max is not None:
        out = where(gt(out, max), max, out)
    return wrap(cast(out.node, dtype))


def _clamped(which: tuple[bool, bool], node: Node, *bounds: Node) -> Node:
    """``clamp`` of floats between numbers; ``which`` of the two there are."""
    for compare in [op for op, is_there in zip((e.lt, e.gt), which, strict=True) if is_there]:
        bound, bounds = stretch(bounds[0], node.shape), bounds[1:]
        node = e.where(compare(node, bound), bound, node)
    return node


def _function(op: Op, real: bool = True) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        return unary_float(op, input) if real else unary(op, input)

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, elementwise."
    return function


exp, expm1, log, log1p = map(_function, (e.exp, e.expm1, e.log, e.log1p))
sin, cos, tanh, sigmoid, erf = map(_function, (e.sin, e.cos, e.tanh, e.sigmoid, e.erf))
sqrt = _function(e.sqrt)
_sign = _function(e.sign, real=False)


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1, elementwise; x / |x| of complex numbers; a mask as it is."""
    is_mask = isinstance(input, Handle) and input.node.dtype.kind == "b"
    return wrap(input.node) if is_mask else _sign(input)


def _rounding(op: Op) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        if isinstance(input, Handle) and not input.node.dtype.is_inexact:
            return wrap(input.node)
        return unary(op, input)

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, elementwise; integers stay."
    return function


floor, ceil, trunc, _nearest = map(_rounding, (e.floor, e.ceil, e.trunc, e.round_))


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest integer, halves to even, or that multiple of ``10^-decimals``."""
    if decimals == 0 or not isinstance(input, Handle) or not input.node.dtype.is_inexact:
        return _nearest(input)
    scale = float(10 ** builtins.abs(decimals))
    up, down = (mul, div) if decimals > 0 else (div, mul)
    return down(_nearest(up(input, scale)), scale)


def square(input: Tensor) -> Tensor:
    """``input * input``; of masks, as int64."""
    if isinstance(input, Handle) and input.node.dtype.kind == "b":
        input = wrap(cast(input.node, dtypes.int64))
    return mul(input, input)


def reciprocal(input: Tensor) -> Tensor:
    """``1 / input``."""
    return div(1.0, input)


def isnan(input: Tensor) -> Tensor:
    """True where NaN."""
    return ne(input, input)


def isinf(input: Tensor) -> Tensor:
    """True where infinite."""
    if isinstance(input, Handle) and input.node.dtype.kind == "c":
        return eq(_larger_part(input), float("inf"))
    return eq(_size(input), float("inf"))


def isfinite(input: Tensor) -> Tensor:
    """True where neither infinite nor NaN."""
    if isinstance(input, Handle) and input.node.dtype.kind == "c":
        return bitwise_not(bitwise_or(isnan(input), isinf(input)))
    return lt(_size(input), float("inf"))


def _size(input: Tensor) -> Tensor:
    """|x|; a mask as it is."""
    is_mask = isinstance(input, Handle) and input.node.dtype.kind == "b"
    return input if is_mask else abs(input)


def _larger_part(input: Tensor) -> Tensor:
    """The larger of |x| and |y| of x + iy; NaN only where both are."""
    from treadle.ops.complex import parts

    x, y = map(e.abs_, parts(input.node))
    return wrap(e.where(e.bitwise_or(e.gt(y, x), e.ne(x, x)), y, x))


@_rounded_once
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """``input + weight * (end - input)``."""
    return add(input, mul(weight, sub(end, input)))


@_rounded_once
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``."""
    product = mul(tensor1, tensor2)
    return add(input, product if value == 1 else mul(product, value))


@_rounded_once
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``."""
    return add(input, div(tensor1 if value == 1 else mul(tensor1, value), tensor2))


def relu(input: Tensor) -> Tensor:
    """``max(input, 0)``; the gradient at 0 is 0; NaN stays."""
    node = input.node
    zero = e.full_like(node, 0)
    return wrap(e.where(e.le(node, zero), zero, node))
