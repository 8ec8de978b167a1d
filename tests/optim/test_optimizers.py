"""Optimizers against their formulas in NumPy; state, groups; steps are taken whole."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.errors import ShapeError


def sgd(p, g, s, t, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * p
    if momentum:
        s["b"] = g if t == 1 else momentum * s["b"] + (1 - dampening) * g
        g = g + momentum * s["b"] if nesterov else s["b"]
    return p - lr * g


def adam(p, g, s, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, w=False):
    if w:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    v = s["v"]
    if amsgrad:
        v = s["x"] = np.maximum(s.get("x", 0), v)
    m_hat, v_hat = s["m"] / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps)


def adamw(p, g, s, t, lr, weight_decay=0.01, **settings):
    return adam(p, g, s, t, lr, weight_decay=weight_decay, w=True, **settings)


def rmsprop(p, g, s, t, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    g = g + weight_decay * p
    s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g * g
    v = s["v"]
    if centered:
        s["m"] = alpha * s.get("m", 0) + (1 - alpha) * g
        v = v - s["m"] ** 2
    update = g / (np.sqrt(v) + eps)
    if momentum:
        update = s["b"] = momentum * s.get("b", 0) + update
    return p - lr * update


def adagrad(p, g, s, t, lr, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0,
            eps=1e-10):  # fmt: skip
    g = g + weight_decay * p
    s["v"] = s.get("v", initial_accumulator_value) + g * g
    return p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s["v"]) + eps)


CASES = [
    (optim.SGD, sgd, {"lr": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.Adam, adam, {"lr": 0.1}),
    (optim.Adam, adam, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1, "eps": 1e-3}),
    (optim.Adam, adam, {"lr": 0.1, "amsgrad": True}),
    (optim.AdamW, adamw, {"lr": 0.1}),
    (optim.AdamW, adamw, {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True}),
    (optim.RMSprop, rmsprop, {"lr": 0.1}),
    (optim.RMSprop, rmsprop, {"lr": 0.1, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    (optim.Adagrad, adagrad, {"lr": 0.1}),
    (optim.Adagrad, adagrad, {"lr": 0.1, "lr_decay": 0.5, "weight_decay": 0.1,
                              "initial_accumulator_value": 0.2}),
]  # fmt: skip
VARIANTS = [make for make, _, _ in CASES]


def name_of(case):
    return f"{case[0].__name__} {case[2]}" if isinstance(case, tuple) else None


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_steps_follow_the_formula(follows, case, maximize):
    follows(*case, maximize)


def test_foreach_and_fused_change_nothing():
    results = []
    for hints in ({}, {"foreach": True, "fused": False}):
        p = nn.Parameter([1.0, 2.0])
        p.grad = treadle.tensor([0.5, -0.5])
        optim.AdamW([p], **hints).step()
        results.append(p.tolist())
    assert results[0] == results[1]


def test_16_bit_parameters_are_updated_in_f32():
    p = nn.Parameter(treadle.tensor([1.0, 1.0], dtype=treadle.bfloat16))
    optimizer = optim.Adam([p], lr=1.0)
    p.grad = treadle.tensor([1e-3, 0.5], dtype=treadle.bfloat16)
    optimizer.step()
    assert p.dtype is treadle.bfloat16
    assert optimizer.state[p]["exp_avg_sq"].dtype is treadle.float32
    assert p.tolist() == pytest.approx([0.0, 0.0], abs=2e-5)  # steps of lr, whatever the size


def _problem():
    treadle.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x, y = treadle.randn(16, 4), treadle.randn(16, 1)
    return net, lambda: nn.functional.mse_loss(net(x), y)


def _train(optimizer, loss_of, steps):
    losses = []
    for _ in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_training_goes_on_from_saved_state_to_the_same_bits(case):
    make, _, settings = case
    net, loss_of = _problem()
    optimizer = make(net.parameters(), **settings)
    _train(optimizer, loss_of, 3)
    saved = pickle.loads(pickle.dumps((net.state_dict(), optimizer.state_dict())))
    wanted = _train(optimizer, loss_of, 3)

    net, loss_of = _problem()
    optimizer = make(net.parameters(), lr=123.0)
    net.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    assert optimizer.param_groups[0]["lr"] == settings["lr"]
    assert _train(optimizer, loss_of, 3) == wanted


def test_loaded_state_is_the_optimizer_s_own():
    p = nn.Parameter([1.0])
    first, second = optim.Adam([p]), optim.Adam([p])
    p.grad = treadle.ones(1)
    first.step()
    second.load_state_dict(first.state_dict())
    before = second.state[p]["exp_avg"].item()
    first.step()
    assert second.state[p]["exp_avg"].item() == before
    assert (first.state[p]["step"], second.state[p]["step"]) == (2, 1)


def test_state_that_does_not_fit():
    small, large = (optim.Adam([nn.Parameter(treadle.zeros(n))]) for n in (2, 3))
    for o in (small, large):
        o.param_groups[0]["params"][0].grad = treadle.ones(o.param_groups[0]["params"][0].shape)
        o.step()
    with pytest.raises(ShapeError, match=r"got exp_avg of shape \(2,\) for a parameter of shape"):
        large.load_state_dict(small.state_dict())
    two = optim.Adam([nn.Parameter([1.0]), nn.Parameter([1.0])])
    with pytest.raises(ValueError, match=r"got groups of \[1\] parameters; this optimizer has"):
        two.load_state_dict(small.state_dict())


# --- steps are taken whole ----------------------------------------------------------------------


def _snapshot(optimizer):
    state = copy.deepcopy(optimizer.state_dict()["state"])
    values = [p.tolist() for group in optimizer.param_groups for p in group["params"]]
    plain = {
        i: {k: v.tolist() if isinstance(v, treadle.Tensor) else v for k, v in s.items()}
        for i, s in state.items()
    }
    return values, plain


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.RMSprop])
def test_an_error_in_a_gradient_changes_nothing(make):
    settings = {"momentum": 0.9} if make is optim.SGD else {}
    good, bad = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])
    optimizer = make([good, bad], lr=0.1, **settings)
    for p in (good, bad):
        p.grad = treadle.ones(2)
    optimizer.step()
    before = _snapshot(optimizer)
    bad.grad = treadle.ones(3)[treadle.tensor([1, 7])]
    with pytest.raises(IndexError, match="index out of range"):
        optimizer.step()
    assert _snapshot(optimizer) == before
    bad.grad = treadle.ones(2)
    optimizer.step()
    assert _snapshot(optimizer) != before


def test_an_interrupt_changes_nothing(monkeypatch):
    p = nn.Parameter([1.0])
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = treadle.ones(1)

    def interrupted(nodes):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("treadle.optim.optimizer.force", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert p.item() == 1.0
    assert not optimizer.state[p]
    optimizer.step()
    assert p.item() == pytest.approx(0.9)


def test_a_step_is_evaluated_when_it_is_taken():
    p = nn.Parameter([1.0])
    (p * 3).sum().backward()
    optim.SGD([p], lr=1.0).step()
    assert p.node.value is not None


# --- groups and arguments -----------------------------------------------------------------------


def test_groups_have_their_own_settings():
    a, b, c = (nn.Parameter([1.0]) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": [c], "lr": 0.25, "weight_decay": 1.0})
    for p in (a, b, c):
        p.grad = treadle.ones(1)
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == pytest.approx([0.9, 0.5, 0.5])
    optimizer.param_groups[0]["lr"] = 0.0
    b.grad = c.grad = None
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == pytest.approx([0.9, 0.5, 0.5])
    optimizer.zero_grad(set_to_none=False)
    assert a.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert a.grad is None


def test_a_closure_computes_the_loss_with_gradients():
    p = nn.Parameter([2.0])
    optimizer = optim.SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with treadle.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert p.item() == 1.0


def test_a_view_that_requires_gradients_is_updated_with_its_base():
    base = treadle.zeros(4)
    part = base[1:3].requires_grad_()
    part.grad = treadle.ones(2)
    optim.SGD([part], lr=1.0).step()
    assert base.tolist() == [0.0, -1.0, -1.0, 0.0]
    assert part.requires_grad


def test_text_form():
    assert repr(optim.SGD([nn.Parameter([1.0])], lr=0.1)) == (
        "SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.1\n    maximize: False\n"
        "    momentum: 0.0\n    nesterov: False\n    weight_decay: 0.0\n)"
    )


@pytest.mark.parametrize(
    ("make", "settings", "text"),
    [
        (optim.SGD, {"lr": -1}, "SGD: got lr=-1; it must not be negative"),
        (optim.SGD, {"momentum": -0.1}, "SGD: got momentum=-0.1; it must not be negative"),
        (optim.SGD, {"nesterov": True}, "SGD: got nesterov=True, momentum=0.0 and dampening=0.0"),
        (optim.Adam, {"betas": (0.9, 1.0)}, "Adam: got beta2=1.0; it must be at least 0 and less"),
        (optim.Adam, {"eps": math.nan}, "Adam: got eps=nan; it must not be negative"),
        (optim.AdamW, {"weight_decay": -1}, "AdamW: got weight_decay=-1; it must not"),
        (optim.RMSprop, {"alpha": -1}, "RMSprop: got alpha=-1; it must not be negative"),
        (optim.Adagrad, {"lr_decay": -1}, "Adagrad: got lr_decay=-1; it must not be negative"),
    ],
)
def test_settings_out_of_range(make, settings, text):
    with pytest.raises(ValueError, match=text):
        make([nn.Parameter([1.0])], **settings)


def test_parameters_that_do_not_fit():
    p = nn.Parameter([1.0])
    with pytest.raises(TypeError, match="SGD: got a tensor for params; it takes an iterable"):
        optim.SGD(p)
    with pytest.raises(ValueError, match=r"SGD: got no parameters; was model.parameters\(\) used"):
        optim.SGD([])
    with pytest.raises(TypeError, match="SGD: got a float as parameter 1; it takes tensors"):
        optim.SGD([p, 1.0])
    with pytest.raises(
        ValueError, match=r"got a tensor of shape \(1,\) that was computed from oth"
    ):
        optim.SGD([p * 2])
    with pytest.raises(ValueError, match=r"got parameter 1 \(shape \(1,\)\) twice"):
        optim.SGD([p, p])
    with pytest.raises(TypeError, match="got list for a parameter group; it is a dictionary with"):
        optim.SGD([p]).add_param_group([nn.Parameter([1.0])])


# --- a whole training ---------------------------------------------------------------------------


def test_a_small_lenet_learns_to_tell_patterns():
    """Four patterns in noise: batch norm, dropout, pooling and Adam working together."""
    treadle.manual_seed(0)
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(4, 1, 12, 12))
    labels = rng.integers(0, 4, 96)
    images = patterns[labels] + 0.5 * rng.normal(size=(96, 1, 12, 12))
    x, y = treadle.tensor(images, dtype=treadle.float32), treadle.tensor(labels)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3),
        nn.ReLU(), nn.Flatten(), nn.Linear(72, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4),
    )  # fmt: skip
    optimizer = optim.Adam(net.parameters(), lr=1e-2)
    loss_of = nn.CrossEntropyLoss()
    losses = _train(optimizer, lambda: loss_of(net(x), y), 25)
    assert losses[0] > 1.2
    assert losses[-1] < 0.15
    assert (net.eval()(x).argmax(1) == y).float().mean().item() > 0.97
