"""The inferences on ONNX Runtime, exported from PyTorch in a process that ends before they run.

Run by an interpreter that has ONNX Runtime, and PyTorch with onnxscript for the export.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.models.session import Session, answer

_BATCHES = 8
_EXPORT = """
import sys
from bench.models.catalog import make
from bench.models.draws import Draws
from bench.models.framework import torch
program = make(sys.argv[1], Draws())
if sys.argv[1] == "gpt_generate":
    given = torch.zeros(1, 7, dtype=torch.int64)
    shapes = ({1: torch.export.Dim("length", min=2, max=127)},)
else:
    given, shapes = program.batches[0], None
torch.onnx.export(program.net, (given,), sys.argv[2], dynamo=True, dynamic_shapes=shapes,
                  input_names=["x"])
"""


def _open(program: str) -> Any:
    """A session of the program's network."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "net.onnx"))
        done = subprocess.run(
            [sys.executable, "-c", _EXPORT, program, path],
            env={**os.environ, "BENCH_FRAMEWORK": "torch"}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"PyTorch could not export {program}:\n{done.stderr}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(sys.argv[1])
        # Its threads must not spin into the others' rounds.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return onnxruntime.InferenceSession(path, options)


def _start(program: str) -> Callable[[int], float]:
    session, rng = _open(program), np.random.default_rng(0)
    if program == "gpt_generate":
        return lambda i: _write(session, rng.integers(0, 5000, (1, 1)))
    images = [rng.standard_normal((1, 3, 224, 224), np.float32) for _ in range(_BATCHES)]

    def ask(i: int) -> float:
        (y,) = session.run(None, {"x": images[i % _BATCHES]})
        return float(np.square(y).mean())

    return ask


def _write(session: Any, text: np.ndarray) -> float:
    """Writes 64 tokens, each the likeliest."""
    total = 0.0
    for _ in range(64):
        (scores,) = session.run(None, {"x": text})
        token = int(scores[0, -1].argmax())
        total += float(scores[0, -1, token])
        text = np.concatenate([text, [[token]]], 1)
    return total


if __name__ == "__main__":
    answer(Session(onnxruntime.__version__, _start, lambda step: 0))
