"""What every op is for complex operands, written in ops on their real and imaginary parts.

A rule gets the op, its operands and its attributes and records the result. Ops without a rule
refuse complex operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.base.errors import DTypeError
from treadle.base.shapes import prod
from treadle.ir.node import Node, located
from treadle.ir.op import Op
from treadle.ops import complex_functions as f
from treadle.ops import elementwise as e
from treadle.ops.complex import as_complex, as_real, complex_number, join, part, parts
from treadle.ops.movement import concatenate, expand, flip, permute, reshape, slice_, zeros_of

Rule = Callable[[Op, Sequence[Node], dict[str, Any]], Node]


def record_parts(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """Records ``op`` of operands some of which are complex, or whose result is."""
    rule = RULES.get(op.name)
    if rule is None:
        raise located(DTypeError(
            f"{op.name}: got a complex tensor, of which it has no value; take .abs(), .real or "
            f".imag first"
        ))  # fmt: skip
    return rule(op, inputs, attrs)


# --- the same on both parts ---------------------------------------------------------------------


def _pairs(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """Ops that leave an axis at the end alone."""
    return as_complex(op(*map(as_real, inputs), **attrs))


def _reshaped(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    return as_complex(op(as_real(inputs[0]), shape=(*attrs["shape"], 2)))


def _permuted(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    axes = attrs["axes"]
    return as_complex(op(as_real(inputs[0]), axes=(*axes, len(axes))))


def _sliced(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    more = {"starts": (*attrs["starts"], 0), "steps": (*attrs["steps"], 1)}
    if "sizes" in attrs:
        more["sizes"] = (*attrs["sizes"], 2)
    return as_complex(op(*map(as_real, inputs), **more))


def _strided(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    pairs = as_real(inputs[0])
    flat = reshape(pairs, shape=(pairs.type.size,))
    stride = (*(2 * s for s in attrs["stride"]), 1)
    size = (*attrs["size"], 2)
    return as_complex(op(flat, size=size, stride=stride, offset=2 * attrs["offset"]))


def _twice(x: Node) -> Node:
    """A real value for both parts."""
    return expand(reshape(x, shape=(*x.shape, 1)), shape=(*x.shape, 2))


def _where(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    condition, x, y = inputs
    return as_complex(e.where(_twice(condition), as_real(x), as_real(y)))


def _at_slices(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """take and its writes: the index names slices."""
    return as_complex(op(*[as_real(x) if x.dtype.kind == "c" else x for x in inputs], **attrs))


def _at_elements(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """gather and its writes: the index names elements, here both parts of them."""
    return as_complex(op(*[as_real(x) if x.dtype.kind == "c" else _twice(x) for x in inputs],
                         **attrs))  # fmt: skip


# --- both parts mixed ---------------------------------------------------------------------------


def _bilinear(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """Products of any kind: (a + ib)(c + id)."""
    (a, b), (c, d) = map(parts, inputs)
    real = e.sub(op(a, c, **attrs), op(b, d, **attrs))
    return join(real, e.add(op(a, d, **attrs), op(b, c, **attrs)))


def _function(rule: Callable[..., Node]) -> Rule:
    return lambda op, inputs, attrs: rule(*inputs)


def _convert(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    x, target = inputs[0], attrs["dtype"]
    if x.dtype.kind != "c":
        real = e.convert(x, dtype=target.to_real())
        return join(real, zeros_of(real.type))
    if target.kind == "c":
        return as_complex(e.convert(as_real(x), dtype=target.to_real()))
    if target.kind == "b":
        a, b = parts(x)
        return e.bitwise_or(*[e.ne(p, e.full_like(p, 0)) for p in (a, b)])
    return e.convert(part(x, 0), dtype=target)


def _counted(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    return e.convert(op(**{**attrs, "dtype": attrs["dtype"].to_real()}), dtype=attrs["dtype"])


def _eq(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    (a, b), (c, d) = map(parts, inputs)
    return e.bitwise_and(e.eq(a, c), e.eq(b, d))


def _ne(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    (a, b), (c, d) = map(parts, inputs)
    return e.bitwise_or(e.ne(a, c), e.ne(b, d))


# --- products along axes ------------------------------------------------------------------------


def _span(x: Node, start: int, size: int) -> Node:
    """``size`` elements from ``start`` on along the last axis."""
    rank = len(x.shape)
    starts = (0,) * (rank - 1) + (start,)
    return slice_(x, starts=starts, sizes=(*x.shape[:-1], size), steps=(1,) * rank)


def _prod(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """By halves: element i times element i + n/2, again and again."""
    x, axes = inputs[0], attrs["axes"]
    kept = [a for a in range(len(x.shape)) if a not in axes]
    shape = tuple(x.shape[a] for a in kept)
    count = prod(x.shape[a] for a in axes)
    if not count:
        return expand(complex_number(1, x.dtype), shape=shape)
    x = reshape(permute(x, axes=(*kept, *axes)), shape=(*shape, count))
    while (n := x.shape[-1]) > 1:
        half = n // 2
        low = e.mul(_span(x, 0, half), _span(x, half, half))
        x = concatenate(low, _span(x, n - 1, 1), axis=len(shape)) if n % 2 else low
    return reshape(x, shape=shape)


def _scanned(pairwise: Callable[[Node, Node], Node]) -> Rule:
    """A scan by doubling: after step k every element is that of up to 2^k elements."""
    return lambda op, inputs, attrs: _doubled(pairwise, inputs, attrs)


def _doubled(
    pairwise: Callable[[Node, Node], Node], inputs: Sequence[Node], attrs: dict[str, Any]
) -> Node:
    x, axis, back = inputs[0], attrs["axis"], attrs.get("reverse", False)
    if back:
        x = flip(x, axes=(axis,))
    order = (*(a for a in range(len(x.shape)) if a != axis), axis)
    x = permute(x, axes=order)
    n, step = x.shape[-1], 1
    while step < n:
        later = pairwise(_span(x, step, n - step), _span(x, 0, n - step))
        x = concatenate(_span(x, 0, step), later, axis=len(x.shape) - 1)
        step *= 2
    x = permute(x, axes=tuple(sorted(range(len(order)), key=order.__getitem__)))
    return flip(x, axes=(axis,)) if back else x


RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "neg", "flip", "concatenate", "reduce_sum", "cumsum"), _pairs),
    **dict.fromkeys(("reshape", "expand"), _reshaped),
    **dict.fromkeys(("slice", "slice_update"), _sliced),
    **dict.fromkeys(("take", "take_add", "take_update"), _at_slices),
    **dict.fromkeys(("gather", "scatter_add", "scatter"), _at_elements),
    **dict.fromkeys(("mul", "matmul", "conv_forward", "conv_input", "conv_weight"), _bilinear),
    **{name: _function(rule) for name, rule in f.FUNCTIONS.items()},
    "permute": _permuted, "strided": _strided, "where": _where, "convert": _convert,
    "iota": _counted, "eq": _eq, "ne": _ne, "reduce_prod": _prod, "cumprod": _scanned(e.mul),
    "logcumsumexp": _scanned(f.logaddexp),
}  # fmt: skip

__all__ = ["RULES", "record_parts"]
