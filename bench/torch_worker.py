"""PyTorch's side of the benchmarks: answers requests, one JSON object a line, until stdin ends.

Run by the interpreter that has PyTorch, which need not have Treadle: it imports nothing of it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F

_SAMPLE_SECONDS = 0.02


def recording(repeats: int) -> dict[str, float]:
    a = torch.full((4, 4), 0.999).requires_grad_()
    b, x = torch.ones(4, 4), torch.ones(4, 4)
    times = [time.perf_counter()]
    for _ in range(repeats):
        x = x * a
        x = x + b
    times.append(time.perf_counter())
    x.sum().backward()
    times.append(time.perf_counter())
    a.grad.numpy()
    times.append(time.perf_counter())
    parts = [(e - s) / (2 * repeats) for s, e in pairwise(times)]
    return dict(zip(("record", "backward", "evaluate"), parts, strict=True), total=sum(parts))


# --- kernels ------------------------------------------------------------------------------------


def _conv(case: dict[str, Any]) -> Callable[[], object]:
    n, c, h, w = case["input"]
    o, kh, kw = case["channels"], *case["window"]
    x, weight = torch.randn(n, c, h, w), torch.randn(o, c, kh, kw)
    if case["kind"] == "conv_forward":
        return lambda: F.conv2d(x, weight)
    g = torch.randn(n, o, h - kh + 1, w - kw + 1)
    mask = [case["kind"] == "conv_input", case["kind"] == "conv_weight", False]
    return lambda: torch.ops.aten.convolution_backward(
        g, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
    )


def _kernel(case: dict[str, Any]) -> Callable[[], object]:
    kind = case["kind"]
    if kind.startswith("conv"):
        return _conv(case)
    if kind == "matmul":
        a, b = torch.randn(case["m"], case["k"]), torch.randn(case["k"], case["n"])
        return lambda: a @ b
    x = torch.randn(case["shape"])
    if kind == "add":
        y = torch.randn(case["shape"])
        return lambda: x + y
    if kind == "sum":
        return lambda: x.sum(case["dim"])
    return {"exp": lambda: x.exp(), "softmax": lambda: x.softmax(-1)}[kind]


_kernels: dict[str, Callable[[], object]] = {}


def kernel(case: dict[str, Any]) -> dict[str, float]:
    key = json.dumps(case, sort_keys=True)
    if key not in _kernels:
        _kernels.clear()
        _kernels[key] = _kernel(case)
    call, repeats = _kernels[key], 1
    with torch.no_grad():
        while True:
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            seconds = time.perf_counter() - begin
            if seconds >= _SAMPLE_SECONDS:
                return {"seconds": seconds / repeats}
            repeats = max(2 * repeats, int(repeats * _SAMPLE_SECONDS / max(seconds, 1e-9) * 1.1))


# --- trainings ----------------------------------------------------------------------------------


class _LeNet:
    """The demo's network with Adam at a batch of 64."""

    def __init__(self) -> None:
        nn = torch.nn
        self.net = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.BatchNorm2d(20), nn.ReLU(),
            nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.BatchNorm2d(50), nn.ReLU(),
            nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Dropout(0.5), nn.Linear(500, 10),
        )  # fmt: skip
        self.optimizer = torch.optim.Adam(self.net.parameters())
        self.loss = nn.CrossEntropyLoss()
        self.images, self.labels = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))

    def step(self) -> dict[str, float]:
        times = [time.perf_counter()]
        loss = self.loss(self.net(self.images), self.labels)
        times.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        times.append(time.perf_counter())
        self.optimizer.step()
        loss.item()
        times.append(time.perf_counter())
        forward, backward, optimizer = (e - s for s, e in pairwise(times))
        return {"forward": forward, "backward": backward, "optimizer": optimizer,
                "total": times[-1] - times[0]}  # fmt: skip


_lenets: list[_LeNet] = []


def step() -> dict[str, float]:
    if not _lenets:
        _lenets.append(_LeNet())
    return _lenets[0].step()


def memory(steps: list[int]) -> list[float]:
    """MB of the process after so many steps with a sum of losses that nobody reads."""
    with open("/proc/self/statm") as file:
        file.read()
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, total, sizes = torch.ones(32, 64), torch.zeros(()), []
    for i in range(1, max(steps) + 1):
        loss = net(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = total + loss
        if i in steps:
            with open("/proc/self/statm") as file:
                sizes.append(int(file.read().split()[1]) * resource.getpagesize() / 2**20)
    return sizes


def version() -> str:
    return torch.__version__


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    tasks: dict[str, Callable[..., Any]] = {
        f.__name__: f for f in (recording, kernel, step, memory, version)
    }
    for line in sys.stdin:
        request = json.loads(line)
        answer = tasks[request.pop("task")](**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
