"""Scenarios in which the framework is entered from elsewhere: functions, hooks, threads, depth."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

from treadle.testing.scenarios.scenario import (
    PERIOD,
    Step,
    copies,
    data,
    leaf,
    mlp,
    moved,
    scenario,
)
from treadle.testing.scenarios.trainings import batch, sgd


@scenario()
def functions_that_evaluate(torch: Any) -> Step:
    """A function reads values in its forward, and runs a backward pass in its own."""
    x = leaf(torch, 4, 5)

    class Solve(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, t: Any, power: int) -> Any:
            ctx.save_for_backward(t)
            ctx.scale = 1.0 + (t.sum().item() > 0) + power
            return t * ctx.scale

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (t,) = ctx.saved_tensors
            with torch.enable_grad():
                inner = t.detach().requires_grad_()
                (torch.sin(inner) * ctx.scale).sum().backward()
            return g * inner.grad, None

    def step(i: int) -> list[Any]:
        x.grad = None
        y = Solve.apply(torch.tanh(x * (i % 4 - 1.5)), i % 2)
        (y * y).sum().backward()
        return [y.detach(), *copies([x.grad])]

    return step


@scenario()
def results_that_are_arguments(torch: Any) -> Step:
    """Functions return an argument, the same tensor twice, or views of one."""
    x = leaf(torch, 4, 4)

    class Same(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, t: Any) -> Any:
            return t

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    def several(t: Any, i: int) -> tuple[Any, ...]:
        doubled = t * 2
        return (t, t, doubled, doubled, doubled[i % 4], t.t())

    def step(i: int) -> list[Any]:
        x.grad = None
        a, b, c, d, row, turned = several(x, i)
        if i % PERIOD > 9:
            c = c + d
        loss = (a * b).sum() + (c * d).sum() + (row * turned[0]).sum() + Same.apply(a).sum()
        loss.backward()
        return [loss.detach(), a.detach().clone(), row.detach(), *copies([x.grad])]

    return step


@scenario()
def hooks_on_modules(torch: Any) -> Step:
    """Hooks read values, change results, come late and go again."""
    net = mlp(torch)
    optimizer = sgd(torch, net)
    seen: list[float] = []

    def reading(module: Any, inputs: Any, output: Any) -> None:
        seen.append(output.mean().item())

    def scaling(module: Any, inputs: Any, output: Any) -> Any:
        with torch.no_grad():
            norm = output.square().mean().sqrt().item()
        return output / (1 + norm)

    handles: list[Any] = [net[0].register_forward_hook(reading)]

    def step(i: int) -> list[Any]:
        if i % PERIOD == 9:
            handles.append(net[1].register_forward_hook(scaling))
        if i % PERIOD == 13:
            handles.pop().remove()
        seen.clear()
        loss = net(batch(torch, i)[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [loss.detach(), *seen, moved(net)]

    return step


@scenario(size=8)
def many_threads(torch: Any) -> Step:
    """Four threads train at the same time, each a net of its own, and sum for all."""
    nets = [mlp(torch, seed) for seed in range(4)]
    optimizers = [sgd(torch, net) for net in nets]
    shared = torch.tensor(data(4, 6))

    def step(i: int) -> list[Any]:
        losses: dict[int, Any] = {}

        def work(k: int) -> None:
            for repeat in range(2):
                loss = nets[k](torch.sin(shared * (k + 1)) + i % 4).square().mean()
                optimizers[k].zero_grad()
                loss.backward()
                if repeat == k % 2:
                    loss.item()
                optimizers[k].step()
            losses[k] = loss.detach()

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [losses[k] for k in range(4)] + list(map(moved, nets))

    return step


@scenario()
def recorded_here_and_read_there(torch: Any) -> Step:
    """Another thread reads what this one recorded, and records on it."""
    x = leaf(torch, 5, 5)

    def step(i: int) -> list[Any]:
        x.grad = None
        mine = torch.sigmoid(x.detach() * 3) * 2 + i % 5
        found: list[Any] = [mine.sum().item()]
        y = torch.tanh(x * (i % 3)) + 1

        def work() -> None:
            z = torch.exp(y * 0.5).sum()
            if i % 2:
                found.append(y.sum().item())
            z.backward()
            found.append(z.detach())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return [*found, (y * 2).detach(), mine, *copies([x.grad])]

    return step


@scenario()
def a_debugger_steps_through(torch: Any) -> Step:
    """A trace function looks at every variable at every line, in some calls."""
    net = mlp(torch)
    optimizer = sgd(torch, net)
    watched: list[Any] = []

    def look(frame: Any, event: str, argument: Any) -> Any:
        watched[:] = [dict(frame.f_locals)]  # holds what is there at this line
        for name, value in watched[0].items():
            if name == "hidden" and event == "line":
                watched.append(value.sum().item())
        return look

    def train(i: int) -> Any:
        x, labels = batch(torch, i)
        hidden = torch.tanh(net[0](x) * 1.5)
        scores = net[2](hidden)
        loss = torch.nn.functional.cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def step(i: int) -> list[Any]:
        before = sys.gettrace()
        if i % 6 > 3:
            sys.settrace(lambda frame, *rest: look if frame.f_code is train.__code__ else None)
        try:
            loss = train(i)
        finally:
            sys.settrace(before)
        return [loss, moved(net)]

    return step


@scenario()
def a_collector_that_comes_at_any_time(torch: Any) -> Step:
    """Cycles hold tensors; the collector runs in the middle, and a destructor computes."""
    x = leaf(torch, 4, 4)
    sums: list[Any] = []

    class Holder:
        def __init__(self, value: Any) -> None:
            self.value, self.me = value, self

        def __del__(self) -> None:
            sums.append((self.value * 2).sum())  # whenever that is

    def step(i: int) -> list[Any]:
        x.grad = None
        while sums:
            sums.pop().item()
        y = torch.tanh(x * (i % 3)) * 2
        Holder(y.detach() + 1)
        z = (y * y).sum()
        if i % PERIOD in (6, 7, 11):
            gc.collect(1)  # before the gradient is recorded
        z.backward()
        if i % PERIOD in (2, 3, 7, 9):
            gc.collect(1)
        return [z.detach(), *copies([x.grad])]

    return step


@scenario(size=100)
def recursion_ten_thousand_deep(torch: Any) -> Step:
    """Every call goes ten thousand calls deep before it has a result, and back."""
    x = leaf(torch, 3)

    def nest(t: Any, depth: int, i: int) -> Any:
        if not depth:
            return t
        inner = nest(t, depth - 1, i)
        return inner * 0.999 + t if depth % 100 == 0 else inner + 0.001 * i

    def step(i: int) -> list[Any]:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(50_000)
        try:
            y = nest(x * 1, 10_000, i)
        finally:
            sys.setrecursionlimit(before)
        x.grad = None
        y.sum().backward()
        return [y.detach(), *copies([x.grad])]

    return step


@scenario(size=8, repeats=False)
def trees_one_at_a_time(torch: Any) -> Step:
    """Recursion over trees of other shapes in every call: no graph comes twice in a row."""
    w, v = leaf(torch, 6, 3), leaf(torch, 3)

    def compute(tree: Any) -> Any:
        if isinstance(tree, int):
            return v * (tree % 3)
        left, right = map(compute, tree)
        return torch.tanh(torch.cat([left, right]) @ w)

    def grow(seed: int, size: int) -> Any:
        if size == 1:
            return seed % 7
        cut = 1 + seed * 7 % (size - 1)
        return grow(seed * 3 + 1, cut), grow(seed * 5 + 2, size - cut)

    def step(i: int) -> list[Any]:
        w.grad = v.grad = None
        total: Any = sum(compute(grow(i % 24 + k, 5 + (i + k) % 9)).sum() for k in range(4))
        total.backward()
        return [total.detach(), *copies([w.grad, v.grad])]

    return step
