"""Items to batches: structures, dtypes, errors."""

import collections
from typing import Any, NamedTuple

import numpy as np
import pytest

import treadle
from treadle.data import Subset, TensorDataset, default_collate, default_convert
from treadle.data.collate import gathered


class Pair(NamedTuple):
    x: Any
    name: Any


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0, 3), (1, 28, 28)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "bool", "float16"])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_arrays_and_tensors(shape: tuple[int, ...], dtype: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 2, shape).astype(dtype) for _ in range(5)]
    batch = default_collate([treadle.tensor(a) if kind == "tensor" else a for a in arrays])
    assert batch.dtype is getattr(treadle, dtype)
    assert tuple(batch.shape) == (5, *shape)
    assert batch.tolist() == np.stack(arrays).tolist()


def test_arrays_of_any_layout() -> None:
    base = np.arange(24).reshape(4, 6)
    items = [base[::2, ::-1], base[1::2], base.T[:2].reshape(2, 4).repeat(2, 1)[:, :6]]
    assert default_collate(items).tolist() == np.stack(items).tolist()


def test_a_batch_has_memory_of_its_own() -> None:
    arrays = [np.zeros(2), np.ones(2)]
    batch = default_collate(arrays)
    arrays[0][:] = 7
    assert batch.tolist() == [[0, 0], [1, 1]]


def test_bfloat16_and_mixed_dtypes() -> None:
    x = treadle.tensor([1.5, 2.0], dtype=treadle.bfloat16)
    assert default_collate([x, x]).dtype is treadle.bfloat16
    mixed = default_collate([np.ones(2, np.int32), np.ones(2, np.float32)])
    assert mixed.dtype is treadle.float64  # as NumPy promotes


@pytest.mark.parametrize(
    ("items", "values", "dtype"),
    [
        ([1, 2], [1, 2], "int64"),
        ([1.5, 2.5], [1.5, 2.5], "float64"),
        ([1, 2.5], [1, 2.5], "float64"),
        ([True, False], [True, False], "bool"),
        ([np.float32(1), np.float32(2)], [1, 2], "float32"),
    ],
)
def test_numbers(items: list[Any], values: list[Any], dtype: str) -> None:
    batch = default_collate(items)
    assert batch.tolist() == values
    assert batch.dtype is getattr(treadle, dtype)


def test_structures() -> None:
    items = [
        {"pair": Pair(np.full(2, i), f"n{i}"), "list": [i, (i, b"b")], "path": ["a", "b"]}
        for i in range(2)
    ]
    batch = default_collate(items)
    assert list(batch) == ["pair", "list", "path"]
    assert type(batch["pair"]) is Pair
    assert batch["pair"].x.tolist() == [[0, 0], [1, 1]]
    assert batch["pair"].name == ["n0", "n1"]
    assert batch["list"][0].tolist() == batch["list"][1][0].tolist() == [0, 1]
    assert batch["list"][1][1] == [b"b", b"b"]
    assert batch["path"] == [["a", "a"], ["b", "b"]]


def test_the_class_of_a_mapping_is_kept_where_it_can_be() -> None:
    ordered = default_collate([collections.OrderedDict(a=1), collections.OrderedDict(a=2)])
    assert type(ordered) is collections.OrderedDict
    default = default_collate([collections.defaultdict(int, a=1)] * 2)
    assert type(default) is dict
    assert default["a"].tolist() == [1, 1]


def test_gradients_flow_through_a_batch() -> None:
    x = treadle.ones(2, requires_grad=True)
    (default_collate([x, x * 3]) * 2).sum().backward()
    assert x.grad.tolist() == [8, 8]


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([], ValueError, "got no items"),
        (
            [{"x": (np.ones((2, 3)), 1)}, {"x": (np.ones((2, 4)), 1)}],
            ValueError,
            r"got shapes \(2, 3\) and \(2, 4\) at item\['x'\]\[0\]; the shapes must be equal",
        ),
        ([None, None], TypeError, r"got NoneType at item; it takes tensors, NumPy arrays"),
        ([[1, object()]] * 2, TypeError, r"got object at item\[1\]"),
        ([1, "a"], TypeError, r"got int and str at item"),
        ([treadle.ones(1), 1.0], TypeError, r"got Tensor and float at item"),
        ([{"a": 1}, {"b": 1}], ValueError, r"the keys \['a'\] and \['b'\] at item"),
        ([(1, 2), (1,)], ValueError, r"sequences of 1 and 2 elements at item"),
        ([np.array(["a"])] * 2, TypeError, r"at item: NumPy dtype .* has no Treadle dtype"),
    ],
)
def test_errors(items: list[Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        default_collate(items)


def test_convert() -> None:
    item = {"a": np.ones(2), "b": ("text", [np.int64(3), 4]), "c": Pair(np.zeros(1), None)}
    out = default_convert(item)
    assert out["a"].tolist() == [1, 1]
    assert out["b"][0] == "text"
    assert isinstance(out["b"][1][0], treadle.Tensor)
    assert out["b"][1][1] == 4
    assert out["c"].x.tolist() == [0]


# --- a gather in place of items -------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(
        x.dtype is y.dtype and x.shape == y.shape and x.tolist() == y.tolist()
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("indices", [[0], [3, 1, 1, 0], [-1, -4], np.array([2, 3])])
def test_a_gather_is_what_collating_gives(indices: Any) -> None:
    x = treadle.arange(24).reshape(4, 2, 3)
    whole = TensorDataset(x, x[:, 0, 0] / 3, x.to(treadle.bfloat16), x.flip(0).transpose(1, 2))
    part = Subset(Subset(whole, [3, 2, 1, 0]), [1, 1, 2, 0])
    for data in (whole, part, x, Subset(x, [3, 2, 1, 0])):
        batch = gathered(data, list(indices))
        assert batch is not None
        assert same(batch, default_collate([data[i] for i in indices]))


def test_a_gather_lets_gradients_flow() -> None:
    x = treadle.ones(3, 2, requires_grad=True)
    batch = gathered(TensorDataset(x), [2, 2, 0])
    assert batch is not None
    (batch[0] * 2).sum().backward()
    assert x.grad.tolist() == [[2, 2], [0, 0], [4, 4]]


def test_items_are_read_where_a_gather_would_differ() -> None:
    class Own(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            return super().__getitem__(index)[0] + 1

    data = TensorDataset(treadle.arange(3))
    assert gathered(Own(treadle.arange(3)), [0]) is None
    assert gathered([1, 2], [0]) is None
    assert gathered(treadle.tensor(1.0), [0]) is None
    assert gathered(treadle.nn.Parameter(treadle.ones(3)), [0]) is None
    for indices in ([3], [-4], [slice(1)], [True], [], [[0, 1]]):
        assert gathered(data, indices) is None
    assert gathered(Subset(data, [0]), [5]) is None
