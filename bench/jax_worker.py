"""JAX's side of the kernel benchmark: the loops as compiled functions.

Run by the interpreter that has JAX, with ``bench/workloads.py`` beside it for the inputs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={sys.argv[1]}"
)

import jax
import jax.numpy as jnp
import numpy as np
from timing import seconds_per_call
from workloads import MEGA, loop_inputs


def _layer_norm(x: Any, w: Any, b: Any) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * w + b


def _batch_norm(x: Any, w: Any, b: Any) -> Any:
    axes = (0, 2, 3)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    w, b = w[:, None, None], b[:, None, None]
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * w + b


def _cross_entropy(x: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1).mean()


def _adam(p: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    m = m * 0.9 + g * 0.1
    v = v * 0.999 + g * g * 0.001
    return p - 0.001 * (m / 0.5) / (jnp.sqrt(v / 0.25) + 1e-8), m, v


def _dropout(x: Any, key: Any) -> Any:
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x * 2, 0)


_LOOPS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "exp": jnp.exp,
    "tanh": jnp.tanh,
    "erf": jax.scipy.special.erf,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "softmax": jax.nn.softmax,
    "cross_entropy": _cross_entropy,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "sum_0": lambda x: x.sum(0),
    "sum_1": lambda x: x.sum(1),
    "max_0": lambda x: x.max(0),
    "max_1": lambda x: x.max(1),
    "argmax_0": lambda x: x.argmax(0),
    "argmax_1": lambda x: x.argmax(1),
    "cumsum": lambda x: jnp.cumsum(x, -1),
    "sort": jnp.sort,
    "sort_one_row": jnp.sort,
    "topk": lambda x: jax.lax.top_k(x, 10)[0],
    "transpose": lambda x: x.T.reshape(-1),
    "gather": lambda x, index: jnp.take_along_axis(x, index, 1),
    "scatter_add": lambda x, index, y: x.at[jnp.arange(x.shape[0])[:, None], index].add(y),
    "embedding": lambda table, index: table[index],
    "dropout": _dropout,
    "normal": lambda key: jax.random.normal(key, (MEGA,)),
    "adam": _adam,
}
_calls: dict[str, Callable[[], Any]] = {}


def _build(case: dict[str, Any]) -> Callable[[], Any]:
    name = case["name"]
    inputs: list[Any] = [jnp.asarray(x) for x in loop_inputs(name)]
    if name in ("dropout", "normal"):
        inputs.append(jax.random.key(0))
    function = _LOOPS[name]
    if case["part"] == "forward":
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*inputs))
    floats = [i for i, x in enumerate(inputs) if x.dtype == jnp.float32]
    shape = jax.eval_shape(function, *inputs).shape
    g = jnp.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))

    def both(adjoint: Any, *given: Any) -> Any:
        def of_floats(*leaves: Any) -> Any:
            full = list(given)
            for i, leaf in zip(floats, leaves, strict=True):
                full[i] = leaf
            return function(*full)

        y, pull = jax.vjp(of_floats, *(given[i] for i in floats))
        return y, pull(adjoint)

    compiled = jax.jit(both)
    return lambda: jax.block_until_ready(compiled(g, *inputs))


def kernel(case: dict[str, Any]) -> dict[str, float]:
    """Seconds of one call."""
    key = json.dumps(case, sort_keys=True)
    if key not in _calls:
        _calls.clear()
        _calls[key] = _build(case)
        _calls[key]()
    return {"seconds": seconds_per_call(_calls[key])}


for line in sys.stdin:
    request = json.loads(line)
    tasks: dict[str, Callable[..., Any]] = {"kernel": kernel, "version": lambda: jax.__version__}
    print(json.dumps(tasks[request.pop("task")](**request)), flush=True)
