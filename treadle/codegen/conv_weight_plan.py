"""Plans of the gradient of a convolution with respect to its weight."""

from __future__ import annotations

import math

from treadle.base.shapes import prod
from treadle.codegen.contraction import BLOCK, Tile, Workspaces, in_order, tile_for
from treadle.codegen.conv_depthwise_weight import DepthwiseWeightPlan
from treadle.codegen.conv_exact import Notes, exact_launches
from treadle.codegen.conv_problem import Problem, in_one_row
from treadle.codegen.conv_weight import (
    END_SIZES,
    GRAD_SIZES,
    WEIGHT_SIZES,
    conv_pack_grad,
    conv_weight,
    conv_weight_end,
)
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Out, Plan
from treadle.ir.loop import I64

_STRIP_BYTES = 160 << 10  # of a strip: beside it a level-2 cache holds grad_out
_SPLIT_BYTES = 16 << 20  # of the sums of blocks that are kept apart, where they need not be
_WAY, _LINE = 4096, 64  # bytes: of one way of a level-1 cache, and of a line
_RUN = 4  # blocks of k for which a strip is copied


def weight_plan(p: Problem) -> Plan:
    """``weight``: the input of the plan 0 is grad_out, 1 the image."""
    plan = _WeightPlan(p)
    depthwise = DepthwiseWeightPlan(p, plan.works)
    if not depthwise.fits:
        return plan.plan()
    notes = Notes(depthwise.tile.dtype, depthwise.units, plan.works)
    launches = [depthwise.launch(notes)]
    if plan.absent:
        launches += exact_launches("weight", p, notes)
    return Plan(tuple(launches), tuple(plan.works.nbytes))


class _WeightPlan:
    """The launches of ``weight``."""

    def __init__(self, p: Problem) -> None:
        self.p, self.works = p, Workspaces()
        self.grad, self.image = p.result, p.image
        self.m, self.channels = p.weight.shape[0] // p.groups, p.weight.shape[1]  # of a group
        # With one tap the two are alike, and the smaller one is to be packed.
        self.swapped = p.is_pointwise and self.channels < self.m
        if p.is_pointwise:
            self.grad, self.image = in_one_row(self.grad), in_one_row(self.image)
        if self.swapped:
            self.grad, self.image = self.image, self.grad
            self.m, self.channels = self.channels, self.m
        self.apart = p.groups > 1 and self.channels == 1
        self.window, self.pixels = p.weight.shape[2:], self.grad.shape[2:]
        self.taps = prod(self.window)
        self.depth = p.result.shape[0] * prod(self.pixels)
        self.spread = [(t - 1) * d + 1 for t, d in zip(self.window, p.dilation, strict=True)]
        self.absent = any(
            pad > 0 or (n - 1) * stride + reach > size + pad
            for pad, n, stride, reach, size in zip(
                p.pad, self.pixels, p.stride, self.spread, self.image.shape[2:], strict=True
            )
        )
        self.tile = self._tile()
        # Rows of channels that lie a power of two apart would drive one another out of the cache.
        apart = self.image.strides[1] * self.tile.dtype.itemsize % _WAY
        self.in_place = (
            p.is_pointwise and self.image.dtype is self.tile.dtype
            and self.image.strides[-1] == 1 and min(apart, _WAY - apart) >= _LINE
        )  # fmt: skip
        self._cut()

    def _tile(self) -> Tile:
        wide = self.p.vector_bits >= 512
        if self.apart:
            shapes = ((9, 1), (6, 1), (14, 1)) if not wide else ((14, 1), (9, 1), (25, 1))
        else:
            shapes = ((6, 2), (4, 3), (8, 1)) if not wide else ((14, 2), (9, 3), (14, 1))
        tiles = [tile_for(self.image.dtype, *shape, self.p.vector_bits) for shape in shapes]
        m, rows = (self.p.groups, self.taps) if self.apart else (self.m, self.channels * self.taps)

        def cost(tile: Tile) -> float:
            loads = tile.vectors * (tile.rows + 1) if self.apart else tile.rows + tile.vectors + 1
            cycles = max(tile.rows * tile.vectors, loads, 8) / 2
            return -(-m // tile.columns) * -(-rows // tile.rows) * cycles

        return min(tiles, key=cost)

    def _cut(self) -> None:
        """Channels of a unit, steps of k of a copy, splits of k."""
        p, tile = self.p, self.tile
        self.groups = -(-p.groups // tile.columns) if self.apart else p.groups
        self.panels = self.m if self.apart else -(-self.m // tile.columns)
        blocks = max(-(-self.depth // BLOCK), 1)
        cut = next((a for a in range(3) if self.pixels[a] > 1), 2)
        self.cut = [int(a == cut) for a in range(3)]
        wanted = 2 * p.threads if p.threads > 1 else 1
        # With one tap no row of the strip is copied twice, however short the run.
        self.run, self.splits = min(_RUN if self.taps > 1 else 1, blocks) * BLOCK, 1
        sums = blocks * prod(p.weight.shape) * tile.dtype.itemsize
        apart = self.groups * self.channels < wanted or (self.taps == 1 and sums <= _SPLIT_BYTES)
        if apart and blocks > 1:
            self.run, self.splits = BLOCK, blocks
        while True:
            plane = self._strip(cut)
            room = _STRIP_BYTES // (plane * tile.dtype.itemsize)
            if room >= min(self.channels, 8) or self.run == BLOCK:
                break
            self.run = max(self.run // 2 // BLOCK, 1) * BLOCK
        units = 1 if self.apart else max(-(-self.channels // max(room, 1)), 1)
        if self.splits == 1:
            units = max(units, min(-(-wanted // self.groups), self.channels))
        whole = tile.rows // math.gcd(self.taps, tile.rows)  # channels that fill tiles
        self.unit_channels = -(-self.channels // units)
        if self.unit_channels > whole // 2:
            self.unit_channels = min(-(-self.unit_channels // whole) * whole, self.channels)
        self.channel_units = max(-(-self.channels // self.unit_channels), 1)
        rows = self.unit_channels * self.taps
        self.unit_rows = -(-rows // tile.rows) * tile.rows

    def _strip(self, cut: int) -> int:
        """Elements of a channel in the strips of a run; sets their strides."""
        p, run = self.p, self.run
        inner, plane = prod(self.pixels[cut + 1 :]), prod(self.pixels)
        spans = [
            (n - 1) * stride + reach
            for n, stride, reach in zip(self.pixels, p.stride, self.spread, strict=True)
        ]
        most = min(self.pixels[cut], (run - 2) // max(inner, 1) + 2)
        spans[cut] = (most - 1) * p.stride[cut] + self.spread[cut]
        self.touched = max(min(self.grad.shape[0], (run - 2) // max(plane, 1) + 2), 1)
        lanes = self.tile.columns if self.apart else 1
        self.s_axes = (spans[1] * spans[2] * lanes, spans[2] * lanes, lanes)
        self.s_plane = max(prod(spans), 1)
        if not self.apart:  # an odd number of lines, against conflicts in the cache
            self.s_plane = -(-self.s_plane // 16) * 16 | 16
        return self.s_plane * self.touched * lanes

    def plan(self) -> Plan:
        """Packing grad_out, the sums, and bringing them into order."""
        p, tile, dtype, works = self.p, self.tile, self.image.dtype, self.works
        columns, threads = tile.columns, p.threads
        n = self.grad.shape[0]
        grad_panel = self.depth * columns
        packs = self.groups * self.panels
        grad = works.new(packs * grad_panel, tile.dtype)
        notes = Notes(tile.dtype, packs * n, works)
        launches: list[Launch] = []
        args: tuple[Argument, ...]
        if self.depth:
            spec = KernelSpec(conv_pack_grad, (tile.dtype, dtype, tile.lanes))
            work = 2 * prod(self.grad.shape)
            noted = notes.more(packs * n)
            numbers = in_order(GRAD_SIZES, self._grad_sizes())
            args = (grad, In(int(self.swapped)), noted, *numbers)
            launches.append(Launch(spec, args, packs * n, work))
        sums_panel = self.channel_units * self.unit_rows * columns
        sums_group = self.panels * sums_panel
        sums = works.new(self.splits * self.groups * sums_group, tile.dtype)
        lanes = columns if self.apart else self.unit_channels
        share = self.touched * self.s_plane * lanes
        share_table = self.run + self.unit_rows + tile.rows
        scratch: Argument = In(int(not self.swapped))
        if not self.in_place:
            scratch = works.new(threads * share, tile.dtype)
        table = works.new(threads * share_table, I64)
        shared = {
            "splits": self.splits, "sums_split": self.groups * sums_group,
            "sums_group": sums_group, "sums_panel": sums_panel, "unit_rows": self.unit_rows,
            "panels": self.panels, "groups": p.groups,
        }  # fmt: skip
        values = shared | self._sizes() | {
            "grad_group": grad_panel * (1 if self.apart else self.panels),
            "grad_panel": grad_panel * (self.groups if self.apart else 1),
            "share": share, "share_table": share_table,
        }  # fmt: skip
        image = In(int(not self.swapped))
        args = (sums, grad, image, scratch, table, *in_order(WEIGHT_SIZES, values))
        units = self.groups * self.channel_units * self.splits
        work = 2 * prod(p.weight.shape) * self.depth
        key = (tile, dtype, self.apart)
        launches.append(Launch(KernelSpec(conv_weight, key), args, units, work))
        args = (Out(0), sums, *in_order(END_SIZES, shared | self._end_sizes()))
        spec = KernelSpec(conv_weight_end, (tile.dtype, dtype))
        work = prod(p.weight.shape) * (self.splits + 2)
        launches.append(Launch(spec, args, packs * self.channel_units, work))
        if self.absent:
            launches += exact_launches("weight", p, notes)
        return Plan(tuple(launches), tuple(works.nbytes))

    def _end_sizes(self) -> dict[str, int]:
        apart, columns, items = self.apart, self.tile.columns, self.channels * self.taps
        return {
            "parts": self.channel_units, "part_items": self.unit_channels * self.taps,
            "items": items, "columns": columns, "lanes": self.p.groups if apart else self.m,
            "lanes_group": columns if apart else 0, "lanes_panel": 0 if apart else columns,
            "out_group": (columns if apart else 1) * self.m * items,
            "out_panel": columns if self.swapped else (1 if apart else columns) * items,
            "out_lane": 1 if self.swapped else (self.m if apart else 1) * items,
            "out_item": self.m if self.swapped else 1,
        }  # fmt: skip

    def _grad_sizes(self) -> dict[str, int]:
        grad = in_one_row(self.grad)
        image, channel, *strides = grad.strides
        apart = self.apart
        values = {
            "items": self.p.groups if apart else self.m,
            "panels": self.groups if apart else self.panels, "columns": self.tile.columns,
            "images": self.grad.shape[0], "s_image": image,
            "s_group": channel if apart else self.m * channel,
            "s_item": self.m * channel if apart else channel,
            "depth": self.depth,
        }  # fmt: skip
        for name, n, stride in zip("dhw", grad.shape[2:], strides, strict=True):
            values |= {f"pixels_{name}": n, f"g_{name}": stride}
        return values

    def _sizes(self) -> dict[str, int]:
        p = self.p
        x_image, x_channel, *xs = self.image.strides
        lanes = self.tile.columns if self.apart else 1
        values = {
            "images": self.image.shape[0], "x_image": x_image, "x_channel": x_channel,
            "s_channel": x_channel if self.in_place else 1 if self.apart else self.s_plane,
            "s_image": self.s_plane * (lanes if self.apart else self.unit_channels),
            "clear": int(self.absent or self.apart),
            "x_group": (lanes if self.apart else self.channels) * x_channel,
            "channels": self.channels, "unit_channels": self.unit_channels,
            "channel_units": self.channel_units, "depth": self.depth, "run": self.run,
            "swap": int(self.tile.flush), "in_place": int(self.in_place),
        }  # fmt: skip
        for a, name in enumerate("dhw"):
            values |= {
                f"size_{name}": self.image.shape[2 + a], f"x_{name}": xs[a],
                f"s_{name}": self.s_axes[a], f"pixels_{name}": self.pixels[a],
                f"cut_{name}": self.cut[a], f"step_{name}": p.stride[a],
                f"origin_{name}": -p.pad[a], f"reach_{name}": self.spread[a],
                f"taps_{name}": self.window[a], f"tap_{name}": p.dilation[a],
            }  # fmt: skip
        return values
