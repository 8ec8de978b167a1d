"""Movement functions against NumPy: values, what shares memory, gradients, error texts."""

import numpy as np
import pytest

import treadle
from treadle.base.errors import DTypeError, ShapeError
from treadle.tensor.joining import pad


def ramp(*shape):
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


A, M, V, O, S, E = ramp(2, 3, 4), ramp(3, 4), ramp(5), ramp(1, 3, 1), ramp(), ramp(0, 3)  # noqa: E741

# (input, with Treadle, with NumPy): all of these share memory with the input.
VIEWS = [
    (A, lambda x: x.reshape(6, -1), lambda x: x.reshape(6, 4)),
    (A, lambda x: x.view((2, 2, -1)), lambda x: x.reshape(2, 2, 6)),
    (A, lambda x: x.view(treadle.float32), lambda x: x[:]),
    (A, lambda x: x.view_as(treadle.zeros(24)), lambda x: x.reshape(24)),
    (A, lambda x: x.reshape_as(treadle.zeros(4, 6)), lambda x: x.reshape(4, 6)),
    (A, lambda x: x.flatten(1), lambda x: x.reshape(2, 12)),
    (A, lambda x: x.flatten(0, -2), lambda x: x.reshape(6, 4)),
    (S, lambda x: x.flatten(), lambda x: x.reshape(1)),
    (A, lambda x: x.ravel(), lambda x: x.reshape(24)),
    (A, lambda x: x.unflatten(-1, (2, -1)), lambda x: x.reshape(2, 3, 2, 2)),
    (O, lambda x: x.squeeze(), lambda x: x.reshape(3)),
    (O, lambda x: x.squeeze(1), lambda x: x[:]),
    (O, lambda x: x.squeeze((0, 1)), lambda x: x.reshape(3, 1)),
    (A, lambda x: x.unsqueeze(-1), lambda x: x[..., None]),
    (A, lambda x: x.unsqueeze(1), lambda x: x[:, None]),
    (A, lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    (A, lambda x: x.permute((-1, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    (A, lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, 2)),
    (A, lambda x: x.mT, lambda x: x.swapaxes(1, 2)),
    (M, lambda x: x.T, lambda x: x.T),
    (M, lambda x: x.t().t().t(), lambda x: x.T),
    (V, lambda x: x.t(), lambda x: x[:]),
    (A, lambda x: x.movedim((0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0))),
    (A, lambda x: x.moveaxis(-1, 0), lambda x: np.moveaxis(x, -1, 0)),
    (A, lambda x: x.swapdims(0, 1), lambda x: x.swapaxes(0, 1)),
    (A, lambda x: x.narrow(2, -3, 2), lambda x: x[..., 1:3]),
    (A, lambda x: x.select(1, -1), lambda x: x[:, -1]),
    (A, lambda x: x.split(3, -1)[1], lambda x: x[..., 3:]),
    (A, lambda x: x.split([1, 0, 2], 1)[2], lambda x: x[:, 1:]),
    (V, lambda x: x.chunk(3)[1], lambda x: x[2:4]),
    (V, lambda x: x.tensor_split(3)[0], lambda x: x[:2]),
    (V, lambda x: x.tensor_split((1, -2))[1], lambda x: x[1:3]),
    (A, lambda x: x.unbind(1)[2], lambda x: x[:, 2]),
    (M, lambda x: x.diagonal(), lambda x: x.diagonal()),
    (M, lambda x: x.diagonal(-1), lambda x: x.diagonal(-1)),
    (M, lambda x: x.diagonal(9), lambda x: x.diagonal(9)),
    (A, lambda x: x.diagonal(1, 2, 0), lambda x: x.diagonal(1, 2, 0)),
    (A, lambda x: x.transpose(0, 1).diagonal(0, -1, -2), lambda x: x.diagonal(0, 2, 0)),
    (S, lambda x: treadle.atleast_1d(x), lambda x: np.atleast_1d(x)),
    (V, lambda x: treadle.atleast_2d(x), lambda x: np.atleast_2d(x)),
    (V, lambda x: treadle.atleast_3d([x, x])[0], lambda x: np.atleast_3d(x)),
    (V, lambda x: x.expand(1, -1), lambda x: x[None]),
    (E, lambda x: x.reshape(3, 0), lambda x: x.reshape(3, 0)),
]

# These give memory of their own.
COPIES = [
    (A, lambda x: x.transpose(0, 1).reshape(6, 4), lambda x: x.swapaxes(0, 1).reshape(6, 4)),
    (A, lambda x: x[:, ::2].flatten(), lambda x: x[:, ::2].reshape(-1)),
    (M, lambda x: x.t().contiguous(), lambda x: x.T),
    (M, lambda x: x.repeat(2, 1, 3), lambda x: np.tile(x, (2, 1, 3))),
    (S, lambda x: x.repeat(2), lambda x: np.tile(x, 2)),
    (M, lambda x: x.repeat(2, 0), lambda x: np.tile(x, (2, 0))),
    (A, lambda x: x.tile(2, 3), lambda x: np.tile(x, (2, 3))),
    (M, lambda x: x.repeat_interleave(2), lambda x: x.repeat(2)),
    (M, lambda x: x.repeat_interleave(3, dim=1), lambda x: x.repeat(3, 1)),
    (M, lambda x: x.repeat_interleave(treadle.tensor([2, 0, 1]), 0), lambda x: x[[0, 0, 2]]),
    (A, lambda x: x.flip(0, -1), lambda x: np.flip(x, (0, 2))),
    (M, lambda x: x.fliplr(), lambda x: np.fliplr(x)),
    (M, lambda x: x.flipud(), lambda x: np.flipud(x)),
    (M, lambda x: x.roll(5), lambda x: np.roll(x, 5)),
    (M, lambda x: x.roll((1, -1), (0, 1)), lambda x: np.roll(x, (1, -1), (0, 1))),
    (M, lambda x: x.roll(3, 0), lambda x: x.copy()),
    (M, lambda x: x.rot90(), lambda x: np.rot90(x)),
    (M, lambda x: x.rot90(2), lambda x: np.rot90(x, 2)),
    (A, lambda x: x.rot90(-1, (0, 2)), lambda x: np.rot90(x, -1, (0, 2))),
    (M, lambda x: x.rot90(4), lambda x: x.copy()),
    (A, lambda x: x.tril(), lambda x: np.tril(x)),
    (M, lambda x: x.tril(-1), lambda x: np.tril(x, -1)),
    (M, lambda x: x.triu(1), lambda x: np.triu(x, 1)),
    (V, lambda x: x.diag(-2), lambda x: np.diag(x, -2)),
    (E[:, 0], lambda x: x.diag(1), lambda x: np.diag(x, 1)),
    (M, lambda x: x.diag(1), lambda x: np.diag(x, 1)),
    (M, lambda x: treadle.cat([x, x[:1]]), lambda x: np.concatenate([x, x[:1]])),
    (M, lambda x: treadle.concat((x, x), -1), lambda x: np.concatenate([x, x], -1)),
    (M, lambda x: treadle.cat([treadle.tensor([]), x]), lambda x: x.copy()),
    (M, lambda x: treadle.stack([x, x * 2], 1), lambda x: np.stack([x, x * 2], 1)),
    (S, lambda x: treadle.stack([x, x]), lambda x: np.stack([x, x])),
    (V, lambda x: treadle.hstack([x, x]), lambda x: np.hstack([x, x])),
    (M, lambda x: treadle.hstack([x, x]), lambda x: np.hstack([x, x])),
    (V, lambda x: treadle.vstack([x, x]), lambda x: np.vstack([x, x])),
    (V, lambda x: treadle.dstack([x, x]), lambda x: np.dstack([x, x])),
    (M, lambda x: pad(x, (1, 2)), lambda x: np.pad(x, ((0, 0), (1, 2)))),
    (M, lambda x: pad(x, (0, 0, 2, -1), value=7), lambda x: np.pad(
        x[:-1], ((2, 0), (0, 0)), constant_values=7)),
    (M, lambda x: pad(x, (-1, -2)), lambda x: x[:, 1:-2].copy()),
    (A, lambda x: pad(x, (3, 1, 2, 0), mode="reflect"), lambda x: np.pad(
        x, ((0, 0), (2, 0), (3, 1)), "reflect")),
    (A, lambda x: pad(x, (2, 5), mode="replicate"), lambda x: np.pad(
        x, ((0, 0), (0, 0), (2, 5)), "edge")),
    (A, lambda x: pad(x, (4, 3), mode="circular"), lambda x: np.pad(
        x, ((0, 0), (0, 0), (4, 3)), "wrap")),
    (E, lambda x: pad(x, (0, 0, 1, 1), value=3.0), lambda x: np.full((2, 3), 3, np.float32)),
]  # fmt: skip

# These repeat elements without copying them.
REPEATS = [
    (V, lambda x: x.expand(3, -1), lambda x: np.broadcast_to(x, (3, 5))),
    (O, lambda x: x.expand((2, 2, 3, 4)), lambda x: np.broadcast_to(x, (2, 2, 3, 4))),
    (S, lambda x: x.broadcast_to((2,)), lambda x: np.broadcast_to(x, (2,))),
    (O, lambda x: x.expand_as(treadle.zeros(2, 3, 2)), lambda x: np.broadcast_to(x, (2, 3, 2))),
    (V, lambda x: treadle.broadcast_tensors(x, treadle.zeros(2, 1))[0],
     lambda x: np.broadcast_to(x, (2, 5))),
    (V, lambda x: treadle.meshgrid(x, x[:2])[0], lambda x: np.meshgrid(x, x[:2], indexing="ij")[0]),
    (V, lambda x: treadle.meshgrid([x, x[:2], x[:3]], indexing="xy")[1],
     lambda x: np.meshgrid(x, x[:2], x[:3])[1]),
]  # fmt: skip


@pytest.mark.parametrize(("array", "function", "reference"), VIEWS + COPIES + REPEATS)
def test_values_and_gradients(array, function, reference):
    expected = reference(array)
    x = treadle.tensor(array, requires_grad=True)
    got = function(x)
    assert got.shape == expected.shape
    assert got.tolist() == expected.tolist()
    weights = ramp(*expected.shape) + 1
    (got * got * treadle.tensor(weights)).sum().backward()
    # The gradient as PyTorch defines it: 2 w y, scattered back by central differences in float64.
    numeric = np.zeros(array.shape)
    for place in np.ndindex(*array.shape):
        moved = [array.astype(np.float64) for _ in range(2)]
        moved[0][place] += 0.5
        moved[1][place] -= 0.5
        high, low = ((reference(m) ** 2 * weights).sum() for m in moved)
        numeric[place] = high - low
    np.testing.assert_allclose(x.grad.numpy(), numeric, rtol=1e-5)


@pytest.mark.parametrize(("array", "function", "reference"), VIEWS)
def test_views_share_memory(array, function, reference):
    x, y = treadle.tensor(array), array.copy()
    function(x).sub_(100)
    part = reference(y)
    part.flags.writeable = True
    part -= 100
    assert x.tolist() == y.tolist()


@pytest.mark.parametrize(("array", "function", "reference"), COPIES)
def test_copies_do_not(array, function, reference):
    x = treadle.tensor(array)
    function(x).fill_(-1)
    assert x.tolist() == array.tolist()


def test_parts_are_as_many_as_in_pytorch():
    x = treadle.zeros(5, 2)

    def sizes(parts):
        return [part.shape[0] for part in parts]

    assert sizes(x.split(2)) == [2, 2, 1]
    assert sizes(x.split(9)) == [5]
    assert sizes(x.chunk(4)) == [2, 2, 1]
    assert sizes(x.chunk(9)) == [1] * 5
    assert sizes(x.tensor_split(4)) == [2, 1, 1, 1]
    assert sizes(x.tensor_split((3, 1, 9))) == [3, 0, 4, 0]
    assert sizes(x[:0].chunk(3)) == [0, 0, 0]
    assert sizes(x[:0].split(2)) == [0]
    assert len(x.unbind(1)) == 2


def test_joining_promotes():
    joined = treadle.cat([treadle.tensor([1, 2]), treadle.tensor([0.5])])
    assert joined.dtype is treadle.float32
    assert treadle.stack([treadle.tensor(1), treadle.tensor(True)]).dtype is treadle.int64


def test_strides_tell_what_reshape_shares():
    x = treadle.zeros(2, 3, 4)
    assert x.stride() == (12, 4, 1)
    assert x.transpose(0, 2).stride() == (1, 4, 12)
    assert x[:, 1].stride() == (12, 1)
    assert x[..., ::2].stride(-1) == 2
    assert x.expand(5, 2, 3, 4).stride(0) == 0
    assert x[1].is_contiguous()
    assert not x[:, 1].is_contiguous()
    assert x.contiguous() is x
    assert x.mT.contiguous().is_contiguous()


def test_view_takes_any_tensor():
    """PyTorch refuses this; here it works and shares memory, as ``view`` says."""
    x = treadle.tensor(M)
    x.t().view(-1)[1] = 99
    assert x.tolist() == [[0, 1, 2, 3], [99, 5, 6, 7], [8, 9, 10, 11]]


REFUSED = [
    (lambda x: x.reshape(5, -1), ShapeError, r"reshape: got a tensor of shape \(2, 3\) with 6"),
    (lambda x: x.reshape(-1, -1), ShapeError, "one of them may be -1"),
    (lambda x: x[:0].reshape(0, -1), ShapeError, "what -1 stands for is not determined"),
    (lambda x: x.view(7), ShapeError, r"view: .* sizes \(7,\); their product must be 6"),
    (lambda x: x.view(treadle.int32), DTypeError, r"view: .* convert the values with \.to"),
    (lambda x: x.reshape(2.0, 3), TypeError, "reshape: got 2.0 for a size; it must be an int"),
    (lambda x: x.flatten(1, 0), ShapeError, "start_dim must not come after end_dim"),
    (lambda x: x.unflatten(1, (2, 2)), ShapeError, "their product must be 3"),
    (lambda x: x.squeeze(2), IndexError, r"squeeze: dim out of range: got 2, expected .*\[-2, 1\]"),
    (lambda x: x.unsqueeze(4), IndexError, "unsqueeze: dim out of range: got 4"),
    (lambda x: x[None].t(), ShapeError, r"t: .*\(1, 2, 3\); it takes at most 2 dimensions"),
    (lambda x: x[0].mT, IndexError, "mT: .* takes at least 2 dimensions"),
    (lambda x: x.permute(0), ShapeError, "every one of its 2 dimensions must be named once"),
    (lambda x: x.permute(0, 0), ShapeError, r"permute: got dims \(0, 0\)"),
    (lambda x: x.transpose(0, 2), IndexError, "transpose: dim out of range"),
    (lambda x: x.movedim((0, 1), (1,)), ShapeError, "equally many dimensions, each once"),
    (lambda x: x.expand(3), ShapeError, r"expand: got the sizes \(3,\)"),
    (lambda x: x.expand(4, 3), ShapeError, "sizes must be equal or the tensor's size 1"),
    (lambda x: x.narrow(1, 2, 2), IndexError, "must stay inside its 3 elements"),
    (lambda x: x.select(0, 2), IndexError, r"select: got index 2 .* lie in \[-2, 2\)"),
    (lambda x: x.split(0), ShapeError, "split_size 0 .* must be positive"),
    (lambda x: x.split([1, 1], 1), ShapeError, "must add up to 3"),
    (lambda x: x.chunk(0), ShapeError, "got 0 chunks; it takes at least 1"),
    (lambda x: x.sum().unbind(), IndexError, r"unbind: got a tensor of shape \(\)"),
    (lambda x: x.diagonal(0, 1, 1), ShapeError, "two different dimensions"),
    (lambda x: x.repeat(2), ShapeError, "one for every dimension at least"),
    (lambda x: x.repeat_interleave(treadle.tensor([1, 2]), 1), ShapeError, "or 3 of them"),
    (lambda x: x.flip(0, 0), ShapeError, "every dimension may be named once"),
    (lambda x: x.roll((1, 2)), ShapeError, "name as many dims as shifts"),
    (lambda x: x.roll((1, 2), 0), ShapeError, "there must be equally many"),
    (lambda x: x[0].rot90(), IndexError, "rot90: .* takes at least 2 dimensions"),
    (lambda x: x[0].tril(), IndexError, "tril: .* takes at least 2 dimensions"),
    (lambda x: x[None].diag(), ShapeError, "takes a vector or a matrix; use diagonal"),
    (lambda x: treadle.cat(x), TypeError, "cat: got a Tensor; it takes a list or tuple"),
    (lambda x: treadle.cat([]), ShapeError, "cat: got no tensors"),
    (lambda x: treadle.cat([x, 1]), TypeError, "cat: got a int; it takes a tensor"),
    (lambda x: treadle.cat([x, x.T]), ShapeError, r"\(2, 3\), \(3, 2\); .* except in dimension 0"),
    (lambda x: treadle.cat([x.sum()]), ShapeError, r"use stack\(\)"),
    (lambda x: treadle.stack([x, x[0]]), ShapeError, "must have one shape"),
    (lambda x: treadle.broadcast_tensors(x, x.T), ShapeError, "broadcast_tensors: shapes"),
    (lambda x: treadle.meshgrid(x), ShapeError, "it takes vectors"),
    (lambda x: treadle.meshgrid(x[0], indexing="yx"), ValueError, "it is 'ij' or 'xy'"),
    (lambda x: treadle.reshape([1], (1,)), TypeError, "reshape: got a list; it takes a tensor"),
    (lambda x: pad(x, (1,)), ShapeError, "a pair"),
    (lambda x: pad(x, (1, 1), mode="mirror"), ValueError, "got mode 'mirror'"),
    (lambda x: pad(x, (1, 1), "reflect", 1.0), ValueError, "only 'constant' has one"),
    (lambda x: pad(x, (3, 0), "reflect"), ShapeError, "takes at most 2 on each side"),
    (lambda x: pad(x[:, :0], (1, 0), "replicate"), ShapeError, "an element to replicate"),
    (lambda x: pad(x, (-2, -2)), ShapeError, "take away more elements than it has"),
]


@pytest.mark.parametrize(("call", "error", "text"), REFUSED)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call(treadle.zeros(2, 3))
    assert "[test_movement.py:" in str(caught.value)
