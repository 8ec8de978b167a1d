"""Convolutions of images (N, C, H, W) and sequences (N, C, L)."""

from __future__ import annotations

from typing import Any

from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import Node, located
from treadle.nn.functional.common import Pair, along_channels, check_rank, pair, real_node
from treadle.ops.contraction import conv_forward, conv_input
from treadle.ops.elementwise import add
from treadle.ops.movement import reshape
from treadle.tensor.handle import wrap
from treadle.tensor.tensor import Tensor

Sides = tuple[Pair, Pair]  # (top, bottom), (left, right)


def _sides(name: str, padding: Any, window: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Elements added on each side; 'same' keeps the size, with the odd one at the end."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same":
            raise located(ValueError(
                f"{name}: got padding {padding!r}; it takes ints, 'same' or 'valid'"
            ))  # fmt: skip
        if stride != (1, 1):
            raise located(ValueError(
                f"{name}: got padding 'same' and stride {stride}; 'same' needs a stride of 1; give "
                f"the padding as ints"
            ))  # fmt: skip
        spans = [d * (w - 1) for d, w in zip(dilation, window, strict=True)]
        return (spans[0] // 2, spans[0] - spans[0] // 2), (spans[1] // 2, spans[1] - spans[1] // 2)
    height, width = pair(name, "padding", padding)
    return (height, height), (width, width)


def _operands(name: str, input: Any, weight: Any, ndim: int) -> tuple[Node, Node, bool]:
    """The nodes, the input with a batch; and whether the batch was added."""
    x, w = real_node(name, input), real_node(name, weight, "a weight")
    sizes = "H, W" if ndim == 4 else "L"
    check_rank(name, x, (ndim, ndim - 1), f"(N, C, {sizes}) or (C, {sizes})")
    if x.dtype is not w.dtype:
        raise located(DTypeError(
            f"{name}: got an input of dtype {x.dtype.name} and a weight of dtype {w.dtype.name}; "
            f"they must be equal; convert the input, or the module with .to(dtype)"
        ))  # fmt: skip
    single = len(x.shape) == ndim - 1
    return (reshape(x, shape=(1, *x.shape)) if single else x), w, single


def _biased(name: str, out: Node, bias: Tensor | None, single: bool) -> Tensor:
    if bias is not None:
        b = real_node(name, bias, "a bias")
        if b.shape != out.shape[1:2] or b.dtype is not out.dtype:
            raise located(ShapeError(
                f"{name}: got a bias {b.type} for {out.shape[1]} output channels of dtype "
                f"{out.dtype.name}; its shape must be ({out.shape[1]},)"
            ))  # fmt: skip
        out = add(out, along_channels(b, out.shape))
    return wrap(reshape(out, shape=out.shape[1:]) if single else out)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation: (N, C, H, W) with weight (O, C / groups, KH, KW) gives (N, O, OH, OW).

    OH = floor((H + padding - dilation * (KH - 1) - 1) / stride) + 1 with the padding of both sides.
    """
    x, w, single = _operands("conv2d", input, weight, 4)
    check_rank("conv2d weight", w, (4,), "(out_channels, in_channels / groups, KH, KW)")
    strides, dilations = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    window = w.shape[2], w.shape[3]
    sides = _sides("conv2d", padding, window, strides, dilations)
    out = conv_forward(x, w, stride=strides, padding=sides, dilation=dilations, groups=groups)
    return _biased("conv2d", out, bias, single)


def _one(name: str, what: str, value: Any) -> int:
    items = (value,) if isinstance(value, int) else tuple(value)
    if len(items) != 1 or not isinstance(items[0], int):
        raise located(TypeError(f"{name}: got {what} {value!r}; it takes an int"))
    return items[0]


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation: (N, C, L) with weight (O, C / groups, K) gives (N, O, OL)."""
    x, w, single = _operands("conv1d", input, weight, 3)
    check_rank("conv1d weight", w, (3,), "(out_channels, in_channels / groups, K)")
    strides = 1, _one("conv1d", "stride", stride)
    dilations = 1, _one("conv1d", "dilation", dilation)
    flat = padding if isinstance(padding, str) else (0, _one("conv1d", "padding", padding))
    sides = _sides("conv1d", flat, (1, w.shape[2]), strides, dilations)
    out = conv_forward(
        reshape(x, shape=(*x.shape[:2], 1, x.shape[2])),
        reshape(w, shape=(*w.shape[:2], 1, w.shape[2])),
        stride=strides, padding=sides, dilation=dilations, groups=groups,
    )  # fmt: skip
    out = reshape(out, shape=(out.shape[0], out.shape[1], out.shape[3]))
    return _biased("conv1d", out, bias, single)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The adjoint of ``conv2d``: (N, C, H, W) with weight (C, O / groups, KH, KW).

    OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.
    """
    name = "conv_transpose2d"
    x, w, single = _operands(name, input, weight, 4)
    check_rank(f"{name} weight", w, (4,), "(in_channels, out_channels / groups, KH, KW)")
    strides, dilations = pair(name, "stride", stride), pair(name, "dilation", dilation)
    paddings, extra = pair(name, "padding", padding), pair(name, "output_padding", output_padding)
    if x.shape[1] != w.shape[0]:
        raise located(ShapeError(
            f"{name}: got an input of {x.shape[1]} channels and a weight of shape {w.shape}; the "
            f"weight takes {w.shape[0]} channels"
        ))  # fmt: skip
    for more, s, d in zip(extra, strides, dilations, strict=True):
        if more >= max(s, d):
            raise located(ValueError(
                f"{name}: got output_padding {extra}, stride {strides} and dilation {dilations}; "
                f"the output padding must be smaller than the stride or the dilation"
            ))  # fmt: skip
    size = tuple(
        (x.shape[2 + i] - 1) * strides[i] - 2 * paddings[i] + dilations[i] * (w.shape[2 + i] - 1)
        + extra[i] + 1
        for i in range(2)
    )  # fmt: skip
    out = conv_input(
        x, w, stride=strides, padding=((paddings[0],) * 2, (paddings[1],) * 2),
        dilation=dilations, groups=groups, size=size,
    )  # fmt: skip
    return _biased(name, out, bias, single)


__all__ = ["conv1d", "conv2d", "conv_transpose2d"]
