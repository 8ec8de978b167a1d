"""``python -m bench inference``: program files beside ONNX Runtime and PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from math import exp, log
from pathlib import Path
from statistics import median

from bench.harness import ROOT, Options, Peer, Row
from bench.models.nets import NETS

BATCHES = (1, 16)
_WORKER = "bench.models.asked_worker"
_WARM_SECONDS, _WARM_STEPS = 2.0, 4
_ROUNDS_SECONDS = 12.0  # for all rounds of a network
_FEWEST_ROUNDS = 3
_GOAL = 1.2  # times ONNX Runtime's speed, geometric mean
_FIRST_BOUND = 0.5  # seconds from the start of Python to the first answer of a file
_DIFFERENCE = 1e-3
_OURS, _THEIRS, _ONNX = "Treadle", "PyTorch", "ONNX"


def run(options: Options) -> list[Row]:
    """Every network at both batch sizes, and how soon a file answers in a new process."""
    rows, over = [], []
    for name in options.models.nets or NETS:
        for batch in BATCHES:
            found = _measure(name, batch, options)
            onnx = found.get(_ONNX)
            note = f"ONNX Runtime {onnx * 1e3:.3g} ms" if onnx else ""
            if onnx:
                over.append(found[_OURS] / onnx)
                note += f", {over[-1]:.2f} of its time"
            what = f"{NETS[name].text}, batch {batch}"
            rows.append(Row(what, found[_OURS], found.get(_THEIRS), bound=onnx, note=note))
    if over:
        mean = exp(sum(map(log, over)) / len(over))
        rows.append(Row("times ONNX Runtime's, geometric mean", mean, unit="ratio", bound=1 / _GOAL))
    if not options.models.nets or "resnet50" in options.models.nets:
        rows.append(_first_answer(options.rounds))
    return rows


def _measure(name: str, batch: int, options: Options) -> dict[str, float]:
    """Seconds of an answer, rounds of one framework after the other."""
    frameworks = {_OURS: (sys.executable, {"BENCH_FRAMEWORK": "treadle"})}
    if options.torch.interpreter:
        frameworks[_THEIRS] = options.torch.interpreter, {"BENCH_FRAMEWORK": "torch"}
    if options.models.onnx:
        frameworks[_ONNX] = options.models.onnx, {"BENCH_ONNX": "1"}
    steps = max(1, NETS[name].steps // batch)
    with ExitStack() as stack:
        peers = {
            label: stack.enter_context(Peer(label, interpreter, _WORKER, variables))
            for label, (interpreter, variables) in frameworks.items()
        }
        for peer in peers.values():
            peer.ask("start", program=name, batch=batch)
            peer.ask("warm", seconds=_WARM_SECONDS, least=_WARM_STEPS)
        told = {label: peer.ask("told") for label, peer in peers.items()}
        if max(told.values()) > (1 + _DIFFERENCE) * min(told.values()):
            raise RuntimeError(f"{name}: the answers' mean squares differ: {told}")
        once = sum(peer.ask("round", steps=steps) for peer in peers.values())
        rounds = max(_FEWEST_ROUNDS, min(options.rounds, int(_ROUNDS_SECONDS / (once * steps))))
        samples: dict[str, list[float]] = {label: [] for label in peers}
        for _ in range(rounds):
            for label, peer in peers.items():
                samples[label].append(peer.ask("round", steps=steps))
    return {label: median(times) for label, times in samples.items()}


_SAVE = """
import sys
from bench.models.nets import make
from treadle.export import export, save
net, x = make("resnet50", 1)
save(export(net, (x,), optimize=True), sys.argv[1])
"""
_ANSWER = """
import sys
from treadle import export, ones
export.load(sys.argv[1])(ones(1, 3, 224, 224)).numpy()
"""


def _first_answer(rounds: int) -> Row:
    """The ResNet-50 file: loaded and asked once by a new process, its kernels cached on disk."""
    environment = {**os.environ, "BENCH_FRAMEWORK": "treadle"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "net.treadle"))
        subprocess.run([sys.executable, "-c", _SAVE, path], cwd=ROOT, env=environment, check=True)
        times = []
        for _ in range(rounds + 2):
            begin = time.perf_counter()
            command = [sys.executable, "-c", _ANSWER, path]
            subprocess.run(command, cwd=ROOT, env=environment, check=True)
            times.append(time.perf_counter() - begin)
    return Row(
        "ResNet-50: a new process to its first answer", median(times[2:]), bound=_FIRST_BOUND,
        note="import included, kernels cached on disk",
    )  # fmt: skip
