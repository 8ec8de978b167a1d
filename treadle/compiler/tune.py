"""``TREADLE_TUNE=1``: the best few ways of a matrix product are measured, winners are remembered.

All ways give the same bits, so tuning changes nothing but the time. A winner is kept per machine,
beside the kernels on disk, under the shapes, strides and number of threads it was measured for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from treadle.base.shapes import prod
from treadle.codegen.gemm import matmul_problem, plan_way
from treadle.codegen.gemm_cost import Problem, Way, ways
from treadle.codegen.hooks import Riders
from treadle.compiler.device import Device, Memory, get_device
from treadle.compiler.prepare import compile_plan, words
from treadle.ir.launch import Layout, Plan

CANDIDATES = 8  # ways that are measured: the best ones by the model
_ROUNDS = 5
_NO_RIDERS = Riders()
_SECONDS = 0.002  # a round of one way takes at least so long


@lru_cache(maxsize=4096)
def tuned_matmul(
    a: Layout, b: Layout, out: Layout, threads: int, vector_bits: int, riders: Riders = _NO_RIDERS
) -> Plan:
    """As ``codegen.gemm.plan_matmul``, with the way that is quickest here.

    What rides on the result has no say in that.
    """
    problem = matmul_problem(a, b, out, threads, vector_bits, riders)
    if problem.is_empty:
        return Plan(())
    alone = replace(problem, riders=riders._replace(result=None))
    return plan_way(problem, _winner(alone, get_device("cpu")))


def _winner(problem: Problem, device: Device) -> Way:
    """The way remembered, or the quickest of the best few, which is then remembered."""
    offered = {way.name: way for way in sorted(ways(problem), key=lambda way: -way.cost)}
    key = _key(problem)
    known = offered.get(device.recall(key) or "")
    if known is not None:
        return known
    best = sorted(offered.values(), key=lambda way: way.cost)[:CANDIDATES]
    times = _measure(problem, best, device)
    winner = best[times.index(min(times))]
    device.remember(key, winner.name)
    return winner


def _key(problem: Problem) -> str:
    layouts = [(x.dtype.short, x.shape, x.strides) for x in (problem.a, problem.b, problem.out)]
    return f"matmul {layouts} threads {problem.threads} bits {problem.bits}"


def _measure(problem: Problem, candidates: Sequence[Way], device: Device) -> list[float]:
    """The best time of each way, in seconds; ways take turns, so that all meet the same load."""
    layouts = [problem.out, problem.a, problem.b]
    spans = [_span(layout) for layout in layouts]
    memory = [device.allocate(above - below) for below, above in spans]
    for block, (below, above) in zip(memory, spans, strict=True):
        device.write(block.address, bytes(above - below))
    places = [block.address - below for block, (below, _) in zip(memory, spans, strict=True)]
    runs = [_runner(problem, way, device, places) for way in candidates]
    best = [float("inf")] * len(runs)
    for _ in range(_ROUNDS):
        for index, run in enumerate(runs):
            count, start = 0, time.perf_counter()
            while count == 0 or time.perf_counter() - start < _SECONDS:
                run()
                count += 1
            best[index] = min(best[index], (time.perf_counter() - start) / count)
    return best


def _span(layout: Layout) -> tuple[int, int]:
    """The bytes that an operand takes: from its first element, down and up."""
    if prod(layout.shape) == 0:
        return 0, 1
    reach = [(n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True)]
    size = layout.dtype.itemsize
    return sum(r for r in reach if r < 0) * size, (sum(r for r in reach if r > 0) + 1) * size


def _runner(
    problem: Problem, way: Way, device: Device, places: Sequence[int]
) -> Callable[[], object]:
    """What runs this way once."""
    plan = plan_way(problem, way)
    ready = compile_plan(plan, [problem.out], [problem.a, problem.b], device)
    works: list[Memory] = [device.allocate(nbytes) for nbytes in ready.workspaces]
    table = [*places, *(work.address for work in works)]
    tape = b"".join(
        call.head + words(*(table[slot] + offset for slot, offset in call.slots)) + call.numbers
        for call in ready.calls
    )

    def run(held: Sequence[Memory] = works) -> object:
        return device.run(tape, len(ready.calls), problem.threads)

    run()  # the first time touches memory and wakes threads
    return run
