"""Plans of convolutions: which launches of ``conv_kernels`` and packings make one, and how cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shapes import Shape, prod
from treadle.codegen.contraction import (
    BLOCK,
    Pack,
    Tile,
    Workspaces,
    finish_launch,
    in_order,
    tile_for,
)
from treadle.codegen.conv_kernels import IMAGE_SIZES, WEIGHT_SIZES, conv_image, conv_weight
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import I64

Kind = Literal["forward", "input", "weight"]
Pair = tuple[int, int]

_SCRATCH = 192 << 10  # bytes of a strip that still leave room in a level-2 cache


@dataclass(frozen=True, slots=True)
class _Window:
    """One axis of a convolution: ``pixels`` positions of ``taps`` taps over ``size`` elements."""

    size: int
    pixels: int
    taps: int
    stride: int
    dilation: int
    pad: int  # zeros before the first element
    spread: int = 1  # distance of the elements
    flipped: bool = False  # taps run backwards

    @property
    def reach(self) -> int:
        """Elements from the first tap to the last."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def has_absent(self) -> bool:
        """Whether a tap of a pixel can miss the elements."""
        end = (self.pixels - 1) * self.stride + self.reach
        return self.spread > 1 or self.pad > 0 or end > self.pad + self.size

    def transposed(self) -> _Window:
        """The axis of the input gradient: taps run backwards over a spread grad_out."""
        pad = self.reach - 1 - self.pad
        return _Window(self.pixels, self.size, self.taps, 1, self.dilation, pad, self.stride, True)


@lru_cache(maxsize=4096)
def plan_conv(
    kind: Kind,
    x: Layout,
    y: Layout,
    out: Layout,
    stride: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair,
    groups: int,
    threads: int,
    vector_bits: int = 256,
) -> Plan:
    """A convolution or one of its gradients; images are NCHW, weights (O, C / groups, KH, KW).

    Args:
        kind: ``forward``: x is the input, y the weight; ``input``: x is grad_out, y the weight;
            ``weight``: x is grad_out, y the input. ``out`` is what the kind is named after.
        x, y: with any strides.
        out: contiguous.
        stride, dilation: along (height, width).
        padding: ((top, bottom), (left, right)); what falls on padding is no term of a sum.
        groups: input and output channels are cut into so many groups.
        threads: how many may run the plan at once; the result does not depend on it.
        vector_bits: the width of the target's registers; nor on this.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: the dtypes differ or are bool.
    """
    roles = {"forward": (x, y, out), "input": (out, y, x), "weight": (y, out, x)}
    image, weight, result = roles[kind]
    _check(kind, image, weight, result, stride, padding, dilation, groups)
    if not (x.dtype is y.dtype is out.dtype):
        raise DTypeError(
            f"conv plan ({kind}): got {x.dtype!r} and {y.dtype!r} -> {out.dtype!r}; the dtypes "
            "must be equal: convert the operands to one dtype first"
        )
    if not out.is_contiguous:
        raise ShapeError(
            f"conv plan ({kind}): the result has strides {out.strides} for shape {out.shape}; "
            "expected a contiguous one"
        )
    windows = tuple(
        _Window(image.shape[2 + a], result.shape[2 + a], weight.shape[2 + a], stride[a],
                dilation[a], padding[a][0])
        for a in (0, 1)
    )  # fmt: skip
    tiles = [tile_for(x.dtype, rows, vectors, vector_bits) for rows, vectors in _tiles(vector_bits)]
    if prod(out.shape) == 0:
        return Plan(())
    height, width = windows
    if kind == "weight":
        return _weight_plan(x, y, out, height, width, groups, threads, tiles)
    if kind == "input":
        height, width = height.transposed(), width.transposed()
    return _image_plan(kind, x, y, out, height, width, groups, threads, tiles)


def _tiles(vector_bits: int) -> tuple[Pair, ...]:
    """Register tiles (rows, vectors) that fit the registers."""
    return ((14, 2), (8, 3)) if vector_bits >= 512 else ((6, 2), (4, 3))


def _check(
    kind: str,
    image: Layout,
    weight: Layout,
    result: Layout,
    stride: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair,
    groups: int,
) -> None:
    """The shapes of input, weight and output against each other."""
    shapes = f"input {image.shape}, weight {weight.shape}, output {result.shape}"
    if any(len(layout.shape) != 4 for layout in (image, weight, result)):
        raise ShapeError(
            f"conv plan ({kind}): got {shapes}; expected four dimensions each: (N, C, H, W), "
            "(O, C / groups, KH, KW), (N, O, OH, OW)"
        )
    if groups < 1 or min(stride) < 1 or min(dilation) < 1 or min(min(p) for p in padding) < 0:
        raise ShapeError(
            f"conv plan ({kind}): got stride {stride}, padding {padding}, dilation {dilation}, "
            f"groups {groups}; expected padding of at least 0 and the others at least 1"
        )
    (n, channels, *spatial), (outputs, inner, *taps) = image.shape, weight.shape
    sizes = [
        (spatial[a] + sum(padding[a]) - dilation[a] * (taps[a] - 1) - 1) // stride[a] + 1
        for a in (0, 1)
    ]
    expected: Shape = (n, outputs, *(max(size, 0) for size in sizes))
    fits = channels == inner * groups and outputs % groups == 0 and min(taps) > 0
    if not fits or result.shape != expected:
        raise ShapeError(
            f"conv plan ({kind}): got {shapes} with stride {stride}, padding {padding}, dilation "
            f"{dilation}, groups {groups}; expected input channels = groups * weight.shape[1], "
            f"output channels a multiple of groups, and an output of shape {expected}"
        )


def _strip_values(image: Layout, height: _Window, width: _Window, channels: int) -> dict[str, int]:
    """Those of STRIP_SIZES that do not depend on how the work is cut."""
    n = image.shape[0]
    s_image, s_channel, s_height, s_width = image.strides
    return {
        "images": n, "height": height.size, "width": width.size,
        "s_group": channels * s_channel, "s_image": s_image, "s_channel": s_channel,
        "s_height": s_height, "s_width": s_width, "pad_h": height.pad, "pad_w": width.pad,
        "spread_h": height.spread, "spread_w": width.spread, "channels": channels,
        "pixel_rows": height.pixels, "pixel_columns": width.pixels,
        "taps_h": height.taps, "taps_w": width.taps,
        "tap_h": -height.dilation if height.flipped else height.dilation,
        "tap_w": -width.dilation if width.flipped else width.dilation,
        "reach_h": height.reach, "reach_w": width.reach,
        "step_h": height.stride, "step_w": width.stride,
        "check": int(height.has_absent or width.has_absent),
    }  # fmt: skip


def _plane(elements: int) -> int:
    """Elements between channels of a strip: an odd number of lines, against cache conflicts."""
    return -(-elements // 16) * 16 | 16


def _image_plan(
    kind: Kind,
    image: Layout,
    weight: Layout,
    out: Layout,
    height: _Window,
    width: _Window,
    groups: int,
    threads: int,
    tiles: list[Tile],
) -> Plan:
    """``forward`` and ``input``."""
    n, out_channels = out.shape[:2]
    m, channels = out_channels // groups, image.shape[1] // groups
    depth = channels * height.taps * width.taps
    pixels = height.pixels * width.pixels
    lanes, dtype, acc = tiles[0].lanes, out.dtype, tiles[0].dtype
    works, launches = Workspaces(), []
    w_out, w_in, w_h, w_w = weight.strides
    forward = kind == "forward"
    pack = Pack(
        groups, m, (height.taps, width.taps, channels),
        m * w_out if forward else channels * w_out, w_out if forward else w_in,
        (w_h, w_w, w_in if forward else w_out),
    )  # fmt: skip
    left = works.new(pack.elements, acc)
    launches.append(pack.rows(left, In(1), dtype, acc))
    # Vectors hold pixels side by side, or the same pixel of several images where rows are short.
    together = lanes if _filled(n, lanes) > 1.3 * _filled(width.pixels, lanes) else 1
    alone = together == 1
    columns = width.pixels + (width.reach - 1) // width.stride
    row = columns * together
    phases = height.stride * width.stride
    image_groups = -(-n // together)

    def phase_of(rows: int) -> int:
        return (rows + (height.reach - 1) // height.stride) * row

    strip_rows = height.pixels
    while strip_rows > 1 and (
        channels * phases * phase_of(strip_rows) * acc.itemsize > _SCRATCH
        or groups * image_groups * -(-height.pixels // strip_rows) < 2 * threads * (threads > 1)
    ):
        strip_rows = -(-strip_rows // 2)
    strips = -(-height.pixels // strip_rows)
    plane = _plane(phases * phase_of(strip_rows))
    slot_columns = -(-width.pixels // lanes) if alone else width.pixels
    tile = _best_tile(tiles, m, strip_rows * slot_columns, depth)
    scratch_size = (channels + 1) * plane + 2 * lanes
    scratch = works.new(threads * scratch_size, acc)
    table = works.new(threads * 2 * depth, I64)
    out_at: Argument = Out(0) if acc is dtype else works.new(prod(out.shape), acc)
    values = _strip_values(image, height, width, channels) | {
        "columns": columns, "row": row, "plane": plane, "share": scratch_size,
        "m": m, "depth": depth, "phases_h": height.stride, "phases_w": width.stride,
        "phase": phase_of(strip_rows),
        "first_h": height.reach - 1 if height.flipped else 0,
        "first_w": width.reach - 1 if width.flipped else 0,
        "together": together, "slot_columns": slot_columns,
        "slot_step": lanes if alone else together, "slot_pixels": lanes if alone else 1,
        "lane_stride": 1 if alone else out_channels * pixels,
        "strip_rows": strip_rows, "strips": strips, "image_groups": image_groups,
        "out_image": out_channels * pixels, "out_row": pixels,
    }  # fmt: skip
    args = (out_at, left, In(0), scratch, table, *in_order(IMAGE_SIZES, values))
    units = groups * image_groups * strips
    spec = KernelSpec(conv_image, (tile, dtype))
    launches.append(Launch(spec, args, units, 2 * prod(out.shape) * depth))
    if acc is not dtype:
        launches.append(finish_launch(Out(0), out_at, acc, dtype, prod(out.shape), 1))
    return Plan(tuple(launches), tuple(works.nbytes))


def _filled(count: int, lanes: int) -> float:
    """The share of vectors that is used where ``count`` elements are cut into vectors."""
    return count / (-(-count // lanes) * lanes)


def _best_tile(tiles: list[Tile], rows: int, vectors: int, depth: int) -> Tile:
    """The tile that covers ``rows`` x ``vectors`` in the fewest cycles."""

    def cost(tile: Tile) -> float:
        size = tile.rows * tile.vectors
        step = max(size, tile.rows + tile.vectors + 1) / 2
        cover = -(-rows // tile.rows) * -(-vectors // tile.vectors)
        return cover * (depth * step + 6 * size + 40)

    return min(tiles, key=cost)


def _weight_plan(
    grad: Layout,
    image: Layout,
    out: Layout,
    height: _Window,
    width: _Window,
    groups: int,
    threads: int,
    tiles: list[Tile],
) -> Plan:
    """``weight``: rows of the tile are (cin, kh, kw), vectors output channels."""
    n, out_channels = grad.shape[:2]
    m, channels = out_channels // groups, image.shape[1] // groups
    taps, pixels = height.taps * width.taps, height.pixels * width.pixels
    depth = n * pixels
    lanes, dtype, acc = tiles[0].lanes, out.dtype, tiles[0].dtype
    tile = _best_tile(tiles, channels * taps, -(-m // lanes), BLOCK)
    works, launches = Workspaces(), []
    g_image, g_channel, g_height, g_width = grad.strides
    pack = Pack(
        groups, m, (n, height.pixels, width.pixels), m * g_channel, g_channel,
        (g_image, g_height, g_width),
    )  # fmt: skip
    right = works.new(groups * -(-m // tile.columns) * tile.columns * depth, acc)
    if depth:
        launches.append(pack.panels(right, In(0), dtype, acc, tile.columns))
    # A block of k touches so many images, and so many rows of each.
    touched = min(n, (BLOCK - 2) // max(pixels, 1) + 2)
    rows = min(height.pixels, (BLOCK - 2) // max(width.pixels, 1) + 2)
    row = (width.pixels - 1) * width.stride + width.reach
    segment = ((rows - 1) * height.stride + height.reach) * row
    plane = _plane(max(touched * segment, 1))
    unit_channels = max(min(channels, _SCRATCH // (plane * acc.itemsize)), 1)
    blocks = max(-(-depth // BLOCK), 1)
    channel_units = -(-channels // unit_channels)
    splits = blocks if groups * channel_units < 2 * threads and threads > 1 else 1
    scratch_size = (unit_channels + 1) * plane
    scratch = works.new(threads * scratch_size, acc)
    table = works.new(threads * (2 * unit_channels * taps + BLOCK), I64)
    elements = prod(out.shape)
    out_at: Argument = Out(0)
    if splits > 1 or acc is not dtype:
        out_at = works.new(splits * elements, acc)
    values = _strip_values(image, height, width, channels) | {
        "columns": row, "row": row, "plane": plane, "share": scratch_size, "m": m,
        "depth": depth, "segment": segment, "unit_channels": unit_channels,
        "channel_units": channel_units, "splits": splits,
        "span": 1 if splits > 1 else blocks, "out_split": elements,
    }  # fmt: skip
    args = (out_at, right, In(1), scratch, table, *in_order(WEIGHT_SIZES, values))
    units = groups * channel_units * splits
    spec = KernelSpec(conv_weight, (tile, dtype))
    launches.append(Launch(spec, args, units, 2 * elements * depth))
    if isinstance(out_at, Work):
        launches.append(finish_launch(Out(0), out_at, acc, dtype, elements, splits))
    return Plan(tuple(launches), tuple(works.nbytes))
