"""A network of ``nets.py`` that is only asked, in a process of its own.

``BENCH_FRAMEWORK`` says where: on Treadle as a program file, on PyTorch in inference mode, or, with
``BENCH_ONNX``, on ONNX Runtime (exported by PyTorch in a process that ends before it runs).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.models.session import Session, answer

_EXPORT = """
import sys
from bench.models.nets import make
from bench.models.framework import torch
net, x = make(sys.argv[1], int(sys.argv[2]))
torch.onnx.export(net, (x,), sys.argv[3], dynamo=sys.argv[1] != "lstm", input_names=["x"])
"""


def _on_treadle(name: str, batch: int) -> Callable[[int], float]:
    from bench.models.nets import make
    from treadle.export import export, load, save

    net, x = make(name, batch)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.treadle")
        save(export(net, (x,), optimize=True), path)
        program = load(path)
    return lambda i: _mean_square(program(x).numpy())


def _on_torch(name: str, batch: int) -> Callable[[int], float]:
    from bench.models.framework import torch
    from bench.models.nets import make

    net, x = make(name, batch)

    def ask(i: int) -> float:
        with torch.inference_mode():
            return _mean_square(net(x).numpy())

    return ask


def _on_onnx(name: str, batch: int) -> Callable[[int], float]:
    import numpy as np
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path, given = str(Path(folder, "net.onnx")), str(Path(folder, "x.npy"))
        code = f"{_EXPORT}\nimport numpy; numpy.save(sys.argv[4], x.numpy())"
        done = subprocess.run(
            [sys.executable, "-c", code, name, str(batch), path, given],
            env={**os.environ, "BENCH_FRAMEWORK": "torch"}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"PyTorch could not export {name}:\n{done.stderr}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(sys.argv[1])
        # Its threads must not spin into the others' rounds.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(path, options)
        x = np.load(given)
    return lambda i: _mean_square(session.run(None, {"x": x})[0])


def _mean_square(y: Any) -> float:
    return float((y * y).mean())


class _Asked(Session):
    """With what the network answered, to be compared."""

    def told(self) -> float:
        """The mean square of the answer."""
        return float(self._program(0))  # type: ignore[misc, arg-type]


def _session() -> _Asked:
    if "BENCH_ONNX" in os.environ:
        import onnxruntime

        return _Asked(onnxruntime.__version__, _on_onnx, lambda step: 0)
    from bench.models.framework import NAME, torch

    torch.set_num_threads(int(sys.argv[1]))
    if NAME == "torch":
        return _Asked(torch.__version__, _on_torch, lambda step: 0)
    from treadle.compiler.programs import wait_for_programs

    return _Asked(
        torch.__version__, _on_treadle, lambda step: 0, lambda: not wait_for_programs(0.0)
    )


if __name__ == "__main__":
    answer(_session())
