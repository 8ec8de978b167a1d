"""The terms of a pixel of a convolution whose result is an image: what every way to it begins with.

``conv_order`` lists them once in the order in which they are added; ``conv_pack`` brings the weight
into that order.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.codegen.contraction import BLOCK, Tile, Workspaces, both, in_order, sizes, widen
from treadle.codegen.conv_exact import Notes
from treadle.codegen.conv_problem import Axis, Numbers
from treadle.codegen.conv_strip import AXES, FiniteNote, Square, axes, names, nest
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Work
from treadle.ir.loop import BEGIN, BOOL, END, I64, Builder, Const, Kernel, Operand

ORDER_SIZES = (
    *names("taps", "base", "distance", "spread", "low", "phases", "phase"),
    "channels", "s_channel", *names("s"),  # strides of the strip
    "w_channel", *names("w"),  # strides of the weight
    "depth", "swap",  # k; 1 where pairs of terms change places
)  # fmt: skip


def conv_order() -> Kernel:
    """Lists the terms of a pixel in the order in which they are added.

    ``places``: where the element lies in the strip, from that of the pixel; ``offsets``: where the
    factor lies in the weight; ``ends``: where the blocks of k end in these lists, after a 0.
    ``raw`` has room for twice the depth and begins with the place of each term of k in these lists,
    -1 where it is absent. Where the strip keeps every ``phases``-th element of an
    axis together, the next ones follow ``phase`` further on. One unit.
    """
    k = Builder("conv_order")
    places, offsets, ends, raw = (k.pointer(n, I64) for n in ("places", "offsets", "ends", "raw"))
    size = sizes(k, ORDER_SIZES)
    taps = axes(size, "taps")
    zero: Operand = Const(0, I64)
    with k.loop(BEGIN, END):
        with nest(k, [zero] * 3, taps) as tap:
            there: Operand = Const(True, BOOL)
            strip = weight = zero
            for a, axis in enumerate("dhw"):
                spread = getattr(size, f"spread_{axis}")
                reached = k.add(
                    getattr(size, f"base_{axis}"),
                    k.mul(tap[a], getattr(size, f"distance_{axis}")),
                )
                there = both(k, there, k.compare("eq", k.rem(reached, spread), 0))
                place = k.sub(k.div(reached, spread), getattr(size, f"low_{axis}"))
                phases, phase = getattr(size, f"phases_{axis}"), getattr(size, f"phase_{axis}")
                strip = k.add(strip, k.mul(k.div(place, phases), getattr(size, f"s_{axis}")))
                strip = k.add(strip, k.mul(k.rem(place, phases), phase))
                weight = k.add(weight, k.mul(tap[a], getattr(size, f"w_{axis}")))
            number = k.add(k.mul(k.add(k.mul(tap[0], taps[1]), tap[1]), taps[2]), tap[2])
            first = k.mul(number, size.channels)
            with k.loop(0, size.channels) as c:
                at = k.add(first, c)
                place = k.add(strip, k.mul(c, size.s_channel))
                k.store(raw, at, k.select(there, place, -1))
                k.store(raw, k.add(size.depth, at), k.add(weight, k.mul(c, size.w_channel)))
        count = k.local(I64, 1)
        k.store(count, 0, zero)
        k.store(ends, 0, zero)
        with k.loop(0, k.maximum(size.depth, 1), step=BLOCK) as start:
            length = k.minimum(k.sub(size.depth, start), BLOCK)
            with k.loop(0, length) as t:
                other = k.op("xor", t, size.swap)
                at = k.add(start, k.select(k.compare("lt", other, length), other, t))
                place = k.load(raw, at)
                with k.when(k.compare("ge", place, 0)):
                    to = k.load(count, 0)
                    k.store(places, to, place)
                    k.store(offsets, to, k.load(raw, k.add(size.depth, at)))
                    k.store(raw, at, to)
                    k.store(count, 0, k.add(to, 1))
            k.store(ends, k.add(k.div(start, BLOCK), 1), k.load(count, 0))
    return k.kernel


PACK_SIZES = (
    "items", "panels", "columns", "s_group", "s_item", "s_channel", "channels", "taps",
    "depth",  # of a panel: the terms that are there
    "run",  # taps that lie together in the weight, or 0
)  # fmt: skip


def conv_pack(dtype: DType, source: DType, lanes: int) -> Kernel:
    """Packs the weight into panels (group, panel, depth, column) in the order of ``offsets``.

    ``order`` is what ``conv_order`` leaves in ``raw``. The last panel is filled up with zeros,
    whose products are dropped. A unit is a panel, and ``noted[unit]`` NaN where it is not finite.
    """
    k = Builder(f"conv_pack_{source.short}_{dtype.short}")
    target, weight = k.pointer("target", dtype), k.pointer("weight", source)
    offsets, order = k.pointer("offsets", I64), k.pointer("order", I64)
    noted = k.pointer("noted", dtype)
    size = sizes(k, PACK_SIZES)
    columns = size.columns
    note = FiniteNote(k, dtype, lanes)
    square = Square(k, source, lanes, note)
    with k.loop(BEGIN, END) as unit:
        first = k.mul(k.rem(unit, size.panels), columns)
        base = k.add(k.mul(k.div(unit, size.panels), size.s_group), k.mul(first, size.s_item))
        shown = k.minimum(k.sub(size.items, first), columns)
        to = k.mul(k.mul(unit, size.depth), columns)
        stop = k.mul(k.div(size.run, lanes), lanes)
        note.reset()
        with k.loop(0, size.channels) as channel:

            def term(tap: Operand) -> Operand:
                return k.load(order, k.add(k.mul(tap, size.channels), channel))

            line = k.add(base, k.mul(channel, size.s_channel))
            turned = k.mul(k.div(shown, lanes), lanes)
            with k.loop(0, stop, step=lanes) as tap, k.loop(0, turned, step=lanes) as item:
                corner = k.add(k.add(line, k.mul(item, size.s_item)), tap)
                square.turn(weight, corner, size.s_item)
                for j in range(lanes):
                    at = term(k.add(tap, j))
                    with k.when(k.compare("ge", at, 0)):
                        square.store(j, target, k.add(k.add(to, k.mul(at, columns)), item))
            with k.loop(0, size.taps) as tap:
                at = term(tap)
                with k.when(k.compare("ge", at, 0)):
                    begin = k.select(k.compare("lt", tap, stop), turned, 0)
                    source_at, place = k.add(base, k.load(offsets, at)), k.mul(at, columns)
                    with k.loop(begin, shown) as item:
                        element = k.load(weight, k.add(source_at, k.mul(item, size.s_item)))
                        value = widen(k, element, dtype)
                        note.see(value, Const(0, I64))
                        k.store(target, k.add(k.add(to, place), item), value)
                    with k.loop(shown, columns) as item:
                        k.store(target, k.add(k.add(to, place), item), k.const(0, dtype))
        note.put(noted, unit)
    return k.kernel


def conv_clear(dtype: DType) -> Kernel:
    """Zeros, for pixels that no tap reaches. A unit is an element."""
    k = Builder(f"conv_clear_{dtype.short}")
    out = k.pointer("out", dtype)
    with k.loop(BEGIN, END, kind="vector") as i:
        k.store(out, i, k.const(0, dtype))
    return k.kernel


class Weight(Record):
    """The weight as the terms see it."""

    channels: int  # of a sum, in a group
    items: int  # channels of the result in a group
    groups: int
    s_group: int
    s_item: int
    s_channel: int
    s_taps: Numbers

    def run(self, taps: Numbers) -> int:
        """How many taps lie together: all or none."""
        expected = 1
        for count, stride in zip(reversed(taps), reversed(self.s_taps), strict=True):
            if count > 1 and stride != expected:
                return 0
            expected *= count
        return prod(taps)


class Terms:
    """The lists of the terms of a class of pixels, and the weight packed in their order.

    Args:
        axes: of the class of pixels.
        strip: strides of the strip: of channels, along the axes, from one phase to the next.
    """

    def __init__(
        self, weight: Weight, axes: Sequence[Axis], strip: tuple[int, Numbers, Numbers], tile: Tile,
        works: Workspaces, notes: Notes,
    ) -> None:  # fmt: skip
        self.weight, self.tile, self.works, self.notes = weight, tile, works, notes
        self.taps = tuple(axis.taps for axis in axes)
        self.depth = weight.channels * prod(self.taps)
        self.present = weight.channels * prod(len(axis.present) for axis in axes)
        self.blocks = max(-(-self.depth // BLOCK), 1)
        self.places, self.offsets = works.new(self.depth, I64), works.new(self.depth, I64)
        self.ends, self.order = works.new(self.blocks + 1, I64), works.new(2 * self.depth, I64)
        self._axes, self._strip = axes, strip

    def listing(self) -> Launch:
        """The launch that lists them."""
        weight, (s_channel, s_axes, phases) = self.weight, self._strip
        values = {
            "channels": weight.channels, "s_channel": s_channel, "w_channel": weight.s_channel,
            "depth": self.depth, "swap": int(self.tile.flush),
        }  # fmt: skip
        table = (self._axes, s_axes, weight.s_taps, phases)
        for name, axis, s, w, phase in zip(AXES, *table, strict=True):
            values |= {
                f"taps_{name}": axis.taps, f"base_{name}": axis.base,
                f"distance_{name}": axis.distance, f"spread_{name}": axis.spread,
                f"low_{name}": axis.low, f"s_{name}": s, f"w_{name}": w,
                f"phases_{name}": axis.step if phase else 1, f"phase_{name}": phase,
            }  # fmt: skip
        lists = (self.places, self.offsets, self.ends, self.order)
        args: tuple[Argument, ...] = (*lists, *in_order(ORDER_SIZES, values))
        return Launch(KernelSpec(conv_order, ()), args, 1, 0)

    def packing(self, source: DType, columns: int) -> tuple[Launch, Work]:
        """The launch that packs the weight, input 1, in panels of ``columns`` items."""
        weight, tile = self.weight, self.tile
        panels = -(-weight.items // columns)
        elements = weight.groups * panels * self.present * columns
        packed = self.works.new(elements, tile.dtype)
        values = {
            "items": weight.items, "panels": panels, "columns": columns,
            "s_group": weight.s_group, "s_item": weight.s_item, "s_channel": weight.s_channel,
            "channels": weight.channels, "taps": prod(self.taps), "depth": self.present,
            "run": weight.run(self.taps) if self.present == self.depth else 0,
        }  # fmt: skip
        args: tuple[Argument, ...] = (
            packed, In(1), self.offsets, self.order, self.notes.more(weight.groups * panels),
            *in_order(PACK_SIZES, values),
        )  # fmt: skip
        spec = KernelSpec(conv_pack, (tile.dtype, source, tile.lanes))
        return Launch(spec, args, weight.groups * panels, 2 * elements), packed
