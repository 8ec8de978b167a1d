"""Scenarios of training: modes, parameters, gradients, optimizers and losses that change."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from treadle.testing.scenarios.scenario import (
    PERIOD,
    Step,
    copies,
    data,
    filled,
    leaf,
    mlp,
    moved,
    scenario,
)


def batch(torch: Any, i: int) -> tuple[Any, Any]:
    """Four rows of six numbers and their labels, other ones in every call of a period."""
    return torch.tensor(data(4, 6, seed=i % PERIOD)), torch.tensor([i % 3, 2, 0, (i + 1) % 3])


def sgd(torch: Any, net: Any) -> Any:
    """SGD with momentum."""
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


@scenario()
def losses_read_sometimes(torch: Any) -> Step:
    """The loss is added up in every call and read in few; it is printed in one."""
    net = mlp(torch)
    optimizer, criterion = torch.optim.Adam(net.parameters(), lr=0.01), torch.nn.CrossEntropyLoss()
    total = torch.zeros(())

    def step(i: int) -> list[Any]:
        nonlocal total
        x, labels = batch(torch, i)
        loss = criterion(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        if i % PERIOD == 11:
            repr(loss)
        optimizer.step()
        total = total + loss.detach()
        if i % 7 < 6:
            return []
        mean, total = total.item() / 7, torch.zeros(())
        return [mean, moved(net)]

    return step


@scenario(is_random=True)
def train_and_eval(torch: Any) -> Step:
    """Dropout and batch norm change their mode every few calls."""
    nn = torch.nn
    net = filled(torch, nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3),
    ))  # fmt: skip
    optimizer = sgd(torch, net)

    def step(i: int) -> list[Any]:
        net.train(i % 5 != 4)
        out = net(batch(torch, i)[0])
        if not net.training:
            return [out.detach(), *copies(net.buffers())]
        optimizer.zero_grad()
        out.square().mean().backward()
        optimizer.step()
        return [out.detach(), moved(net), *copies(net.buffers())]

    return step


@scenario()
def batch_norm_modes(torch: Any) -> Step:
    """Batch norm changes its mode, its momentum and whether it follows the statistics."""
    nn = torch.nn
    norm = nn.BatchNorm2d(3)
    net = filled(torch, nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.ReLU(), nn.Flatten()))

    def step(i: int) -> list[Any]:
        net.train(i % 4 != 3)
        norm.momentum = 0.1 if i % PERIOD < 9 else 0.3
        out = net(torch.tensor(data(2, 1, 5, 5, seed=i % 3)))
        net.zero_grad()
        (out * out).mean().backward()
        return [out.detach(), *copies(net.buffers()), copies(p.grad for p in net.parameters())]

    return step


@scenario()
def requires_grad_toggles(torch: Any) -> Step:
    """Layers are frozen and thawed; the input requires a gradient in some calls."""
    net = mlp(torch)
    optimizer = sgd(torch, net)

    def step(i: int) -> list[Any]:
        net[0].requires_grad_(i % 6 < 4)
        net[2].bias.requires_grad_(i % 3 != 1)
        x = torch.tensor(data(4, 6, seed=i % 2), requires_grad=i % PERIOD > 9)
        loss = net(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [loss.detach(), moved(net), *copies([x.grad])]

    return step


@scenario()
def parameters_added_later(torch: Any) -> Step:
    """After five calls a layer is put in and its parameters join the optimizer; later another."""
    nn = torch.nn
    net = nn.Sequential(*mlp(torch))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

    def step(i: int) -> list[Any]:
        if i in (5, 11):
            layer = filled(torch, nn.Linear(3, 3), seed=i)
            net.append(layer)
            optimizer.add_param_group({"params": layer.parameters(), "lr": 0.02 + i / 100})
        loss = net(batch(torch, i)[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [loss.detach(), moved(net)]

    return step


@scenario()
def gradients_accumulated_unevenly(torch: Any) -> Step:
    """One to four backward passes before a step, of losses with other weights."""
    net = mlp(torch)
    optimizer, criterion = sgd(torch, net), torch.nn.CrossEntropyLoss()

    def step(i: int) -> list[Any]:
        times = (1, 3, 2, 4, 2)[i % 5]
        for k in range(times):
            x, labels = batch(torch, i + k)
            (criterion(net(x), labels) / times).backward()
        if i % 3 == 1:
            return [moved(net)]  # keeps what it has for the next call
        optimizer.step()
        optimizer.zero_grad(set_to_none=i % 2 == 0)
        return [moved(net)]

    return step


@scenario()
def exceptions_in_the_middle(torch: Any) -> Step:
    """A call ends after the forward pass, after backward, in a wrong shape or a wrong index."""
    net = mlp(torch)
    optimizer = sgd(torch, net)
    table = torch.tensor(data(3))

    def attempt(i: int) -> None:
        loss = net(batch(torch, i)[0]).square().mean()
        if i % 5 == 3:
            raise KeyError(i)
        optimizer.zero_grad()
        loss.backward()
        if i % 7 == 5:
            raise KeyError(i)
        if i % 8 == 6:
            _ = net[0](loss.reshape(1, 1))
        if i % 9 == 7:
            _ = (loss * table[torch.tensor([0, i])]).tolist()
        optimizer.step()

    def step(i: int) -> list[Any]:
        with suppress(KeyError, RuntimeError, IndexError):
            attempt(i)
        return [moved(net)]

    return step


@scenario()
def two_optimizers(torch: Any) -> Step:
    """A generator and a critic take turns, the critic more often."""
    make, critic = filled(torch, torch.nn.Linear(4, 6)), mlp(torch, seed=9)
    first = torch.optim.Adam(make.parameters(), lr=0.01)
    second = torch.optim.Adam(critic.parameters(), lr=0.02, betas=(0.5, 0.9))

    def step(i: int) -> list[Any]:
        fake = torch.tanh(make(torch.tensor(data(4, 4, seed=i % 4))))
        real = batch(torch, i)[0]
        if i % 3 < 2:
            second.zero_grad()
            (critic(fake.detach()).square().mean() - critic(real).mean()).backward()
            second.step()
        else:
            first.zero_grad()
            critic(fake).square().mean().backward()
            first.step()
        return [moved(make), moved(critic)]

    return step


@scenario()
def settings_that_change(torch: Any) -> Step:
    """A schedule, then assignments, change the learning rate, the decay and the momentum."""
    net = mlp(torch)
    optimizer = sgd(torch, net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)

    def step(i: int) -> list[Any]:
        group = optimizer.param_groups[0]
        group["weight_decay"] = 0.01 if i % PERIOD > 9 else 0.0
        group["momentum"] = 0.9 if i % 8 < 6 else 0.5
        if i % PERIOD == 12:
            group["lr"] = 0.05
        loss = net(batch(torch, i)[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return [loss.detach(), moved(net)]

    return step


@scenario()
def averages_and_checkpoints(torch: Any) -> Step:
    """A copy follows the net slowly; net and optimizer go back to a saved state."""
    net = mlp(torch)
    average, optimizer = copy.deepcopy(net), torch.optim.Adam(net.parameters(), lr=0.02)
    saved: list[Any] = []

    def step(i: int) -> list[Any]:
        if i % 10 == 4:
            saved[:] = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
        if i % 10 == 9:
            net.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        loss = net(batch(torch, i)[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
                slow.mul_(0.9).add_(fast, alpha=0.1)
        return [loss.detach(), moved(net), copies(average.parameters())]

    return step


@scenario()
def clipped_gradients(torch: Any) -> Step:
    """Gradients are clipped by their norm, read for a decision, and written to."""
    net = mlp(torch)
    optimizer = sgd(torch, net)

    def step(i: int) -> list[Any]:
        loss = net(batch(torch, i)[0] * (1 + i % 4)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0 + i % 2)
        if norm.item() > 20:
            net[0].weight.grad.mul_(0.5)
            net[2].bias.grad = torch.ones(3) * 0.1
        optimizer.step()
        return [norm.detach(), moved(net)]

    return step


@scenario()
def gradient_penalty(torch: Any) -> Step:
    """The gradient's norm is part of the loss; in some calls it is not."""
    net = mlp(torch)
    optimizer = sgd(torch, net)

    def step(i: int) -> list[Any]:
        x = torch.tensor(data(4, 6, seed=i % 4), requires_grad=True)
        loss = net(x).square().mean()
        if i % 4 != 2:
            (g,) = torch.autograd.grad(loss, [x], create_graph=True)
            loss = loss + (g.square().sum(1).sqrt() - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [loss.detach(), moved(net)]

    return step


@scenario()
def graphs_walked_again(torch: Any) -> Step:
    """``retain_graph``, gradients of parts, and of values that were read in between."""
    net = mlp(torch)

    def step(i: int) -> list[Any]:
        x = torch.tensor(data(4, 6, seed=i % 2), requires_grad=True)
        hidden = net[1](net[0](x))
        out = net[2](hidden).square().mean()
        if i % 4 == 3:
            out.item()
        net.zero_grad()
        (part,) = torch.autograd.grad(out, [hidden], retain_graph=True)
        out.backward(retain_graph=i % 3 > 0)
        if i % 3:
            out.backward()
        return [part, out.detach(), moved(net), *copies([x.grad])]

    return step


@scenario()
def steps_with_a_closure(torch: Any) -> Step:
    """The optimizer calls back for the loss; sometimes the closure is called twice."""
    net = mlp(torch)
    optimizer = sgd(torch, net)

    def step(i: int) -> list[Any]:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = net(batch(torch, i)[0]).square().mean()
            loss.backward()
            return loss

        first = closure().detach() if i % 4 == 3 else None
        loss = optimizer.step(closure)
        return [loss.detach(), moved(net), *copies([first])]

    return step


@scenario()
def updates_by_hand(torch: Any) -> Step:
    """Parameters are updated in place, by ``.data`` and by new tensors; one is used twice."""
    w, v = leaf(torch, 6, 6), leaf(torch, 6, 3, seed=1)

    def step(i: int) -> list[Any]:
        nonlocal w, v
        x = batch(torch, i)[0]
        loss = (torch.tanh(torch.tanh(x @ w) @ w.t()) @ v).square().mean()
        loss.backward()
        with torch.no_grad():
            if i % 4 < 2:
                w -= 0.1 * w.grad
            else:
                w.data = w.data - 0.1 * w.grad
            w[i % 6] *= 0.9
        w.grad.zero_()
        v = (v - 0.1 * v.grad).detach().requires_grad_()
        return [loss.detach(), *copies([w, v])]

    return step


@scenario()
def parts_without_gradients(torch: Any) -> Step:
    """``no_grad`` and ``detach`` hold for other parts of the net in other calls."""
    net, head = mlp(torch), filled(torch, torch.nn.Linear(3, 2), seed=7)

    def step(i: int) -> list[Any]:
        with torch.set_grad_enabled(i % 5 != 2):
            features = net(batch(torch, i)[0])
        if i % 3 == 1:
            features = features.detach()
        loss = head(features).square().mean()
        net.zero_grad()
        head.zero_grad()
        loss.backward()
        return [loss.detach(), moved(net), moved(head)]

    return step


@scenario()
def nets_of_one_shape(torch: Any) -> Step:
    """Several nets go through the same code in turn: one program, other weights."""
    nets = [mlp(torch, seed) for seed in (0, 10, 20)]
    optimizers = [sgd(torch, net) for net in nets]

    def step(i: int) -> list[Any]:
        k = i % 3 if i % PERIOD < 12 else 2
        loss = nets[k](batch(torch, i)[0]).square().mean()
        optimizers[k].zero_grad()
        loss.backward()
        optimizers[k].step()
        return [loss.detach(), *map(moved, nets)]

    return step


@scenario()
def recurrent_states(torch: Any) -> Step:
    """A state goes from call to call, cut off from its history every third time."""
    cell, w = filled(torch, torch.nn.Linear(8, 2)), leaf(torch, 8, 8)
    state = torch.zeros(3, 8)

    def step(i: int) -> list[Any]:
        nonlocal state
        state = torch.tanh(state @ w + torch.tensor(data(3, 8, seed=i % 4)))
        if i % 3 < 2:
            return [state.detach()]
        loss = cell(state).square().mean()
        cell.zero_grad()
        w.grad = None
        loss.backward()
        state = state.detach()
        return [loss.detach(), moved(cell), *copies([w.grad])]

    return step
