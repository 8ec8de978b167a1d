"""Random programs, to be run in several ways that must give the same bits.

A program is drawn from a seed: what it does next depends on the seed and on shapes, never on
values. After every step it calls ``barrier`` with the values so far, where a test may evaluate
some of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.base.record import Record
from treadle.ir.node import Limits
from treadle.nn import functional as F
from treadle.optim import Adam
from treadle.random.generator import Generator, manual_seed
from treadle.random.sampling import rand
from treadle.tensor import arithmetic as a
from treadle.tensor import joining, movement, reduction, selection
from treadle.tensor.creation import from_numpy
from treadle.tensor.gradients import backward, grad
from treadle.tensor.tensor import Tensor
from treadle.testing.layouts import Place
from treadle.testing.networks import NETWORKS
from treadle.testing.scenarios import SCENARIOS, treadle

Array = np.ndarray[Any, Any]
Barrier = Callable[[Sequence[Tensor]], None]

_FLOATS = (dtypes.float32, dtypes.float32, dtypes.float32, dtypes.float64, dtypes.bfloat16,
           dtypes.float16)  # fmt: skip
_SHAPES = ((), (1,), (7,), (0, 3), (3, 5), (5, 3), (4, 1, 6), (2, 3, 9, 8), (2, 4, 3, 1, 2),
           (33, 65), (70, 130), (5000,), (3, 1400))  # fmt: skip
_MOST = 20_000  # elements of a value
_UNARY = (
    a.tanh, a.sigmoid, a.sin, a.cos, a.erf, a.relu, a.abs, a.neg, a.square, a.round, a.floor,
    F.gelu, F.silu, F.softplus, F.elu, F.leaky_relu, lambda x: a.sqrt(a.abs(x)),
    lambda x: a.log1p(a.abs(x)), lambda x: a.expm1(a.tanh(x)), lambda x: (a.square(x) + 1).rsqrt(),
    lambda x: a.exp(a.clamp(x, -3, 3)), lambda x: 1.5 - x, lambda x: x / 3, lambda x: x**3,
    lambda x: a.log(a.square(x) + 0.5), lambda x: a.reciprocal(a.square(x) + 0.25),
)  # fmt: skip
_BINARY = (
    a.add, a.sub, a.mul, a.maximum, a.minimum, lambda x, y: x / (a.abs(y) + 1),
    lambda x, y: a.where(x > y, x, y * 2), lambda x, y: a.lerp(x, y, 0.3),
    lambda x, y: a.pow(a.abs(x) + 0.5, a.tanh(y)), lambda x, y: x * (y >= 0),
)  # fmt: skip


class Run(Record):
    """What a program did and what came of it: its values, then its gradients."""

    steps: list[str]
    results: list[Array]
    refused: bool = False  # an operation did not take the values


class _Program:
    """The state of a program while it runs."""

    def __init__(self, seed: int, place: Place) -> None:
        self.rng = np.random.default_rng(seed)
        self.generator = Generator().manual_seed(seed)
        self.place = place
        self.leaves: list[Tensor] = []
        self.values: list[Tensor] = []

    def array(self, shape: Sequence[int], low: float = -2.0, high: float = 2.0) -> Array:
        return self.rng.uniform(low, high, tuple(shape))

    def tensor(self, shape: Sequence[int], dtype: Any, requires_grad: bool = True) -> Tensor:
        """A leaf, in memory as the program's ``place`` puts it."""
        x = self.place(self.array(shape).astype(dtype.numpy))
        if requires_grad:
            x.requires_grad_()
            self.leaves.append(x)
        return x

    def pick(self, accepts: Callable[[Tensor], bool] = lambda x: True) -> Tensor | None:
        """One of the values that a step accepts, later ones rather."""
        fitting = [x for x in self.values if accepts(x)]
        if not fitting:
            return None
        at = len(fitting) - 1 - min(int(self.rng.exponential(2.0)), len(fitting) - 1)
        return fitting[at]

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def axis(self, x: Tensor) -> int:
        return int(self.rng.integers(x.ndim))


# --- steps: each gives a new value, or None where nothing fits ------------------------------------


def _leaf(p: _Program) -> Tensor:
    """Of one of the shapes that are worth a try, or of a drawn one."""
    shape = p.one_of(_SHAPES)
    if p.rng.random() < 0.5:
        shape = tuple(int(n) for n in p.rng.integers(1, 14, p.rng.integers(1, 5)))
    return p.tensor(shape, p.one_of(_FLOATS))


def _unary(p: _Program) -> Tensor | None:
    x = p.pick()
    return None if x is None else p.one_of(_UNARY)(x)


def _binary(p: _Program) -> Tensor | None:
    """With a value of the same shape, or with a new leaf that is broadcast."""
    x = p.pick()
    if x is None:
        return None
    y = p.pick(lambda other: other.shape == x.shape)
    if y is None or p.rng.random() < 0.4:
        shape = [n if p.rng.random() < 0.6 else 1 for n in x.shape][int(p.rng.integers(2)) :]
        y = p.tensor(shape, p.one_of((x.dtype, dtypes.float32)))
    return p.one_of(_BINARY)(x, y)


def _convert(p: _Program) -> Tensor | None:
    x = p.pick()
    return None if x is None else x.to(p.one_of(_FLOATS))


def _reduce(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: x.ndim > 0 and x.numel() > 0)
    if x is None:
        return None
    keep = bool(p.rng.integers(2))
    dims = [d for d in range(x.ndim) if p.rng.random() < 0.5] or [p.axis(x)]
    kind = p.one_of(("sum", "mean", "amax", "var", "logsumexp", "prod", "norm", "max"))
    if kind == "prod":
        return reduction.prod(a.tanh(x) + 1, dims[0], keepdim=keep)
    if kind == "max":
        return reduction.max(x, dims[0], keepdim=keep).values
    if kind == "var":
        return reduction.var(x, dims, correction=0, keepdim=keep)
    return getattr(reduction, kind)(x, dim=dims, keepdim=keep)


def _normalise(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: x.ndim > 0 and x.numel() > 0)
    if x is None:
        return None
    kind = int(p.rng.integers(4))
    if kind == 0:
        return reduction.softmax(x, p.axis(x))
    if kind == 1:
        return reduction.log_softmax(x, p.axis(x))
    if kind == 2 or x.ndim < 2:
        return F.layer_norm(x, (x.shape[-1],))
    return F.batch_norm(x, None, None, training=True) if x.shape[0] > 1 else None


def _matmul(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: 2 <= x.ndim <= 4)
    if x is None:
        return None
    columns = int(p.one_of((1, 5, 40)))
    if x.numel() // max(x.shape[-1], 1) * columns > _MOST:
        return None
    if p.rng.random() < 0.5:
        return F.linear(x, p.tensor((columns, x.shape[-1]), x.dtype)) / 8
    return x @ p.tensor((x.shape[-1], columns), x.dtype)


def _convolve(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: x.ndim == 4 and min(x.shape[2:]) >= 3 and x.numel() > 0)
    if x is None:
        return None
    stride, padding = int(p.rng.integers(1, 3)), int(p.rng.integers(2))
    weight = p.tensor((int(p.one_of((1, 4, 9))), x.shape[1], 3, int(p.one_of((1, 3)))), x.dtype)
    return F.conv2d(x, weight / 4, stride=stride, padding=padding)


def _pool(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: x.ndim == 4 and min(x.shape[2:]) >= 2 and x.numel() > 0)
    if x is None:
        return None
    pool = p.one_of((F.max_pool2d, F.avg_pool2d))
    return pool(x, 2, stride=int(p.rng.integers(1, 3)))


def _view(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: x.ndim > 0)
    if x is None:
        return None
    kind, axis = int(p.rng.integers(6)), p.axis(x)
    if kind == 0:
        return movement.permute(x, tuple(int(i) for i in p.rng.permutation(x.ndim)))
    if kind == 1:
        return movement.reshape(x, (-1,)) if x.numel() else movement.unsqueeze(x, axis)
    if kind == 2:
        start, step = int(p.rng.integers(2)), int(p.rng.integers(1, 4))
        return x[(slice(None),) * axis + (slice(start, None, step),)]
    if kind == 3:
        return joining.flip(x, (axis,))
    if kind == 4:
        return movement.unsqueeze(x, axis)
    return x.expand(2, *x.shape) if 2 * x.numel() <= _MOST and x.ndim < 6 else None


def _views(p: _Program) -> Tensor | None:
    """A chain of them."""
    values, x = p.values, _view(p)
    for _ in range(int(p.rng.integers(1, 5))):
        if x is None or not x.ndim:
            break
        p.values = [x]
        seen = _view(p)
        x = x if seen is None else seen
    p.values = values
    return x


def _join(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: x.ndim > 0 and x.numel() <= _MOST // 3)
    if x is None:
        return None
    kind = int(p.rng.integers(4))
    if kind == 0:
        return joining.cat([x, a.neg(x), x], p.axis(x))
    if kind == 1:
        return joining.stack([x, x * 2], p.axis(x))
    if kind == 2:
        return joining.pad(x, (1, 2), value=0.5)
    return joining.roll(x, 1, p.axis(x))


def _index(p: _Program) -> Tensor | None:
    x = p.pick(lambda x: x.ndim > 0 and x.numel() > 0)
    if x is None:
        return None
    axis, kind = p.axis(x), int(p.rng.integers(4))
    where = p.place(p.rng.integers(0, x.shape[axis], 4))
    if kind == 0:
        return selection.index_select(x, axis, where)
    if kind == 1:
        return selection.masked_fill(x, x > 1, 0.25)
    if kind == 2:
        return x[p.place(p.rng.integers(0, x.shape[0], (3, 2)))] if x.ndim < 5 else None
    shape = [4 if d == axis else n for d, n in enumerate(x.shape)]
    indices = p.place(p.rng.integers(0, x.shape[axis], shape))
    return selection.gather(x, axis, indices) if indices.numel() <= _MOST else None


def _write(p: _Program) -> Tensor | None:
    """In place, through views, on a copy of a value."""
    x = p.pick(lambda x: x.ndim > 0 and x.shape[0] > 1)
    if x is None:
        return None
    y = x.clone()
    y[1:] += 1
    y[0] = p.tensor(x.shape[1:], x.dtype)
    movement.transpose(y, 0, x.ndim - 1).mul_(0.5)
    return y


def _random(p: _Program) -> Tensor | None:
    x = p.pick()
    if x is None:
        return None
    return x * (rand(x.shape, generator=p.generator) < 0.7)


_STEPS: tuple[tuple[Callable[[_Program], Tensor | None], int], ...] = (
    (_leaf, 2), (_unary, 6), (_binary, 6), (_convert, 1), (_reduce, 4), (_normalise, 3),
    (_matmul, 3), (_convolve, 3), (_pool, 2), (_view, 3), (_views, 3), (_join, 2),
    (_index, 3), (_write, 2), (_random, 2),
)  # fmt: skip


# --- running ------------------------------------------------------------------------------------


def run_program(
    seed: int,
    barrier: Barrier = lambda values: None,
    *,
    num_steps: int = 25,
    place: Place = from_numpy,
) -> Run:
    """Runs the program of that seed, forward and backward, every fourth to second order.

    ``place`` puts the inputs into memory (see ``layouts``).
    """
    p = _Program(seed, place)
    p.values = [p.tensor((2, 3, 9, 8), dtypes.float32), p.tensor((33, 65), dtypes.float32)]
    weights = np.array([weight for _, weight in _STEPS], float)
    steps: list[str] = []
    while len(steps) < num_steps:
        step = _STEPS[int(p.rng.choice(len(_STEPS), p=weights / weights.sum()))][0]
        value = step(p)
        if value is not None and value.numel() <= _MOST:
            steps.append(f"{step.__name__[1:]}: {value.dtype.name}{list(value.shape)}")
            p.values.append(value if p.rng.random() < 0.7 else a.tanh(value))
            barrier(p.values)
    losses = [x for x in p.values[-6:] if x.requires_grad]
    seeds = [from_numpy(p.array(x.shape, 0.5, 1.0)).to(x.dtype) for x in losses]
    if seed % 4 == 0:
        gradients = _second_order(losses, seeds, p.leaves, barrier)
    else:
        backward(losses, seeds)
        gradients = [x.grad for x in p.leaves if x.grad is not None]
    barrier(gradients)
    results = [x.numpy(force=True).copy() for x in (*p.values, *gradients)]
    return Run(steps, results)


def _second_order(
    losses: list[Tensor], seeds: list[Tensor], leaves: list[Tensor], barrier: Barrier
) -> list[Tensor]:
    """First gradients, and those of the sum of their tanh."""
    first = [g for g in grad(losses, leaves, seeds, create_graph=True, allow_unused=True)
             if g is not None]  # fmt: skip
    barrier(first)
    bounded = [a.tanh(g).sum() for g in first if g.requires_grad]
    second = grad(bounded, leaves, allow_unused=True) if bounded else ()
    return [*first, *(g for g in second if g is not None)]


def run_training(
    barrier: Barrier = lambda values: None, num_steps: int = 3, name: str = "lenet",
    place: Place = from_numpy,
) -> Run:  # fmt: skip
    """A small network (of ``networks.NETWORKS``) trained by Adam: losses, parameters, buffers."""
    manual_seed(5)
    net, loss_of = NETWORKS[name](place)
    optimizer = Adam(net.parameters(), lr=0.01)
    rng = np.random.default_rng(1)
    losses = []
    for _ in range(num_steps):
        loss = loss_of(rng)
        barrier([loss])
        optimizer.zero_grad()
        loss.backward()
        barrier([p.grad for p in net.parameters() if p.grad is not None])
        optimizer.step()
        losses.append(loss)
    state = net.state_dict()
    results = [x.numpy(force=True).copy() for x in (*losses, *state.values())]
    return Run([f"step {i}" for i in range(num_steps)] + list(state), results)


def run_scenario(barrier: Barrier, name: str, num_steps: int) -> Run:
    """A scenario (of ``scenarios.SCENARIOS``): all that its steps give, read at the end."""
    manual_seed(3)
    step = SCENARIOS[name].begin(treadle())
    labels: list[str] = []
    found: list[Any] = []
    for i in range(num_steps):
        values = list(_flat(step(i)))
        labels += [f"step {i}, result {k}" for k in range(len(values))]
        found += values
        barrier([x for x in values if isinstance(x, Tensor)])
    return Run(labels, [
        x.numpy(force=True).copy() if isinstance(x, Tensor) else np.array(x) for x in found
    ])  # fmt: skip


def _flat(values: Any) -> Iterator[Any]:
    for x in values:
        if isinstance(x, list):
            yield from _flat(x)
        else:
            yield x


@contextmanager
def evaluated(policy: str, seed: int = 0) -> Iterator[Barrier]:
    """Inside, values are evaluated as ``policy`` says; yields the barrier for ``run_program``.

    "end": when read at the end. "each": after every operation. "some": after every k operations,
    k drawn anew each time. "reads": random values at random points, and pending work at others.
    "all": all values at every barrier.
    """
    rng = np.random.default_rng(seed)
    nodes, nbytes = Limits.nodes, Limits.nbytes
    most = {"end": 1 << 60, "each": 1, "some": 1 << 60, "reads": 1 << 60, "all": 1 << 60}
    if policy not in most:
        raise ValueError(f"got the policy {policy!r}; expected one of {', '.join(most)}")

    def barrier(values: Sequence[Tensor]) -> None:
        if policy == "some":
            Limits.nodes = int(rng.integers(1, 30))
        elif policy == "reads" and values and rng.random() < 0.4:
            values[int(rng.integers(len(values)))].numpy(force=True)
        elif policy == "all":
            for x in values:
                x.numpy(force=True)

    Limits.nodes, Limits.nbytes = most[policy], 1 << 60
    try:
        yield barrier
    finally:
        Limits.nodes, Limits.nbytes = nodes, nbytes


def _bits(x: Array) -> bytes:
    """The bytes of an array, with one NaN for all."""
    if np.issubdtype(x.dtype, np.integer) or x.dtype == np.bool_:
        return x.tobytes()
    nan = np.isnan(x.astype(np.float64))
    return x.tobytes() if not nan.any() else np.where(nan, np.nan, x).astype(x.dtype).tobytes()


def same_bits(x: Array, y: Array) -> bool:
    """True where shapes, dtypes and bytes are equal; all NaNs count as one."""
    return x.shape == y.shape and x.dtype == y.dtype and _bits(x) == _bits(y)


def fingerprint(runs: Sequence[Run]) -> str:
    """A digest of all bits of all results; all NaNs count as one."""
    digest = hashlib.sha256()
    for run in runs:
        for x in run.results:
            digest.update(f"{x.dtype}{x.shape}".encode())
            digest.update(_bits(x))
    return digest.hexdigest()


def first_difference(one: Run, other: Run) -> str:
    """Where two runs of a program differ, for people; empty where they do not."""
    if one.steps != other.steps:
        return f"other steps: {one.steps} and {other.steps}"
    if len(one.results) != len(other.results):
        return f"{len(one.results)} and {len(other.results)} results"
    for position, (x, y) in enumerate(zip(one.results, other.results, strict=True)):
        if not same_bits(x, y):
            count = int(np.count_nonzero(x != y)) if x.shape == y.shape else x.size
            steps = "\n  ".join(one.steps)
            if len(one.steps) == len(one.results):
                steps = one.steps[position]
            return (
                f"result {position} differs, {x.dtype}{list(x.shape)}, in {count} elements; "
                f"the steps:\n  {steps}"
            )
    return ""
