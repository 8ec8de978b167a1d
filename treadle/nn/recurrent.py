"""Recurrent layers over sequences, and their cells for one step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.base.record import Record
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.functional.common import real_node
from treadle.nn.functional.recurrent import GRUSequence, LSTMSequence, RNNSequence
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.utils.rnn import PackedSequence, Rows
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import lowered
from treadle.tensor.creation import empty, zeros
from treadle.tensor.joining import cat, flip
from treadle.tensor.tensor import Tensor

States = tuple[Tensor, ...]
Sizes = tuple[int, ...]
Weights = tuple[Any, ...]  # input and hidden weight, their biases, and a projection if any


class _Recurrent(Module):
    """What layers and cells share: sizes, and parameters of ``gates`` times the hidden size."""

    gates = 1
    proj_size = 0  # of an LSTM's state h where it is projected

    def __init__(self, input_size: int, hidden_size: int, bias: bool) -> None:
        super().__init__()
        if hidden_size < 1:
            raise located(ValueError(
                f"{type(self).__name__}: got hidden_size {hidden_size}; it must be at least 1"
            ))  # fmt: skip
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias

    def _add_parameters(self, suffix: str, input_size: int, kind: dict[str, Any]) -> None:
        rows = self.gates * self.hidden_size
        states = self.proj_size or self.hidden_size
        for name, columns in (("weight_ih", input_size), ("weight_hh", states)):
            setattr(self, name + suffix, Parameter(empty(rows, columns, **kind)))
        for name in ("bias_ih", "bias_hh"):
            vector = Parameter(empty(rows, **kind)) if self.bias else None
            self.register_parameter(name + suffix, vector)
        if self.proj_size:
            matrix = Parameter(empty(self.proj_size, self.hidden_size, **kind))
            setattr(self, "weight_hr" + suffix, matrix)

    def _parameters_of(self, suffix: str) -> Weights:
        """Input weight, hidden weight, input bias, hidden bias."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(getattr(self, name + suffix) for name in names)

    def reset_parameters(self) -> None:
        """Draws all parameters anew, uniform in +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _check_input(self, input: Tensor, ranks: Sequence[int], shapes: str) -> None:
        node = real_node(type(self).__name__, input)
        if len(node.shape) not in ranks or node.shape[-1] != self.input_size:
            raise located(ShapeError(
                f"{type(self).__name__}: got an input of shape {node.shape}; it must be {shapes} "
                f"with {self.input_size} features in the last dimension (input_size)"
            ))  # fmt: skip

    def _checked_state(self, what: str, state: Tensor, shape: tuple[int, ...]) -> Tensor:
        if tuple(state.shape) != shape:
            raise located(ShapeError(
                f"{type(self).__name__}: got {what} of shape {tuple(state.shape)}; for this input "
                f"it must be {shape}"
            ))  # fmt: skip
        return state


class _Dense(Record):
    """Rows (1, T * N, size) of sequences of one length."""

    sizes: Sizes

    def backwards(self, x: Tensor) -> Tensor:
        """The rows with every sequence read from its end."""
        steps = x.reshape(len(self.sizes), self.sizes[0], -1)
        return flip(steps, (0,)).reshape(tuple(x.shape))

    def last(self, x: Tensor) -> Tensor:
        """The rows in which the sequences end."""
        return x[:, -self.sizes[0] :]


# --- layers ---------------------------------------------------------------------------------------


class RNNBase(_Recurrent):
    """What ``RNN``, ``LSTM`` and ``GRU`` share: layers, directions, states.

    Parameters of layer k are ``weight_ih_l{k}``, ``weight_hh_l{k}``, ``bias_ih_l{k}`` and
    ``bias_hh_l{k}``; those of the backward direction end in ``_reverse``.
    """

    state_names: tuple[str, ...] = ("h_0",)

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias)
        name = type(self).__name__
        if not 0 <= proj_size < hidden_size:
            raise located(ValueError(
                f"{name}: got proj_size {proj_size} for hidden_size {hidden_size}; it must be "
                f"smaller, and 0 means none"
            ))  # fmt: skip
        self.proj_size = proj_size
        if num_layers < 1:
            raise located(ValueError(f"{name}: got num_layers {num_layers}; it must be at least 1"))
        if not 0 <= dropout <= 1:
            raise located(ValueError(f"{name}: got dropout {dropout}; it is from 0 to 1"))
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        kind = {"device": device, "dtype": dtype}
        width = (proj_size or hidden_size) * (2 if bidirectional else 1)
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                self._add_parameters(suffix, width if layer else input_size, kind)
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 2 if self.bidirectional else 1]

    def flatten_parameters(self) -> None:
        """Does nothing: parameters need not lie together here, as they must in PyTorch."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of every layer and direction."""
        found = []
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                kept = [p for p in self._parameters_of(suffix) if p is not None]
                if self.proj_size:
                    kept.append(getattr(self, f"weight_hr{suffix}"))
                found.append(kept)
        return found

    def _sequence(self, x: Tensor, weights: Weights, states: States, sizes: Sizes) -> States:
        """One layer in one direction: rows (1, R, input) to all states, (1, R, H) each."""
        raise NotImplementedError

    def _run(self, input: Any, hx: States | None) -> tuple[Any, States]:
        """The outputs and last states for an input as the user gave it."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        shapes = "(N, T, input_size)" if self.batch_first else "(T, N, input_size)"
        self._check_input(input, (2, 3), f"{shapes} or (T, input_size)")
        is_batched = input.ndim == 3
        x = input if is_batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if is_batched and self.batch_first else x
        steps, batch = x.shape[:2]
        if steps == 0:
            raise located(ShapeError(
                f"{type(self).__name__}: got an input of shape {tuple(input.shape)}, a sequence "
                f"without steps; there must be at least one"
            ))  # fmt: skip
        starts = self._first_states(hx, x, (batch,) if is_batched else (), batch)
        rows = _Dense((batch,) * steps)
        x, finals = self._stack(x.reshape(1, steps * batch, -1), starts, rows)
        x = x.reshape(steps, batch, -1)
        if not is_batched:
            return x.squeeze(1), tuple(s.squeeze(1) for s in finals)
        return (x.transpose(0, 1) if self.batch_first else x), finals

    def _run_packed(self, input: PackedSequence, hx: States | None) -> tuple[Any, States]:
        """Packed sequences; states are in the order in which the user has them."""
        data, batch_sizes, order, back = input
        self._check_input(data, (2,), "packed (rows, input_size)")
        rows = Rows(tuple(batch_sizes.tolist()))
        count = rows.sizes[0]
        starts = self._first_states(hx, data, (count,), count)
        if order is not None and hx is not None:
            starts = tuple(s.index_select(1, order) for s in starts)
        x, finals = self._stack(data.unsqueeze(0), starts, rows)
        if back is not None:
            finals = tuple(s.index_select(1, back) for s in finals)
        return PackedSequence(x.squeeze(0), batch_sizes, order, back), finals

    def _first_states(
        self, hx: States | None, x: Tensor, given: tuple[int, ...], batch: int
    ) -> States:
        """The states (layers * directions, N, H) before the first step; zeros unless given."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: len(self.state_names)]
        if hx is None:
            return tuple(zeros(count, batch, size, dtype=x.dtype) for size in sizes)
        checked = [
            self._checked_state(f"the state {name}", s, (count, *given, size))
            for name, s, size in zip(self.state_names, hx, sizes, strict=True)
        ]
        return tuple(s if given else s.unsqueeze(1) for s in checked)

    def _stack(self, x: Tensor, starts: States, rows: _Dense | Rows) -> tuple[Tensor, States]:
        """All layers over rows (1, R, input_size)."""
        finals: list[States] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                states = tuple(s[len(finals) : len(finals) + 1] for s in starts)
                backward = suffix.endswith("_reverse")
                given = rows.backwards(x) if backward else x
                weights = self._parameters_of(suffix)
                if self.proj_size:
                    weights += (getattr(self, f"weight_hr{suffix}"),)
                found = self._sequence(given, weights, states, rows.sizes)
                finals.append(tuple(rows.last(s) for s in found))
                outputs.append(rows.backwards(found[0]) if backward else found[0])
            x = outputs[0] if len(outputs) == 1 else cat(outputs, 2)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        merged = [s[0] if len(s) == 1 else cat(s) for s in zip(*finals, strict=True)]
        return x, tuple(merged)

    def extra_repr(self) -> str:
        """The sizes, and settings that are not the default."""
        default = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
                   "bidirectional": False}  # fmt: skip
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += [f"{k}={getattr(self, k)}" for k, v in default.items() if getattr(self, k) != v]
        return ", ".join(parts)


def _both(bias_ih: Tensor | None, bias_hh: Tensor | None) -> Tensor | None:
    return None if bias_ih is None or bias_hh is None else bias_ih + bias_hh


class RNN(RNNBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` over a sequence (Elman, 1990).

    Input (T, N, input_size), (N, T, input_size) where ``batch_first``, (T, input_size) without a
    batch, or an ``nn.utils.rnn.PackedSequence``, which the output is then too; ``h_0``
    (layers * directions, N, hidden_size), zeros unless given. Gives the outputs of the last layer
    (T, N, directions * hidden_size) and the last states of all. ``nonlinearity`` is "tanh" or
    "relu"; ``dropout`` acts between layers, in training.

    >>> import treadle
    >>> output, h_n = RNN(3, 5, num_layers=2)(treadle.randn(7, 4, 3))
    >>> tuple(output.shape), tuple(h_n.shape)
    ((7, 4, 5), (2, 4, 5))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype,
        )  # fmt: skip
        self.nonlinearity = _known("RNN", nonlinearity)

    @lowered
    def _sequence(self, x: Tensor, weights: Weights, states: States, sizes: Sizes) -> States:
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        sums = F.linear(x, weight_ih, _both(bias_ih, bias_hh))
        relu = self.nonlinearity == "relu"
        return (RNNSequence.apply(sums, weight_hh, *states, sizes, relu),)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """(output, h_n)."""
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


class LSTM(RNNBase):
    """Long short-term memory over a sequence (Hochreiter and Schmidhuber, 1997).

    ``i, f, g, o = W_ih x + b_ih + W_hh h + b_hh``; ``c' = sigmoid(f) c + sigmoid(i) tanh(g)``;
    ``h' = sigmoid(o) tanh(c')``. Shapes as for ``RNN``; the state is a pair (h_0, c_0).
    With ``proj_size`` P the state h is projected, ``h' = W_hr (sigmoid(o) tanh(c'))``, from H to P
    numbers (Sak et al., 2014).

    >>> import treadle
    >>> output, (h_n, c_n) = LSTM(3, 5, bidirectional=True)(treadle.randn(7, 4, 3))
    >>> tuple(output.shape), tuple(c_n.shape)
    ((7, 4, 10), (2, 4, 5))
    """

    gates = 4
    state_names = ("h_0", "c_0")

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype,
        )  # fmt: skip

    @lowered
    def _sequence(self, x: Tensor, weights: Weights, states: States, sizes: Sizes) -> States:
        weight_ih, weight_hh, bias_ih, bias_hh, *projection = weights
        sums = F.linear(x, weight_ih, _both(bias_ih, bias_hh))
        if projection:
            return _projected(sums, weight_hh, projection[0], states, sizes)
        h, c = LSTMSequence.apply(sums, weight_hh, *states, sizes)
        return h, c

    def forward(
        self, input: Any, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """(output, (h_n, c_n))."""
        output, (h, c) = self._run(input, _pair("LSTM", hx))
        return output, (h, c)


def _projected(
    sums: Tensor, weight_hh: Tensor, weight_hr: Tensor, states: States, sizes: Sizes
) -> States:
    """An LSTM whose state h is projected, step by step: all states."""
    (h, c), start = states, 0
    hs, cs = [], []
    for size in sizes:
        total = sums[:, start : start + size] + F.linear(h[:, :size], weight_hh)
        i, f, g, o = total.chunk(4, -1)
        c = a.sigmoid(f) * c[:, :size] + a.sigmoid(i) * a.tanh(g)
        h = F.linear(a.sigmoid(o) * a.tanh(c), weight_hr)
        hs.append(h)
        cs.append(c)
        start += size
    return cat(hs, 1), cat(cs, 1)


class GRU(RNNBase):
    """Gated recurrent units over a sequence (Cho et al., 2014).

    ``r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh)``;
    ``n = tanh(W_in x + b_in + r * (W_hn h + b_hn))``; ``h' = (1 - z) * n + z * h``. Shapes as for
    ``RNN``.
    """

    gates = 3

    @lowered
    def _sequence(self, x: Tensor, weights: Weights, states: States, sizes: Sizes) -> States:
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        sums = F.linear(x, weight_ih, bias_ih)
        return (GRUSequence.apply(sums, weight_hh, bias_hh, *states, sizes),)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """(output, h_n)."""
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


def _known(name: str, nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise located(ValueError(
            f"{name}: got nonlinearity {nonlinearity!r}; it is 'tanh' or 'relu'"
        ))  # fmt: skip
    return nonlinearity


def _pair(name: str, hx: Any) -> States | None:
    if hx is not None and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
        raise located(TypeError(
            f"{name}: got a {type(hx).__name__} as the state; it must be a pair (h_0, c_0)"
        ))  # fmt: skip
    return None if hx is None else tuple(hx)


# --- cells ----------------------------------------------------------------------------------------


class RNNCellBase(_Recurrent):
    """What the cells share: one step, with parameters weight_ih, weight_hh, bias_ih, bias_hh."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias)
        self._add_parameters("", input_size, {"device": device, "dtype": dtype})
        self.reset_parameters()

    def _states(self, input: Tensor, hx: Sequence[Tensor] | None, count: int) -> States:
        """The state before the step; zeros unless given."""
        self._check_input(input, (1, 2), "(N, input_size) or (input_size,)")
        shape = (*input.shape[:-1], self.hidden_size)
        if hx is None:
            return (zeros(*shape, dtype=input.dtype),) * count
        return tuple(self._checked_state("a state", s, shape) for s in hx)

    def _sums(self, input: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The products with input and state, with their biases."""
        weight_ih, weight_hh, bias_ih, bias_hh = self._parameters_of("")
        return F.linear(input, weight_ih, bias_ih), F.linear(h, weight_hh, bias_hh)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RNNCellBase):
    """One step of ``RNN``: (N, input_size) and a state (N, hidden_size) -> the new state."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = _known("RNNCell", nonlinearity)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The new state."""
        (h,) = self._states(input, None if hx is None else (hx,), 1)
        total = a.add(*self._sums(input, h))
        return a.relu(total) if self.nonlinearity == "relu" else a.tanh(total)


class LSTMCell(RNNCellBase):
    """One step of ``LSTM``: (N, input_size) and a pair of states -> the new pair (h, c)."""

    gates = 4

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The new states."""
        h, c = self._states(input, _pair("LSTMCell", hx), 2)
        i, f, g, o = a.add(*self._sums(input, h)).chunk(4, -1)
        c = a.sigmoid(f) * c + a.sigmoid(i) * a.tanh(g)
        return a.sigmoid(o) * a.tanh(c), c


class GRUCell(RNNCellBase):
    """One step of ``GRU``: (N, input_size) and a state (N, hidden_size) -> the new state."""

    gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The new state."""
        (h,) = self._states(input, None if hx is None else (hx,), 1)
        x, y = self._sums(input, h)
        xr, xz, xn = x.chunk(3, -1)
        yr, yz, yn = y.chunk(3, -1)
        n = a.tanh(xn + a.sigmoid(xr + yr) * yn)
        return n + a.sigmoid(xz + yz) * (h - n)


__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]
