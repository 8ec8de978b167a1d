"""Single kernels beside oneDNN's, PyTorch's and JAX's, and beside the machine's limits.

Bounds: a matrix product at least 93% as fast as oneDNN's (where it is memory that limits, at 85% of
the bandwidth), a convolution at least as fast as PyTorch in its better memory format, a loop at
least as fast as the better of PyTorch and JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from time import perf_counter
from typing import Any

import treadle
from bench import machine
from bench.cycles import least_cycles_of
from bench.harness import Options, Peer, Row, in_turn
from bench.timing import seconds_per_call
from bench.workloads import CONVS, GEMMS, LOOPS, MEGA, Case, build, loop_bytes, out_size
from treadle.base.flags import flags
from treadle.base.shapes import prod
from treadle.compiler.programs import TRIALS, wait_for_programs
from treadle.compiler.tier0 import force
from treadle.nn import functional as F
from treadle.runtime import jit

_OF_ONEDNN = 0.93
_OF_BANDWIDTH = 0.85
_TINY = 1e6  # operations of a product below which it is recording that counts
_SETTLING = 0.3  # seconds of calls, after which what repeats has been found worth fusing
_GAIN = 1.2  # of the convolutions over PyTorch, in the geometric mean


class _Machine:
    """The limits of the machine, measured in this run."""

    def __init__(self) -> None:
        self.peak = machine.peak_flops()
        self.bandwidth = machine.copy_bandwidth()

    def cycles(self, seconds: float) -> float:
        """Those of all threads, each of which multiplies and adds two vectors a cycle."""
        lanes = jit.host_target().vector_bits // 32
        return seconds * self.peak / (4 * lanes)

    def seconds(self, flops: float, nbytes: float) -> float:
        """The longer of computing and moving."""
        return max(flops / self.peak, nbytes / self.bandwidth)


def _ours(case: Case) -> Callable[[], dict[str, float]]:
    call = build(treadle, F, case)

    def once() -> None:
        results = call()
        force([t.node for t in (results if isinstance(results, tuple) else (results,))])

    _settle(once)
    return lambda: {"seconds": seconds_per_call(once)}


def _settle(once: Callable[[], None]) -> None:
    """Calls until what repeats runs as the program that it will stay, as a peer has compiled."""
    end = perf_counter() + _SETTLING
    while perf_counter() < end:
        once()
    wait_for_programs()
    for _ in range(2 * TRIALS + 2):  # a fused program and the one before run in turn at first
        once()


def _asks(peer: Peer, case: Case) -> Callable[[], dict[str, float]]:
    return lambda: peer.ask("kernel", case=case)  # type: ignore[no-any-return]


def _measure(case: Case, peers: dict[str, tuple[Peer, Case]], rounds: int) -> dict[str, float]:
    """Seconds by name, Treadle's under ``""``; peers that are not there are left out."""
    present = {name: _asks(peer, told) for name, (peer, told) in peers.items() if peer}
    found = in_turn(rounds, [_ours(case), *present.values()])
    return {name: f["seconds"] for name, f in zip(["", *present], found, strict=True)}


def _row(what: str, times: dict[str, float], limit: float, bound: float | None, note: str) -> Row:
    others = [f"{name} {seconds * 1e3:.3g} ms" for name, seconds in times.items()
              if name not in ("", "PyTorch")]  # fmt: skip
    told = "; ".join([*([note] if note else []), *others])
    return Row(what, times[""], times.get("PyTorch"), limit=limit, bound=bound, note=told)


def _gemm_row(case: Case, options: Options, limits: _Machine) -> Row:
    m, n, k = case["m"], case["n"], case["k"]
    size = 2 if case["dtype"] == "bfloat16" else 8 if case["dtype"] == "float64" else 4
    flops, nbytes = 2.0 * m * n * k, float(size) * (m * k + k * n + m * n)
    peers = {"PyTorch": (options.torch, case)}
    if case["dtype"] == "float32":
        peers["oneDNN"] = (options.onednn, case)
    times = _measure(case, peers, options.rounds)
    limit = limits.seconds(flops * (2 if size == 8 else 1), nbytes)
    bound = times.get("PyTorch") if size == 2 else None
    if "oneDNN" in times and flops > _TINY:
        bound = times["oneDNN"] / _OF_ONEDNN
    if min(m, n) == 1:
        bound = limit / _OF_BANDWIDTH
    name = f"{case['dtype']} {m}x{n}x{k} {case['form']}"
    return _row(name, times, limit, bound, f"{flops / times[''] / 1e9:.0f} gigaflops")


def _conv_row(case: Case, options: Options, limits: _Machine) -> Row:
    """PyTorch's time is that of its better memory format."""
    window = case["window"] ** len(case["image"])
    per_group = case["cin"] // case["groups"]
    out = case["batch"] * case["cout"] * prod(out_size(case))
    image = case["batch"] * case["cin"] * prod(case["image"])
    weights = case["cout"] * per_group * window
    flops, nbytes = 2.0 * out * per_group * window, 4.0 * (out + image + weights)
    peers = {"PyTorch": (options.torch, case)}
    if len(case["image"]) == 2:
        peers["channels last"] = (options.torch, {**case, "layout": "last"})
    times = _measure(case, peers, options.rounds)
    if "channels last" in times:
        times["PyTorch"] = min(times["PyTorch"], times.pop("channels last"))
    sizes = "x".join(map(str, case["image"]))
    stride = f"/{case['stride']}" if case["stride"] > 1 else ""
    groups = f" in {case['groups']} groups" if case["groups"] > 1 else ""
    name = f"{case['cin']}->{case['cout']} {sizes} {case['window']}{stride}{groups} {case['part']}"
    rate = f"{flops / times[''] / 1e9:.0f} gigaflops"
    return _row(name, times, limits.seconds(flops, nbytes), times.get("PyTorch"), rate)


def _loop_row(case: Case, options: Options, limits: _Machine) -> Row:
    told = (options.torch, case), (options.jax, case)
    times = _measure(case, dict(zip(("PyTorch", "JAX"), told, strict=True)), options.rounds)
    best = min((seconds for name, seconds in times.items() if name), default=None)
    part = " and gradient" if case["part"] == "both" else ""
    limit = limits.seconds(0.0, loop_bytes(case))
    least = None if part else least_cycles_of(case["name"])
    cycles = limits.cycles(times[""]) / MEGA
    note = f"{cycles:.1f} cycles an element, at least {least:.1f}" if least else ""
    return _row(f"{case['name']}{part}", times, limit, best, note)


def _mean_row(rows: list[Row]) -> list[Row]:
    """The geometric mean of PyTorch's times over ours."""
    ratios = [log(row.treadle / row.torch) for row in rows if row.torch]
    if not ratios:
        return []
    mean = exp(sum(ratios) / len(ratios))
    what = "convolutions, Treadle's time over PyTorch's, geometric mean"
    return [Row(what, mean, unit="ratio", bound=1 / _GAIN)]


def run(options: Options, only: str = "") -> list[Row]:
    """A row for every case whose kind is ``only`` (all without)."""
    limits = _Machine()
    rows = [
        Row("peak of fused multiply-adds, gigaflops", limits.peak / 1e9, unit=""),
        Row("bandwidth of a copy, MB a second", limits.bandwidth / 2**20, unit=""),
    ]
    makers: dict[str, tuple[list[Case], Any]] = {
        "gemm": (GEMMS, _gemm_row), "conv": (CONVS, _conv_row), "loop": (LOOPS, _loop_row)
    }  # fmt: skip
    fewer = options._replace(rounds=max(3, options.rounds // 3))
    with flags.context(programs="wait"):
        for kind, (cases, make) in makers.items():
            if only in ("", kind):
                found = [make(case, fewer, limits) for case in cases]
                rows += found + (_mean_row(found) if kind == "conv" else [])
    return rows
