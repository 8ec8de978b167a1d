"""Memory that is taken over: in the arena, and of parameters that an optimizer replaces."""

from __future__ import annotations

import gc

import pytest

import treadle
from treadle import nn, optim
from treadle.base.flags import flags
from treadle.compiler import takeover, tier0
from treadle.compiler.device import get_device
from treadle.compiler.pipeline import PASSES, Draft
from treadle.compiler.trace_text import parse_trace
from treadle.runtime.memory import memory_stats

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
}


def assembled(lines: str):
    draft = Draft(parse_trace(lines), get_device("cpu"), 2)
    for p in PASSES:
        p.run(draft)
        p.verify(draft)
    return draft.assembly


def test_a_map_writes_over_what_it_is_the_last_to_read():
    before = """%0 = input f32[512]
%1 = cumsum(%0, axis=0, reverse=False) : f32[512]
%2 = exp(%1) : f32[512]
%3 = cumsum(%2, axis=0, reverse=False) : f32[512] kept
"""
    assembly = assembled(before)
    own, new = (assembly.storages[assembly.places[v].storage] for v in (1, 2))
    assert own.heir is new and new.inherits is own and own.offset == new.offset
    assembly = assembled(before + "%4 = cumprod(%1, axis=0) : f32[512] kept\n")
    assert all(s.heir is None for s in assembly.storages)


def test_a_result_takes_over_what_it_replaces():
    before = """%0 = input f32[512]
%1 = input f32[512]
%2 = add(%0, %1) : f32[512] kept
"""
    ((result, external),) = assembled(before).takeovers
    assert result == 0 and external in (0, 1)
    turned = """%0 = input f32[32,32]
%1 = permute(%0, axes=(1, 0)) : f32[32,32]
%2 = add(%0, %1) : f32[32,32] kept
"""
    assert assembled(turned).takeovers == []  # an element is read again after it was replaced
    shown = (
        before + "%3 = reshape(%0, shape=(512,)) : f32[512] kept\n%4 = neg(%1) : f32[512] kept\n"
    )
    assert all(t.external != 0 for t in assembled(shown).takeovers)


class Net:
    """A small training; ``taken`` counts the results that took over memory."""

    def __init__(self, make) -> None:
        treadle.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 40))
        self.optimizer = make(self.net.parameters())
        self.x = treadle.randn(16, 64)

    def step(self) -> float:
        loss = self.net(self.x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def weights(self) -> list[bytes]:
        return [p.numpy(force=True).tobytes() for p in self.net.parameters()]


@pytest.fixture
def taken(monkeypatch):
    counts = []

    def counting(*args):
        given = takeover.given_up(*args)
        counts.append(len(given))
        return given

    monkeypatch.setattr(tier0, "given_up", counting)
    return counts


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_are_updated_in_place_to_the_same_bits(name, taken):
    make = OPTIMIZERS[name]
    with flags.context(programs="off"):
        plain = Net(make)
        expected = [plain.step() for _ in range(12)]
    for mode in ("beside", "wait"):
        with flags.context(programs=mode):
            taken.clear()
            training = Net(make)
            assert [training.step() for _ in range(12)] == expected
            assert training.weights() == plain.weights()
            assert taken[-1] >= 4  # two weights, and what the optimizer keeps of them


def test_what_somebody_else_holds_is_not_touched(taken):
    with flags.context(programs="wait"):
        training = Net(OPTIMIZERS["adam"])
        for _ in range(6):
            training.step()
        most = taken[-1]
        seen = training.net[0].weight.numpy(force=True)
        before = seen.copy()
        training.step()
        assert taken[-1] == most - 1 and (seen == before).all()
        del seen
        view = training.net[0].weight.detach().reshape(-1)
        old = view.numpy().copy()
        training.step()
        assert taken[-1] < most and (old == before.reshape(-1)).sum() < old.size


def test_a_graph_that_may_still_be_differentiated_keeps_its_weights(taken):
    def run(mode):
        with flags.context(programs=mode):
            training, found = Net(OPTIMIZERS["sgd"]), []
            training.x.requires_grad_()
            for _ in range(6):
                loss = training.net(training.x).square().mean()
                training.optimizer.zero_grad()
                loss.backward(retain_graph=True)
                training.optimizer.step()
                (slope,) = treadle.autograd.grad(loss, training.x)
                found.append(slope.numpy().tobytes())
            return found

    assert run("wait") == run("off")
    assert max(taken) <= 2  # what the optimizer keeps of the weights may go


def test_the_peak_of_a_step_is_little_more_than_what_stays():
    with flags.context(programs="wait"):
        treadle.manual_seed(0)
        net = nn.Linear(512, 512)
        adam = optim.Adam(net.parameters())
        x = treadle.randn(8, 512)
        for _ in range(6):
            adam.zero_grad()
            net(x).square().mean().backward()
            adam.step()
        gc.collect()
        stays = memory_stats()["allocated.current"]
        treadle.reset_peak_memory_stats()
        adam.zero_grad()
        net(x).square().mean().backward()
        adam.step()
        assert memory_stats()["allocated.peak"] - stays < 2 * 512 * 512 * 4  # of four that are new
