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
from function_table import Functions
from timing import seconds_per_call
from torch.nn import functional as F
from workloads import build, out_size


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


def _gradient(case: dict[str, Any]) -> Callable[[], object]:
    """One gradient of a convolution by itself."""
    dims = len(case["image"])
    window = (case["window"],) * dims
    form = torch.channels_last if case.get("layout") == "last" else torch.contiguous_format
    shapes = (
        (case["batch"], case["cout"], *out_size(case)),
        (case["batch"], case["cin"], *case["image"]),
        (case["cout"], case["cin"] // case["groups"], *window),
    )
    g, x, w = (torch.randn(shape).to(memory_format=form) for shape in shapes)
    mask = [case["part"] == "input", case["part"] == "weight", False]
    stride, padding, ones = ([n] * dims for n in (case["stride"], case["padding"], 1))
    return lambda: torch.ops.aten.convolution_backward(
        g, x, w, None, stride, padding, ones, False, [0] * dims, case["groups"], mask
    )


_functions = Functions(torch)


def function(name: str, n: int) -> dict[str, float]:
    return {"seconds": seconds_per_call(_functions.call(name, n))}


_kernels: dict[str, Callable[[], object]] = {}


def kernel(case: dict[str, Any]) -> dict[str, float]:
    key = json.dumps(case, sort_keys=True)
    if key not in _kernels:
        _kernels.clear()
        alone = case["kind"] == "conv" and case["part"] != "forward"
        _kernels[key] = _gradient(case) if alone else build(torch, F, case)
        _kernels[key]()
    return {"seconds": seconds_per_call(_kernels[key])}


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
        f.__name__: f for f in (recording, kernel, function, step, memory, version)
    }
    for line in sys.stdin:
        request = json.loads(line)
        answer = tasks[request.pop("task")](**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
