"""Scenarios in which what Python holds changes: numbers, closures, lists, arrays, branches."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from treadle.testing.scenarios.scenario import PERIOD, Step, copies, data, leaf, mlp, scenario

_SETTINGS = {"scale": 1.0}


@scenario()
def numbers_that_change(torch: Any) -> Step:
    """Factors, terms and exponents are other numbers in every call."""
    x = leaf(torch, 5, 7)

    def step(i: int) -> list[Any]:
        rate, k = 0.1 * (i % PERIOD), i % 3
        y = (x * rate + k) / (k + 1) - x ** (2 + k)
        x.grad = None
        (y * y).sum().backward()
        return [y.detach(), y.sum().item(), copies([x.grad])]

    return step


@scenario()
def arguments_that_change(torch: Any) -> Step:
    """Numbers handed to composed functions are other ones in every call."""
    x = leaf(torch, 5, 7)

    def step(i: int) -> list[Any]:
        rate = 0.1 * (i % PERIOD)
        x.grad = None
        y = torch.clamp(x * 2, -rate, rate) + torch.nn.functional.leaky_relu(x, rate)
        z = torch.lerp(y, x, rate) + torch.nn.functional.elu(y, 1 + rate)
        z.sum().backward()
        return [y.detach(), z.detach(), copies([x.grad])]

    return step


@scenario()
def closures_and_globals(torch: Any) -> Step:
    """A function reads a global, a closure's variable, a default and an attribute that change."""
    x = torch.tensor(data(4, 6))
    shift, holder = 0.0, type("Holder", (), {"power": 1})()

    def compute(t: Any, extra: float) -> Any:
        return (torch.sin(t) * _SETTINGS["scale"] + shift) ** holder.power + extra

    def step(i: int) -> list[Any]:
        nonlocal shift
        _SETTINGS["scale"] = 1.0 + i % 5
        shift = float(i % 7) if i % PERIOD > 9 else shift
        holder.power = 1 + (i % PERIOD == 12)
        return [compute(x, 0.5), compute(x[:2], i % 3)]

    return step


@scenario()
def lists_that_grow(torch: Any) -> Step:
    """A list of results gets longer from call to call, and is added up and stacked."""
    x = torch.tensor(data(3, 4))
    history: list[Any] = []

    def step(i: int) -> list[Any]:
        if len(history) == 7:
            history.clear()
        history.append(torch.tanh(x + i % PERIOD))
        total = sum(history[1:], history[0])
        return [total, torch.stack(history).mean(0), torch.cat(history).amax(0), len(history)]

    return step


@scenario()
def swapped_roles(torch: Any) -> Step:
    """The arguments change places, and sometimes are the same tensor."""
    a, b = leaf(torch, 4, 4), leaf(torch, 4, 4, seed=1)

    def step(i: int) -> list[Any]:
        nonlocal a, b
        a, b = b, a
        other = a if i % 4 == 3 else b
        a.grad = b.grad = None
        y = torch.exp(a * 0.1) @ other - other.t()
        (y * y).sum().backward()
        return [y.detach(), copies([a.grad, b.grad])]

    return step


@scenario()
def arrays_written_after_use(torch: Any) -> Step:
    """A NumPy array is overwritten after it was used: the value of the moment counts."""
    array, view = data(6, 5), data(6, 5, seed=1)

    def step(i: int) -> list[Any]:
        x = torch.tensor(array)
        y = torch.tanh(x) + torch.from_numpy(view) * 2
        array[i % 6] += 1
        array[:] = np.clip(array, -4, 4)
        view[:, i % 5] = 0.5 * i % 3
        z = torch.tensor(array[::2, 1:]) * 3 + 1
        array[0, 0] = -array[0, 0]
        return [y, z, x]

    return step


@scenario()
def branches_that_flip_late(torch: Any) -> Step:
    """A condition on the call, then one on a value, goes the other way after nine calls."""
    x = torch.tensor(data(8, 8))

    def step(i: int) -> list[Any]:
        late = i % PERIOD
        y = torch.tanh(x * 2) + 1 if late < 9 else torch.relu(x * 2) - 1
        if (y.mean() * (11.5 - late)).item() > 0:
            y = y * 2 + x
        if bool((y > 3 + late / 4).any()):
            return [y / 3, y.sum()]
        return [y - 3, y.prod(0)]

    return step


@scenario()
def loops_on_values(torch: Any) -> Step:
    """How often a loop runs depends on values."""
    x = torch.tensor(data(5, 5))

    def step(i: int) -> list[Any]:
        y, times = x * (1 + i % PERIOD), 0
        while y.abs().max() > 1:
            y, times = y * 0.7 + 0.01, times + 1
        return [y, times]

    return step


@scenario()
def results_kept_across_steps(torch: Any) -> Step:
    """Results are read four calls later, and a state goes from call to call."""
    x, kept = torch.tensor(data(4, 6)), deque[Any](maxlen=5)
    state = torch.zeros(4, 6)

    def step(i: int) -> list[Any]:
        nonlocal state
        state = torch.tanh(state * 0.5 + x * (i % 3))
        kept.append((state * 2, state[1:3, ::2], state.sum()))
        old = kept[0]
        return [old[0] + 1, old[1] * 2, old[2].item() if i % 5 == 4 else 0, *kept[-1]]

    return step


@scenario()
def in_place_with_old_readers(torch: Any) -> Step:
    """A tensor is written to while results of its old value, and views of it, are still unread."""
    x = torch.tensor(data(6, 6))

    def step(i: int) -> list[Any]:
        before, copy = torch.sin(x) * 2, x.clone()
        row, column = x[i % 6], x[:, 1]
        x.mul_(0.5).add_(i % 5)
        row.sub_(1)
        column[2:4] = 0.25
        x[x > 2] -= 1.5
        if i % PERIOD > 10:
            x.t()[0].copy_(copy[0])
        return [before, copy, row.clone(), column.clone(), x * 1, x.sum().item()]

    return step


@scenario()
def dtypes_that_change(torch: Any) -> Step:
    """The same code runs on other dtypes, and so does a model."""
    array, net = data(5, 6), mlp(torch)
    kinds = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.int64)

    def step(i: int) -> list[Any]:
        kind = kinds[i % 5]
        x = (torch.tensor(array) * 3).to(kind)
        y = (x * x + 2 * x - 1).abs()
        wide = i % PERIOD in (9, 10)
        net.double() if wide else net.float()
        z = net(torch.tensor(array).to(torch.float64 if wide else torch.float32))
        net.zero_grad()
        z.sum().backward()
        return [y.to(torch.float32), z.detach(), copies([net[0].weight.grad])]

    return step


@scenario()
def sizes_that_change(torch: Any) -> Step:
    """The last batch is smaller, and sequences have lengths of their own."""
    net, w = mlp(torch), leaf(torch, 6, 6)

    def step(i: int) -> list[Any]:
        n, length = (8, 8, 8, 5)[i % 4], 1 + i * 7 % 6
        out = net(torch.tensor(data(n, 6, seed=i % 4)))
        h = torch.zeros(2, 6)
        for t in range(length):
            h = torch.tanh(h @ w + t)
        net.zero_grad()
        w.grad = None
        (out.square().mean() + h.sum()).backward()
        return [out.detach(), h.detach(), copies([w.grad]), copies([net[2].bias.grad])]

    return step


@scenario()
def empty_batches_that_come_late(torch: Any) -> Step:
    """After eleven calls a batch, then a dimension in the middle, has no elements."""
    net, w = mlp(torch), leaf(torch, 4, 5)

    def step(i: int) -> list[Any]:
        late = i % PERIOD
        n, k = (0 if late in (11, 12) else 4), (0 if late in (12, 13) else 5)
        out = net(torch.tensor(data(n, 6)))
        product = w[:, :k] @ torch.tensor(data(k, 3)) + 1
        net.zero_grad()
        w.grad = None
        ((out * out).sum() + torch.tanh(product).sum()).backward()
        return [out.detach(), product.detach(), copies([w.grad]), copies([net[0].weight.grad])]

    return step


@scenario()
def values_that_are_no_numbers(torch: Any) -> Step:
    """NaN and infinities turn up late, and go again."""
    x = data(6, 7)

    def step(i: int) -> list[Any]:
        array, late = x.copy(), i % PERIOD
        if late in (10, 11):
            array[2, 3], array[4, 4], array[0] = np.nan, np.inf, -np.inf
        t = torch.tensor(array, requires_grad=True)
        y = torch.relu(t) + torch.maximum(t, t * 0.5) + torch.softmax(t, 1)
        y.sum().backward()
        return [y.detach(), y.amax(1).detach(), copies([t.grad])]

    return step


@scenario()
def masks_and_indices(torch: Any) -> Step:
    """Indices, and how many elements a mask takes, are other ones in every call."""
    x = leaf(torch, 9, 4)

    def step(i: int) -> list[Any]:
        rows = torch.tensor([i % 9, (i * 5) % 9, 0])
        mask = x.detach() > 0.3 * (i % 5) - 0.5
        x.grad = None
        picked = x[rows] * 2
        chosen = torch.exp(x[mask])
        (picked.sum() + chosen.sum()).backward()
        return [picked.detach(), chosen.detach(), mask.sum().item(), copies([x.grad])]

    return step


@scenario()
def temporaries_that_are_kept(torch: Any) -> Step:
    """Some calls keep a hidden result (in a dictionary, or in a cycle) that others drop."""
    net, kept = mlp(torch), {}

    def step(i: int) -> list[Any]:
        x = torch.tensor(data(3, 6, seed=i % 2))
        hidden = net[1](net[0](x))
        if i % 7 in (4, 5):
            kept["hidden"], kept["raw"] = hidden, net[0](x)
        if i % 5 == 3:
            cycle: list[Any] = [hidden]
            cycle.append(cycle)
        loss = net[2](hidden).square().sum()
        net.zero_grad()
        loss.backward()
        del hidden
        if i % PERIOD == 13:
            gc.collect(1)
        return [loss.detach(), moved_first(net), *copies(kept.values())]

    def moved_first(net: Any) -> list[Any]:
        return copies([net[0].weight.grad, net[0].bias.grad])

    return step


@scenario()
def steps_spread_over_coroutines(torch: Any) -> Step:
    """Two generators share the steps: what one recorded is unread while the other goes on."""

    def training(seed: int) -> Iterator[Any]:
        net = mlp(torch, seed)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        while True:
            loss = net(torch.tensor(data(4, 6, seed=seed))).square().mean()
            yield loss.detach()
            optimizer.zero_grad()
            loss.backward()
            yield None
            optimizer.step()
            yield net[2].bias.detach().clone()

    trainings = [training(0), training(1)]

    def step(i: int) -> list[Any]:
        turns = [next(trainings[(i + k) % 3 % 2]) for k in range(4)]
        return [t for t in turns if t is not None]

    return step


@scenario(is_random=True)
def random_numbers(torch: Any) -> Step:
    """Draws of several kinds; seeds are set again, and states saved and put back."""
    x = torch.tensor(data(16, 8))
    saved = [torch.get_rng_state()]

    def step(i: int) -> list[Any]:
        if i % 6 == 0:
            torch.manual_seed(i % 12)
        if i % 6 == 2:
            saved[0] = torch.get_rng_state()
        if i % 6 == 4:
            torch.set_rng_state(saved[0])
        noise = torch.randn(16, 8) * 0.1 + x
        dropped = torch.nn.functional.dropout(noise, 0.1 * (i % 4), training=i % 5 != 3)
        mask = torch.bernoulli(torch.sigmoid(x))
        order = torch.randperm(6 + i % 3)
        return [noise, dropped * mask, order, torch.randint(0, 5 + i % 4, (3,)), torch.rand(())]

    return step
