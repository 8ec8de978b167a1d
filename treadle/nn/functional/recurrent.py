"""Whole sequences of recurrent cells, as functions with gradients of their own.

The products of all steps with the input are one product, made before the first step. What is left
to the steps is the product with the state before; the gradient of its weight is one contraction
over (time, batch), not a sum over the steps. So ``backward`` collects the adjoints of the steps'
sums: all its factors are computed for the whole sequence at once, and the loop over time only
passes the adjoint of the state on.

Nodes here are (1, R, size), with a row for every example at every step, step by step; ``sizes`` are
the numbers of examples at the steps, which may fall as short examples end. Gates lie side by side
in the last dimension, in PyTorch's order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from treadle.base.record import Record
from treadle.ir.node import Node, recorder, type_of
from treadle.ops import elementwise as e
from treadle.ops.contraction import matmul
from treadle.ops.movement import concatenate, expand, permute, reshape, slice_, zeros_of
from treadle.ops.reduce import reduce_sum
from treadle.tensor.composed import composed
from treadle.tensor.function import Function
from treadle.tensor.handle import wrap
from treadle.tensor.tensor import Tensor


class _Span(Record):
    """The rows of one step (or of several)."""

    start: int
    size: int


def _spans(sizes: Sequence[int]) -> list[_Span]:
    """The rows of every step."""
    starts = itertools.accumulate(sizes, initial=0)
    return [_Span(start, size) for start, size in zip(starts, sizes, strict=False)]


def _rows(node: Node, span: _Span) -> Node:
    start, size = span
    if size == node.shape[1]:
        return node
    return slice_(node, starts=(0, start, 0), sizes=(1, size, node.shape[2]), steps=(1, 1, 1))


def _gates(node: Node, start: int, count: int, size: int) -> Node:
    """``count`` gates of that size from number ``start`` on."""
    return slice_(
        node, starts=(0, 0, start * size), sizes=(*node.shape[:2], count * size), steps=(1, 1, 1)
    )


def _join(parts: Sequence[Node], axis: int = 1) -> Node:
    return parts[0] if len(parts) == 1 else concatenate(*parts, axis=axis)


def _one_minus(x: Node) -> Node:
    return e.sub(e.full_like(x, 1), x)


def _first(state: Node, size: int) -> Node:
    """The state of the examples that go on."""
    return _rows(state, _Span(0, size))


def _before(first: Node, states: Node, spans: list[_Span]) -> Node:
    """The states that all steps started from."""
    runs: list[_Span] = []
    for (start, _), (_, size) in itertools.pairwise(spans):
        if runs and sum(runs[-1]) == start:
            runs[-1] = _Span(runs[-1].start, runs[-1].size + size)
        else:
            runs.append(_Span(start, size))
    return _join([first, *(_rows(states, run) for run in runs)])


def _across(weight: Node) -> Node:
    """(gates, H) as (1, H, gates)."""
    return permute(reshape(weight, shape=(1, *weight.shape)), axes=(0, 2, 1))


def _weight_gradient(adjoint: Node, before: Node, weight: Node) -> Node:
    """The one contraction over (t, n)."""
    product = matmul(permute(adjoint, axes=(0, 2, 1)), before)
    return reshape(product, shape=weight.shape)


def _at(adjoint: Node, outer: Tensor | None, span: _Span) -> Node:
    """The adjoint of the state after a step, whose examples may be more than those that go on.

    ``outer`` is what flows into the states from outside the sequence.
    """
    missing = span.size - adjoint.shape[1]
    if missing:
        rest = type_of(adjoint.dtype, (1, missing, adjoint.shape[2]))
        adjoint = _join([adjoint, zeros_of(rest)])
    return adjoint if outer is None else e.add(_rows(outer.node, span), adjoint)


def _no_adjoint(state: Node, span: _Span) -> Node:
    """Where the walk back starts from."""
    return e.full_like(_first(state, span.size), 0)


class _Recurrence(Function):
    """A function (x, weight, ..., states, sizes) -> all states of the sequence.

    ``sums`` are what the steps have formed with the product. A gradient that is to be
    differentiated forms them again, from what was saved and with the same bits.
    """

    _is_pure = True
    sums: Tensor
    spans: list[_Span]

    def formed(self, again: Callable[[], Node]) -> Node:
        """The sums of all steps; ``again`` forms them anew."""
        return again() if recorder.state.grad_enabled else self.sums.node


class RNNSequence(_Recurrence):
    """``h' = tanh(x + weight @ h)``, or with max(., 0) in place of tanh where ``relu``.

    x (1, R, H) has the products with the input and the biases in it; h0 is (1, N, H). Gives all
    states (1, R, H).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, h0: Tensor, sizes: Sequence[int], relu: bool
    ) -> Tensor:
        """All states."""
        ctx.relu, ctx.spans = relu, _spans(sizes)
        out = _rnn_states(x, weight, h0, tuple(sizes), relu)
        ctx.save_for_backward(x, weight, h0, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and h0."""
        _, weight, h0, states = (t.node for t in ctx.saved_tensors)
        if ctx.relu:
            zero = e.full_like(states, 0)
            factor = e.convert(e.gt(states, zero), dtype=states.dtype)
        else:
            factor = _one_minus(e.mul(states, states))
        across = reshape(weight, shape=(1, *weight.shape))
        dh = _no_adjoint(h0, ctx.spans[-1])
        found: list[Node] = []
        for span in reversed(ctx.spans):
            dh = _at(dh, grad, span)
            found.append(e.mul(dh, _rows(factor, span)))
            dh = matmul(found[-1], across)
        dx = _join(found[::-1])
        dw = _weight_gradient(dx, _before(h0, states, ctx.spans), weight)
        return wrap(dx), wrap(dw), wrap(dh), None, None


class LSTMSequence(_Recurrence):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), with forget gates.

    ``i, f, g, o = x + weight @ h``; ``c' = sigmoid(f) * c + sigmoid(i) * tanh(g)``;
    ``h' = sigmoid(o) * tanh(c')``. x (1, R, 4H) has the products with the input and the biases in
    it. Gives all states h and c, (1, R, H) each.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """All states."""
        ctx.set_materialize_grads(False)
        ctx.spans = _spans(sizes)
        hs, cs, ctx.sums = _lstm_states(x, weight, h0, c0, tuple(sizes))
        ctx.save_for_backward(x, weight, h0, c0, hs, cs)
        return hs, cs

    @staticmethod
    def gates(total: Node) -> tuple[Node, Node, Node, Node]:
        """Input gate, forget gate, candidate and output gate."""
        size = total.shape[2] // 4
        both = e.sigmoid(_gates(total, 0, 2, size))
        return (
            _gates(both, 0, 1, size), _gates(both, 1, 1, size),
            e.tanh(_gates(total, 2, 1, size)), e.sigmoid(_gates(total, 3, 1, size)),
        )  # fmt: skip

    @staticmethod
    def backward(
        ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight, h0 and c0."""
        x, weight, h0, c0, hs, cs = (t.node for t in ctx.saved_tensors)
        h_before, c_before = _before(h0, hs, ctx.spans), _before(c0, cs, ctx.spans)
        i, f, g, o = LSTMSequence.gates(
            ctx.formed(lambda: e.add(x, matmul(h_before, _across(weight))))
        )
        curve = e.tanh(cs)
        h_to_c = e.mul(o, _one_minus(e.mul(curve, curve)))
        # of the sums of i, f and g with respect to c, of that of o with respect to h
        factors = _join([
            e.mul(g, e.mul(i, _one_minus(i))), e.mul(c_before, e.mul(f, _one_minus(f))),
            e.mul(i, _one_minus(e.mul(g, g))), e.mul(curve, e.mul(o, _one_minus(o))),
        ], axis=2)  # fmt: skip
        across = reshape(weight, shape=(1, *weight.shape))
        dh = dc = _no_adjoint(h0, ctx.spans[-1])
        found: list[Node] = []
        for span in reversed(ctx.spans):
            dh, dc = _at(dh, grad_h, span), _at(dc, grad_c, span)
            dc = e.add(e.mul(dh, _rows(h_to_c, span)), dc)
            found.append(e.mul(_join([dc, dc, dc, dh], axis=2), _rows(factors, span)))
            dh = matmul(found[-1], across)
            dc = e.mul(dc, _rows(f, span))
        dx = _join(found[::-1])
        dw = _weight_gradient(dx, h_before, weight)
        return wrap(dx), wrap(dw), wrap(dh), wrap(dc), None


class GRUSequence(_Recurrence):
    """Gated recurrent units (Cho et al., 2014), with the reset gate behind the product.

    ``r, z = sigmoid(x + y)`` and ``n = tanh(x + r * y)``, with ``y = weight @ h + bias``, each with
    its third of x and y; ``h' = n + z * (h - n)``. x (1, R, 3H) has the products with the input and
    their bias. Gives all states (1, R, H).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, h0: Tensor, sizes: Sequence[int]
    ) -> Tensor:
        """All states."""
        ctx.spans = _spans(sizes)
        out, ctx.sums = _gru_states(x, weight, bias, h0, tuple(sizes))
        ctx.save_for_backward(x, weight, bias, h0, out)
        return out

    @staticmethod
    def biased(product: Node, bias: Tensor | None) -> Node:
        """The product and the bias."""
        return product if bias is None else e.add(product, expand(bias.node, shape=product.shape))

    @staticmethod
    def gates(x: Node, y: Node) -> tuple[Node, Node, Node]:
        """Reset gate, update gate and candidate."""
        size = x.shape[2] // 3
        both = e.sigmoid(e.add(_gates(x, 0, 2, size), _gates(y, 0, 2, size)))
        r, z = _gates(both, 0, 1, size), _gates(both, 1, 1, size)
        n = e.tanh(e.add(_gates(x, 2, 1, size), e.mul(r, _gates(y, 2, 1, size))))
        return r, z, n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight, bias and h0."""
        x, weight, bias, h0, states = ctx.saved_tensors
        xs, w, hs = x.node, weight.node, states.node
        before = _before(h0.node, hs, ctx.spans)
        y = ctx.formed(lambda: GRUSequence.biased(matmul(before, _across(w)), bias))
        r, z, n = GRUSequence.gates(xs, y)
        # of the three sums in x with respect to h; those in y differ by r in the last
        by_n = e.mul(_one_minus(z), _one_minus(e.mul(n, n)))
        by_r = e.mul(e.mul(by_n, _gates(y, 2, 1, n.shape[2])), e.mul(r, _one_minus(r)))
        by_z = e.mul(e.sub(before, n), e.mul(z, _one_minus(z)))
        factors = _join([by_r, by_z, e.mul(by_n, r)], axis=2)
        across = reshape(w, shape=(1, *w.shape))
        dh = _no_adjoint(h0.node, ctx.spans[-1])
        inner: list[Node] = []
        found: list[Node] = []
        for span in reversed(ctx.spans):
            dh = _at(dh, grad, span)
            inner.append(dh)
            found.append(e.mul(_join([dh] * 3, axis=2), _rows(factors, span)))
            dh = e.add(matmul(found[-1], across), e.mul(dh, _rows(z, span)))
        dy, every = _join(found[::-1]), _join(inner[::-1])
        dx = _join([_gates(dy, 0, 2, n.shape[2]), e.mul(every, by_n)], axis=2)
        dw = _weight_gradient(dy, before, w)
        db = None if bias is None else wrap(reduce_sum(dy, axes=(0, 1)))
        return wrap(dx), wrap(dw), db, wrap(dh), None


# --- all steps of a sequence, which are recorded as one call where they were before ---------------


@composed
def _rnn_states(
    x: Tensor, weight: Tensor, h0: Tensor, sizes: tuple[int, ...], relu: bool
) -> Tensor:
    """The states of ``RNNSequence``."""
    h, across, states = h0.node, _across(weight.node), []
    for span in _spans(sizes):
        total = e.add(_rows(x.node, span), matmul(_first(h, span.size), across))
        h = e.maximum(total, e.full_like(total, 0)) if relu else e.tanh(total)
        states.append(h)
    return wrap(_join(states))


@composed
def _lstm_states(
    x: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, sizes: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The states h and c of ``LSTMSequence``, and the sums of all steps."""
    h, c, across = h0.node, c0.node, _across(weight.node)
    hs, cs, sums = [], [], []
    for span in _spans(sizes):
        total = e.add(_rows(x.node, span), matmul(_first(h, span.size), across))
        i, f, g, o = LSTMSequence.gates(total)
        c = e.add(e.mul(f, _first(c, span.size)), e.mul(i, g))
        h = e.mul(o, e.tanh(c))
        hs.append(h)
        cs.append(c)
        sums.append(total)
    return wrap(_join(hs)), wrap(_join(cs)), wrap(_join(sums))


@composed
def _gru_states(
    x: Tensor, weight: Tensor, bias: Tensor | None, h0: Tensor, sizes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The states of ``GRUSequence``, and the biased products of all steps."""
    h, across = h0.node, _across(weight.node)
    states, sums = [], []
    for span in _spans(sizes):
        h = _first(h, span.size)
        y = GRUSequence.biased(matmul(h, across), bias)
        _, z, n = GRUSequence.gates(_rows(x.node, span), y)
        h = e.add(n, e.mul(z, e.sub(h, n)))
        states.append(h)
        sums.append(y)
    return wrap(_join(states)), wrap(_join(sums))


__all__ = ["GRUSequence", "LSTMSequence", "RNNSequence"]
