"""Plans of convolutions whose result is an image: ``forward`` and the input gradient."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from treadle.base.shapes import prod
from treadle.codegen.contraction import Tile, Workspaces, accumulator, in_order, tile_for
from treadle.codegen.conv_depthwise import DepthwisePlan
from treadle.codegen.conv_exact import Notes, exact_launches
from treadle.codegen.conv_image import IMAGE_SIZES, conv_image
from treadle.codegen.conv_pixel_plan import PixelImage, PixelPlan
from treadle.codegen.conv_problem import Axis, Kind, Numbers, Problem
from treadle.codegen.conv_terms import Terms, Weight, conv_clear
from treadle.codegen.hooks import Riders
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan
from treadle.ir.loop import I64

_STRIP_BYTES = 320 << 10  # of a strip at most: what leaves room in a level-2 cache
_IMAGES_BYTES = 640 << 10
_FEW_TAPS = 32  # up to so many may be multiplied by what is absent
_PIXEL_COST = 1.15  # of a step of k, where pixels are in the lanes
_FEW_CHANNELS, _FEW_COST = 8, 0.97  # a strip of so few is not worth turning round
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


def reaches_all(kind: Kind, p: Problem) -> bool:
    """Whether every pixel of the result has a tap: then work can ride on the result."""
    return all(axis.present for axes in _classes(kind, p) for axis in axes)


def image_plan(kind: Kind, p: Problem, riders: Riders) -> Plan:
    """``forward`` and ``input``; the input of the plan 0 is the image, 1 the weight.

    There may be a rider on the result where it ``reaches_all``.
    """
    works = Workspaces()
    weight = _weight(kind, p)
    classes = _classes(kind, p)
    notes = Notes(accumulator(p.image.dtype), len(classes) * weight.groups * weight.items, works)
    depthwise = DepthwisePlan(kind, p, weight, works, notes, riders)
    gaps = kind == "input" and p.groups > 1 and weight.channels == 1 and max(p.stride) > 1
    gaps = gaps and (depthwise.fits or prod(p.weight.shape[2:]) <= _FEW_TAPS)
    plans: list[DepthwisePlan | PixelPlan | _ImagePlan] = [depthwise]
    launches: list[Launch] = []
    if not depthwise.fits:
        several = [_with_gaps(p)] if gaps else classes
        having = [axes for axes in several if all(axis.present for axis in axes)]
        if len(having) < len(several):
            target = p.result if kind == "forward" else p.image
            count = prod(target.shape)
            launches.append(
                Launch(KernelSpec(conv_clear, (target.dtype,)), (Out(0),), count, count)
            )
        plans = [_plan_of(kind, p, axes, gaps, weight, works, notes, riders) for axes in having]
    launches += [launch for plan in plans for launch in plan.launches()]
    if gaps or any(axis.has_absent for axes in classes for axis in axes):
        launches += exact_launches(kind, p, notes, riders, gaps)
    return Plan(tuple(launches), tuple(works.nbytes))


def _plan_of(
    kind: Kind, p: Problem, axes: tuple[Axis, ...], gaps: bool, weight: Weight, works: Workspaces,
    notes: Notes, riders: Riders,
) -> PixelPlan | _ImagePlan:  # fmt: skip
    """The plan of one class of pixels, with pixels or channels in the lanes."""
    source, target = (p.image, p.result) if kind == "forward" else (p.result, p.image)
    image = PixelImage(source, target, axes, p.stride if gaps else (1, 1, 1), weight)
    pixels = PixelPlan(image, p.threads, p.vector_bits, works, notes, riders)
    if p.groups > 1 and weight.channels == 1:
        return pixels
    channels = _ImagePlan(p, source, target, weight, axes, works, notes, riders)
    times = _PIXEL_COST if weight.channels > _FEW_CHANNELS else _FEW_COST
    return pixels if times * pixels.cost < channels.cost else channels


def _with_gaps(p: Problem) -> tuple[Axis, ...]:
    """The axes of an input gradient in a strip that holds grad_out with gaps."""
    return tuple(
        Axis(p.result.shape[2 + a], p.image.shape[2 + a], 1, p.weight.shape[2 + a], p.pad[a],
             -p.dilation[a])
        for a in range(3)
    )  # fmt: skip


def _weight(kind: Kind, p: Problem) -> Weight:
    (outputs, inputs), (w_out, w_in, *w_taps) = p.weight.shape[:2], p.weight.strides
    outputs //= p.groups
    group, taps = outputs * w_out, tuple(w_taps)
    if kind == "forward":
        return Weight(inputs, outputs, p.groups, group, w_out, w_in, taps)
    return Weight(outputs, inputs, p.groups, group, w_in, w_out, taps)


class _ImagePlan:
    """The launches for one class of pixels."""

    def __init__(
        self, p: Problem, source: Layout, target: Layout, weight: Weight, axes: Sequence[Axis],
        works: Workspaces, notes: Notes, riders: Riders,
    ) -> None:  # fmt: skip
        self.p, self.weight, self.axes = p, weight, axes
        self.works, self.notes, self.riders = works, notes, riders
        self.source, self.target = source, target
        self.tile = self._tile()
        self.cost = self._cost(self.tile)
        self.absent = any(axis.has_absent for axis in axes)
        self._cut()

    def _tile(self) -> Tile:
        dtype, bits = self.source.dtype, self.p.vector_bits
        shapes = ((6, 2), (4, 3), (8, 1)) if bits < 512 else ((14, 2), (9, 3), (14, 1))
        return min((tile_for(dtype, *shape, bits) for shape in shapes), key=self._cost)

    def _cost(self, tile: Tile) -> float:
        """Cycles for a pixel and a term."""
        cycles = max(tile.rows * tile.vectors, tile.rows + tile.vectors + 1) / 2
        return -(-self.weight.items // tile.columns) * cycles / tile.rows

    def _cut(self) -> None:
        """The strip, and how many pixels, images and panels make a unit."""
        p, tile = self.p, self.tile
        n = self.source.shape[0]
        self.panels = -(-self.weight.items // tile.columns)
        channels = self.weight.channels
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
            and strip(images + 1) * tile.dtype.itemsize <= _IMAGES_BYTES
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
        strip = (1, self.s_axes, (0, 0, 0))
        terms = Terms(self.weight, self.axes, strip, tile, works, self.notes)
        pack, dense = terms.packing(dtype, tile.columns)
        columns = tile.columns
        share = self.images * self.s_image
        pixels = self.images * prod(self.box)
        slots = -(-pixels // tile.rows) * tile.rows
        scratch = works.new(p.threads * share, tile.dtype)
        sums = works.new(p.threads * slots * columns, tile.dtype)
        share_table = 2 * (pixels + tile.rows)
        table = works.new(p.threads * share_table, I64)
        first = sum(a.first * s for a, s in zip(self.axes, self._out_strides(), strict=True))
        values = self._sizes(terms) | {
            "share": share, "share_sums": slots * columns, "share_table": share_table,
            "first": first,
        }  # fmt: skip
        args: tuple[Argument, ...] = (
            Out(0, first), dense, In(0), scratch, sums, terms.places, terms.ends,
            table, *self.riders.addresses, *in_order(IMAGE_SIZES, values), *self.riders.numbers,
        )  # fmt: skip
        units = (
            self.p.groups * -(-self.source.shape[0] // self.images) * prod(self.boxes)
            * self.panel_units
        )  # fmt: skip
        work = 2 * prod(self.target.shape[:2]) * terms.depth
        work *= prod(axis.pixels for axis in self.axes)
        key = (tile, dtype, self.riders.hooks)
        return [
            terms.listing(),
            pack,
            Launch(KernelSpec(conv_image, key), args, units, work),
        ]

    def _out_strides(self) -> Numbers:
        return self.target.strides[2:]

    def _lines(self, all_terms: int) -> dict[str, int]:
        """How the terms lie that a whole row of taps has, for tiles that skip some rows."""
        depth, height, _ = self.axes
        counts = [len(axis.present) for axis in self.axes]
        terms = counts[2] * self.weight.channels
        if len(depth.present) > 1 or self.tile.flush or not terms * counts[1]:
            return {"lines": 1, "line_step": 0, "line_terms": all_terms}
        step = (height.places[1] - height.places[0]) if counts[1] > 1 else 1
        return {"lines": counts[1], "line_step": step, "line_terms": terms}

    def _sizes(self, terms: Terms) -> dict[str, int]:
        source, target, columns = self.source, self.target, self.tile.columns
        dense_panel = terms.present * columns
        x_image, x_channel, *xs = source.strides
        plane = prod(target.shape[2:])
        values = {
            "images": source.shape[0], "x_image": x_image, "x_channel": x_channel,
            "s_image": self.s_image, "s_channel": 1,
            "clear": int(self.absent),
            "x_group": self.weight.channels * x_channel,
            "channels": self.weight.channels,
            "box_images": self.images, "image_groups": -(-source.shape[0] // self.images),
            "panels": self.panels, "unit_panels": self.unit_panels,
            "panel_units": self.panel_units,
            "depth": terms.depth, "blocks": terms.blocks,
            "dense_group": dense_panel * self.panels,
            "dense_panel": dense_panel,
            "lanes": self.weight.items, "panel_lanes": columns, **self._lines(terms.depth),
            "out_image": target.shape[1] * plane,
            "out_group": self.weight.items * plane,
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
