"""Adafactor, Muon, averaged models, and hooks, against the formulas in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.optim import swa_utils

RNG = np.random.default_rng(0)


def adafactor(p, g, s, t, lr, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0):
    share, eps1 = t**beta2_decay, 2.0**-52 if eps[0] is None else eps[0]
    rms = lambda x: math.sqrt((x * x).mean())  # noqa: E731
    step = max(eps[1], rms(p)) * min(lr, t**-0.5)
    p = p * (1 - lr * weight_decay)
    if g.ndim > 1:
        for name, axis in (("r", -1), ("c", -2)):
            mean = (g * g).mean(axis, keepdims=True)
            s[name] = s.get(name, 0 * mean) * (1 - share) + share * mean
        v = s["r"] * s["c"] / np.maximum(s["r"].mean(-2, keepdims=True), eps1)
    else:
        v = s["v"] = s.get("v", 0 * g) * (1 - share) + share * g * g
    update = g / np.sqrt(np.maximum(v, eps1 * eps1))
    return p - step / max(1.0, rms(update) / d) * update


@pytest.mark.parametrize(
    "settings",
    [{"lr": 0.1}, {"lr": 0.1, "eps": (1e-30, 1e-2), "d": 2.0, "weight_decay": 0.1,
                   "beta2_decay": -0.5}],
)  # fmt: skip
def test_adafactor_follows_the_formula(follows, settings):
    follows(optim.Adafactor, adafactor, settings, shapes=((3, 4), (5,), (2, 3, 4)))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_muon_steps_along_a_nearly_orthogonal_matrix(shape):
    start, g = RNG.normal(size=shape).astype("f4"), RNG.normal(size=shape).astype("f4")
    p = nn.Parameter(treadle.tensor(start))
    optimizer = optim.Muon([p], lr=0.1, weight_decay=0.0)
    p.grad = treadle.tensor(g)
    optimizer.step()
    step = (start - p.detach().numpy()) / (0.1 * math.sqrt(max(1, shape[0] / shape[1])))
    values = np.linalg.svd(step)[1]
    assert 0.6 < values.min() <= values.max() < 1.3
    u, _, v = np.linalg.svd(g, full_matrices=False)
    assert np.abs(step - u @ v).max() < 0.35
    assert tuple(optimizer.state[p]["momentum_buffer"].shape) == shape


def test_what_muon_and_sparse_adam_refuse():
    with pytest.raises(ValueError, match=r"Muon: got a parameter of shape \(3,\); it takes mat"):
        optim.Muon([nn.Parameter(treadle.ones(3))])
    with pytest.raises(NotImplementedError, match="there are no sparse gradients here; use Adam"):
        optim.SparseAdam([nn.Parameter([1.0])])
    with pytest.raises(ValueError, match="Adam: got differentiable=True; it must be False"):
        optim.Adam([nn.Parameter([1.0])], differentiable=True)


def test_decoupled_weight_decay_makes_adam_adamw():
    values = []
    for make in (
        lambda p: optim.Adam([p], weight_decay=0.1, decoupled_weight_decay=True),
        lambda p: optim.AdamW([p], weight_decay=0.1),
    ):
        p = nn.Parameter([1.0, -2.0])
        optimizer = make(p)
        for _ in range(3):
            p.grad = treadle.tensor([0.5, 0.25])
            optimizer.step()
        values.append(p.tolist())
    assert values[0] == values[1]


# --- averages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({}, 2.0), ({"avg_fn": swa_utils.get_ema_avg_fn(0.5)}, 2.25),
     ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.5)}, 2.25)],
)  # fmt: skip
def test_averaged_models(options, wanted):
    model = nn.Linear(1, 1, bias=False)
    average = None
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model.weight, value)
        average = average or swa_utils.AveragedModel(model, **options)
        average.update_parameters(model)
    assert average.module.weight.item() == wanted
    assert average.n_averaged.item() == 3
    assert average(treadle.ones(1, 1)).item() == wanted
    assert list(average.state_dict()) == ["n_averaged", "module.weight"]


def test_update_bn_averages_over_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(2)).eval()
    batches = [treadle.tensor(RNG.normal(size=(8, 2)).astype("f4")) for _ in range(3)]
    swa_utils.update_bn([(b, 0) for b in batches], model)
    mean = np.mean([b.numpy().mean(0) for b in batches], 0)
    np.testing.assert_allclose(model[0].running_mean.numpy(), mean, rtol=1e-5)
    assert model[0].momentum == 0.1
    assert not model.training


def test_swalr_goes_to_its_rate():
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    scheduler = swa_utils.SWALR(optimizer, 0.2, anneal_epochs=4, anneal_strategy="linear")
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    np.testing.assert_allclose(rates, [1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


# --- hooks and schedules ------------------------------------------------------------------------


def test_hooks_of_steps_and_states():
    p, seen = nn.Parameter([1.0]), []
    optimizer = optim.SGD([p], lr=1.0)
    handles = [
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before")),
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after")),
        optim.hooks.register_optimizer_step_post_hook(lambda *args: seen.append("all")),
        optimizer.register_state_dict_post_hook(lambda o, state: {**state, "more": 1}),
        optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append(state["more"])),
    ]
    p.grad = treadle.tensor([1.0])
    optimizer.step()
    assert seen == ["before", "after", "all"]
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen[-1] == 1
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert len(seen) == 4


def test_hooks_of_an_optimizer_of_ones_own():
    class Mine(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        @treadle.no_grad()
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad, alpha=-1.0)

    p, seen = nn.Parameter([1.0]), []
    optimizer = Mine([p])
    optimizer.register_step_post_hook(lambda *args: seen.append(p.item()))
    p.grad = treadle.tensor([0.25])
    optimizer.step()
    assert seen == [0.75]


# PyTorch 2.13: OneCycleLR(SGD(lr=0.1, momentum=0.9), 1.0, total_steps=5, anneal_strategy="linear")
def test_one_cycle_cycles_the_momentum():
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=0.1, momentum=0.9)
    scheduler = optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=5, pct_start=0.4, anneal_strategy="linear"
    )
    seen = []
    for _ in range(5):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        scheduler.step()
    rates, momenta = zip(*seen, strict=True)
    low = 0.04 / 1e4
    np.testing.assert_allclose(rates, [0.04, 1.0, *(1 + (low - 1) * k / 3 for k in (1, 2, 3))])
    np.testing.assert_allclose(momenta, [0.95, 0.85, *(0.85 + 0.1 * k / 3 for k in (1, 2, 3))])


def test_schedules_take_an_epoch():
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for epoch, rate in ((1, 0.5), (3, 0.125), (2, 0.25)):
        scheduler.step(epoch)
        assert scheduler.get_last_lr() == [rate]
