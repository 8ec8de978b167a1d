"""Adadelta, Adamax, NAdam, RAdam, Rprop and ASGD by their formulas in NumPy; L-BFGS."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import treadle
from treadle import nn, optim


def adadelta(p, g, s, t, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
    g = g + weight_decay * p
    s["v"] = rho * s.get("v", 0) + (1 - rho) * g * g
    d = np.sqrt(s.get("u", 0) + eps) / np.sqrt(s["v"] + eps) * g
    s["u"] = rho * s.get("u", 0) + (1 - rho) * d * d
    return p - lr * d


def adamax(p, g, s, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * p
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["u"] = np.maximum(betas[1] * s.get("u", 0), np.abs(g) + eps)
    return p - lr / (1 - betas[0] ** t) * s["m"] / s["u"]


def _moments(p, g, s, lr, betas, weight_decay, decoupled):
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    return p, g


def nadam(p, g, s, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, momentum_decay=4e-3,
          decoupled_weight_decay=False):  # fmt: skip
    p, g = _moments(p, g, s, lr, betas, weight_decay, decoupled_weight_decay)
    mu = [betas[0] * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(t + 2)]
    now, following = np.prod(mu[1 : t + 1]), np.prod(mu[1 : t + 2])
    d = np.sqrt(s["v"] / (1 - betas[1] ** t)) + eps
    return p - lr * ((1 - mu[t]) / (1 - now) * g + mu[t + 1] / (1 - following) * s["m"]) / d


def radam(p, g, s, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
          decoupled_weight_decay=False):  # fmt: skip
    p, g = _moments(p, g, s, lr, betas, weight_decay, decoupled_weight_decay)
    m = s["m"] / (1 - betas[0] ** t)
    limit = 2 / (1 - betas[1]) - 1
    rho = limit - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
    if rho <= 5:
        return p - lr * m
    r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return p - lr * m * r * math.sqrt(1 - betas[1] ** t) / (np.sqrt(s["v"]) + eps)


def rprop(p, g, s, t, lr, etas=(0.5, 1.2), step_sizes=(1e-6, 50)):
    agree = np.sign(g * s.get("g", np.zeros_like(g)))
    factor = np.where(agree > 0, etas[1], np.where(agree < 0, etas[0], 1.0))
    s["size"] = np.clip(s.get("size", np.full_like(g, lr)) * factor, *step_sizes)
    s["g"] = np.where(agree < 0, 0.0, g)
    return p - np.sign(s["g"]) * s["size"]


def asgd(p, g, s, t, lr, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0):
    g = g + weight_decay * p
    rate = lr / (1 + lambd * lr * (t - 1)) ** alpha
    p = p * (1 - lambd * rate) - rate * g
    s["a"] = s.get("a", 0) + (p - s.get("a", 0)) / max(1, t - 1 - t0)
    return p


CASES = [
    (optim.Adadelta, adadelta, {}),
    (optim.Adadelta, adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    (optim.Adamax, adamax, {"lr": 0.1}),
    (optim.Adamax, adamax, {"lr": 0.1, "betas": (0.5, 0.7), "weight_decay": 0.1, "eps": 1e-2}),
    (optim.NAdam, nadam, {"lr": 0.1}),
    (optim.NAdam, nadam, {"lr": 0.1, "momentum_decay": 0.1, "weight_decay": 0.1}),
    (optim.NAdam, nadam, {"lr": 0.1, "weight_decay": 0.5, "decoupled_weight_decay": True}),
    (optim.RAdam, radam, {"lr": 0.1}),
    (optim.RAdam, radam, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    (optim.RAdam, radam, {"lr": 0.1, "weight_decay": 0.5, "decoupled_weight_decay": True}),
    (optim.Rprop, rprop, {"lr": 0.1}),
    (optim.Rprop, rprop, {"lr": 0.1, "etas": (0.3, 2.0), "step_sizes": (0.05, 0.3)}),
    (optim.ASGD, asgd, {"lr": 0.1}),
    (optim.ASGD, asgd, {"lr": 0.1, "lambd": 0.1, "t0": 2, "weight_decay": 0.1, "alpha": 0.5}),
]


def name_of(case):
    return f"{case[0].__name__} {case[2]}" if isinstance(case, tuple) else None


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_steps_follow_the_formula(follows, case, maximize):
    make = case[0]
    optimizer, parameters, states = follows(*case, maximize)
    if make is optim.ASGD:
        mean = optimizer.state[parameters[1]]["ax"].numpy()
        np.testing.assert_allclose(mean, states[1]["a"], rtol=1e-9)


@pytest.mark.parametrize(
    "make, settings, text",
    [
        (optim.Adadelta, {"rho": 1.5}, "Adadelta: got rho=1.5; it must be from 0 to 1"),
        (optim.Adamax, {"betas": (1.0, 0.9)}, "Adamax: got beta1=1.0; it must be at least 0"),
        (optim.NAdam, {"momentum_decay": -1}, "NAdam: got momentum_decay=-1; it must not be"),
        (optim.RAdam, {"eps": -1}, "RAdam: got eps=-1; it must not be negative"),
        (optim.Rprop, {"etas": (1.0, 2.0)}, r"Rprop: got etas=\(1.0, 2.0\); it must be below 1"),
        (optim.ASGD, {"weight_decay": -1}, "ASGD: got weight_decay=-1; it must not be negative"),
        (optim.LBFGS, {"line_search_fn": "wolfe"}, "got line_search_fn='wolfe'; it is None or 's"),
    ],
)
def test_settings_out_of_range(make, settings, text):
    with pytest.raises(ValueError, match=text):
        make([nn.Parameter([1.0])], **settings)


# --- L-BFGS ---------------------------------------------------------------------------------------


def _minimise(loss_of, start, steps, **settings):
    p = nn.Parameter(treadle.tensor(start, dtype=treadle.float64))
    optimizer, calls = optim.LBFGS([p], **settings), []

    def closure():
        optimizer.zero_grad()
        loss = loss_of(p)
        loss.backward()
        calls.append(loss.item())
        return loss

    first = [optimizer.step(closure).item() for _ in range(steps)]
    return p.detach().numpy(), first, calls


def _rosenbrock(p):
    return (100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2).sum()


def test_lbfgs_finds_the_end_of_a_curved_valley():
    found, first, calls = _minimise(_rosenbrock, [-1.2, 1.0, -0.5, 2.0], 4,
                                    line_search_fn="strong_wolfe")  # fmt: skip
    np.testing.assert_allclose(found, 1.0, rtol=1e-4)
    assert first[0] == calls[0]
    assert first == sorted(first, reverse=True)
    assert len(calls) < 120


def test_lbfgs_solves_a_quadratic_in_as_many_steps_as_it_has_dimensions():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    matrix, target = q @ np.diag([1.0, 2, 5, 20, 100]) @ q.T, rng.normal(size=5)
    a, b = treadle.tensor(matrix), treadle.tensor(target)
    found, _, calls = _minimise(lambda p: p @ a @ p / 2 - b @ p, np.zeros(5), 1,
                                line_search_fn="strong_wolfe")  # fmt: skip
    np.testing.assert_allclose(found, np.linalg.solve(matrix, target), rtol=1e-4)
    assert len(calls) <= 25


def test_lbfgs_without_a_search_takes_steps_of_its_rate():
    """The first step is lr * min(1, 1 / |g|_1) along -g, the next ones lr along -H g."""
    found, _, calls = _minimise(lambda p: 2 * (p * p).sum(), [1.0, -3.0], 1, lr=0.5, max_iter=1)
    g = np.array([4.0, -12.0])
    np.testing.assert_allclose(found, [1, -3] - 0.5 / 16 * g)
    assert len(calls) == 1
    found, _, _ = _minimise(lambda p: 2 * (p * p).sum(), [1.0, -3.0], 2, max_iter=2)
    np.testing.assert_allclose(found, 0.0, atol=1e-12)  # H is exact after one step


def test_lbfgs_stops_where_it_is_flat_and_keeps_its_state():
    found, _, calls = _minimise(lambda p: (p * p).sum(), [0.0, 0.0], 3)
    assert (found.tolist(), len(calls)) == ([0.0, 0.0], 3)
    p = nn.Parameter([2.0, 1.0])
    optimizer = optim.LBFGS([p], max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = (p**4).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    saved, values = pickle.loads(pickle.dumps(optimizer.state_dict())), p.detach().clone()
    optimizer.step(closure)
    wanted = p.tolist()
    p.data = values
    optimizer = optim.LBFGS([p])
    optimizer.load_state_dict(saved)
    optimizer.step(closure)
    assert p.tolist() == wanted


def test_lbfgs_needs_a_closure_and_one_group():
    p = nn.Parameter([1.0])
    with pytest.raises(TypeError, match=r"LBFGS\.step: got no closure; it computes the"):
        optim.LBFGS([p]).step()
    with pytest.raises(ValueError, match="LBFGS: got 2 groups of parameters; it takes one"):
        optim.LBFGS([{"params": [p]}, {"params": [nn.Parameter([1.0])]}])
