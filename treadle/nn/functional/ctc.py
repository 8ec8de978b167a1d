"""Connectionist temporal classification: the loss of sequences that are not aligned."""

from __future__ import annotations

from typing import Any

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.ir.node import located
from treadle.nn.functional.common import check_reduction, real_node, widened
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction as r
from treadle.tensor.autocast import in_float32
from treadle.tensor.creation import full, tensor
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.joining import pad, stack
from treadle.tensor.selection import gather
from treadle.tensor.tensor import Tensor

_IMPOSSIBLE = -1e30  # the logarithm of a probability of (as good as) 0, whose gradient is not NaN


@in_float32
def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """``-log p(targets)``, summed over all alignments (Graves et al., 2006).

    ``log_probs`` (T, N, C) or (T, C) are log-probabilities of the classes at each time. An
    alignment names a class at every time; taken together where they repeat, and without ``blank``,
    these are the target. ``targets`` are (N, S), or one after the other in a vector. The mean is of
    each loss divided by its target's length. A target that no alignment gives has an infinite loss,
    or none with ``zero_infinity``. Evaluates targets and lengths.

    The gradient is PyTorch's: of ``log_probs`` that are a ``log_softmax``, with the part that flows
    through their normalisation already in it.
    """
    check_reduction("ctc_loss", reduction)
    node = real_node("ctc_loss", log_probs)
    logs, is_one = wrap(widened(node)), len(node.shape) == 2
    if is_one:
        logs = logs.unsqueeze(1)
    if logs.ndim != 3:
        raise located(ShapeError(
            f"ctc_loss: got log_probs of shape {node.shape}; they are (T, N, C) or (T, C)"
        ))  # fmt: skip
    times, count, classes = logs.shape
    ends, sizes = (_lengths(x, count, name) for x, name in (
        (input_lengths, "input_lengths"), (target_lengths, "target_lengths")
    ))  # fmt: skip
    labels = _labels(targets, sizes, count, classes, blank)
    if ends.max(initial=0) > times or blank not in range(classes):
        raise located(ValueError(
            f"ctc_loss: got input_lengths up to {ends.max(initial=0)} and blank {blank} for "
            f"{times} times and {classes} classes; lengths are at most the times, and blank is a "
            f"class"
        ))  # fmt: skip
    losses = a.add(_losses(logs, labels, ends, sizes, blank), _softmax_part(logs, ends))
    if zero_infinity:
        losses = a.where(a.isinf(losses), 0.0, losses)
    if reduction == "mean":
        losses = r.mean(a.div(losses, tensor(np.maximum(sizes, 1)).to(losses.dtype)))
    elif reduction == "sum":
        losses = r.sum(losses)
    elif is_one:
        losses = losses.squeeze(0)
    return losses.to(log_probs.dtype)


def _softmax_part(logs: Tensor, ends: Any) -> Tensor:
    """Zeros (N,) whose gradient is the probabilities of every example's times."""
    counted = np.arange(logs.shape[0])[:, None] < ends
    shares = a.mul(a.exp(a.clamp(logs, max=0.0)), tensor(counted).unsqueeze(-1))
    total = r.sum(shares, (0, 2))
    return a.sub(total, total.detach())


def _lengths(given: Any, count: int, name: str) -> Any:
    """One length for each example, as a NumPy array."""
    values = given.tolist() if isinstance(given, Handle) else given  # type: ignore[attr-defined]
    array = np.atleast_1d(np.asarray(values, np.int64))
    if array.shape != (count,) or (array < 0).any():
        raise located(ShapeError(
            f"ctc_loss: got {name} of shape {array.shape} for {count} examples; there must be one "
            f"for each, not negative"
        ))  # fmt: skip
    return array


def _labels(targets: Tensor, sizes: Any, count: int, classes: int, blank: int) -> Any:
    """The targets as rows (N, longest), filled up with blanks."""
    given, longest = np.asarray(targets.tolist(), np.int64), int(sizes.max(initial=0))
    rows = np.full((count, longest), blank, np.int64)
    cuts = np.concatenate([[0], np.cumsum(sizes)])
    one_row = given.ndim == 1 and given.size == cuts[-1]
    if not one_row and (given.ndim != 2 or len(given) != count or given.shape[1] < longest):
        raise located(ShapeError(
            f"ctc_loss: got targets of shape {given.shape} for {count} examples of lengths "
            f"{sizes.tolist()}; they are (N, S), or a vector of all of them"
        ))  # fmt: skip
    for n, size in enumerate(sizes):
        rows[n, :size] = given[cuts[n] : cuts[n + 1]] if one_row else given[n, :size]
    known = rows[np.arange(longest) < sizes[:, None]]
    if known.size and (known.min() < 0 or known.max() >= classes or (known == blank).any()):
        raise located(ValueError(
            f"ctc_loss: got targets from {known.min()} to {known.max()}; they are classes from 0 "
            f"to {classes - 1}, and not the blank {blank}"
        ))  # fmt: skip
    return rows


def _losses(logs: Tensor, labels: Any, ends: Any, sizes: Any, blank: int) -> Tensor:
    """The forward sums over alignments; states are blank, label, blank, label, ..., blank."""
    count, longest = labels.shape
    states = np.full((count, 2 * longest + 1), blank, np.int64)
    states[:, 1::2] = labels
    # A label may follow the one before it, without a blank between, where they differ.
    skips = np.zeros(states.shape, bool)
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    names, may_skip = tensor(states), tensor(skips)
    first = np.full(states.shape, _IMPOSSIBLE)
    first[:, :2] = 0.0
    alpha = a.add(tensor(first, dtype=logs.dtype), gather(logs[0], 1, names))
    sums = [alpha]
    for t in range(1, int(ends.max(initial=1))):
        one, two = (pad(alpha, (n, 0), value=_IMPOSSIBLE)[:, :-n] for n in (1, 2))
        two = a.where(may_skip, two, full((), _IMPOSSIBLE, dtype=logs.dtype))
        total = r.logsumexp(stack([alpha, one, two]), 0)
        alpha = a.add(total, gather(logs[t], 1, names))
        sums.append(alpha)
    last = tensor(np.maximum(ends - 1, 0), dtype=dtypes.int64)
    final = stack(sums, 1)[tensor(np.arange(count)), last]
    places = np.stack([2 * sizes, np.maximum(2 * sizes - 1, 0)], 1)
    both = gather(final, 1, tensor(places))
    is_empty = tensor(sizes == 0)  # then both places are the first blank
    likely = a.where(is_empty, both[:, 0], r.logsumexp(both, 1))
    # No time at all gives the empty target for certain, and no other.
    likely = a.where(tensor((ends == 0) & (sizes == 0)), 0.0, likely)
    likely = a.where(tensor((ends == 0) & (sizes > 0)), _IMPOSSIBLE, likely)
    return a.where(a.lt(likely, _IMPOSSIBLE / 2), float("inf"), a.neg(likely)).to(logs.dtype)


__all__ = ["ctc_loss"]
