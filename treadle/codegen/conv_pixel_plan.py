"""Plans of convolutions with pixels in the lanes."""

from __future__ import annotations

from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.codegen.contraction import Tile, Workspaces, in_order, tile_for
from treadle.codegen.conv_exact import Notes
from treadle.codegen.conv_pixel import PIXEL_SIZES, conv_pixel
from treadle.codegen.conv_problem import Axis, Numbers
from treadle.codegen.conv_terms import Terms, Weight
from treadle.codegen.hooks import Riders
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out
from treadle.ir.loop import I64

_STRIP_BYTES = 320 << 10  # of a strip at most: what leaves room in a level-2 cache


class PixelImage(Record):
    """A convolution; ``axes`` counts elements that lie ``gaps`` apart as so many."""

    source: Layout
    target: Layout
    axes: tuple[Axis, ...]
    gaps: Numbers
    weight: Weight

    @property
    def absent(self) -> bool:
        """Whether the strip holds elements that are not there."""
        return max(self.gaps) > 1 or any(axis.has_absent for axis in self.axes)


class PixelPlan:
    """The launches of one class of pixels."""

    def __init__(
        self, image: PixelImage, threads: int, vector_bits: int, works: Workspaces, notes: Notes,
        riders: Riders,
    ) -> None:  # fmt: skip
        self.image, self.axes, self.works, self.notes = image, image.axes, works, notes
        self.riders = riders
        self.threads, self.vector_bits = threads, vector_bits
        self.tile = self._tile()
        self.cost = self._cost(self.tile)
        self.panels = -(-image.weight.items // self.tile.rows)
        self._cut()

    def _tile(self) -> Tile:
        shapes = ((1, 8), (2, 6), (3, 4), (4, 3), (5, 2), (6, 2))
        if self.vector_bits >= 512:
            shapes = ((1, 8), (2, 8), (3, 8), (4, 6), (8, 3), (14, 2))
        dtype = self.image.source.dtype
        return min((tile_for(dtype, *shape, self.vector_bits) for shape in shapes), key=self._cost)

    def _cost(self, tile: Tile) -> float:
        """Cycles for a pixel and a term; a vector that is not aligned costs more to load."""
        pixels = [axis.pixels for axis in self.axes]
        slots = prod(pixels[:2]) * -(-pixels[2] // tile.lanes)
        tiles = -(-slots // tile.vectors) * -(-self.image.weight.items // tile.rows)
        cycles = max(tile.rows * tile.vectors, tile.rows + 1.5 * tile.vectors, 8) / 2
        return tiles * cycles / max(prod(pixels), 1)

    def _cut(self) -> None:
        """Pixels of a unit along each axis: what the strip has room for, and enough units."""
        image, lanes = self.image, self.tile.lanes
        box = self.box = [axis.pixels for axis in self.axes]
        wanted = 4 * self.threads if self.threads > 1 else 1
        least = (1, 1, 8 * lanes)
        while True:
            self.boxes = [-(-axis.pixels // b) for b, axis in zip(box, self.axes, strict=True)]
            self.extents = [
                b + (axis.reach - 1) // axis.step for b, axis in zip(box, self.axes, strict=True)
            ]
            steps = [axis.step for axis in self.axes]
            plane = prod(self.extents)
            # An odd number of lines, against conflicts in the cache.
            self.s_channel = -(-plane * prod(steps) // 16) * 16 | 16
            self.inner = (self.extents[1] * self.extents[2], self.extents[2], 1)
            self.phases = (plane * steps[2] * steps[1], plane * steps[2], plane)
            self.units = image.target.shape[0] * image.weight.groups * prod(self.boxes)
            strip = image.weight.channels * self.s_channel * self.tile.dtype.itemsize
            fits = strip <= _STRIP_BYTES
            cut = next((a for a in range(3) if box[a] > least[a]), None)
            if cut is None or (fits and self.units >= wanted):
                return
            half = -(-box[cut] // 2)
            box[cut] = half if cut < 2 else -(-half // lanes) * lanes

    def launches(self) -> list[Launch]:
        """Listing the terms of a pixel, packing the weights, and the sums."""
        image, tile, works, threads = self.image, self.tile, self.works, self.threads
        dtype = image.source.dtype
        strip = (self.s_channel, self.inner, self.phases)
        terms = Terms(image.weight, self.axes, strip, tile, works, self.notes)
        pack, dense = terms.packing(dtype, tile.rows)
        # The lanes of a slot may go on beyond the last line.
        share = image.weight.channels * self.s_channel + tile.lanes
        slots = self.box[0] * self.box[1] * -(-self.box[2] // tile.lanes)
        share_table = 3 * (slots + tile.vectors)
        scratch = works.new(threads * share, tile.dtype)
        sums = works.new(threads * tile.rows * tile.columns, tile.dtype)
        table = works.new(threads * share_table, I64)
        strides = image.target.strides[2:]
        first = sum(axis.first * stride for axis, stride in zip(self.axes, strides, strict=True))
        values = self._sizes(terms) | {"share": share, "share_table": share_table, "first": first}
        args: tuple[Argument, ...] = (
            Out(0, first), dense, In(0), scratch, sums, terms.places, terms.ends,
            table, *self.riders.addresses, *in_order(PIXEL_SIZES, values), *self.riders.numbers,
        )  # fmt: skip
        work = 2 * prod(image.target.shape[:2]) * terms.present
        work *= prod(axis.pixels for axis in self.axes)
        return [
            terms.listing(),
            pack,
            Launch(
                KernelSpec(conv_pixel, (tile, dtype, self.riders.hooks)), args, self.units, work
            ),
        ]

    def _sizes(self, terms: Terms) -> dict[str, int]:
        image = self.image
        channels = image.weight.channels
        x_image, x_channel, *xs = image.source.strides
        o_image, o_channel, *outs = image.target.strides
        outs = [stride * axis.every for stride, axis in zip(outs, self.axes, strict=True)]
        direct = terms.blocks == 1 and outs[2] == 1 and self.box[2] >= self.tile.lanes
        values = {
            "x_image": x_image, "x_channel": x_channel, "x_group": channels * x_channel,
            "channels": channels, "groups": image.weight.groups, "s_channel": self.s_channel,
            "clear": int(image.absent and prod(self.boxes) > 1), "direct": int(direct),
            "blocks": terms.blocks, "depth": terms.present, "items": image.weight.items,
            "panels": self.panels, "out_image": o_image, "out_channel": o_channel,
        }  # fmt: skip
        for a, (name, axis) in enumerate(zip("dhw", self.axes, strict=True)):
            values |= {
                f"x_{name}": xs[a], f"size_{name}": axis.size, f"gap_{name}": image.gaps[a],
                f"pixels_{name}": axis.pixels, f"box_{name}": self.box[a],
                f"boxes_{name}": self.boxes[a], f"step_{name}": axis.step,
                f"origin_{name}": axis.low, f"phases_{name}": axis.step,
                f"extent_{name}": self.extents[a], f"s_{name}": self.inner[a],
                f"phase_{name}": self.phases[a], f"o_{name}": outs[a],
            }  # fmt: skip
        return values
