"""Three of the programs by hand for JAX: a whole step is one compiled function.

Run by an interpreter that has JAX.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={sys.argv[1]}"
)

import jax
import jax.numpy as jnp
import numpy as np

from bench.models.session import Session, answer

jax.config.update("jax_default_prng_impl", "rbg")  # the fastest there is here

_rng = np.random.default_rng(0)
_BATCHES = 8


def _normal(*shape: int, scale: float = 1.0) -> Any:
    return jnp.asarray(_rng.standard_normal(shape, np.float32) * np.float32(scale))


def _integers(high: int, *shape: int) -> Any:
    return jnp.asarray(_rng.integers(0, high, shape))


def _linear(given: int, wanted: int) -> dict[str, Any]:
    return {"w": _normal(given, wanted, scale=(2 / given) ** 0.5), "b": jnp.zeros(wanted)}


def _apply(p: dict[str, Any], x: Any) -> Any:
    return x @ p["w"] + p["b"]


def _cross_entropy(scores: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1).mean()


# --- optimizers -------------------------------------------------------------------------------


def _adam(weights: Any, rate: float, decay: float = 0.0) -> tuple[Any, Callable[..., Any]]:
    """The state, and ``update(weights, gradients, state)``; decay is AdamW's."""
    zeros = jax.tree.map(jnp.zeros_like, weights)

    def update(weights: Any, gradients: Any, state: Any) -> Any:
        t, m, v = state
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
        c, d = 1 - 0.9**t, 1 - 0.999**t
        weights = jax.tree.map(
            lambda p, m, v: (1 - rate * decay) * p - rate * (m / c) / (jnp.sqrt(v / d) + 1e-8),
            weights, m, v,
        )  # fmt: skip
        return weights, (t, m, v)

    return (jnp.float32(0), zeros, jax.tree.map(jnp.copy, zeros)), update


def _momentum(weights: Any, rate: float, decay: float) -> tuple[Any, Callable[..., Any]]:
    """SGD with momentum 0.9 and weight decay."""

    def update(weights: Any, gradients: Any, state: Any) -> Any:
        state = jax.tree.map(lambda s, g, p: 0.9 * s + g + decay * p, state, gradients, weights)
        return jax.tree.map(lambda p, s: p - rate * s, weights, state), state

    return jax.tree.map(jnp.zeros_like, weights), update


def _training(
    weights: Any, made: tuple[Any, Callable[..., Any]], loss: Callable[..., Any],
    batches: list[tuple[Any, ...]], extra: Any = None,
) -> Callable[[int], float]:  # fmt: skip
    """``loss(weights, extra, *batch)`` gives the loss and the next ``extra``."""
    state, update = made

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(weights: Any, state: Any, extra: Any, *batch: Any) -> Any:
        both = jax.value_and_grad(loss, has_aux=True)
        (value, extra), gradients = both(weights, extra, *batch)
        weights, state = update(weights, gradients, state)
        return weights, state, extra, value

    kept = [weights, state, extra]

    def run(i: int) -> float:
        *kept[:], value = step(*kept, *batches[i % len(batches)])
        return float(value)

    return run


# --- programs ---------------------------------------------------------------------------------


def _mlp() -> Callable[[int], float]:
    widths = (784, 512, 256, 10)
    weights = [_linear(a, b) for a, b in pairwise(widths)]
    batches = [(_normal(128, 784), _integers(10, 128)) for _ in range(_BATCHES)]

    def loss(weights: Any, extra: Any, x: Any, labels: Any) -> Any:
        for p in weights[:-1]:
            x = jax.nn.relu(_apply(p, x))
        return _cross_entropy(_apply(weights[-1], x), labels), extra

    return _training(weights, _adam(weights, 1e-3), loss, batches)


def _conv(given: int, wanted: int, window: int) -> dict[str, Any]:
    scale = (2 / (given * window * window)) ** 0.5
    return {"k": _normal(window, window, given, wanted, scale=scale),
            "g": jnp.ones(wanted), "b": jnp.zeros(wanted)}  # fmt: skip


def _conv_norm(p: dict[str, Any], x: Any, stride: int, seen: list[Any]) -> Any:
    """A convolution (channels last) and batch norm; its statistics are added to ``seen``."""
    pad = p["k"].shape[0] // 2
    x = jax.lax.conv_general_dilated(
        x, p["k"], (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    seen.append((mean, variance))
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p["g"] + p["b"]


def _resnet18() -> Callable[[int], float]:
    plan, given = [], 64  # stride of each block
    weights: dict[str, Any] = {"stem": _conv(3, 64, 3), "out": _linear(512, 10), "blocks": []}
    for stage in range(4):
        for i in range(2):
            width, stride = 64 << stage, 2 if stage and not i else 1
            block = {"a": _conv(given, width, 3), "b": _conv(width, width, 3)}
            if given != width:
                block["around"] = _conv(given, width, 1)
            weights["blocks"].append(block)
            plan.append(stride)
            given = width
    batches = [(_normal(32, 32, 32, 3), _integers(10, 32)) for _ in range(_BATCHES)]

    def loss(weights: Any, running: Any, x: Any, labels: Any) -> Any:
        seen: list[Any] = []
        x = jax.nn.relu(_conv_norm(weights["stem"], x, 1, seen))
        for block, stride in zip(weights["blocks"], plan, strict=True):
            y = jax.nn.relu(_conv_norm(block["a"], x, stride, seen))
            y = _conv_norm(block["b"], y, 1, seen)
            around = block.get("around")
            x = jax.nn.relu(y + (_conv_norm(around, x, stride, seen) if around else x))
        running = jax.tree.map(lambda r, s: 0.9 * r + 0.1 * s, running, seen)
        return _cross_entropy(_apply(weights["out"], x.mean((1, 2))), labels), running

    widths = [p["g"].shape for b in weights["blocks"] for p in b.values()]
    running = [(jnp.zeros(s), jnp.ones(s)) for s in (weights["stem"]["g"].shape, *widths)]
    return _training(weights, _momentum(weights, 0.01, 1e-4), loss, batches, running)


def _norm(p: dict[str, Any], x: Any) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p["g"] + p["b"]


def _dropout(x: Any, key: Any, p: float = 0.1) -> Any:
    return jnp.where(jax.random.bernoulli(key, 1 - p, x.shape), x / (1 - p), 0)


def _attend(block: dict[str, Any], x: Any, key: Any, heads: int = 4) -> Any:
    n, t, width = x.shape
    parts = _apply(block["qkv"], x).reshape(n, t, 3, heads, width // heads)
    q, k, v = (parts[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = q @ k.transpose(0, 1, 3, 2) * (width // heads) ** -0.5
    scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -jnp.inf)
    y = _dropout(jax.nn.softmax(scores), key) @ v
    return _apply(block["proj"], y.transpose(0, 2, 1, 3).reshape(n, t, width))


def _gpt() -> Callable[[int], float]:
    width, depth, length, vocabulary = 256, 4, 128, 5000

    def norm() -> dict[str, Any]:
        return {"g": jnp.ones(width), "b": jnp.zeros(width)}

    blocks = [
        {"qkv": _linear(width, 3 * width), "proj": _linear(width, width), "norm1": norm(),
         "rise": _linear(width, 4 * width), "fall": _linear(4 * width, width), "norm2": norm()}
        for _ in range(depth)
    ]  # fmt: skip
    weights = {"tokens": _normal(vocabulary, width, scale=(2 / width) ** 0.5), "norm": norm(),
               "places": _normal(length, width, scale=(2 / width) ** 0.5),
               "blocks": blocks}  # fmt: skip
    batches = [(_integers(vocabulary, 8, length + 1),) for _ in range(_BATCHES)]

    def loss(weights: Any, key: Any, text: Any) -> Any:
        key, *keys = jax.random.split(key, 2 + 3 * depth)
        x = _dropout(weights["tokens"][text[:, :-1]] + weights["places"], keys.pop())
        for block in weights["blocks"]:
            y = _attend(block, _norm(block["norm1"], x), keys.pop())
            x = x + _dropout(y, keys.pop())
            y = jax.nn.gelu(_apply(block["rise"], _norm(block["norm2"], x)), approximate=False)
            x = x + _dropout(_apply(block["fall"], y), keys.pop())
        scores = _norm(weights["norm"], x) @ weights["tokens"].T
        return _cross_entropy(scores.reshape(-1, vocabulary), text[:, 1:].reshape(-1)), key

    return _training(weights, _adam(weights, 3e-4, 0.1), loss, batches, jax.random.key(0))


_TWINS: dict[str, Callable[[], Callable[[int], float]]] = {
    "mlp": _mlp, "resnet18": _resnet18, "gpt": _gpt,
}  # fmt: skip


def _live(step: Callable[[], object]) -> int:
    """What is there between steps: XLA does not say what a step takes inside."""
    step()
    return sum(x.nbytes for x in jax.live_arrays())


if __name__ == "__main__":
    answer(Session(jax.__version__, lambda program: _TWINS[program](), _live))
