"""Convolution from its definition, where padding meets factors that are infinite or NaN.

A tap that falls on padding is no term at all. The fast kernels multiply by a zero there (see
``conv_strip``), which is NaN where the other factor is not finite. So packing that factor notes
whether one is, and then this kernel computes again, slowly, what has absent terms. One kernel
serves the convolution and both gradients; in the sum over *inner* points for every *outer* point

    kind      factor     outer points          inner points, in the order of k
    forward   weight     (image, pixel)        (tap, channel)
    input     weight     (image, pixel)        (tap, channel)
    weight    grad_out   (channel, tap)        (image, pixel)

and on each axis they meet at the element ``(origin + outer * step + inner * inner_step) / spread``
of the image, where that is whole and not outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.shapes import prod
from treadle.codegen.contraction import (
    BLOCK,
    Tile,
    Workspaces,
    both,
    in_order,
    sizes,
    tile_for,
    widen,
)
from treadle.codegen.conv_problem import Kind, Numbers, Problem
from treadle.codegen.conv_strip import Chain, Point, axes, dot, names, nest
from treadle.codegen.hooks import Attached, Hooks, Indices, Riders
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Work
from treadle.ir.loop import BEGIN, END, I64, Builder, Const, Kernel, Operand

_NO_RIDERS = Riders()

EXACT_SIZES = (
    "notes", "chunks", "items",  # chunks of lanes in a group, which has so many items
    "x_group", "factor_group", "out_group", "factor_item", "out_item",
    "outer", *names("outer"), "images", *names("inner"), "channels",
    "x_outer", "x_image", "x_channel", *names("x", "size"),
    "factor_image", *names("factor"), "factor_channel",
    "out_outer", *names("out"),
    *names("step", "inner_step", "origin", "spread"),
    "depth", "swap",  # k; 1 where pairs of terms change places
    "gaps",  # 1 where the fast kernel multiplies by what lies between two elements, too
)  # fmt: skip


def conv_exact(tile: Tile, source: DType, hooks: Hooks) -> Kernel:
    """The kernel: lanes of ``tile``, which is one vector, are items (channels of the result).

    It does nothing where no one of ``notes`` numbers at ``noted`` is NaN. A unit is a chunk.
    """
    return _ConvExact(tile, source, hooks).kernel()


class _ConvExact:
    def __init__(self, tile: Tile, source: DType, hooks: Hooks) -> None:
        k = self.k = Builder(f"conv_exact_{source.short}_{tile.name}")
        self.tile = tile
        self.out, self.factor = k.pointer("out", source), k.pointer("factor", source)
        self.image, self.noted = k.pointer("image", source), k.pointer("noted", tile.dtype)
        self.hooks = Attached(k, hooks, source)
        self.size = sizes(k, EXACT_SIZES)
        self.hooks.declare_sizes()

    def kernel(self) -> Kernel:
        k, size = self.k, self.size
        self.steps = k.local(I64, 2 * BLOCK)  # of a block: where the two factors lie
        self.count = k.local(I64, 1)  # of steps so far
        self.sums = k.local(self.tile.dtype, self.tile.lanes)
        self.chain = Chain(k, self.tile)
        note = k.local(self.tile.dtype, 1)
        k.store(note, 0, k.const(0, self.tile.dtype))
        with k.loop(0, size.notes) as i:
            k.store(note, 0, k.add(k.load(note, 0), k.load(self.noted, i)))
        value = k.load(note, 0)
        stop = k.select(k.compare("ne", value, value), END, BEGIN)
        zero = Const(0, I64)
        with k.loop(BEGIN, stop) as unit:
            group, first = k.div(unit, size.chunks), k.rem(unit, size.chunks)
            first = k.mul(first, self.tile.lanes)
            self.shown = k.minimum(k.sub(size.items, first), self.tile.lanes)
            x = k.mul(group, size.x_group)
            factor = k.add(k.mul(group, size.factor_group), k.mul(first, size.factor_item))
            out = k.add(k.mul(group, size.out_group), k.mul(first, size.out_item))
            counts = axes(size, "outer")
            with k.loop(0, size.outer) as number, nest(k, [zero] * 3, counts) as point:
                pixel = dot(k, point, axes(size, "out"))
                to = k.add(k.add(out, k.mul(number, size.out_outer)), pixel)
                item = k.add(k.mul(group, size.items), first)
                away = k.mul(number, size.x_outer)
                self.point(k.add(x, away), factor, to, point, (number, item, pixel))
        return k.kernel

    def point(self, x: Operand, factor: Operand, to: Operand, outer: Point, place: Indices) -> None:
        """The elements of one outer point, if it has absent terms; ``place`` is the first's."""
        k, size = self.k, self.size
        with k.when(self.has_absent(outer)):
            self.sum_up(x, factor, outer)
            with k.loop(0, self.shown) as lane:
                image, item, pixel = place
                line = self.hooks.line(image, k.add(item, lane))
                at, total = k.add(to, k.mul(lane, size.out_item)), k.load(self.sums, lane)
                self.hooks.finish(self.out, at, total, self.out.dtype, line, pixel)

    def meet(self, axis: int, outer: Operand, inner: Operand) -> tuple[Operand, Operand, Operand]:
        """The element on one axis, whether it is whole, and whether it is inside, too."""
        k, size = self.k, self.size
        reached = k.add(axes(size, "origin")[axis], k.mul(outer, axes(size, "step")[axis]))
        reached = k.add(reached, k.mul(inner, axes(size, "inner_step")[axis]))
        spread = axes(size, "spread")[axis]
        element = k.div(reached, spread)
        whole = k.compare("eq", k.rem(reached, spread), 0)
        inside = k.compare("lt", element, axes(size, "size")[axis])
        inside = both(k, k.compare("ge", reached, 0), inside)
        return element, whole, both(k, whole, inside)

    def has_absent(self, outer: Point) -> Operand:
        """Whether an element that is met lies outside, or, with ``gaps``, between two."""
        k = self.k
        found = k.local(I64, 1)
        k.store(found, 0, Const(0, I64))
        for axis, count in enumerate(axes(self.size, "inner")):
            with k.loop(0, count) as inner:
                _, whole, there = self.meet(axis, outer[axis], inner)
                counts = k.op("or", whole, k.compare("ne", self.size.gaps, 0))
                outside = both(k, counts, k.op("not", there))
                k.store(found, 0, k.select(outside, Const(1, I64), k.load(found, 0)))
        return k.compare("ne", k.load(found, 0), 0)

    def sum_up(self, x: Operand, factor: Operand, outer: Point) -> None:
        """All terms of an outer point, block by block, into ``sums``."""
        k, size = self.k, self.size
        zero = Const(0, I64)
        k.store(self.count, 0, zero)
        with k.loop(0, self.tile.lanes, kind="vector") as lane:
            k.store(self.sums, lane, k.const(0, self.tile.dtype))
        inner = axes(size, "inner")
        with (
            k.loop(0, size.images) as image,
            nest(k, [zero] * 3, inner) as point,
            k.loop(0, size.channels) as channel,
        ):
            met = [self.meet(a, outer[a], point[a]) for a in range(3)]
            there = both(k, both(k, met[0][2], met[1][2]), met[2][2])
            place = dot(k, [element for element, *_ in met], axes(size, "x"))
            place = k.add(k.add(x, place), k.mul(image, size.x_image))
            place = k.add(place, k.mul(channel, size.x_channel))
            other = k.add(
                k.add(factor, k.mul(image, size.factor_image)), dot(k, point, axes(size, "factor"))
            )
            other = k.add(other, k.mul(channel, size.factor_channel))
            step = k.load(self.count, 0)
            last = k.compare("eq", step, k.sub(size.depth, 1))
            k.store(self.count, 0, k.add(step, 1))
            swapped = k.op("xor", step, size.swap)
            at = k.select(k.compare("lt", swapped, size.depth), swapped, step)
            at = k.op("and", at, BLOCK - 1)
            k.store(self.steps, at, k.select(there, place, -1))
            k.store(self.steps, k.add(at, BLOCK), other)
            in_block = k.op("and", step, BLOCK - 1)
            full = k.compare("eq", in_block, BLOCK - 1)
            with k.when(k.op("or", full, last)):
                self.block(k.add(in_block, 1))

    def block(self, count: Operand) -> None:
        """Adds the chain of so many terms to ``sums``."""
        k, tile, size = self.k, self.tile, self.size
        line = k.local(tile.dtype, tile.lanes)
        with k.loop(0, tile.lanes, kind="vector") as lane:
            k.store(line, lane, k.const(0, tile.dtype))
        self.chain.clear()
        with k.loop(0, count) as t:
            place, other = k.load(self.steps, t), k.load(self.steps, k.add(t, BLOCK))
            with k.when(k.compare("ge", place, 0)):
                term = widen(k, k.load(self.image, place), tile.dtype)
                with k.loop(0, self.shown) as lane:
                    value = k.load(self.factor, k.add(other, k.mul(lane, size.factor_item)))
                    k.store(line, lane, widen(k, value, tile.dtype))
                with k.loop(0, tile.lanes, kind="vector") as lane:
                    self.chain.add(term, k.load(line, lane), lane)
        with k.loop(0, tile.lanes, kind="vector") as lane:
            total = k.add(k.load(self.sums, lane), k.load(self.chain.acc, lane))
            k.store(self.sums, lane, total)


class Notes:
    """Numbers that are NaN where a part of a factor is not finite: room for ``most``."""

    def __init__(self, dtype: DType, most: int, works: Workspaces) -> None:
        self.values = works.new(most, dtype)
        self.dtype, self.count = dtype, 0

    def more(self, count: int) -> Work:
        """Where so many begin, of one more factor."""
        first = self.count
        self.count += count
        return self.values._replace(offset=first * self.dtype.itemsize)


def exact_launches(
    kind: Kind, p: Problem, notes: Notes, riders: Riders = _NO_RIDERS, gaps: bool = False
) -> list[Launch]:
    """Computes again what has absent terms, if a factor is not finite.

    With ``gaps`` the strip holds, too, what lies between two elements of the source.
    """
    dtype = p.image.dtype
    if dtype.kind != "f":
        return []
    tile = tile_for(dtype, 1, 1, p.vector_bits)
    values = _exact_sizes(kind, p) | {"notes": notes.count, "gaps": int(gaps)}
    values["chunks"] = -(-values["items"] // tile.lanes)
    image, other = (1, 0) if kind == "weight" else (0, 1)
    args: tuple[Argument, ...] = (
        Out(0), In(other), In(image), notes.values, *riders.addresses,
        *in_order(EXACT_SIZES, values), *riders.numbers,
    )  # fmt: skip
    work = 2 * prod(p.result.shape) * prod(p.weight.shape[1:])
    units = p.groups * values["chunks"]
    return [Launch(KernelSpec(conv_exact, (tile, dtype, riders.hooks)), args, units, work)]


def _exact_sizes(kind: Kind, p: Problem) -> dict[str, int]:
    """How the points of the image, the window and the result meet."""
    backwards = tuple(-n for n in p.pad)
    ones: Numbers = (1, 1, 1)
    geometry: tuple[Numbers, ...]
    if kind == "forward":
        values = _image_sizes(p, p.image, p.result, 1)
        geometry = (p.stride, p.dilation, backwards, ones)
    elif kind == "input":
        values = _image_sizes(p, p.result, p.image, 0)
        geometry = (ones, tuple(-n for n in p.dilation), p.pad, p.stride)
    else:
        values = _weight_sizes(p)
        geometry = (p.dilation, p.stride, backwards, ones)
    for stem, numbers in zip(("step", "inner_step", "origin", "spread"), geometry, strict=True):
        values |= _named(stem, numbers)
    return values | {"swap": int(p.image.dtype is dtypes.bfloat16)}


def _named(stem: str, numbers: Sequence[int]) -> dict[str, int]:
    return dict(zip(names(stem), numbers, strict=True))


def _image_sizes(p: Problem, source: Layout, target: Layout, inner: int) -> dict[str, int]:
    """``inner``: which axis of the weight the sum runs over."""
    first = p.weight.shape[0] // p.groups
    sizes, strides = (first, p.weight.shape[1]), p.weight.strides[:2]
    items, channels = sizes[1 - inner], sizes[inner]
    taps = p.weight.shape[2:]
    return {
        "items": items, "channels": channels, "depth": prod(taps) * channels,
        "x_group": channels * source.strides[1], "out_group": items * target.strides[1],
        "factor_group": first * strides[0],
        "factor_item": strides[1 - inner], "out_item": target.strides[1],
        "outer": target.shape[0], "x_outer": source.strides[0], "out_outer": target.strides[0],
        "images": 1, "x_image": 0, "factor_image": 0,
        "x_channel": source.strides[1], "factor_channel": strides[inner],
        **_named("outer", target.shape[2:]), **_named("out", target.strides[2:]),
        **_named("inner", taps), **_named("factor", p.weight.strides[2:]),
        **_named("x", source.strides[2:]), **_named("size", source.shape[2:]),
    }  # fmt: skip


def _weight_sizes(p: Problem) -> dict[str, int]:
    image, weight, grad = p.image, p.weight, p.result
    items, channels = weight.shape[0] // p.groups, weight.shape[1]
    return {
        "items": items, "channels": 1, "depth": grad.shape[0] * prod(grad.shape[2:]),
        "x_group": channels * image.strides[1], "out_group": items * weight.strides[0],
        "factor_group": items * grad.strides[1],
        "factor_item": grad.strides[1], "out_item": weight.strides[0],
        "outer": channels, "x_outer": image.strides[1], "out_outer": weight.strides[1],
        "images": image.shape[0], "x_image": image.strides[0], "factor_image": grad.strides[0],
        "x_channel": 0, "factor_channel": 0,
        **_named("outer", weight.shape[2:]), **_named("out", weight.strides[2:]),
        **_named("inner", grad.shape[2:]), **_named("factor", grad.strides[2:]),
        **_named("x", image.strides[2:]), **_named("size", image.shape[2:]),
    }  # fmt: skip
