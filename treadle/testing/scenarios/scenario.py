"""What a scenario is, and the list of all: programs on which tracing compilers go wrong.

A scenario is a step that is called again and again, while something changes that a recording of
the first call would miss. It is written for PyTorch's names and takes the framework as an
argument, so that the same code runs under both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.base.record import Record

Step = Callable[[int], list[Any]]
Begin = Callable[[Any], Step]
PERIOD = 16  # what happens late happens by then, so that so many steps show all
HUGE = 100  # from that size on a scenario is run sparingly


class Scenario(Record):
    """A program whose ``begin(torch)`` makes its state and gives its step.

    The step's results are tensors that nobody writes to afterwards, or numbers: they may be read
    at once or at the end.

    Args:
        name: that of the function.
        doc: what changes.
        begin: makes the step.
        is_random: it draws random numbers, whose bits are each framework's own.
        size: how many steps of others one step is worth.
        repeats: its graphs come again, and so run as programs.
    """

    name: str
    doc: str
    begin: Begin
    is_random: bool
    size: int
    repeats: bool


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *, is_random: bool = False, size: int = 1, repeats: bool = True
) -> Callable[[Begin], Begin]:
    """Puts a function into the list, under its own name."""

    def put(begin: Begin) -> Begin:
        name = begin.__name__
        SCENARIOS[name] = Scenario(name, begin.__doc__ or "", begin, is_random, size, repeats)
        return begin

    return put


def steps_of(name: str) -> int:
    """As many steps as show all that a scenario has."""
    return PERIOD + 2 if SCENARIOS[name].size < HUGE else 12


def treadle() -> Any:
    """The package as its users see it, all rooms at once: what scenarios run under here."""
    return sys.modules[__name__.partition(".")[0]]


# --- what scenarios are made of -------------------------------------------------------------------


def data(*shape: int, seed: int = 0) -> Any:
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def leaf(torch: Any, *shape: int, seed: int = 0) -> Any:
    """A tensor that requires a gradient."""
    return torch.tensor(data(*shape, seed=seed), requires_grad=True)


def filled(torch: Any, net: Any, seed: int = 0) -> Any:
    """A module with parameters that do not depend on the framework."""
    with torch.no_grad():
        for position, p in enumerate(net.parameters()):
            p.copy_(torch.tensor(data(*p.shape, seed=seed + position) / 3))
    return net


def mlp(torch: Any, seed: int = 0) -> Any:
    """6 -> 8 -> 3."""
    nn = torch.nn
    return filled(torch, nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), seed)


def copies(tensors: Any) -> list[Any]:
    """The values of parameters, gradients or buffers, as they are now."""
    return [t.detach().clone() for t in tensors if t is not None]


def moved(net: Any) -> list[Any]:
    """The values of all parameters and of their gradients."""
    return copies([*net.parameters(), *(p.grad for p in net.parameters())])
