"""``python -m bench models``: every program on every framework that is there, one round in turn."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.harness import Options, Peer, Row
from bench.machine import copy_bandwidth, peak_flops
from bench.models.catalog import PROGRAMS
from bench.models.tuned import tuned_variables
from treadle.base.flags import flags

_WARM_SECONDS = 4.0
_WARM_STEPS = 6
_ROUNDS_SECONDS = 40.0  # for all rounds of a program, where its steps are long
_FEWEST_ROUNDS = 5
_STEADY = 1.15  # times the final step time
_WINDOW = 5  # steps
_CHECK_STEPS = 20
_CHECK_RELATIVE = 1e-3
_CHECK_TIMES = 3.0  # PyTorch's own difference between float32 and float64
_PROFILE_SECONDS = 2.0
_GOAL_TORCH, _GOAL_PEER = 2.5, 1.4  # geometric means of how many times as fast

_WORKER = "bench.models.worker"
_TWINS = ("mlp", "resnet18", "gpt")  # written by hand for JAX
_INFERENCES = ("resnet50_inference", "mobilenet_inference", "gpt_generate")
_OURS, _THEIRS = "Treadle", "PyTorch"
PEERS = (_THEIRS, "tuned", "compiled", "JAX", "ONNX")
_STOCK = {  # and without the lines that its profiler prints
    "BENCH_FRAMEWORK": "torch", "KINETO_LOG_LEVEL": "9", "TORCH_CPP_LOG_LEVEL": "ERROR",
}  # fmt: skip


class Found(NamedTuple):
    """What was measured of one program on one framework."""

    step: float
    first: float
    steady: float
    memory: dict[str, float]


class _Kind(NamedTuple):
    """A framework, or a way to use it: what to run, and how to start a program there."""

    interpreter: str
    module: str
    variables: dict[str, str]
    arguments: dict[str, Any] = {}
    only: tuple[str, ...] = tuple(PROGRAMS)


def run(options: Options) -> list[Row]:
    """Times, or with --check the losses, or with --profile the parts of a step."""
    if options.models.profile:
        return profile(options.models.profile)
    names = options.models.only or tuple(PROGRAMS)
    if options.models.is_check:
        return check(options, names)
    with ExitStack() as stack:
        if options.models.is_alone:  # this process, and those to come
            stack.enter_context(flags.context(num_threads=1))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        kinds = _kinds(options, Path(folder))
        peak, bandwidth = peak_flops(), copy_bandwidth()
        results, floors = {}, {}
        for name in names:
            results[name] = _measure(name, kinds, options.rounds)
            work = _work(name)
            floors[name] = max(work["flops"] / peak, work["bytes"] / bandwidth)
    return [*_speed_rows(results, floors), *_detail_rows(results)]


def _kinds(options: Options, folder: Path) -> dict[str, _Kind]:
    """Everything that is there to be compared."""
    torch, jax, onnx = options.torch.interpreter, options.jax.interpreter, options.models.onnx
    kinds = {_OURS: _Kind(sys.executable, _WORKER, {})}
    if torch:
        kinds[_THEIRS] = _Kind(torch, _WORKER, _STOCK)
        tuned = tuned_variables(folder)
        if tuned is not None:
            kinds["tuned"] = _Kind(torch, _WORKER, {**_STOCK, **tuned})
            kinds["compiled"] = _Kind(torch, _WORKER, _STOCK, {"is_compiled": True})
    if jax:
        kinds["JAX"] = _Kind(jax, "bench.models.jax_worker", {}, only=_TWINS)
    if onnx:
        kinds["ONNX"] = _Kind(onnx, "bench.models.ort_worker", {}, only=_INFERENCES)
    beside = (_OURS, *(options.models.beside or PEERS))
    extra = {"BENCH_CPU_TIME": "1"} if options.models.is_alone else {}
    return {
        label: kind._replace(variables={**kind.variables, **extra})
        for label, kind in kinds.items()
        if label in beside
    }


def _start(kind: _Kind, name: str) -> Peer:
    return Peer(name, kind.interpreter, kind.module, kind.variables)


def _measure(name: str, kinds: dict[str, _Kind], rounds: int) -> dict[str, Found]:
    """One program on all of them: alone up to the steady state, then in turn."""
    steps = PROGRAMS[name].steps
    first, steady = {}, {}
    with ExitStack() as stack:
        peers = {}
        for label, kind in kinds.items():
            if name not in kind.only:
                continue
            peer = stack.enter_context(_start(kind, label))
            try:
                first[label] = peer.ask("start", program=name, **kind.arguments)
                times = peer.ask("warm", seconds=_WARM_SECONDS, least=_WARM_STEPS)
            except RuntimeError as error:
                print(f"models: {name}: {error}", file=sys.stderr)
                continue
            peers[label] = peer
            steady[label] = time_to_steady(first[label], times)
        samples: dict[str, list[float]] = {label: [] for label in peers}
        once = {label: peer.ask("round", steps=steps) for label, peer in peers.items()}
        fitting = int(_ROUNDS_SECONDS / (sum(once.values()) * (steps + (steps > 1))))
        for _ in range(min(rounds, max(_FEWEST_ROUNDS, fitting))):
            for label, peer in peers.items():
                samples[label].append(peer.ask("round", steps=steps))
        return {
            label: Found(median(samples[label]), first[label], steady[label], peer.ask("memory"))
            for label, peer in peers.items()
        }


def time_to_steady(first: float, times: list[float]) -> float:
    """Seconds until the steps take about as long as at the end, by medians of a few in a row.

    >>> time_to_steady(2.0, [0.5] * 10 + [0.1] * 30)
    6.0
    """
    last = median(times[-(len(times) // 4 + 1) :])
    spent = first
    for i, seconds in enumerate(times):
        if median(times[i : i + _WINDOW]) <= _STEADY * last:
            return round(spent, 6)
        spent += seconds
    return round(spent, 6)


def _work(name: str) -> dict[str, float]:
    with _start(_Kind(sys.executable, _WORKER, {}), name) as peer:
        peer.ask("start", program=name)
        found: dict[str, float] = peer.ask("work")
        return found


# --- tables -----------------------------------------------------------------------------------


def _speed_rows(results: dict[str, dict[str, Found]], floors: dict[str, float]) -> list[Row]:
    rows, over_torch, over_best = [], [], []
    for name, found in results.items():
        ours = found[_OURS].step
        peers = {label: f.step for label, f in found.items() if label != _OURS}
        theirs = peers.get(_THEIRS)
        bound = min(peers.values(), default=None)
        others = [f"{label} {s * 1e3:.3g} ms" for label, s in peers.items() if label != _THEIRS]
        if theirs is not None and bound is not None:
            over_torch.append(ours / theirs)
            over_best.append(ours / bound)
            bound = min(bound, theirs / PROGRAMS[name].goal)
        rows.append(
            Row(PROGRAMS[name].text, ours, theirs, limit=floors[name], bound=bound,
                note="; ".join(others))
        )  # fmt: skip
    if over_torch:
        rows += [
            _mean("times PyTorch's, geometric mean", over_torch, _GOAL_TORCH),
            _mean("times the best peer's, geometric mean", over_best, _GOAL_PEER),
        ]
    return rows


def _mean(what: str, ratios: list[float], goal: float) -> Row:
    mean = exp(sum(map(log, ratios)) / len(ratios))
    return Row(what, mean, unit="ratio", bound=1 / goal)


def _detail_rows(results: dict[str, dict[str, Found]]) -> list[Row]:
    """The first step, the time to the steady state, and memory."""
    return [
        Row(f"{name}: {what}", take(found[_OURS]),
            take(found[_THEIRS]) if _THEIRS in found else None, unit=unit,
            note="; ".join(
                f"{label} {take(f):.3g}" for label, f in found.items()
                if label not in (_OURS, _THEIRS)
            ))
        for name, found in results.items()
        for what, unit, take in _DETAILS
    ]  # fmt: skip


_DETAILS: tuple[tuple[str, str, Callable[[Found], float]], ...] = (
    ("first step", "s", lambda f: f.first),
    ("until steady", "s", lambda f: f.steady),
    ("tensors at the peak", "MB", lambda f: f.memory["live"]),
    ("process at the peak", "MB", lambda f: f.memory["resident"]),
)


# --- the other reports ------------------------------------------------------------------------


def profile(name: str) -> list[Row]:
    """Where the time of a step goes."""
    with _start(_Kind(sys.executable, _WORKER, {}), name) as peer:
        peer.ask("start", program=name)
        times = peer.ask("warm", seconds=_WARM_SECONDS, least=_WARM_STEPS)
        steps = max(1, int(_PROFILE_SECONDS / median(times)))
        parts: dict[str, float] = peer.ask("profile", steps=steps)
    whole = parts["a step"]
    return [Row(what, s, note=f"{s / whole:.0%}") for what, s in parts.items()]


def check(options: Options, names: tuple[str, ...]) -> list[Row]:
    """The greatest relative difference from PyTorch's losses over some steps."""
    if not options.torch:
        raise SystemExit("models --check needs PyTorch (--torch PYTHON names an interpreter)")
    patient = {**_STOCK, "OMP_WAIT_POLICY": "passive"}  # nothing is timed here
    kinds = {
        _OURS: _Kind(sys.executable, _WORKER, {}),
        _THEIRS: _Kind(options.torch.interpreter, _WORKER, patient),
        "exact": _Kind(options.torch.interpreter, _WORKER, patient),
    }
    rows = []
    for name in names:
        losses = {}
        for label, kind in kinds.items():
            with _start(kind, name) as peer:
                dtype = "float64" if label == "exact" else "float32"
                losses[label] = peer.ask("losses", program=name, steps=_CHECK_STEPS, dtype=dtype)
        rows.append(_difference(name, losses[_OURS], losses[_THEIRS], losses["exact"]))
    return rows


def _difference(name: str, ours: list[float], theirs: list[float], exact: list[float]) -> Row:
    """At the step where it is nearest to its bound: that grows with PyTorch's own error so far."""
    worst, own = Row(name, 0.0), 0.0
    for step, (a, b, e) in enumerate(zip(ours, theirs, exact, strict=True)):
        own = max(own, abs(b - e) / abs(e))
        bound = max(_CHECK_RELATIVE, _CHECK_TIMES * own)
        found = abs(a - b) / abs(b)
        if step == 0 or not found / bound <= worst.treadle / (worst.bound or 1.0):
            worst = Row(name, found, own, "relative", bound=bound,
                        note=f"at step {step + 1}: {a:.7g} and {b:.7g}")  # fmt: skip
    return worst
