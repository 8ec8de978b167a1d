"""Plans of convolutions whose result is an image: ``forward`` and the input gradient."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from treadle.base.shapes import prod
from treadle.codegen.contraction import BLOCK, Tile, Workspaces, in_order, tile_for
from treadle.codegen.conv_exact import Packed, exact_launches
from treadle.codegen.conv_image import (
    IMAGE_SIZES,
    ORDER_SIZES,
    PACK_SIZES,
    conv_image,
    conv_order,
    conv_pack,
)
from treadle.codegen.conv_pixel_plan import PixelImage, PixelPlan
from treadle.codegen.conv_problem import Axis, Kind, Numbers, Problem
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Out, Plan, Work
from treadle.ir.loop import I64

_STRIP_BYTES = 320 << 10  # of a strip at most: what leaves room in a level-2 cache
_FEW_TAPS = 32  # up to so many may be multiplied by what is absent
_PIXEL_COST = 1.15  # of a step of k, where pixels are in the lanes
_PIXELS = 192  # of a unit, at least: how often a panel of weights in level 1 is used is a sixth


def _classes(kind: Kind, p: Problem) -> list[tuple[Axis, ...]]:
    """The axes of each class of pixels that have the same taps."""
    choices = []
    for a in range(3):
        taps, stride, dilation, pad = p.weight.shape[2 + a], p.stride[a], p.dilation[a], p.pad[a]
        size, pixels = p.image.shape[2 + a], p.result.shape[2 + a]
        if kind == "forward":
            choices.append([Axis(size, pixels, stride, taps, -pad, dilation)])
            continue
        choices.append(
            [
                Axis(
                    pixels, -(-(size - r) // stride), 1, taps, r + pad, -dilation, stride, r, stride
                )
                for r in range(min(stride, size))
            ]
        )
    return list(itertools.product(*choices))


def image_plan(kind: Kind, p: Problem) -> Plan:
    """``forward`` and ``input``; the input of the plan 0 is the image, 1 the weight."""
    works = Workspaces()
    launches: list[Launch] = []
    dense: list[Packed] = []
    window = p.weight.shape[2:]
    channels = (p.image if kind == "forward" else p.result).shape[1] // p.groups
    with_gaps = kind == "input" and p.groups > 1 and channels == 1 and max(p.stride) > 1
    with_gaps = with_gaps and prod(window) <= _FEW_TAPS
    classes = [_with_gaps(p)] if with_gaps else _classes(kind, p)
    for axes in classes:
        image = _in_pixels(kind, p, axes, p.stride if with_gaps else (1, 1, 1))
        pixels = PixelPlan(image, p.threads, p.vector_bits, works)
        plan: PixelPlan | _ImagePlan = pixels
        if p.groups == 1 or channels > 1:
            other = _ImagePlan(kind, p, axes, works)
            plan = pixels if _PIXEL_COST * pixels.cost < other.cost else other
        launches += plan.launches()
        dense.append(plan.packed)
    if with_gaps or any(axis.has_absent for axes in classes for axis in axes):
        launches += exact_launches(kind, p, works, dense, with_gaps)
    return Plan(tuple(launches), tuple(works.nbytes))


def _with_gaps(p: Problem) -> tuple[Axis, ...]:
    """The axes of an input gradient in a strip that holds grad_out with gaps."""
    return tuple(
        Axis(p.result.shape[2 + a], p.image.shape[2 + a], 1, p.weight.shape[2 + a], p.pad[a],
             -p.dilation[a])
        for a in range(3)
    )  # fmt: skip


def _in_pixels(kind: Kind, p: Problem, axes: tuple[Axis, ...], gaps: Numbers) -> PixelImage:
    w_out, w_in, *w_taps = p.weight.strides
    source, target, item, channel = p.image, p.result, w_out, w_in
    if kind == "input":
        source, target, item, channel = target, source, channel, item
    w_group = w_out * (p.weight.shape[0] // p.groups)
    return PixelImage(source, target, axes, gaps, tuple(w_taps), w_group, item, channel, p.groups)


class _ImagePlan:
    """The launches for one class of pixels."""

    def __init__(self, kind: Kind, p: Problem, axes: Sequence[Axis], works: Workspaces) -> None:
        self.p, self.axes, self.works = p, axes, works
        forward = kind == "forward"
        self.source, self.target = (p.image, p.result) if forward else (p.result, p.image)
        outputs, inputs = p.weight.strides[:2]
        self.w_out, self.w_in = (outputs, inputs) if forward else (inputs, outputs)
        self.channels = self.source.shape[1] // p.groups  # of a group
        self.m = self.target.shape[1] // p.groups
        # Where the groups of the weight lie, and its first axis is divided among them.
        self.w_group = outputs * p.weight.shape[0] // p.groups
        self.tile = self._tile()
        self.cost = self._cost(self.tile)
        self.depth = self.channels * prod(p.weight.shape[2:])
        self.terms = self.channels * prod(len(axis.present) for axis in axes)
        self.absent = any(axis.has_absent for axis in axes)
        self._cut()

    def _tile(self) -> Tile:
        dtype, bits = self.source.dtype, self.p.vector_bits
        shapes = ((6, 2), (4, 3), (8, 1)) if bits < 512 else ((14, 2), (9, 3), (14, 1))
        return min((tile_for(dtype, *shape, bits) for shape in shapes), key=self._cost)

    def _cost(self, tile: Tile) -> float:
        """Cycles for a pixel and a term."""
        cycles = max(tile.rows * tile.vectors, tile.rows + tile.vectors) / 2
        return -(-self.m // tile.columns) * cycles / tile.rows

    def _cut(self) -> None:
        """The strip, and how many pixels, images and panels make a unit."""
        p, tile = self.p, self.tile
        n = self.source.shape[0]
        self.panels = -(-self.m // tile.columns)
        channels = self.channels
        pitch = channels if channels < 64 else channels | 16  # against conflicts in the cache
        box = [axis.pixels for axis in self.axes]

        def strip(images: int) -> int:
            spans = [
                (b - 1) * axis.step + axis.reach for b, axis in zip(box, self.axes, strict=True)
            ]
            return images * prod(spans) * pitch

        def units(images: int) -> int:
            boxes = [-(-axis.pixels // b) for b, axis in zip(box, self.axes, strict=True)]
            return self.p.groups * -(-n // images) * prod(boxes)

        wanted = 4 * p.threads if p.threads > 1 else 1
        fewer = -(-wanted // min(self.panels, 4))  # units may also be cut along the panels
        while strip(1) * tile.dtype.itemsize > _STRIP_BYTES or (
            units(1) < fewer and prod(box) > _PIXELS
        ):
            cut = next((a for a in range(3) if box[a] > 1), None)
            if cut is None:
                break
            box[cut] = -(-box[cut] // 2)
        images = 1
        while (
            images < n
            and images * prod(box) < _PIXELS
            and strip(images + 1) * tile.dtype.itemsize <= 2 * _STRIP_BYTES
            and units(images + 1) >= fewer
        ):
            images += 1
        images = -(-n // -(-n // images))
        self.box, self.images, self.pitch = box, images, pitch
        self.boxes = [-(-axis.pixels // b) for b, axis in zip(box, self.axes, strict=True)]
        self.panel_units = min(self.panels, -(-wanted // units(images)))
        self.unit_panels = -(-self.panels // self.panel_units)
        self.panel_units = -(-self.panels // self.unit_panels)
        self.spans = [
            (b - 1) * axis.step + axis.reach for b, axis in zip(box, self.axes, strict=True)
        ]
        w, h, d = pitch, pitch * self.spans[2], pitch * self.spans[2] * self.spans[1]
        self.s_axes, self.s_image = (d, h, w), d * self.spans[0]

    def launches(self) -> list[Launch]:
        """Listing the terms, packing the weight, and the sums."""
        p, tile, dtype, works = self.p, self.tile, self.source.dtype, self.works
        blocks = max(-(-self.depth // BLOCK), 1)
        places, offsets = works.new(self.depth, I64), works.new(self.depth, I64)
        ends, raw = works.new(blocks + 1, I64), works.new(2 * self.depth, I64)
        listed: tuple[Argument, ...] = (places, offsets, ends, raw, *self._order())
        columns = tile.columns
        pack, dense = self._pack(offsets, ends, blocks)
        dense_panel = self.terms * columns
        share = self.images * self.s_image
        pixels = self.images * prod(self.box)
        slots = -(-pixels // tile.rows) * tile.rows
        scratch = works.new(p.threads * share, tile.dtype)
        sums = works.new(p.threads * 2 * slots * columns, tile.dtype)
        share_table = 2 * (pixels + tile.rows)
        table = works.new(p.threads * share_table, I64)
        first = sum(a.first * s for a, s in zip(self.axes, self._out_strides(), strict=True))
        values = self._sizes(blocks, dense_panel) | {
            "share": share, "share_sums": 2 * slots * columns, "share_table": share_table,
        }  # fmt: skip
        args: tuple[Argument, ...] = (
            Out(0, first), dense, In(0), scratch, sums, places, ends, table,
            *in_order(IMAGE_SIZES, values),
        )  # fmt: skip
        units = (
            self.p.groups * -(-self.source.shape[0] // self.images) * prod(self.boxes)
            * self.panel_units
        )  # fmt: skip
        work = (
            2
            * self.source.shape[0]
            * self.target.shape[1]
            * self.depth
            * prod(axis.pixels for axis in self.axes)
        )
        key = (tile, dtype)
        return [
            Launch(KernelSpec(conv_order, ()), listed, 1, 0),
            pack,
            Launch(KernelSpec(conv_image, key), args, units, work),
        ]

    def _pack(self, offsets: Work, ends: Work, blocks: int) -> tuple[Launch, Work]:
        """Packing the weight, and where it goes."""
        p, tile, works, dtype = self.p, self.tile, self.works, self.source.dtype
        packs = p.groups * self.panels
        elements = packs * self.terms * tile.columns
        dense = works.new(elements, tile.dtype)
        self.packed = Packed(dense, elements)
        values = {
            "items": self.m, "panels": self.panels, "columns": tile.columns,
            "s_group": self.w_group, "s_item": self.w_out,
            "channels": self.channels, "depth": self.terms, "last": blocks,
        }  # fmt: skip
        args: tuple[Argument, ...] = (
            dense, In(1), offsets, ends, *in_order(PACK_SIZES, values)
        )  # fmt: skip
        spec = KernelSpec(conv_pack, (tile.dtype, dtype))
        return Launch(spec, args, packs, 2 * prod(p.weight.shape)), dense

    def _order(self) -> Numbers:
        values = {
            "channels": self.channels, "s_channel": 1, "w_channel": self.w_in, "depth": self.depth,
            "swap": int(self.tile.flush),
        }  # fmt: skip
        for name, axis, s, w in zip(
            "dhw", self.axes, self.s_axes, self.p.weight.strides[2:], strict=True
        ):
            values |= {
                f"taps_{name}": axis.taps, f"base_{name}": axis.base,
                f"distance_{name}": axis.distance, f"spread_{name}": axis.spread,
                f"low_{name}": axis.low, f"s_{name}": s, f"w_{name}": w,
                f"phases_{name}": 1, f"phase_{name}": 0,
            }  # fmt: skip
        return in_order(ORDER_SIZES, values)

    def _out_strides(self) -> Numbers:
        return self.target.strides[2:]

    def _lines(self) -> dict[str, int]:
        """How the terms lie that a whole row of taps has, for tiles that skip some rows."""
        depth, height, _ = self.axes
        counts = [len(axis.present) for axis in self.axes]
        terms = counts[2] * self.channels
        if len(depth.present) > 1 or self.tile.flush or not terms * counts[1]:
            return {"lines": 1, "line_step": 0, "line_terms": self.depth}
        step = (height.places[1] - height.places[0]) if counts[1] > 1 else 1
        return {"lines": counts[1], "line_step": step, "line_terms": terms}

    def _sizes(self, blocks: int, dense_panel: int) -> dict[str, int]:
        source, target, columns = self.source, self.target, self.tile.columns
        x_image, x_channel, *xs = source.strides
        plane = prod(target.shape[2:])
        values = {
            "images": source.shape[0], "x_image": x_image, "x_channel": x_channel,
            "s_image": self.s_image, "s_channel": 1,
            "clear": int(self.absent),
            "x_group": self.channels * x_channel,
            "channels": self.channels,
            "box_images": self.images, "image_groups": -(-source.shape[0] // self.images),
            "panels": self.panels, "unit_panels": self.unit_panels,
            "panel_units": self.panel_units,
            "depth": self.depth, "blocks": blocks,
            "dense_group": dense_panel * self.panels,
            "dense_panel": dense_panel,
            "lanes": self.m, "panel_lanes": columns, **self._lines(),
            "out_image": target.shape[1] * plane,
            "out_group": self.m * plane,
            "out_panel": columns * plane,
            "out_lane": plane,
        }  # fmt: skip
        table = (self.boxes, self.box, self.axes, xs, self.s_axes, self._out_strides())
        for name, boxes, box, axis, x, s, o in zip("dhw", *table, strict=True):
            values |= {
                f"size_{name}": axis.size, f"x_{name}": x, f"s_{name}": s,
                f"pixels_{name}": axis.pixels, f"box_{name}": box, f"boxes_{name}": boxes,
                f"step_{name}": axis.step, f"origin_{name}": axis.low,
                f"reach_{name}": axis.reach, f"o_{name}": o * axis.every,
            }  # fmt: skip
        return values
