"""The law of bits as a table: what is computed, and the ways that must give the same bits.

A *subject* is something to compute: an op with all its samples, a random program, a training. A
*way* says how: threads, fused or op by op, when evaluated, where the inputs lie, how kernels are
cut. Every way of a subject is compared with its plainest one. ``tests/laws`` takes a few subjects
and ways, ``make sweep-bits`` all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import numpy as np

from treadle.base import dtypes
from treadle.base.errors import TreadleError
from treadle.base.flags import flags
from treadle.base.record import Record
from treadle.compiler import prepare, tier0
from treadle.compiler.programs import wait_for_programs
from treadle.ir.node import Node
from treadle.ir.op import Op
from treadle.ops.elementwise import neg
from treadle.ops.project import results
from treadle.runtime import jit, object_code, pool
from treadle.tensor.storage import array_of
from treadle.testing.definitions import first_x86_64
from treadle.testing.layouts import PLACES, Place
from treadle.testing.networks import NETWORKS
from treadle.testing.op_table import all_ops, cast_sample, sample_dtypes
from treadle.testing.programs import (
    Barrier,
    Run,
    evaluated,
    fingerprint,
    first_difference,
    run_program,
    run_scenario,
    run_training,
)
from treadle.testing.scenarios import HUGE, SCENARIOS, steps_of
from treadle.testing.schedules import drawn_schedule
from treadle.testing.swaps import drawn_swaps

# --- what is computed ---------------------------------------------------------------------------


class Subject(Record):
    """Something to compute; its name tells all.

    "program 7", "training gpt", "op matmul f32", "scenario swapped_roles"; what has steps may be
    followed by their number.

    Args:
        times: how often it is run where programs are fused, so that the last run is by programs.
        replays: the policies of evaluation with which its graphs come again.
        fuses: its fused programs are worth the time that compiling them takes.
    """

    name: str
    run: Callable[[Barrier, Place], Run]
    times: int = 3
    replays: tuple[str, ...] = ("end", "some", "reads", "all")
    fuses: bool = True


@lru_cache(maxsize=1)
def _ops() -> dict[str, Op]:
    return {op.name: op for op in all_ops()}


def subject(name: str) -> Subject:
    """The subject of that name."""
    kind, *rest = name.split()
    if kind == "program":
        steps = int(rest[1]) if len(rest) > 1 else 25
        return Subject(
            name, lambda b, place: run_program(int(rest[0]), b, num_steps=steps, place=place)
        )
    if kind == "training":
        steps = int(rest[1]) if len(rest) > 1 else 3
        return Subject(name, lambda b, place: run_training(b, steps, rest[0], place))
    if kind == "op":
        return Subject(name, lambda b, place: _run_samples(_ops()[rest[0]], rest[1], b, place))
    if kind == "scenario":
        steps = int(rest[1]) if len(rest) > 1 else steps_of(rest[0])
        one = SCENARIOS[rest[0]]
        replays = ("all",) if one.repeats else ()
        run = partial(_run_scenario, rest[0], steps)
        return Subject(name, run, 1, replays, one.size < HUGE)
    raise ValueError(f"got the subject {name!r}; expected program, training, op or scenario")


def _run_scenario(name: str, steps: int, barrier: Barrier, place: Place) -> Run:
    return run_scenario(barrier, name, steps)


def programs(seeds: Sequence[int]) -> list[Subject]:
    """Random programs."""
    return [subject(f"program {seed}") for seed in seeds]


def graphs(seeds: Sequence[int]) -> list[Subject]:
    """Small random programs, of which many can be run; every tenth is larger."""
    return [subject(f"program {seed} {3 if seed % 10 else 9}") for seed in seeds]


def trainings(steps: int = 3) -> list[Subject]:
    """A training of each network."""
    return [subject(f"training {name} {steps}") for name in NETWORKS]


def scenarios() -> list[Subject]:
    """Programs on which tracing compilers go wrong."""
    return [subject(f"scenario {name}") for name in SCENARIOS]


def op_samples(every_dtype: bool) -> list[Subject]:
    """Every op of the table with its samples, in float32 (or what it takes) or in all dtypes."""
    names = []
    for name, op in _ops().items():
        kinds = {
            dtype: None
            for sample in op.samples()
            for dtype in sample_dtypes(op, sample) or [dtypes.float32]
        }
        if not every_dtype and kinds:
            kinds = {dtypes.float32 if dtypes.float32 in kinds else next(iter(kinds)): None}
        names += [f"op {name} {dtype.short}" for dtype in kinds]
    return [subject(name) for name in names]


def _run_samples(op: Op, short: str, barrier: Barrier, place: Place) -> Run:
    """The op on its samples: by itself, and among neighbours that it may be fused with."""
    labels: list[str] = []
    held: list[Node] = []
    for index, sample in enumerate(op.samples()):
        dtype = dtypes.by_short(short)
        if dtype not in (sample_dtypes(op, sample) or [dtypes.float32]):
            continue
        inputs = [place(np.asarray(x)).node for x in cast_sample(sample, dtype)]
        between = [neg(neg(x)) if x.dtype.is_floating_point else x for x in inputs]
        for kind, operands in (("alone", inputs), ("fused", between)):
            node = op(*operands, **sample.attrs)
            outs = results(node) if isinstance(node.type, tuple) else (node,)
            after = [neg(x) for x in outs if kind == "fused" and x.dtype is not dtypes.bool_]
            held += [*outs, *after]
            labels += [f"sample {index} {kind}: {sample.attrs}"] * (len(outs) + len(after))
        barrier([])
    try:
        return Run(labels, [array_of(n).copy() for n in held])
    except TreadleError as error:  # what it says is the result
        return Run(labels[:1], [np.frombuffer(str(error).encode(), np.uint8)], True)


# --- how it is computed -------------------------------------------------------------------------


class Way(Record):
    """How subjects are run; the plainest way is ``Way()``.

    Args:
        clause: the clause of the law that it tests.
        programs: the flag PROGRAMS. Where it is not "off" a subject is run three times, and the
            last time its graphs run as fused programs.
        threads: how many, where not one; every launch is cut for all of them, however small.
        policy: when values are evaluated (see ``programs.evaluated``).
        place: where the inputs lie (see ``layouts.PLACES``).
        schedule: the seed from which cuts and tiles are drawn.
        swap: the seed from which it is drawn when fused programs take the place of the others.
    """

    clause: str = "plain"
    programs: str = "off"
    threads: int = 1
    policy: str = "end"
    place: str = "contiguous"
    schedule: int | None = None
    swap: int | None = None

    @property
    def name(self) -> str:
        """What differs from the plainest way."""
        parts = [
            f"{key} {value}" for key, value in self._asdict().items()
            if key != "clause" and value != Way._field_defaults[key]
        ]  # fmt: skip
        return ", ".join(parts) or "plain"


class Verdict(Record):
    """One comparison; ``difference`` is empty where there was none."""

    clause: str
    case: str
    difference: str


THREADS = (1, 2, 3, 5)
POLICIES = ("each", "some", "reads", "all")
SWAPS = (0, 1, 2)
LAYOUTS = ("strided", "transposed", "shifted", "misaligned")


def all_ways(schedules: Sequence[int] = (), layouts: Sequence[str] = LAYOUTS) -> list[Way]:
    """Every way inside one process."""
    return [
        *(Way("threads", threads=n) for n in THREADS[1:]),
        Way("generic and fused", programs="wait"),
        *(Way("generic and fused", programs="wait", threads=n) for n in THREADS[1:]),
        Way("generic and fused", programs="beside"),
        *(Way("moments of the swap", "beside", swap=seed) for seed in SWAPS),
        *(Way("moments of the swap", "beside", policy=p, swap=3) for p in ("all", "reads")),
        *(Way("moments of evaluation", policy=policy) for policy in POLICIES),
        *(Way("moments of evaluation", "wait", policy=p) for p in POLICIES if p != "each"),
        *(Way("layouts", place=place) for place in layouts),
        *(Way("layouts", "wait", place=place) for place in layouts),
        *(Way("tiles and cuts", threads=1 + seed % 3, schedule=seed) for seed in schedules),
        *(Way("tiles and cuts", "wait", 1 + seed % 3, schedule=seed) for seed in schedules),
    ]


@contextmanager
def _settings(way: Way) -> Iterator[None]:
    """Threads and flags as the way has them; plans made for others are forgotten."""
    before = pool.get_num_threads()
    with ExitStack() as stack:
        stack.callback(tier0.forget_plans)
        stack.callback(pool.set_num_threads, before)
        stack.enter_context(flags.context(programs=way.programs, check="shadow"))
        if way.swap is not None:
            stack.enter_context(drawn_swaps(way.swap))
        if way.threads > 1:
            stack.enter_context(patch.object(prepare, "PARALLEL_WORK", 1))
        if way.schedule is not None:
            stack.enter_context(drawn_schedule(way.schedule))
        pool.set_num_threads(way.threads)
        tier0.forget_plans()
        yield


def _run(one: Subject, way: Way) -> Run:
    with evaluated(way.policy, len(one.name)) as barrier:
        return one.run(barrier, PLACES[way.place])


class Comparison:
    """Compares ways of computing some subjects with the plainest way, which is run once."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects = subjects
        self._plain: dict[tuple[str, str], Run] = {}
        self._prints: dict[str, str] = {}

    def plain(self, one: Subject, place: str = "contiguous") -> Run:
        """What a subject gives when it is run the plainest way."""
        key = one.name, place
        if key not in self._plain:
            way = Way(place=place)
            with _settings(way):
                self._plain[key] = _run(one, way)
        return self._plain[key]

    def fingerprint(self, one: Subject) -> str:
        """That of its plainest run, which is not kept for this."""
        if one.name not in self._prints:
            self._prints[one.name] = fingerprint([self.plain(one)])
            del self._plain[one.name, "contiguous"]
        return self._prints[one.name]

    def way(self, way: Way) -> Iterator[Verdict]:
        """A verdict for every subject."""
        place = "repeated" if way.place == "expanded" else "contiguous"
        expected = [self.plain(one, place) for one in self.subjects]
        with _settings(way):
            for one, plain in zip(self.subjects, expected, strict=True):
                yield Verdict(way.clause, f"{one.name}, {way.name}", self._differs(one, way, plain))

    def _differs(self, one: Subject, way: Way, plain: Run) -> str:
        programs = tier0.evaluator().programs
        usual = programs.worth_compiling
        if one.fuses:
            programs.worth_compiling = 0.0  # else nothing is
        try:
            return self._repeated(one, way, plain)
        finally:
            programs.worth_compiling = usual

    def _repeated(self, one: Subject, way: Way, plain: Run) -> str:
        programs = tier0.evaluator().programs
        before = programs.replays
        times = 1 if way.programs == "off" else one.times
        for time in range(times):
            difference = first_difference(plain, _run(one, way))
            if difference:
                return f"run {time + 1}: {difference}"
            if way.programs == "beside":
                wait_for_programs()
        expects_replay = (
            way.programs != "off"
            and way.policy in one.replays
            and len(plain.results) > 3
            and not plain.refused
        )
        if expects_replay and programs.replays == before:
            return f"it ran {times} times and never as a program"
        programs.clear()
        return ""


_CHUNK = 25  # subjects whose results are held at a time


def differences(names: Sequence[str], ways: Sequence[Way]) -> list[Verdict]:
    """The verdicts of some subjects in some ways."""
    found: list[Verdict] = []
    for start in range(0, len(names), _CHUNK):
        compared = Comparison([subject(name) for name in names[start : start + _CHUNK]])
        for way in ways:
            found += compared.way(way)
    return found


def shared_out(names: Sequence[str], clause: str, **way: Any) -> Iterator[Verdict]:
    """``differences`` in one way, by as many processes as there are cores."""
    parts = [list(names[start : start + _CHUNK]) for start in range(0, len(names), _CHUNK)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_in_one_way, part, clause, way) for part in parts]):
            yield from (Verdict(*told) for told in future.result())


def _in_one_way(names: list[str], clause: str, way: dict[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(told) for told in differences(names, [Way(clause, **way)])]


# --- in other processes -------------------------------------------------------------------------

ELSEWHERE: dict[str, tuple[str, dict[str, Any]]] = {
    "cold cache": ("cache", {"programs": "off"}),
    "warm cache": ("cache", {"programs": "off"}),
    "cold cache, fused": ("cache", {"programs": "wait"}),
    "warm cache, fused": ("cache", {"programs": "wait"}),
    "vectors of 128 bits": ("vectors", {"vector_bits": 128}),
    "vectors of 256 bits": ("vectors", {"vector_bits": 256}),
    "vectors of 512 bits": ("vectors", {"vector_bits": 512}),
    "no FMA": ("emulated FMA", {}),
}
"""Processes: their clause, and the flags that differ."""

_WITHOUT_FMA = "no FMA"


class Elsewhere:
    """A process that runs subjects, three times where programs are fused; it starts at once.

    Args:
        kind: one of ``ELSEWHERE``.
        subjects: what it runs.
        cache: the folder of its kernel cache.
    """

    def __init__(self, kind: str, subjects: Sequence[Subject], cache: str) -> None:
        self.kind = kind
        self.clause, differing = ELSEWHERE[kind]
        names = [one.name for one in subjects]
        asked = json.dumps(
            {"kind": kind, "names": names, "flags": {"cache_dir": cache, **differing}}
        )
        code = "from treadle.testing.laws import tell; tell()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, asked], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def answer(self) -> tuple[dict[str, str], int, int]:
        """(fingerprint of every subject, kernels compiled, kernels loaded); waits for it."""
        out, err = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the process {self.kind!r} failed: {err}")
        told = json.loads(out)
        return told["fingerprints"], told["compiled"], told["loaded"]

    def verdicts(self, compared: Comparison) -> Iterator[Verdict]:
        """The answers against what this process computes."""
        fingerprints, compiled, loaded = self.answer()
        if self.kind.startswith(("cold", "warm")):
            wrong = loaded if self.kind.startswith("cold") else compiled
            text = f"{compiled} kernels compiled and {loaded} loaded" if wrong else ""
            yield Verdict(self.clause, f"kernels, {self.kind}", text)
        for one in compared.subjects:
            here, there = compared.fingerprint(one), fingerprints[one.name]
            difference = "" if here == there else "other bits; run it here to see which"
            yield Verdict(self.clause, f"{one.name}, {self.kind}", difference)


def tell() -> None:
    """What a process of ``Elsewhere`` does: writes the fingerprints of what its argument names."""
    asked = json.loads(sys.argv[1])
    for name, value in asked["flags"].items():
        setattr(flags, name.upper(), value)
    if asked["kind"] == _WITHOUT_FMA:
        old = first_x86_64()
        jit.native = object_code.native = lambda: old  # type: ignore[assignment]
    told = {}
    for name in asked["names"]:
        one = subject(name)
        times = 3 if flags.PROGRAMS == "wait" else 1
        prints = {fingerprint([_run(one, Way())]) for _ in range(times)}
        told[name] = " and ".join(sorted(prints))
    statistics = jit.statistics()
    found = {"fingerprints": told, "compiled": statistics.compiled, "loaded": statistics.loaded}
    sys.stdout.write(json.dumps(found))


__all__ = [
    "ELSEWHERE", "LAYOUTS", "POLICIES", "SWAPS", "THREADS", "Comparison", "Elsewhere", "Subject",
    "Verdict", "Way", "all_ways", "differences", "graphs", "op_samples", "programs", "scenarios",
    "shared_out", "subject", "tell", "trainings",
]  # fmt: skip
