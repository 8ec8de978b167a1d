"""Subscripts and selections against NumPy; where PyTorch's rules differ, against its results."""

import numpy as np
import pytest

import treadle
from treadle.base.errors import DTypeError, IndexRangeError, ShapeError
from treadle.tensor.selection import one_hot

KEYS = {
    (2, 3, 4): [
        np.s_[0], np.s_[-1, 2], np.s_[1, 2, 3], np.s_[:], np.s_[...], np.s_[()], np.s_[1:],
        np.s_[:, ::2], np.s_[..., 1], np.s_[0, ..., -1], np.s_[:, 5:], np.s_[:, -2:-1, 1::2],
        np.s_[None], np.s_[:, None, 1], np.s_[..., None], np.s_[0, None, :, None],
        np.s_[[0, 1, 0]], np.s_[:, [2, -1]], np.s_[..., [3, 0]], np.s_[[0, 1], [1, 2]],
        np.s_[[0, 1], :, [3, 0]], np.s_[:, [0, 2], [1, 1]], np.s_[[[0], [1]], [0, 2]],
        np.s_[[1, 0], None, [1, 1]], np.s_[1:, [0, 1, 2], :2], np.s_[:, []], np.s_[range(2)],
        np.s_[np.array([[0, 1], [1, 1]])], np.s_[np.array(1)], np.s_[np.int64(1), 0],
        np.s_[np.array([True, False])], np.s_[:, [True, False, True]],
        np.s_[np.arange(24).reshape(2, 3, 4) % 5 == 0], np.s_[np.arange(6).reshape(2, 3) > 3],
        np.s_[:, np.arange(12).reshape(3, 4) % 2 == 0], np.s_[[True, False], [2, 1]],
        np.s_[np.zeros((2, 3, 4), bool)], np.s_[1:, :, np.array([True, False, False, True])],
        np.s_[True], np.s_[False], np.s_[None, np.array([1, 0]), ..., 0:3:2],
    ],
    (0, 3): [np.s_[:], np.s_[:, 1], np.s_[[]], np.s_[:, [0, 2]], np.s_[0:0], np.s_[None]],
    (): [np.s_[()], np.s_[...], np.s_[None], np.s_[..., None], np.s_[True]],
}  # fmt: skip
CASES = [(shape, key) for shape, keys in KEYS.items() for key in keys]
IDS = [f"{'x'.join(map(str, shape))}-{i}" for shape, keys in KEYS.items() for i in range(len(keys))]


def ramp(shape):
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


def is_array(item):
    return isinstance(item, (list, range)) or (isinstance(item, np.ndarray) and item.ndim)


def as_tensors(key):
    """The key with its lists and arrays as tensors."""
    items = key if isinstance(key, tuple) else (key,)
    arrays = (np.asarray(i) if is_array(i) else i for i in items)
    return tuple(
        treadle.tensor(a if a.size else a.astype(np.int64)) if is_array(a) else a for a in arrays
    )


def forms(key):
    """As it is, and with tensors in the place of lists."""
    items = key if isinstance(key, tuple) else (key,)
    return [key, as_tensors(key)] if any(map(is_array, items)) else [key]


@pytest.mark.parametrize(("shape", "key"), CASES, ids=IDS)
def test_reading(shape, key):
    array = ramp(shape)
    expected = array[key]
    for form in forms(key):
        got = treadle.tensor(array)[form]
        assert got.shape == expected.shape
        assert got.tolist() == expected.tolist()


@pytest.mark.parametrize(("shape", "key"), CASES, ids=IDS)
def test_gradient_of_reading(shape, key):
    array = ramp(shape)
    weights = np.arange(1, array[key].size + 1, dtype=np.float32).reshape(array[key].shape)
    expected = np.zeros(shape, np.float32)
    np.add.at(expected, key, weights)
    for form in forms(key):
        x = treadle.tensor(array, requires_grad=True)
        (x[form] * treadle.tensor(weights)).sum().backward()
        assert x.grad.tolist() == expected.tolist()


@pytest.mark.parametrize(("shape", "key"), CASES, ids=IDS)
def test_writing(shape, key):
    array = ramp(shape)
    selected = array[key].shape
    values = [-1, -2.5, ramp(selected) - 100]
    if selected:
        values.append(ramp(selected[-1:]) - 200)
        values.append(ramp((1, *selected[:-1], 1)) - 300)
    for form in forms(key):
        for value in values:
            expected = array.copy()
            expected[key] = value if np.ndim(value) < len(selected) + 1 else value[0]
            x = treadle.tensor(array)
            x[form] = treadle.tensor(value) if isinstance(value, np.ndarray) else value
            assert x.tolist() == expected.tolist()


@pytest.mark.parametrize(("shape", "key"), CASES, ids=IDS)
def test_adding_in_place(shape, key):
    expected = ramp(shape)
    expected[key] += 7
    for form in forms(key):
        x = treadle.tensor(ramp(shape))
        x[form] += 7
        assert x.tolist() == expected.tolist()


def test_gradients_of_writing():
    x = treadle.tensor(ramp((2, 3)), requires_grad=True)
    v = treadle.tensor([10.0, 20.0], requires_grad=True)
    y = x * 1
    y[:, treadle.tensor([2, 0])] = v
    y[treadle.tensor([[False, True, False], [False, False, False]])] = v[0] * 2
    (y * treadle.tensor(ramp((2, 3)))).sum().backward()
    assert x.grad.tolist() == [[0, 0, 0], [0, 4, 0]]
    assert v.grad.tolist() == [7 + 2 * 1, 3]


def test_second_order_gradients_through_an_index():
    x = treadle.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x[treadle.tensor([2, 2, 0])]
    (g,) = treadle.autograd.grad((y * y * y).sum(), [x], create_graph=True)
    g[treadle.tensor([2, 0])].sum().backward()
    assert x.grad.tolist() == [6.0, 0.0, 36.0]


def test_ints_do_not_count_as_index_tensors():
    """PyTorch's rule (NumPy's differs): only what stands between index tensors parts them."""
    x = treadle.tensor(ramp((2, 3, 4, 5)))
    index = treadle.tensor([0, 1, 1, 0, 1, 0])
    assert x[0, :, index].shape == (3, 6, 5)
    assert x[treadle.tensor(0), :, index].shape == (3, 6, 5)
    assert x[index, 0, index].shape == (6, 5)
    assert x[index, :, index].shape == (6, 3, 5)
    assert x[:, index, None, index].shape == (6, 2, 1, 5)


def test_an_index_without_dimensions_is_recorded():
    x = treadle.tensor(ramp((3, 2)))
    at = treadle.tensor([4, 9, 7]).argmax() - 2
    assert x[at].tolist() == [4.0, 5.0]
    x[at] = -1
    x[at, 0] += 3
    assert x.tolist() == [[0, 1], [2, 3], [2, -1]]


def test_of_several_values_for_one_place_the_last_stays():
    x = treadle.zeros(3)
    x[[1, 1, 0]] = treadle.tensor([1.0, 2.0, 3.0])
    assert x.tolist() == [3, 2, 0]
    x.index_put_((treadle.tensor([1, 1]),), treadle.tensor([10.0, 20.0]), accumulate=True)
    assert x.tolist() == [3, 32, 0]
    assert x.index_put([[0]], 5).tolist() == [5, 32, 0]
    assert x.index_put([0], 5, accumulate=True).tolist() == [8, 32, 0]
    assert x.tolist() == [3, 32, 0]


def test_writing_a_number_where_a_mask_holds_evaluates_nothing():
    from treadle.ir.node import recorder

    x = treadle.tensor(ramp((3, 4)))
    x * 1.0  # something pending
    mask = x > 5
    x[mask] = 0
    x[:, treadle.tensor([0.0, 1.0, 1.0, 0.0]) > 0] = treadle.tensor([[-1.0], [-2.0], [-3.0]])
    assert mask.node.value is None
    assert recorder.state.pending
    assert x.tolist() == [[0, -1, -1, 3], [4, -2, -2, 0], [0, -3, -3, 0]]


@pytest.mark.parametrize("dtype", [treadle.int64, treadle.uint8, treadle.bfloat16, treadle.bool])
def test_dtypes(dtype):
    x = treadle.tensor([0, 1, 1, 0]).to(dtype)
    assert x[[1, 3]].to(treadle.int64).tolist() == [1, 0]
    x[[0]] = 1
    x[3] = True
    x[1:2] = treadle.tensor([0.0])
    assert x.to(treadle.int64).tolist() == [1, 0, 1, 1]


def test_errors():
    x = treadle.zeros(2, 3)

    def refused(key, error, text, value=None):
        with pytest.raises(error, match=text) as caught:
            if value is None:
                x[key].tolist()
            else:
                x[key] = value
        assert "test_indexing.py" in str(caught.value)

    shape = r"a tensor of shape \(2, 3\)"
    refused(2, IndexError, rf"index 2 is out of range on dimension 0 of {shape}; .*\[-2, 2\)")
    refused((0, -4), IndexError, rf"index -4 is out of range on dimension 1 of {shape}")
    refused([0, 5], IndexError, rf"index 5 is out of range on dimension 0 of {shape}")
    refused((0, 0, 0), IndexError, rf"too many indices: got 3 for {shape} with 2 dimensions")
    refused((..., ...), IndexError, "more than one Ellipsis")
    refused(1.5, IndexError, "got a float as an index on dimension 0; an index is an int")
    refused("a", IndexError, "got a str as an index")
    refused([0.5], IndexError, "got an index of dtype float64 on dimension 0")
    refused([[0], [0, 1]], IndexError, "rows differ in length")
    refused(np.s_[::-1], ValueError, r"step -1 on dimension 0 .* reverse with \.flip\(0\)")
    refused(np.s_[::0], ValueError, "step 0")
    refused(np.s_[1.5:], TypeError, "its parts must be ints or None")
    refused([True, False, True], IndexError, r"mask of shape \(3,\) .* those of .*\(2,\)")
    refused(treadle.zeros(2), IndexError, "index of dtype float32 .* convert it with .long")
    refused(treadle.tensor([0, 1], dtype=treadle.uint8), IndexError, "dtype uint8")
    refused(([0, 1], [0, 1, 2]), IndexError, "must broadcast together")
    refused(treadle.tensor([0, 2]), IndexRangeError, r"\[-2, 2\) along dimension 0")
    refused((0, treadle.tensor([-4])), IndexRangeError, r"\[-3, 3\) along dimension 1")
    two = (treadle.tensor([0]), treadle.tensor([3]))
    refused(two, IndexRangeError, r"\[-3, 3\) along dimension 1")
    refused(0, ShapeError, r"shape \(2,\) for a selection of shape \(3,\)", treadle.zeros(2))
    refused([0], ShapeError, r"\(2,\) for a selection of shape \(1, 3\)", treadle.zeros(2))
    refused([0], DTypeError, "value of dtype int64 .* float32", treadle.tensor([1, 2, 3]))
    refused(0, ValueError, "cannot assign 'a'", "a")
    with pytest.raises(IndexError, match=r"with 0 dimensions; read its value with .item\(\)"):
        treadle.tensor(1.0)[0]
    with pytest.raises(OverflowError, match="cannot assign inf"):
        treadle.tensor([1])[0] = float("inf")


# --- functions ------------------------------------------------------------------------------


def test_slices_along_one_dimension():
    x = treadle.tensor(ramp((3, 4)))
    index = treadle.tensor([2, 0])
    assert x.index_select(0, index).tolist() == ramp((3, 4))[[2, 0]].tolist()
    assert x.index_select(-1, treadle.tensor(1, dtype=treadle.int32)).shape == (3, 1)
    assert x.index_copy(0, index, treadle.tensor([[1.0] * 4, [2.0] * 4]))[:, 0].tolist() == [
        2,
        4,
        1,
    ]
    assert x.index_fill(1, treadle.tensor([-1, 0]), 9)[1].tolist() == [9, 5, 6, 9]
    added = x.index_add(1, treadle.tensor([3, 3]), treadle.ones(3, 2), alpha=0.5)
    assert added[:, 3].tolist() == [4, 8, 12]
    assert x.index_add_(0, index, x[:2]) is x
    assert x.tolist() == [[4, 6, 8, 10], [4, 5, 6, 7], [8, 10, 12, 14]]
    assert treadle.tensor(5.0).index_select(0, treadle.tensor([0])).tolist() == 5.0


def test_gather_and_scatter():
    array = ramp((3, 4))
    index = np.array([[3, 0], [1, 1], [2, 3]])
    x, at = treadle.tensor(array, requires_grad=True), treadle.tensor(index)
    got = x.gather(1, at)
    assert got.tolist() == np.take_along_axis(array, index, 1).tolist()
    got.sum().backward()
    assert x.grad.tolist() == [[1, 0, 0, 1], [0, 2, 0, 0], [0, 0, 1, 1]]
    base = treadle.zeros(3, 4)
    assert base.scatter(1, at, 5).sum().item() == 25
    assert base.scatter(1, at, value=5.0)[0].tolist() == [5, 0, 0, 5]
    assert base.scatter(1, at, x.detach()).tolist() == [[1, 0, 0, 0], [0, 5, 0, 0], [0, 0, 8, 9]]
    assert base.scatter(1, at, x.detach(), reduce="add")[1].tolist() == [0, 9, 0, 0]
    assert base.scatter_add_(1, at, treadle.ones(3, 2)) is base
    assert base.tolist() == x.grad.tolist()
    broadcast = x.detach().take_along_dim(treadle.tensor([[1], [0], [3]]), dim=1)
    assert broadcast.tolist() == [[1], [4], [11]]
    assert x.detach().take_along_dim(treadle.tensor([[0, 2, 1, 0]]), 0).tolist() == [[0, 9, 6, 3]]
    assert x.take(treadle.tensor([[0, -1]])).tolist() == [[0, 11]]


def test_masks():
    x = treadle.tensor(ramp((2, 3)), requires_grad=True)
    mask = x > 2
    filled = x.masked_fill(mask, 0.0)
    filled.sum().backward()
    assert filled.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert x.grad.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert x.masked_fill(treadle.tensor([True, False, False]), -1).tolist() == [
        [-1, 1, 2],
        [-1, 4, 5],
    ]
    assert x.masked_select(mask).tolist() == [3, 4, 5]
    assert treadle.tensor(2.0).masked_select(treadle.tensor([True, True])).tolist() == [2, 2]
    source = treadle.tensor([10.0, 20.0, 30.0, 40.0])
    assert x.masked_scatter(mask, source).tolist() == [[0, 1, 2], [10, 20, 30]]
    y = x.detach().clone()
    y.masked_fill_(y > 4, float("inf")).masked_scatter_(y < 1, source)
    assert y.tolist() == [[10, 1, 2], [3, 4, float("inf")]]


def test_coordinates():
    array = np.array([[0, 2, 0], [1, 0, 3]])
    x = treadle.tensor(array)
    assert x.nonzero().tolist() == np.argwhere(array).tolist()
    assert x.nonzero().dtype is treadle.int64
    pairs = np.nonzero(array)
    assert [c.tolist() for c in x.nonzero(as_tuple=True)] == [c.tolist() for c in pairs]
    assert [c.tolist() for c in treadle.where(x > 1)] == [[0, 1], [1, 2]]
    assert treadle.where(x > 1, x, -1).tolist() == [[-1, 2, -1], [-1, -1, 3]]
    assert x.where(x > 1, 0).tolist() == [[0, 2, 0], [0, 0, 3]]
    assert treadle.tensor(3).nonzero().shape == (1, 0)
    assert treadle.zeros(0, 2).argwhere().shape == (0, 2)


def test_one_hot():
    labels = np.array([[0, 3], [1, 1]])
    assert one_hot(treadle.tensor(labels)).tolist() == np.eye(4, dtype=int)[labels].tolist()
    assert one_hot(treadle.tensor([1]), 5).tolist() == [[0, 1, 0, 0, 0]]
    assert one_hot(treadle.tensor([0]), 2).dtype is treadle.int64
    with pytest.raises(IndexRangeError, match=r"^one_hot: class 3 is out of range for 3 cla"):
        one_hot(treadle.tensor([3]), 3).tolist()
    with pytest.raises(ValueError, match="num_classes 0"):
        one_hot(treadle.tensor([1]), 0)


def test_errors_of_functions():
    x, index = treadle.zeros(2, 3), treadle.tensor([0])

    def refused(call, error, text):
        with pytest.raises(error, match=text) as caught:
            result = call()
            result.tolist()
        assert "test_indexing.py" in str(caught.value)

    refused(lambda: x.index_select(2, index), IndexError, "index_select: dim out of range: got 2")
    refused(lambda: x.index_select(0, index.float()), DTypeError, "index of dtype float32")
    refused(lambda: x.index_select(0, index[None]), ShapeError, r"\(1, 1\); it takes a vector")
    refused(lambda: x.index_select(0, index + 2), IndexRangeError, r"\[0, 2\) along dimension 0")
    refused(lambda: x.index_add(0, index, x), ShapeError, r"must have the shape \(1, 3\)")
    refused(lambda: x.gather(0, index), ShapeError, "equally many dimensions")
    refused(lambda: x.gather(0, treadle.zeros(1, 9).long()), ShapeError, "along dimension 1")
    refused(lambda: x.gather(1, treadle.tensor([[-1]])), IndexRangeError, r"\[0, 3\)")
    refused(lambda: x.scatter(1, index[None], x[:, :0]), ShapeError, "source of shape")
    refused(lambda: x.scatter(1, index[None], x.long()), DTypeError, "source of dtype int64")
    refused(lambda: x.scatter(1, index[None]), TypeError, "give either src .* or value")
    refused(lambda: x.scatter(1, index[None], x, reduce="max"), ValueError, "reduce 'max'")
    refused(lambda: x.masked_fill(x, 1), DTypeError, "mask of dtype float32; it must be bool")
    refused(lambda: x.masked_fill(x > 0, x), ShapeError, "use where")
    refused(lambda: x.masked_fill(index > 0, 1)[3], IndexError, "index 3 is out of range")
    refused(lambda: x.masked_scatter(x == 0, x[0]), ShapeError, "3 elements for 6 places")
    refused(lambda: treadle.where(x > 0, x), TypeError, "both of them or neither")
    refused(lambda: treadle.gather([1], 0, index), TypeError, "gather: got a list")
