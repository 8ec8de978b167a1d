"""Recurrent layers against loops in NumPy, their gradients, and the law of their weights."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.base.errors import DTypeError, ShapeError
from treadle.nn.functional.recurrent import GRUSequence, LSTMSequence, RNNSequence
from treadle.nn.utils import rnn
from treadle.testing.gradients import check_grads
from treadle.testing.layers import check_layer

RNG = np.random.default_rng(0)
LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
CELLS = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell}
OPTIONS = (
    {}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True},
    {"num_layers": 3, "batch_first": True},
)  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(kind, x, states, weight_ih, weight_hh, bias_ih, bias_hh, relu=False):
    """One step of one example, from the definition."""
    h = states[0]
    size = len(h)
    a, b = weight_ih @ x + bias_ih, weight_hh @ h + bias_hh
    part = [slice(i * size, (i + 1) * size) for i in range(4)]
    if kind == "RNN":
        return [np.maximum(a + b, 0) if relu else np.tanh(a + b)]
    if kind == "LSTM":
        i, f, g, o = ((a + b)[p] for p in part)
        c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    r, z = sigmoid((a + b)[part[0]]), sigmoid((a + b)[part[1]])
    n = np.tanh(a[part[2]] + r * b[part[2]])
    return [(1 - z) * n + z * h]


def numpy_layer(kind, layer, x, starts, relu=False):
    """All layers and directions over one sequence (T, input_size); starts (states, layers, H)."""
    parameters = {k: v.numpy().astype(np.float64) for k, v in layer.state_dict().items()}
    finals = []
    for number in range(layer.num_layers):
        outputs = []
        for suffix in (f"_l{number}", f"_l{number}_reverse")[: 1 + layer.bidirectional]:
            states = [s[len(finals)] for s in starts]
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [parameters.get(n + suffix, 0.0) for n in names]
            rows = x[::-1] if suffix.endswith("reverse") else x
            out = []
            for row in rows:
                states = numpy_step(kind, row, states, *weights, relu=relu)
                out.append(states[0])
            outputs.append(out[::-1] if suffix.endswith("reverse") else out)
            finals.append(states)
        x = np.concatenate(outputs, 1)
    return x, [np.stack(s) for s in zip(*finals, strict=True)]


def states_of(result):
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_against_numpy(kind, options, with_states):
    layer = LAYERS[kind](3, 4, **options)
    count = layer.num_layers * (1 + layer.bidirectional)
    x = RNG.normal(size=(2, 6, 3)).astype(np.float32)  # (N, T, input_size)
    number = 2 if kind == "LSTM" else 1
    starts = RNG.normal(size=(number, count, 2, 4)) * with_states
    given = None
    if with_states:
        given = tuple(treadle.from_numpy(s.astype(np.float32)) for s in starts)
        given = given if kind == "LSTM" else given[0]
    fed = treadle.from_numpy(x if layer.batch_first else np.swapaxes(x, 0, 1).copy())
    output, last = layer(fed, given)
    output = output.detach().numpy()
    for n in range(2):
        wanted, finals = numpy_layer(kind, layer, x[n], starts[:, :, n])
        got = output[n] if layer.batch_first else output[:, n]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        for s, f in zip(states_of(last), finals, strict=True):
            np.testing.assert_allclose(s.detach().numpy()[:, n], f, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_sequence_without_a_batch(kind):
    layer = LAYERS[kind](3, 4, num_layers=2)
    x = treadle.randn(5, 3)
    output, last = layer(x)
    whole, whole_last = layer(x.unsqueeze(1))
    assert tuple(output.shape) == (5, 4)
    assert output.equal(whole[:, 0])
    for s, w in zip(states_of(last), states_of(whole_last), strict=True):
        assert s.equal(w[:, 0])
    again, _ = layer(x, last)
    assert not again.equal(output)


def test_relu():
    layer = nn.RNN(3, 4, nonlinearity="relu")
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    wanted, _ = numpy_layer("RNN", layer, x, np.zeros((1, 1, 4)), relu=True)
    output, _ = layer(treadle.from_numpy(x))
    np.testing.assert_allclose(output.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert (wanted > 0).any()


@pytest.mark.parametrize("kind", LAYERS)
def test_cells_make_the_steps_of_layers(kind):
    layer, cell = LAYERS[kind](3, 4), CELLS[kind](3, 4)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = treadle.randn(5, 2, 3)
    wanted, last = layer(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        assert states_of(state)[0].allclose(wanted[t], atol=1e-6)
    for s, w in zip(states_of(state), states_of(last), strict=True):
        assert s.allclose(w[0], atol=1e-6)
    alone = cell(x[0, 0])
    assert states_of(alone)[0].allclose(wanted[0, 0], atol=1e-6)


# --- gradients ------------------------------------------------------------------------------------

SEQUENCES = {  # gates, states, and what makes the states of all rows (1, R, ...)
    "rnn": (1, 1, lambda n, x, w, b, *s: RNNSequence.apply(x, w, *s, n, False)),
    "lstm": (4, 2, lambda n, x, w, b, *s: treadle.cat(LSTMSequence.apply(x, w, *s, n), 2)),
    "gru": (3, 1, lambda n, x, w, b, *s: GRUSequence.apply(x, w, b, *s, n)),
}
SIZES = ((2,), (2, 2, 2), (3, 3, 2, 1, 1))  # examples at the steps


def leaves(kind, sizes, size=2, dtype=np.float64):
    """The function of the leaves, and x, weight, bias and states."""
    gates, states, function = SEQUENCES[kind]
    shapes = [(1, sum(sizes), gates * size), (gates * size, size), (gates * size,)]
    shapes += [(1, sizes[0], size)] * states
    made = [treadle.from_numpy(RNG.normal(size=s).astype(dtype)).requires_grad_() for s in shapes]
    return lambda *v: function(sizes, *v), made


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", SEQUENCES)
def test_gradients_to_second_order(kind, sizes):
    function, inputs = leaves(kind, sizes)
    check_grads(function, inputs, order=2)


def test_only_the_last_state_has_a_gradient():
    _, inputs = leaves("lstm", (2, 2, 2))
    x, w, _, h, c = inputs
    check_grads(lambda *v: LSTMSequence.apply(*v, (2, 2, 2))[1][:, -2:], [x, w, h, c], order=2)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_the_weight_gradient_is_one_contraction_over_time_and_batch(kind):
    """More rows than a block of the contraction, so that a sum over steps has other bits."""
    function, inputs = leaves(kind, (15,) * 40, size=8, dtype=np.float32)
    x, w, b, h = inputs[:4]
    out = function(*inputs)
    out.square().sum().backward()
    before = treadle.cat([h.detach()[0], out.detach()[0, :-15, :8]])
    adjoint, rows = x.grad[0], w.grad
    if kind == "gru":  # behind the reset gate the adjoints of the product are others
        product = before @ w.detach().T + b.detach()
        reset = (x.detach()[0, :, :8] + product[:, :8]).sigmoid()
        assert ((adjoint[:, 16:] * reset).T @ before).allclose(w.grad[16:], rtol=1e-4)
        adjoint, rows = adjoint[:, :16], w.grad[:16]
    assert (adjoint.T @ before).equal(rows)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", SEQUENCES)
def test_a_gradient_that_can_be_differentiated_has_the_same_bits(kind, sizes):
    function, inputs = leaves(kind, sizes, dtype=np.float32)
    used = [v for v in inputs if v is not inputs[2] or kind == "gru"]
    plain = treadle.autograd.grad(function(*inputs).square().sum(), used)
    graph = treadle.autograd.grad(function(*inputs).square().sum(), used, create_graph=True)
    assert all(p.equal(g) for p, g in zip(plain, graph, strict=True))


# --- sequences of different lengths ---------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_packed_sequences_are_as_if_each_were_alone(kind):
    layer = LAYERS[kind](3, 4, num_layers=2, bidirectional=True)
    lengths = [2, 5, 1, 3]
    items = [treadle.randn(n, 3) for n in lengths]
    number = 2 if kind == "LSTM" else 1
    starts = [treadle.randn(4, 4, 4) for _ in range(number)]
    packed = rnn.pack_sequence(items, enforce_sorted=False)
    output, last = layer(packed, tuple(starts) if number == 2 else starts[0])
    for i, (item, out) in enumerate(zip(items, rnn.unpack_sequence(output), strict=True)):
        own = tuple(s[:, i] for s in starts)
        alone, final = layer(item, own if number == 2 else own[0])
        assert out.allclose(alone, atol=1e-6)
        for s, f in zip(states_of(last), states_of(final), strict=True):
            assert s[:, i].allclose(f, atol=1e-6)


def test_packing_and_padding():
    a, b, c = (treadle.arange(1, n + 1).float() * 10**i for i, n in enumerate((1, 3, 2)))
    padded = rnn.pad_sequence([a, b, c], batch_first=True, padding_value=-1)
    assert padded.tolist() == [[1, -1, -1], [10, 20, 30], [100, 200, -1]]
    left = rnn.pad_sequence([a, b], padding_side="left")
    assert left.tolist() == [[0, 10], [0, 20], [1, 30]]
    packed = rnn.pack_padded_sequence(padded, [1, 3, 2], batch_first=True, enforce_sorted=False)
    assert packed.data.tolist() == [10, 100, 1, 20, 200, 30]
    assert packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices.tolist() == [1, 2, 0]
    assert packed.unsorted_indices.tolist() == [2, 0, 1]
    assert rnn.invert_permutation(packed.sorted_indices).tolist() == [2, 0, 1]
    again, lengths = rnn.pad_packed_sequence(packed, padding_value=-2, total_length=4)
    assert again.T.tolist() == [[1, -2, -2, -2], [10, 20, 30, -2], [100, 200, -2, -2]]
    assert lengths.tolist() == [1, 3, 2]
    for x, y in zip(rnn.unpack_sequence(packed), (a, b, c), strict=True):
        assert x.equal(y)
    ordered = rnn.pack_sequence([b, c, a])
    assert ordered.sorted_indices is None
    assert ordered.data.tolist() == packed.data.tolist()


def test_padding_has_no_gradient():
    x = treadle.randn(2, 4, 3, requires_grad=True)
    packed = rnn.pack_padded_sequence(x, treadle.tensor([3, 2]), True)
    rnn.pad_packed_sequence(packed)[0].sum().backward()
    assert x.grad[:, :, 0].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]


def test_errors_of_packing():
    x = treadle.zeros(4, 2, 3)
    with pytest.raises(
        ShapeError, match=r"got the lengths \[1, 3\]; they must not rise; sort the se"
    ):
        rnn.pack_padded_sequence(x, [1, 3])
    with pytest.raises(ShapeError, match=r"got the lengths \[5, 0\] for 2 sequences of at most 4"):
        rnn.pack_padded_sequence(x, [5, 0])
    packed = rnn.pack_padded_sequence(x, [3, 1])
    with pytest.raises(ShapeError, match="got total_length 2 for sequences of up to 3 steps"):
        rnn.pad_packed_sequence(packed, total_length=2)
    with pytest.raises(
        ShapeError, match=r"pad_sequence: got sequences of shapes \[\(2, 3\), \(2,\)\]"
    ):
        rnn.pad_sequence([treadle.zeros(2, 3), treadle.zeros(2)])
    with pytest.raises(ValueError, match="padding_side 'top'; it is 'right' or 'left'"):
        rnn.pad_sequence([treadle.zeros(2)], padding_side="top")
    with pytest.raises(ShapeError, match=r"GRU: got an input of shape \(4, 3\); it must be packed"):
        nn.GRU(2, 4)(packed)


# --- conformance and errors -----------------------------------------------------------------------


class Outputs(nn.Module):
    """A recurrent layer that gives its outputs only."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        result = self.layer(x)
        return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("make", [*LAYERS.values(), *CELLS.values()], ids=lambda c: c.__name__)
def test_conformance(make):
    cell = make in CELLS.values()
    shape, out = ((4, 3), (4, 2)) if cell else ((5, 2, 3), (5, 2, 2))
    check_layer(lambda: Outputs(make(3, 2)), shape, out)
    if not cell:
        check_layer(
            lambda: Outputs(make(3, 2, num_layers=2, bidirectional=True, dropout=0.3)), shape,
            (5, 2, 4),
        )  # fmt: skip


def test_parameters_are_named_and_drawn_as_in_pytorch():
    layer = nn.LSTM(3, 16, num_layers=2, bidirectional=True)
    assert list(layer.state_dict())[:5] == [
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse",
    ]  # fmt: skip
    assert tuple(layer.weight_ih_l1.shape) == (64, 32)
    for p in layer.parameters():
        assert 0.15 < p.abs().max().item() <= 0.25
    assert len(layer.all_weights) == 4
    assert repr(layer) == "LSTM(3, 16, num_layers=2, bidirectional=True)"
    assert list(nn.GRUCell(2, 3, bias=False).state_dict()) == ["weight_ih", "weight_hh"]


def test_errors():
    layer = nn.LSTM(3, 4, batch_first=True)
    text = (
        r"LSTM: got an input of shape \(2, 5, 4\); it must be \(N, T, input_size\) or \(T, "
        r"input_size\) with 3 features"
    )
    with pytest.raises(ShapeError, match=text):
        layer(treadle.zeros(2, 5, 4))
    with pytest.raises(ShapeError, match=r"got an input of shape \(2, 0, 3\), a sequence without"):
        layer(treadle.zeros(2, 0, 3))
    with pytest.raises(DTypeError, match="LSTM: got an input of dtype int64"):
        layer(treadle.zeros(2, 5, 3).long())
    x, state = treadle.zeros(2, 5, 3), treadle.zeros(1, 2, 4)
    with pytest.raises(ShapeError, match=r"LSTM: got the state c_0 of shape \(1, 4\); for this "
                       r"input it must be \(1, 2, 4\)"):  # fmt: skip
        layer(x, (state, treadle.zeros(1, 4)))
    with pytest.raises(TypeError, match=r"LSTM: got a Tensor as the state; it must be a pair"):
        layer(x, state)
    with pytest.raises(ValueError, match="LSTM: got proj_size 4 for hidden_size 4; it must be"):
        nn.LSTM(3, 4, proj_size=4)
    with pytest.raises(ValueError, match="RNN: got nonlinearity 'elu'; it is 'tanh' or 'relu'"):
        nn.RNN(3, 4, nonlinearity="elu")
    with pytest.raises(ValueError, match="GRU: got dropout 2; it is from 0 to 1"):
        nn.GRU(3, 4, dropout=2)
    with pytest.raises(ValueError, match="GRU: got num_layers 0"):
        nn.GRU(3, 4, 0)
    with pytest.raises(ValueError, match="GRUCell: got hidden_size 0"):
        nn.GRUCell(3, 0)
    with pytest.raises(ShapeError, match=r"GRUCell: got a state of shape \(4,\); for this input "
                       r"it must be \(2, 4\)"):  # fmt: skip
        nn.GRUCell(3, 4)(treadle.zeros(2, 3), treadle.zeros(4))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_state_that_is_carried_on_keeps_no_sequence_alive(kind):
    layer = LAYERS[kind](3, 4)
    carried, seen = None, []
    with treadle.no_grad():
        for _ in range(8):
            x = treadle.randn(5, 2, 3)
            out, carried = layer(x, carried)
            out.sum().item()
            seen.append(weakref.ref(out.node))
            del x, out
    gc.collect()
    assert sum(n() is not None for n in seen[:-1]) == 0
