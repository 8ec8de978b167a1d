"""Data sets: items, joins, parts, and their errors."""

from collections.abc import Iterator
from typing import Any

import pytest

import treadle
from treadle.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)


def test_tensor_dataset() -> None:
    data = TensorDataset(treadle.arange(6).reshape(3, 2), treadle.tensor([7, 8, 9]))
    assert len(data) == 3
    x, y = data[-1]
    assert (x.tolist(), y.item()) == ([4, 5], 9)
    x, y = data[0:2]
    assert (x.tolist(), y.tolist()) == ([[0, 1], [2, 3]], [7, 8])


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ((treadle.ones(2), treadle.ones(3)), ValueError, r"shapes \[\(2,\), \(3,\)\]; expected at"),
        ((treadle.tensor(1.0),), ValueError, r"shapes \[\(\)\]"),
        ((), ValueError, r"shapes \[\]"),
        (([1, 2],), TypeError, r"argument 0 is a list; expected tensors"),
    ],
)
def test_tensor_dataset_errors(tensors: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        TensorDataset(*tensors)


def test_concat() -> None:
    data = ConcatDataset(["ab", "", "c"])
    assert [data[i] for i in range(-3, 3)] == ["a", "b", "c", "a", "b", "c"]
    for index in (3, -4):
        with pytest.raises(IndexError, match=rf"has 3 items; got the index {index}, expected"):
            data[index]
    with pytest.raises(ValueError, match="got no data sets"):
        ConcatDataset([])
    with pytest.raises(TypeError, match="whose items have no numbers"):
        ConcatDataset([Count()])


class Squares(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index * index


class Count(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(5))


def test_plus_concatenates() -> None:
    joined = Squares() + Squares()
    assert [joined[i] for i in range(len(joined))] == [0, 1, 4, 9] * 2


def test_a_subclass_must_say_what_its_items_are() -> None:
    class Bare(Dataset[int]):
        pass

    with pytest.raises(NotImplementedError, match=r"Bare must define __getitem__"):
        Bare()[0]


def test_subset() -> None:
    part = Subset(Squares(), [3, 0])
    assert list(part) == [9, 0]
    assert list(Subset(part, [1])) == [0]


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([3, 7], [3, 7]),
        ([10, 0], [10, 0]),
        ([0.5, 0.3, 0.2], [5, 3, 2]),
        ([0.33, 0.33, 0.34], [4, 3, 3]),
        ([0.25, 0.25, 0.25, 0.25], [3, 3, 2, 2]),
        ([1.0], [10]),
    ],
)
def test_random_split(lengths: list[float], sizes: list[int]) -> None:
    def parts(seed: int) -> list[list[int]]:
        generator = treadle.Generator().manual_seed(seed)
        return [list(part) for part in random_split(range(10), lengths, generator)]

    first = parts(0)
    assert [len(part) for part in first] == sizes
    assert sorted(i for part in first for i in part) == list(range(10))
    assert first == parts(0)
    assert first != parts(1)


@pytest.mark.parametrize(
    "lengths", [[3, 3], [11, -1], [0.5, 0.6], [1.5, -0.5], [5.0, 5.0], [float("nan")], []]
)
def test_random_split_errors(lengths: list[float]) -> None:
    with pytest.raises(ValueError, match=r"10 items; expected whole numbers that add up to 10, or"):
        random_split(range(10), lengths)


def test_data_sets_side_by_side() -> None:
    both = StackDataset([1, 2, 3], "abc")
    assert (len(both), both[2]) == (3, (3, "c"))
    named = StackDataset(x=[1, 2, 3], name="abc")
    assert named[0] == {"x": 1, "name": "a"}
    (batch,) = DataLoader(named, 3)
    assert batch["x"].tolist() == [1, 2, 3]
    assert batch["name"] == ["a", "b", "c"]
    for args, kwargs in (((), {}), (([1], [1, 2]), {}), (([1],), {"x": [1]})):
        with pytest.raises(ValueError, match="expected one at least, of equal lengths"):
            StackDataset(*args, **kwargs)


def test_streams_one_after_the_other() -> None:
    class Count(IterableDataset[int]):
        def __init__(self, size: int) -> None:
            self.size = size

        def __iter__(self) -> Iterator[int]:
            return iter(range(self.size))

        def __len__(self) -> int:
            return self.size

    both = Count(2) + Count(3)
    assert type(both) is ChainDataset
    assert (list(both), len(both)) == ([0, 1, 0, 1, 2], 5)
    assert [b.tolist() for b in DataLoader(both, 4, num_workers=2)] == [[0, 1, 0, 1], [2]]
    with pytest.raises(TypeError, match="ChainDataset: got a list; it takes IterableDatasets"):
        ChainDataset([[1]])
