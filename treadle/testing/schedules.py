"""Kernels cut and tiled by chance instead of by the cost models.

Every number that planning chooses for speed is drawn anew; a result must never depend on one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from treadle.codegen import conv_image_plan, conv_weight_plan, gemm, gemm_cost
from treadle.codegen.contraction import Tile, tile_for
from treadle.codegen.gemm_cost import Problem, Way
from treadle.compiler import tier0
from treadle.runtime import short_key
from treadle.runtime.cpu import cpu

# Numbers that are there for speed, by module, with others that would do as well.
_NUMBERS: dict[str, dict[str, tuple[int, ...]]] = {
    "treadle.codegen.conv_depthwise": {"_MOST_TAPS": (0, 50), "_FEW_TAPS": (0, 12)},
    "treadle.codegen.conv_depthwise_weight": {"_STRIP_BYTES": (0, 320 << 10), "_TAPS": (1, 5, 12)},
    "treadle.codegen.conv_image_plan": {
        "_STRIP_BYTES": (1 << 9, 1 << 12, 320 << 10), "_PIXELS": (1, 10, 192),
        "_PIXEL_COST": (0, 1, 1000), "_FEW_TAPS": (0, 32), "_FEW_CHANNELS": (0, 8),
    },
    "treadle.codegen.conv_pixel_plan": {"_STRIP_BYTES": (1 << 9, 1 << 12, 320 << 10)},
    "treadle.codegen.conv_weight_plan": {
        "_STRIP_BYTES": (1 << 9, 1 << 12, 160 << 10), "_RUN": (1, 2, 4),
        "_SPLIT_BYTES": (0, 16 << 20), "_WAY": (64, 4096),
    },
    "treadle.codegen.gemm_cost": {
        "_STRIP": (1 << 10, 192 << 10), "_COLUMNS": (1 << 12, 2 << 20), "_WORTH_A_KERNEL": (1, 4096)
    },
    "treadle.codegen.gemm_pack": {"_LINES": (1, 3, 8)},
    "treadle.codegen.llvm": {"WRITE_OUT": (1, 16, 64)},
    "treadle.compiler.fuse": {
        "_MOST_STEPS": (2, 3, 7, 48), "_MOST_OPERANDS": (4, 24), "_WINDOW": (3, 4000),
        "_ROW_BYTES": (64, 1 << 12, 1 << 19), "_FEW": (1, 1 << 15),
    },
    "treadle.compiler.prepare": {"PARALLEL_WORK": (1, 100, 1 << 14)},
    "treadle.compiler.reduction": {"_NARROW": (16, 128)},
    "treadle.compiler.reduction_kernels": {
        "_TABLE_BYTES": (1 << 12, 1 << 17), "GROUP": (1, 2, 4), "_ABREAST_BYTES": (64, 128, 256)
    },
    "treadle.compiler.rows": {"_DEAR": (1, 8, 1000)},
    "treadle.ir.nest": {"_TILE": (2, 16, 64), "_LEAST": (2, 4, 100), "_ENOUGH": (1, 16),
                        "_STREAMED": (1, 1 << 20)},
    "treadle.ops.checks": {"_GROUP": (2, 16)},
    "treadle.ops.indexing_kernels": {"_BLOCK": (1, 7, 512)},
    "treadle.ops.scan_kernels": {
        "_SHORT": (1, 2, 4), "_LONG": (1, 8), "_WIDTH": (32, 512), "_LANES": (16,)
    },
    "treadle.ops.sort_plans": {"_LONG_ROW": (1 << 7, 1 << 15), "_PIECE": (1 << 6, 1 << 14)},
    "treadle.ops.window_kernels": {"_WRITTEN_OUT": (1, 25)},
}  # fmt: skip


@contextmanager
def drawn_schedule(seed: int) -> Iterator[None]:
    """Inside, whatever is planned is cut and tiled as drawn from the seed."""
    rng = np.random.default_rng(seed)
    with ExitStack() as stack:
        stack.callback(_forget)
        for module, numbers in _NUMBERS.items():
            for name, choices in numbers.items():
                value = choices[int(rng.integers(len(choices)))]
                stack.enter_context(patch.object(importlib.import_module(module), name, value))
        stack.enter_context(patch.object(gemm, "ways", _drawn_ways(rng)))
        for plan in (conv_image_plan._ImagePlan, conv_weight_plan._WeightPlan):
            stack.enter_context(patch.object(plan, "_tile", _drawn_tile(plan, rng)))
        # The same names, other kernels: nothing may be found by its name, or be left for others.
        stack.enter_context(patch.object(cpu, "_entries", {}))
        stack.enter_context(patch.object(short_key, "spec_text", lambda spec: None))
        _forget()
        yield


def _forget() -> None:
    gemm.plan_matmul.cache_clear()
    tier0.forget_plans()


def _drawn_ways(rng: np.random.Generator) -> Callable[[Problem], list[Way]]:
    """``gemm_cost.ways`` with only one, which has another tile and cut where it is of tiles."""

    def ways(problem: Problem) -> list[Way]:
        offered = list(gemm_cost.ways(problem))
        schemes = sorted({way.scheme for way in offered})
        scheme = schemes[int(rng.integers(len(schemes)))]
        fitting = [way for way in offered if way.scheme == scheme]
        way = fitting[int(rng.integers(len(fitting)))]
        if scheme != "tile" or way.tile.lanes == 1:
            return [way]
        tile = replace(way.tile, rows=int(rng.integers(1, 9)), vectors=int(rng.integers(1, 4)))
        rows, columns = (int(rng.integers(1, 5)) for _ in range(2))
        strip = int(rng.integers(1, rows + 1)) * tile.rows
        right = way.right
        if right == "direct" and problem.n < tile.columns:
            right = "items"
        return [way._replace(tile=tile, rows=rows * tile.rows, columns=columns * tile.columns,
                             strip=strip, right=right)]  # fmt: skip

    return ways


def _drawn_tile(plan: Any, rng: np.random.Generator) -> Callable[[Any], Tile]:
    """The method of a plan of convolutions that chooses the register tile."""
    choose = plan._tile

    def tile(self: Any) -> Tile:
        chosen: Tile = choose(self)
        rows = int(rng.integers(1, 10))
        vectors = 1 if getattr(self, "apart", False) else int(rng.integers(1, 4))
        dtype = self.p.image.dtype
        return tile_for(dtype, rows, min(vectors, chosen.vectors + 1), self.p.vector_bits)

    return tile


__all__ = ["drawn_schedule"]
