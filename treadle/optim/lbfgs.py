"""L-BFGS, with a line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from treadle.base.record import Record
from treadle.ir.node import located
from treadle.optim.optimizer import Optimizer, State, check, not_negative
from treadle.tensor.contraction import dot
from treadle.tensor.grad_mode import enable_grad, no_grad
from treadle.tensor.joining import cat
from treadle.tensor.tensor import Tensor

_CURVATURE = 1e-10  # pairs of less curvature are left out
_DECREASE, _FLATTENING = 1e-4, 0.9  # the conditions of Wolfe
_MOST_SEARCHED = 25


class _Point(Record):
    """A place on the line: how far, the loss, its gradient, and its slope along the line."""

    t: float
    loss: float
    gradient: Tensor
    slope: float


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last ``history_size`` changes of the gradient (Nocedal, 1980).

    ``step(closure)`` makes up to ``max_iter`` iterations, each along -H g for the approximation H
    of the inverse Hessian. ``line_search_fn="strong_wolfe"`` searches each line for a point that
    meets the strong conditions of Wolfe; without it every step has the length ``lr``. It ends when
    the largest element of the gradient is at most ``tolerance_grad``, or parameters or loss change
    by less than ``tolerance_change``. One group of parameters only.
    Source: PyTorch's ``torch.optim.LBFGS``; Nocedal and Wright, Numerical Optimization, chapter 3.

    >>> import treadle
    >>> p = treadle.nn.Parameter([3.0, -2.0])
    >>> optimizer = LBFGS([p], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (p * p * treadle.tensor([1.0, 10.0])).sum()
    ...     loss.backward()
    ...     return loss
    >>> loss = optimizer.step(closure)
    >>> p.abs().max().item() < 1e-4
    True
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1.0, max_iter: int = 20,
        max_eval: int | None = None, tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9,
        history_size: int = 100, line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        check("LBFGS", lr=not_negative(lr))
        if line_search_fn not in (None, "strong_wolfe"):
            raise located(ValueError(
                f"LBFGS: got line_search_fn={line_search_fn!r}; it is None or 'strong_wolfe'"
            ))  # fmt: skip
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn,
        })  # fmt: skip
        if len(self.param_groups) != 1:
            raise located(ValueError(
                f"LBFGS: got {len(self.param_groups)} groups of parameters; it takes one"
            ))  # fmt: skip
        self._params: list[Tensor] = self.param_groups[0]["params"]

    # --- all parameters as one vector -------------------------------------------------------------

    def _gradient(self) -> Tensor:
        parts = [p.detach() * 0 if p.grad is None else p.grad.detach() for p in self._params]
        return cat([x.reshape(-1) for x in parts])

    def _values(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._params]

    def _move(self, start: list[Tensor], t: float, direction: Tensor) -> None:
        """The parameters to ``start + t * direction``."""
        at = 0
        with no_grad():
            for p, value in zip(self._params, start, strict=True):
                part = direction[at : at + p.numel()].reshape(p.shape)
                p.copy_(value + part * t)
                at += p.numel()

    def _evaluated(
        self, closure: Callable[[], Any], start: list[Tensor], t: float, direction: Tensor
    ) -> _Point:
        self._move(start, t, direction)
        with enable_grad():
            loss = float(closure())
        gradient = self._gradient()
        return _Point(t, loss, gradient, dot(gradient, direction).item())

    # --- steps ------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Iterates; ``closure`` clears the gradients, computes the loss and its gradients anew.

        Returns the loss before the first iteration.
        """
        if closure is None:
            raise located(TypeError(
                "LBFGS.step: got no closure; it computes the loss several times: pass a function "
                "that clears the gradients, calls backward() and returns the loss"
            ))  # fmt: skip
        with enable_grad():
            first = closure()
        group, state = self.param_groups[0], self.state[self._params[0]]
        state.setdefault("n_iter", 0)
        here = _Point(0.0, float(first), self._gradient(), 0.0)
        evaluations, iterations = 1, 0
        if here.gradient.abs().max().item() <= group["tolerance_grad"]:
            return first
        while iterations < group["max_iter"]:
            iterations += 1
            state["n_iter"] += 1
            direction = self._direction(state, here.gradient)
            slope = dot(here.gradient, direction).item()
            if slope > -group["tolerance_change"]:
                break
            t = group["lr"]
            if state["n_iter"] == 1:
                t *= min(1.0, 1.0 / here.gradient.abs().sum().item())
            begin = _Point(0.0, here.loss, here.gradient, slope)
            if group["line_search_fn"] is None and iterations == group["max_iter"]:
                state["moved"] = (direction * t, here.gradient)
                self._move(self._values(), t, direction)  # the next step() evaluates there first
                break
            there, used = self._advance(closure, begin, direction, t)
            evaluations += used
            state["moved"] = (direction * there.t, here.gradient)
            change = (direction.abs().max().item() * there.t, abs(there.loss - here.loss))
            here = there
            is_flat = here.gradient.abs().max().item() <= group["tolerance_grad"]
            if is_flat or min(change) <= group["tolerance_change"] or math.isnan(here.loss):
                break
            if evaluations >= group["max_eval"]:
                break
        return first

    def _advance(
        self, closure: Callable[[], Any], begin: _Point, direction: Tensor, t: float
    ) -> tuple[_Point, int]:
        """The next point along the line, with the parameters there, and the evaluations used."""
        start = self._values()
        if self.param_groups[0]["line_search_fn"] is None:
            return self._evaluated(closure, start, t, direction), 1
        tolerance = self.param_groups[0]["tolerance_change"]
        seen: list[_Point] = []

        def at(t: float) -> _Point:
            seen.append(self._evaluated(closure, start, t, direction))
            return seen[-1]

        best = _strong_wolfe(at, begin, t, tolerance / max(direction.abs().max().item(), 1e-300))
        if seen[-1] is not best:
            self._move(start, best.t, direction)
        return best, len(seen)

    def _direction(self, state: State, gradient: Tensor) -> Tensor:
        """-H g by the two loops over the remembered pairs (s, y, 1 / s.y)."""
        pairs: list[tuple[Tensor, Tensor, float]] = state.setdefault("pairs", [])
        moved = state.pop("moved", None)
        if moved is not None:
            s, y = moved[0], gradient - moved[1]
            curvature = dot(s, y).item()
            if curvature > _CURVATURE:
                state["scale"] = curvature / dot(y, y).item()
                pairs.append((s, y, 1.0 / curvature))
                del pairs[: max(len(pairs) - self.param_groups[0]["history_size"], 0)]
        q, shares = -gradient, []
        for s, y, inverse in reversed(pairs):
            share = dot(s, q).item() * inverse
            shares.append(share)
            q = q - y * share
        q = q * state.get("scale", 1.0)
        for (s, y, inverse), share in zip(pairs, reversed(shares), strict=True):
            q = q + s * (share - dot(y, q).item() * inverse)
        return q


# --- the line search ------------------------------------------------------------------------------


def _strong_wolfe(
    at: Callable[[float], _Point], begin: _Point, t: float, tolerance: float
) -> _Point:
    """A point of enough decrease and a slope flat enough, or the best one seen."""

    def is_too_high(p: _Point) -> bool:
        return p.loss > begin.loss + _DECREASE * p.t * begin.slope

    def is_flat(p: _Point) -> bool:
        return abs(p.slope) <= -_FLATTENING * begin.slope

    low, count = begin, 0
    while True:
        new = at(t)
        count += 1
        if math.isnan(new.loss) or is_too_high(new) or (count > 1 and new.loss >= low.loss):
            high = new
            break
        if is_flat(new):
            return new
        if new.slope >= 0:
            low, high = new, low
            break
        if count == _MOST_SEARCHED:
            return new
        t = _lowest(low, new, new.t + 0.01 * (new.t - low.t), new.t * 10)
        low = new
    while count < _MOST_SEARCHED and abs(high.t - low.t) > tolerance:
        lower, upper = sorted((low.t, high.t))
        margin = 0.1 * (upper - lower)
        new = at(_lowest(low, high, lower + margin, upper - margin))
        count += 1
        if math.isnan(new.loss) or is_too_high(new) or new.loss >= low.loss:
            high = new
            continue
        if is_flat(new):
            return new
        if new.slope * (high.t - low.t) >= 0:
            high = low
        low = new
    return low


def _lowest(x: _Point, y: _Point, least: float, most: float) -> float:
    """Where the cubic through two points with these slopes is lowest, between the bounds."""
    x, y = sorted((x, y), key=lambda p: p.t)
    d = x.slope + y.slope - 3 * (y.loss - x.loss) / (y.t - x.t)
    square = d * d - x.slope * y.slope
    if not 0 <= square < math.inf:
        return (least + most) / 2
    root = math.sqrt(square)
    bottom = y.slope - x.slope + 2 * root
    if bottom == 0:
        return (least + most) / 2
    return min(max(y.t - (y.t - x.t) * (y.slope + root - d) / bottom, least), most)


__all__ = ["LBFGS"]
