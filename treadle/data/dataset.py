"""Data sets: things with items, and ways to join and divide them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from treadle.ir.node import located
from treadle.random import Generator, randperm
from treadle.tensor.tensor import Tensor

T = TypeVar("T")


class Dataset(Generic[T]):
    """A data set with numbered items: subclasses define ``__getitem__`` and ``__len__``.

    ``a + b`` joins two. A subclass may define ``__getitems__(indices)``, which gives the list of
    the items of a batch, where that is faster than one by one.
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(self, index)")

    def __add__(self, other: Dataset[T]) -> ConcatDataset[T]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """A data set that is read from front to back: subclasses define ``__iter__``.

    A ``DataLoader`` reads it in one thread, however many workers it has, so each item comes once
    and in order.
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__(self)")

    def __add__(self, other: Any) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors whose first dimension counts the items: item ``i`` is ``(a[i], b[i], ...)``.

    A ``DataLoader`` takes a batch from each tensor in one operation.

    >>> import treadle
    >>> data = TensorDataset(treadle.arange(6).reshape(3, 2), treadle.tensor([7, 8, 9]))
    >>> data[1]
    (tensor([2, 3]), tensor(8))
    """

    def __init__(self, *tensors: Tensor) -> None:
        for position, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise located(TypeError(
                    f"TensorDataset: argument {position} is a {type(tensor).__name__}; expected "
                    f"tensors; make one with treadle.tensor(data)"
                ))  # fmt: skip
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if not tensors or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise located(ValueError(
                f"TensorDataset: got tensors of shapes {shapes}; expected at least one tensor, and "
                f"the same first dimension, which counts the items, in all"
            ))  # fmt: skip
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class ConcatDataset(Dataset[T]):
    """Data sets one after the other.

    >>> data = ConcatDataset([[1, 2], [3]])
    >>> len(data), data[2], data[-3]
    (3, 3, 1)
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise located(ValueError("ConcatDataset: got no data sets; expected one at least"))
        for dataset in self.datasets:
            if isinstance(dataset, IterableDataset):
                raise located(TypeError(
                    f"ConcatDataset: got the {type(dataset).__name__}, whose items have no "
                    f"numbers; it takes data sets with __getitem__ and __len__"
                ))  # fmt: skip
        self.cumulative_sizes = list(itertools.accumulate(map(len, self.datasets)))

    def __getitem__(self, index: int) -> T:
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"ConcatDataset has {len(self)} items; got the index {index}, expected one of "
                f"[{-len(self)}, {len(self) - 1}]"
            )
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - before]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class StackDataset(Dataset[Any]):
    """Data sets side by side: item ``i`` is the tuple (or the dict) of their items ``i``.

    >>> StackDataset([1, 2], "ab")[1], StackDataset(x=[1, 2], name="ab")[0]
    ((2, 'b'), {'x': 1, 'name': 'a'})
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.datasets: tuple[Any, ...] | dict[str, Any] = args or kwargs
        sizes = [len(dataset) for dataset in (args or kwargs.values())]
        if (args and kwargs) or not sizes or len(set(sizes)) > 1:
            raise located(ValueError(
                f"StackDataset: got data sets of {sizes} items; expected one at least, of equal "
                f"lengths, all with names or all without"
            ))  # fmt: skip
        self._length = sizes[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


class ChainDataset(IterableDataset[T]):
    """Streams one after the other (``a + b`` of two streams).

    >>> class Letters(IterableDataset):
    ...     def __iter__(self):
    ...         return iter("ab")
    >>> list(Letters() + Letters())
    ['a', 'b', 'a', 'b']
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise located(TypeError(
                    f"ChainDataset: got a {type(dataset).__name__}; it takes IterableDatasets; "
                    f"join data sets with numbered items by ConcatDataset"
                ))  # fmt: skip

    def __iter__(self) -> Iterator[T]:
        return itertools.chain.from_iterable(self.datasets)

    def __len__(self) -> int:
        return sum(map(len, self.datasets))


class Subset(Dataset[T]):
    """The items of ``dataset`` at ``indices``, in that order.

    >>> list(Subset("abcd", [3, 1]))
    ['d', 'b']
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int) -> T:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Any, lengths: Sequence[float], generator: Generator | None = None
) -> list[Subset[Any]]:
    """Divides a data set at random into parts of these lengths, or of these shares of the whole.

    Shares (numbers that add up to 1) are rounded down, and the items left over go to the first
    parts, one each. The same generator gives the same parts.

    >>> parts = random_split(range(10), [0.5, 0.3, 0.2], Generator().manual_seed(0))
    >>> [len(part) for part in parts]
    [5, 3, 2]
    """
    total = len(dataset)
    given = list(lengths)
    whole = [int(size) for size in given if hasattr(size, "__index__")]
    if math.isclose(sum(given), 1) and len(whole) < len(given):
        sizes = [math.floor(total * share) for share in given]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = whole
    if min(given, default=0) < 0 or len(sizes) < len(given) or sum(sizes) != total:
        raise located(ValueError(
            f"random_split: got lengths {given} for a data set of {total} items; expected whole "
            f"numbers that add up to {total}, or shares that add up to 1, none of them negative"
        ))  # fmt: skip
    order = randperm(total, generator=generator).tolist()
    ends = list(itertools.accumulate(sizes, initial=0))
    return [Subset(dataset, order[a:b]) for a, b in itertools.pairwise(ends)]
