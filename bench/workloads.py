"""What the kernel benchmark measures: the cases, and how each is written in PyTorch's dialect.

``build(T, F, case)`` runs under both names (``T`` is treadle or torch): one text, so that both do
the same. Nothing here imports either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Case = dict[str, Any]
ROWS, COLUMNS = 4096, 1000
MEGA = 1 << 22
_SIDE = 2048  # of a square of MEGA elements
_PICKED = 1 << 20  # rows of a table that are gathered


# --- contractions ---------------------------------------------------------------------------------


def _gemm(m: int, n: int, k: int, dtype: str = "float32", form: str = "nn") -> Case:
    return {"kind": "gemm", "m": m, "n": n, "k": k, "dtype": dtype, "form": form}


_GEMMS = [(2048, 2048, 2048), (1024, 1024, 1024), (256, 256, 256), (64, 100, 1000),
          (512, 512, 64), (1, 4096, 4096), (4096, 1, 4096), (1, 1, 10_000_000)]  # fmt: skip
GEMMS: list[Case] = [
    *(_gemm(*size, form=form) for size in _GEMMS for form in ("nn", "tn", "nt")),
    *(_gemm(n, n, n, dtype) for dtype in ("bfloat16", "float64") for n in (1024, 256)),
    *(_gemm(n, n, n) for n in (4, 16, 64)),
]


def _conv(
    cin: int, cout: int, image: tuple[int, ...], window: int, stride: int = 1, padding: int = -1,
    groups: int = 1, batch: int = 8,
) -> list[Case]:  # fmt: skip
    pad = window // 2 if padding < 0 else padding
    common = {"kind": "conv", "batch": batch, "cin": cin, "cout": cout, "image": list(image),
              "window": window, "stride": stride, "padding": pad, "groups": groups}  # fmt: skip
    return [{**common, "part": part} for part in ("forward", "input", "weight")]


CONVS: list[Case] = [
    case
    for cases in (
        _conv(64, 64, (56, 56), 3), _conv(128, 128, (28, 28), 3), _conv(256, 256, (14, 14), 3),
        _conv(512, 512, (7, 7), 3), _conv(3, 64, (224, 224), 7, 2), _conv(256, 64, (56, 56), 1),
        _conv(64, 256, (56, 56), 1), _conv(128, 128, (56, 56), 3, 2),
        _conv(1, 20, (28, 28), 5, padding=0, batch=64), _conv(144, 144, (56, 56), 3, groups=144),
        _conv(144, 144, (56, 56), 3, 2, groups=144), _conv(256, 256, (1000,), 5),
        _conv(16, 32, (16, 16, 16), 3),
    )
    for case in cases
]  # fmt: skip


def out_size(case: Case) -> tuple[int, ...]:
    """The spatial shape of a convolution's result."""
    reach = 2 * case["padding"] - case["window"]
    return tuple((n + reach) // case["stride"] + 1 for n in case["image"])


# --- loops ----------------------------------------------------------------------------------------

# name -> (shapes of the inputs, bytes that must move forward per MEGA elements of four bytes,
# whether the gradient is measured too). Inputs named in capitals are made specially.
_LOOPS: dict[str, tuple[tuple[Any, ...], float, bool]] = {
    "add": (((MEGA,), (MEGA,)), 3, False),
    "exp": (((MEGA,),), 2, True),
    "tanh": (((MEGA,),), 2, True),
    "erf": (((MEGA,),), 2, True),
    "gelu": (((MEGA,),), 2, True),
    "softmax": (((ROWS, COLUMNS),), 2, True),
    "cross_entropy": (((ROWS, COLUMNS), "LABELS"), 1, True),
    "layer_norm": (((ROWS, COLUMNS), (COLUMNS,), (COLUMNS,)), 2, True),
    "batch_norm": (((64, 64, 32, 32), (64,), (64,)), 2, True),
    "sum_0": (((_SIDE, _SIDE),), 1, True),
    "sum_1": (((_SIDE, _SIDE),), 1, True),
    "max_0": (((_SIDE, _SIDE),), 1, True),
    "max_1": (((_SIDE, _SIDE),), 1, True),
    "argmax_0": (((_SIDE, _SIDE),), 1, False),
    "argmax_1": (((_SIDE, _SIDE),), 1, False),
    "cumsum": (((ROWS, COLUMNS),), 2, True),
    "sort": (((ROWS, COLUMNS),), 4, True),
    "sort_one_row": (((MEGA,),), 4, False),
    "topk": (((ROWS, COLUMNS),), 1, True),
    "transpose": (((_SIDE, _SIDE),), 2, True),
    "gather": (((ROWS, COLUMNS), "PLACES"), 4, True),
    "scatter_add": (((ROWS, COLUMNS), "PLACES", (ROWS, COLUMNS)), 5, False),
    "embedding": (((10_000, 256), "ROWS"), 2, True),
    "dropout": (((MEGA,),), 2, True),
    "normal": ((), 1, False),
    "adam": (((MEGA,),) * 4, 7, False),
}
LOOPS: list[Case] = [
    {"kind": "loop", "name": name, "part": part}
    for name, (_, _, has_gradient) in _LOOPS.items()
    for part in (("forward", "both") if has_gradient else ("forward",))
]


def loop_bytes(case: Case) -> float:
    """What a loop must read and write at least; its gradient as much again and the adjoint."""
    moved = 4.0 * MEGA * _LOOPS[case["name"]][1]
    return moved if case["part"] == "forward" else 2 * moved + 4.0 * MEGA


def loop_inputs(name: str) -> list[np.ndarray[Any, Any]]:
    """The inputs of a loop, the same for everybody."""
    rng = np.random.default_rng(0)
    special = {
        "LABELS": lambda: rng.integers(0, COLUMNS, ROWS),
        "PLACES": lambda: rng.integers(0, COLUMNS, (ROWS, COLUMNS)),
        "ROWS": lambda: rng.integers(0, 10_000, MEGA // 256),
    }
    arrays = [
        special[shape]() if isinstance(shape, str) else rng.standard_normal(shape, np.float32)
        for shape in _LOOPS[name][0]
    ]
    if name == "adam":
        arrays[3] = np.abs(arrays[3])  # a second moment
    return arrays


def _adam(T: Any, p: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    m = m * 0.9 + g * 0.1
    v = v * 0.999 + g * g * 0.001
    return p - 0.001 * (m / 0.5) / ((v / 0.25).sqrt() + 1e-8), m, v


def _loop(T: Any, F: Any, name: str) -> Callable[..., Any]:
    table: dict[str, Callable[..., Any]] = {
        "add": lambda x, y: x + y,
        "exp": T.exp,
        "tanh": T.tanh,
        "erf": T.erf,
        "gelu": F.gelu,
        "softmax": lambda x: F.softmax(x, -1),
        "cross_entropy": F.cross_entropy,
        "layer_norm": lambda x, w, b: F.layer_norm(x, (COLUMNS,), w, b),
        "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        "sum_0": lambda x: x.sum(0),
        "sum_1": lambda x: x.sum(1),
        "max_0": lambda x: x.amax(0),
        "max_1": lambda x: x.amax(1),
        "argmax_0": lambda x: x.argmax(0),
        "argmax_1": lambda x: x.argmax(1),
        "cumsum": lambda x: x.cumsum(-1),
        "sort": lambda x: x.sort(-1)[0],
        "sort_one_row": lambda x: x.sort(-1)[0],
        "topk": lambda x: x.topk(10, -1)[0],
        "transpose": lambda x: x.t().reshape(-1),
        "gather": lambda x, index: x.gather(1, index),
        "scatter_add": lambda x, index, y: x.scatter_add(1, index, y),
        "embedding": lambda table, index: F.embedding(index, table),
        "dropout": lambda x: F.dropout(x, 0.5, training=True),
        "normal": lambda: T.randn(MEGA),
        "adam": lambda *x: _adam(T, *x),
    }
    return table[name]


# --- in PyTorch's dialect -------------------------------------------------------------------------


def build(T: Any, F: Any, case: Case) -> Callable[[], Any]:
    """What computes the case once and returns its results."""
    if case["kind"] == "gemm":
        return _build_gemm(T, case)
    if case["kind"] == "conv":
        return _build_conv(T, F, case)
    arrays = loop_inputs(case["name"])
    function = _loop(T, F, case["name"])
    inputs = [T.from_numpy(x) for x in arrays]
    if case["part"] == "forward":

        def forward() -> Any:
            with T.no_grad():
                return function(*inputs)

        return forward
    leaves = [x.requires_grad_() for x in inputs if x.dtype == T.float32]
    shape = function(*inputs).shape
    g = T.from_numpy(np.random.default_rng(1).standard_normal(tuple(shape), np.float32))

    def both() -> Any:
        y = function(*inputs)
        return (y.detach(), *T.autograd.grad(y, leaves, g))

    return both


def _build_gemm(T: Any, case: Case) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    dtype = getattr(T, case["dtype"])

    def matrix(rows: int, columns: int, is_transposed: bool) -> Any:
        shape = (columns, rows) if is_transposed else (rows, columns)
        x = T.from_numpy(rng.standard_normal(shape, np.float32)).to(dtype)
        return x.t() if is_transposed else x

    a = matrix(case["m"], case["k"], case["form"][0] == "t")
    b = matrix(case["k"], case["n"], case["form"][1] == "t")
    return lambda: a @ b


def _build_conv(T: Any, F: Any, case: Case) -> Callable[[], Any]:
    """``layout`` "last" asks for channels last in memory, where the library has that."""
    rng = np.random.default_rng(0)
    dims = len(case["image"])
    window = (case["window"],) * dims

    def tensor(*shape: int) -> Any:
        x = T.from_numpy(rng.standard_normal(shape, np.float32))
        return x.to(memory_format=T.channels_last) if case.get("layout") == "last" else x

    x = tensor(case["batch"], case["cin"], *case["image"])
    w = tensor(case["cout"], case["cin"] // case["groups"], *window)
    g = tensor(case["batch"], case["cout"], *out_size(case))
    function = getattr(F, f"conv{dims}d")
    options = {name: case[name] for name in ("stride", "padding", "groups")}
    if case["part"] == "forward":
        return lambda: function(x, w, **options)
    wanted = (x if case["part"] == "input" else w).requires_grad_()

    def gradient() -> Any:
        # The forward result is wanted by nobody: only its graph is, so it costs nothing here
        # (Treadle drops it); PyTorch is asked for the gradient itself, see torch_worker.
        return T.autograd.grad(function(x, w, **options), wanted, g)

    return gradient
