"""Learning-rate schedules against their closed forms."""

from __future__ import annotations

import math

import pytest

from treadle import nn, optim
from treadle.optim import lr_scheduler as schedules


def make(lr=0.1):
    return optim.SGD([nn.Parameter([1.0])], lr=lr)


def rates(scheduler, optimizer, steps):
    """The rate before each step."""
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    return seen


def _one_cycle(t, total=20, peak=1.0, start=1 / 25, end=1 / 25 / 1e4, turn=0.3 * 20 - 1):
    def between(a, b, share):
        return b + (a - b) / 2 * (math.cos(math.pi * share) + 1)

    if t <= turn:
        return between(start, peak, t / turn)
    return between(peak, end, (t - turn) / (total - 1 - turn))


def _triangle(t, up=3, down=2):
    """The height from 0 to 1 and back."""
    t %= up + down
    return t / up if t <= up else (up + down - t) / down


def _restarts(t, first=2, mult=2, low=0.01, high=0.1):
    length = first
    while t >= length:
        t, length = t - length, length * mult
    return low + (high - low) * (1 + math.cos(math.pi * t / length)) / 2


CASES = {
    "StepLR": (lambda o: schedules.StepLR(o, 3, gamma=0.5), lambda t: 0.1 * 0.5 ** (t // 3)),
    "MultiStepLR": (
        lambda o: schedules.MultiStepLR(o, [2, 5, 5], gamma=0.5),
        lambda t: 0.1 * 0.5 ** ((t >= 2) + 2 * (t >= 5)),
    ),
    "ExponentialLR": (lambda o: schedules.ExponentialLR(o, 0.9), lambda t: 0.1 * 0.9**t),
    "LinearLR": (
        lambda o: schedules.LinearLR(o, 0.25, total_iters=4),
        lambda t: 0.1 * (0.25 + 0.75 * min(t, 4) / 4),
    ),
    "CosineAnnealingLR": (
        lambda o: schedules.CosineAnnealingLR(o, 6, eta_min=0.01),
        lambda t: 0.01 + 0.09 * (1 + math.cos(math.pi * t / 6)) / 2,
    ),
    "LambdaLR": (
        lambda o: schedules.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 0.1 / (1 + t)
    ),
    "OneCycleLR": (lambda o: schedules.OneCycleLR(o, 1.0, total_steps=20), _one_cycle),
    "MultiplicativeLR": (
        lambda o: schedules.MultiplicativeLR(o, lambda t: (t + 1) / t), lambda t: 0.1 * (t + 1)
    ),
    "ConstantLR": (
        lambda o: schedules.ConstantLR(o, 0.5, 4), lambda t: 0.05 if t < 4 else 0.1
    ),
    "PolynomialLR": (
        lambda o: schedules.PolynomialLR(o, 6, 2.0), lambda t: 0.1 * max(0, 1 - t / 6) ** 2
    ),
    "CosineAnnealingWarmRestarts": (
        lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, 2, eta_min=0.01), _restarts
    ),
    "CyclicLR": (
        lambda o: schedules.CyclicLR(o, 0.1, 0.5, 3, 2, "triangular2", cycle_momentum=False),
        lambda t: 0.1 + 0.4 * _triangle(t) / 2 ** (t // 5),
    ),
    "CyclicLR exp_range": (
        lambda o: schedules.CyclicLR(o, 0.1, 0.5, 3, 2, "exp_range", 0.9, cycle_momentum=False),
        lambda t: 0.1 + 0.4 * _triangle(t) * 0.9**t,
    ),
    "CyclicLR scale_fn": (
        lambda o: schedules.CyclicLR(o, 0.1, 0.5, 3, 2, scale_fn=lambda cycle: 1 / cycle,
                                     cycle_momentum=False),
        lambda t: 0.1 + 0.4 * _triangle(t) / (t // 5 + 1),
    ),
    "SequentialLR": (
        lambda o: schedules.SequentialLR(
            o, [schedules.LinearLR(o, 0.1, total_iters=4), schedules.ExponentialLR(o, 0.9)], [4]
        ),
        lambda t: 0.1 * (0.1 + 0.9 * t / 4 if t < 4 else 0.9 ** (t - 4)),
    ),
    "SequentialLR of three": (
        lambda o: schedules.SequentialLR(
            o, [schedules.ConstantLR(o, 0.1, 9), schedules.StepLR(o, 2, 0.5),
                schedules.LambdaLR(o, lambda t: t)], [3, 7],
        ),
        lambda t: 0.01 if t < 3 else 0.1 * (0.5 ** ((t - 3) // 2) if t < 7 else t - 7),
    ),
    "ChainedScheduler": (
        lambda o: schedules.ChainedScheduler(
            [schedules.ConstantLR(o, 0.5, 3), schedules.ExponentialLR(o, 0.9)]
        ),
        lambda t: 0.1 * 0.9**t * (0.5 if t < 3 else 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rates_follow_the_closed_form(name):
    build, wanted = CASES[name]
    optimizer = make()
    scheduler = build(optimizer)
    assert rates(scheduler, optimizer, 19) == pytest.approx([wanted(t) for t in range(19)])
    assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("name", CASES)
def test_schedules_go_on_from_saved_state(name):
    build, wanted = CASES[name]
    optimizer = make()
    scheduler = build(optimizer)
    rates(scheduler, optimizer, 7)
    other = make()
    fresh = build(other)
    other.load_state_dict(optimizer.state_dict())
    fresh.load_state_dict(scheduler.state_dict())
    assert rates(fresh, other, 9) == pytest.approx([wanted(t) for t in range(7, 16)])


def test_schedules_work_together_and_on_every_group():
    a, b = nn.Parameter([1.0]), nn.Parameter([1.0])
    optimizer = optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.5}], lr=0.1)
    first, second = schedules.ExponentialLR(optimizer, 0.5), schedules.StepLR(optimizer, 2, 0.1)
    for _ in range(3):
        first.step()
        second.step()
    assert second.get_last_lr() == pytest.approx([0.0125, 0.00625])


def test_rate_falls_on_a_plateau():
    optimizer = make(1.0)
    scheduler = schedules.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, cooldown=1, min_lr=0.2
    )
    seen = []
    for figure in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        scheduler.step(figure)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2, 0.2]
    upwards = schedules.ReduceLROnPlateau(optimizer, mode="max", patience=0)
    upwards.step(1.0)
    upwards.step(2.0)
    assert upwards.num_bad_epochs == 0


def test_schedule_errors():
    with pytest.raises(TypeError, match="StepLR: got a list; it takes an Optimizer"):
        schedules.StepLR([], 1)
    with pytest.raises(ValueError, match="StepLR: got step_size=0; it must be positive"):
        schedules.StepLR(make(), 0)
    with pytest.raises(ValueError, match="CosineAnnealingLR: got T_max=0"):
        schedules.CosineAnnealingLR(make(), 0)
    with pytest.raises(ValueError, match="LambdaLR: got 2 functions for 1 parameter groups"):
        schedules.LambdaLR(make(), [abs, abs])
    with pytest.raises(KeyError, match="the optimizer's groups have no 'initial_lr'"):
        schedules.ExponentialLR(make(), 0.9, last_epoch=3)
    with pytest.raises(ValueError, match="OneCycleLR: got total_steps=None, epochs=None"):
        schedules.OneCycleLR(make(), 1.0)
    rates = optim.Adagrad([nn.Parameter([1.0])])
    with pytest.raises(ValueError, match="has no momentum; pass cycle_momentum=False"):
        schedules.OneCycleLR(rates, 1.0, total_steps=3)
    cycle = schedules.OneCycleLR(make(), 1.0, total_steps=2)
    cycle.step()
    cycle.step()
    with pytest.raises(ValueError, match="OneCycleLR: got step 3 of 2; call step"):
        cycle.step()
    with pytest.raises(ValueError, match="LinearLR: got start_factor=0 and end_factor=1"):
        schedules.LinearLR(make(), 0)
    with pytest.raises(ValueError, match="ReduceLROnPlateau: got mode='down'"):
        schedules.ReduceLROnPlateau(make(), mode="down")


def test_restarts_at_any_time():
    optimizer = make()
    scheduler = schedules.CosineAnnealingWarmRestarts(optimizer, 2, 2, eta_min=0.01)
    for time in (0.5, 1.75, 2.0, 4.5, 7.0, 0.25):
        scheduler.step(time)
        assert scheduler.get_last_lr()[0] == pytest.approx(_restarts(time))


def test_momentum_goes_the_other_way():
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=0.1, momentum=0.5)
    scheduler = schedules.CyclicLR(optimizer, 0.1, 0.5, 3, 2)
    for t in range(8):
        expected = 0.9 - 0.1 * _triangle(t)
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(expected)
        scheduler.step()
    adam = optim.Adam([nn.Parameter([1.0])])
    schedules.CyclicLR(adam, 0.1, 0.5, 3)
    assert adam.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_second_scheduler_begins_from_the_initial_rate():
    optimizer = make(1.0)
    schedules.ConstantLR(optimizer, 0.25)
    assert schedules.ExponentialLR(optimizer, 0.5).base_lrs == [1.0]


@pytest.mark.parametrize(
    "build, text",
    [
        (lambda o: schedules.ConstantLR(o, 0), "ConstantLR: got factor=0; it must be positive"),
        (lambda o: schedules.PolynomialLR(o, 0), "PolynomialLR: got total_iters=0; it must be pos"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 0), "got T_0=0 and T_mult=1; both"),
        (lambda o: schedules.CyclicLR(o, 0, 1, mode="up"), "got mode='up' and scale_mode='cycle'"),
        (lambda o: schedules.CyclicLR(optim.Adagrad([nn.Parameter([1.0])]), 0, 1),
         "got cycle_momentum=True for Adagrad, which has no momentum"),
        (lambda o: schedules.SequentialLR(o, [schedules.StepLR(o, 1)], [1]),
         "got 1 schedulers and 1 milestones; there must be one milestone less"),
        (lambda o: schedules.ChainedScheduler([schedules.StepLR(o, 1)], make()),
         "ChainedScheduler: got 1 schedulers; there must be at least one, and all of them for"),
        (lambda o: schedules.MultiplicativeLR(o, [min, max]), "MultiplicativeLR: got 2 functions"),
    ],
)  # fmt: skip
def test_settings_of_further_schedules(build, text):
    with pytest.raises(ValueError, match=text):
        build(make())
