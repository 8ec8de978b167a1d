"""Single kernels against PyTorch's and against the machine's limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import treadle
from bench import machine
from bench.harness import Options, Row, alternate, seconds_per_call
from treadle.base.shapes import prod
from treadle.compiler.tier0 import force
from treadle.ops.contraction import conv_forward, conv_input, conv_weight
from treadle.tensor.handle import wrap


class Case(NamedTuple):
    """A kernel as PyTorch's side is told of it, with its operations and the bytes it must move."""

    what: str
    spec: dict[str, Any]
    flops: float
    nbytes: float


def _matmul(m: int, k: int, n: int) -> Case:
    spec = {"kind": "matmul", "m": m, "k": k, "n": n}
    return Case(f"matmul ({m}, {k}) @ ({k}, {n})", spec, 2.0 * m * k * n,
                4.0 * (m * k + k * n + m * n))  # fmt: skip


def _conv(kind: str, image: tuple[int, int, int, int], channels: int) -> Case:
    n, c, h, w = image
    out = n * channels * (h - 4) * (w - 4)
    spec = {"kind": kind, "input": list(image), "channels": channels, "window": [5, 5]}
    sizes = prod(image) + out + channels * c * 25
    return Case(f"{kind} {image} * {channels} of 5x5", spec, 2.0 * out * c * 25, 4.0 * sizes)


def _rows(kind: str, shape: tuple[int, ...], moved: float, **extra: Any) -> Case:
    name = f"{kind} {shape}" + "".join(f" {k}={v}" for k, v in extra.items())
    return Case(name, {"kind": kind, "shape": list(shape), **extra}, 0.0, 4.0 * moved)


_MEGA = 1 << 22
_SQUARE = (2048, 2048)
CASES = [
    *(_matmul(n, n, n) for n in (64, 256, 512, 1024)),
    _matmul(64, 800, 500),
    _matmul(64, 1000, 100),
    _conv("conv_forward", (64, 1, 28, 28), 20),
    _conv("conv_weight", (64, 1, 28, 28), 20),
    _conv("conv_forward", (64, 20, 12, 12), 50),
    _conv("conv_input", (64, 20, 12, 12), 50),
    _conv("conv_weight", (64, 20, 12, 12), 50),
    _rows("exp", (_MEGA,), 2 * _MEGA),
    _rows("add", (_MEGA,), 3 * _MEGA),
    _rows("sum", _SQUARE, _MEGA, dim=0),
    _rows("sum", _SQUARE, _MEGA, dim=1),
    _rows("sum", (_MEGA,), _MEGA, dim=0),
    _rows("softmax", (4096, 1024), 2 * _MEGA),
]


def _random(*shape: int) -> treadle.Tensor:
    return treadle.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def _convolution(spec: dict[str, Any]) -> Callable[[], treadle.Tensor]:
    n, c, h, w = spec["input"]
    x = _random(n, c, h, w).node
    weight = _random(spec["channels"], c, *spec["window"]).node
    g = _random(n, spec["channels"], h - 4, w - 4).node
    geometry = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    if spec["kind"] == "conv_forward":
        return lambda: wrap(conv_forward(x, weight, **geometry))
    if spec["kind"] == "conv_input":
        return lambda: wrap(conv_input(g, weight, size=(h, w), **geometry))
    return lambda: wrap(conv_weight(g, x, window=tuple(spec["window"]), **geometry))


def _function(spec: dict[str, Any]) -> Callable[[], treadle.Tensor]:
    """What records the case."""
    kind = spec["kind"]
    if kind.startswith("conv"):
        return _convolution(spec)
    if kind == "matmul":
        a, b = _random(spec["m"], spec["k"]), _random(spec["k"], spec["n"])
        return lambda: a @ b
    x = _random(*spec["shape"])
    if kind == "add":
        y = _random(*spec["shape"])
        return lambda: x + y
    if kind == "sum":
        return lambda: x.sum(spec["dim"])
    return {"exp": lambda: x.exp(), "softmax": lambda: x.softmax(-1)}[kind]


def run(options: Options) -> list[Row]:
    """A row per case; the limit is the longer of computing and moving at the machine's best."""
    peak, bandwidth = machine.peak_flops(), machine.copy_bandwidth()
    torch = options.torch
    rows = [
        Row("peak of fused multiply-adds, gigaflops", peak / 1e9, unit=""),
        Row("bandwidth of a copy, MB a second", bandwidth / 2**20, unit=""),
    ]
    for case in CASES:
        record = _function(case.spec)

        def ours(record: Callable[[], treadle.Tensor] = record) -> dict[str, float]:
            return {"seconds": seconds_per_call(lambda: force([record().node]))}

        def theirs(spec: dict[str, Any] = case.spec) -> dict[str, float]:
            return torch.ask("kernel", case=spec)  # type: ignore[no-any-return]

        mine, other = alternate(max(3, options.rounds // 3), ours, theirs if torch else None)
        limit = max(case.flops / peak, case.nbytes / bandwidth)
        rate = f"{case.flops / mine['seconds'] / 1e9:.0f} gigaflops" if case.flops else ""
        rows.append(Row(case.what, mine["seconds"], other.get("seconds"), limit=limit, note=rate))
    return rows
