"""Convolutions over one, two and three axes, and their adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import Node, located
from treadle.nn.functional.common import along_channels, check_rank, node_of
from treadle.ops.contraction import conv_forward, conv_input
from treadle.ops.elementwise import add
from treadle.ops.movement import reshape
from treadle.tensor.autocast import lowered
from treadle.tensor.composed import composed
from treadle.tensor.handle import wrap
from treadle.tensor.joining import pad
from treadle.tensor.tensor import Tensor

Numbers = tuple[int, ...]
Sides = tuple[tuple[int, int], ...]  # (before, after) along each axis

_WORDS = {1: "an int", 2: "an int or two ints (height, width)",
          3: "an int or three ints (depth, height, width)"}  # fmt: skip
_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}
_WINDOW = {1: "K", 2: "KH, KW", 3: "KD, KH, KW"}


def per_axis(name: str, what: str, value: Any, rank: int) -> Numbers:
    """``rank`` ints from one or as many."""
    items = (value,) if isinstance(value, int) else tuple(value)
    if len(items) == 1:
        items *= rank
    if len(items) != rank or not all(isinstance(v, int) for v in items):
        raise located(TypeError(f"{name}: got {what} {value!r}; it takes {_WORDS[rank]}"))
    return items


def same_sides(window: Sequence[int], dilation: Sequence[int]) -> Sides:
    """The padding that keeps the size at stride 1, with the odd element at the end."""
    spans = [d * (w - 1) for d, w in zip(dilation, window, strict=True)]
    return tuple((span // 2, span - span // 2) for span in spans)


def _sides(name: str, padding: Any, window: Numbers, stride: Numbers, dilation: Numbers) -> Sides:
    """Elements added on each side."""
    if not isinstance(padding, str):
        return tuple((p, p) for p in per_axis(name, "padding", padding, len(window)))
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding != "same":
        raise located(ValueError(
            f"{name}: got padding {padding!r}; it takes ints, 'same' or 'valid'"
        ))  # fmt: skip
    if max(stride) > 1:
        raise located(ValueError(
            f"{name}: got padding 'same' and stride {stride}; 'same' needs a stride of 1; give "
            f"the padding as ints"
        ))  # fmt: skip
    return same_sides(window, dilation)


def _operands(
    name: str, input: Any, weight: Any, rank: int, channels: str
) -> tuple[Node, Node, bool]:
    """The nodes, the input with a batch; and whether the batch was added."""
    x, w = node_of(name, input), node_of(name, weight)
    axes, ndim = _AXES[rank], rank + 2
    check_rank(name, x, (ndim, ndim - 1), f"(N, C, {axes}) or (C, {axes})")
    check_rank(f"{name} weight", w, (ndim,), f"({channels}, {_WINDOW[rank]})")
    if x.dtype is not w.dtype:
        raise located(DTypeError(
            f"{name}: got an input of dtype {x.dtype.name} and a weight of dtype {w.dtype.name}; "
            f"they must be equal; convert the input, or the module with .to(dtype)"
        ))  # fmt: skip
    single = len(x.shape) == ndim - 1
    return (reshape(x, shape=(1, *x.shape)) if single else x), w, single


def _biased(name: str, out: Node, bias: Tensor | None, single: bool) -> Tensor:
    if bias is not None:
        b = node_of(name, bias)
        if b.shape != out.shape[1:2] or b.dtype is not out.dtype:
            raise located(ShapeError(
                f"{name}: got a bias {b.type} for {out.shape[1]} output channels of dtype "
                f"{out.dtype.name}; its shape must be ({out.shape[1]},)"
            ))  # fmt: skip
        out = add(out, along_channels(b, out.shape))
    return wrap(reshape(out, shape=out.shape[1:]) if single else out)


def _convolve(
    rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Tensor:  # fmt: skip
    name = f"conv{rank}d"
    x, w, single = _operands(name, input, weight, rank, "out_channels, in_channels / groups")
    strides = per_axis(name, "stride", stride, rank)
    dilations = per_axis(name, "dilation", dilation, rank)
    sides = _sides(name, padding, w.shape[2:], strides, dilations)
    if x.dtype.is_floating_point:
        out = conv_forward(x, w, stride=strides, padding=sides, dilation=dilations, groups=groups)
    else:
        from treadle.nn.functional.tap_convolution import by_taps  # rare

        out = by_taps(wrap(x), wrap(w), strides, sides, dilations, groups).node
    return _biased(name, out, bias, single)


@lowered
@composed
def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of sequences: (N, C, L) with weight (O, C / groups, K) gives (N, O, OL).

    OL = floor((L + 2 * padding - dilation * (K - 1) - 1) / stride) + 1; see ``conv2d``.

    >>> import treadle
    >>> conv1d(treadle.tensor([[1., 2., 4.]]), treadle.tensor([[[1., 1.]]])).tolist()
    [[3.0, 6.0]]
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


@lowered
@composed
def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of images.

    (N, C, H, W) with weight (O, C / groups, KH, KW) gives (N, O, OH, OW), and (C, H, W) gives
    (O, OH, OW), with OH = floor((H + 2 * padding - dilation * (KH - 1) - 1) / stride) + 1.

    Args:
        bias: (O,), added to every pixel.
        stride, padding, dilation: an int, or one for each axis. ``padding`` may be "valid" (none)
            or, with a stride of 1, "same" (OH = H; the odd element is added at the end).
        groups: cuts input and output channels into groups that do not see one another.

    Raises:
        ShapeError, DTypeError, TypeError, ValueError: what does not fit.
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


@lowered
@composed
def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of volumes: (N, C, D, H, W), weight (O, C / groups, KD, KH, KW).

    Gives (N, O, OD, OH, OW); see ``conv2d``.
    """
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def _transpose(
    rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
    output_padding: Any, groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    name = f"conv_transpose{rank}d"
    x, w, single = _operands(name, input, weight, rank, "in_channels, out_channels / groups")
    strides = per_axis(name, "stride", stride, rank)
    dilations = per_axis(name, "dilation", dilation, rank)
    paddings = per_axis(name, "padding", padding, rank)
    extra = per_axis(name, "output_padding", output_padding, rank)
    if x.shape[1] != w.shape[0]:
        raise located(ShapeError(
            f"{name}: got an input of {x.shape[1]} channels and a weight of shape {w.shape}; the "
            f"weight takes {w.shape[0]} channels"
        ))  # fmt: skip
    for more, s, d in zip(extra, strides, dilations, strict=True):
        if not 0 <= more < max(s, d):
            raise located(ValueError(
                f"{name}: got output_padding {extra}, stride {strides} and dilation {dilations}; "
                f"the output padding must be smaller than the stride or the dilation, and not "
                f"negative"
            ))  # fmt: skip
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for n, s, p, d, k, more in zip(
            x.shape[2:], strides, paddings, dilations, w.shape[2:], extra, strict=True
        )
    )
    if size and min(size) < 1:
        raise located(ShapeError(
            f"{name}: got an input of shape {x.shape}, a weight of shape {w.shape} and padding "
            f"{paddings}; the output would have the size {size}; use less padding or a larger "
            f"kernel"
        ))  # fmt: skip
    if not x.dtype.is_floating_point:
        from treadle.nn.functional.tap_convolution import transposed_by_taps  # rare

        taps = transposed_by_taps(wrap(x), wrap(w), strides, paddings, extra, dilations, groups)
        return _biased(name, taps.node, bias, single)
    # What output_padding adds takes the place of padding: so the forward convolution of the result
    # has exactly the pixels of the input.
    sides = tuple((p, p - min(more, p)) for p, more in zip(paddings, extra, strict=True))
    # A stride or more beyond the last tap there would be more pixels: those elements are zeros.
    beyond = tuple(
        max(more - p - s + 1, 0) for more, p, s in zip(extra, paddings, strides, strict=True)
    )
    reached = tuple(n - more for n, more in zip(size, beyond, strict=True))
    out = conv_input(
        x, w, stride=strides, padding=sides, dilation=dilations, groups=groups, size=reached
    )
    if any(beyond):
        widths = [width for more in reversed(beyond) for width in (0, more)]
        out = node_of(name, pad(wrap(out), widths))
    return _biased(name, out, bias, single)


@lowered
@composed
def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The adjoint of ``conv1d``: (N, C, L) with weight (C, O / groups, K); see the 2-d one."""
    return _transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@lowered
@composed
def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The adjoint of ``conv2d``, which enlarges images: (N, C, H, W) -> (N, O, OH, OW).

    The weight is (C, O / groups, KH, KW), and
    OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.

    Raises:
        ShapeError, DTypeError, TypeError, ValueError: what does not fit.
    """
    return _transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@lowered
@composed
def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The adjoint of ``conv3d``: (N, C, D, H, W) with weight (C, O / groups, KD, KH, KW)."""
    return _transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


__all__ = [
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
]  # fmt: skip
