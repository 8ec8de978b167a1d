"""Samplers: in which order the items of a data set come.

A sampler that draws at random takes one number from its generator at the start of each pass and
draws the whole pass from that. So an order depends on the seed and on what was drawn before, and
never on how far ahead a loader reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.ir.node import located
from treadle.random import Generator, default_generator, rand, randint, randperm

T = TypeVar("T")
_CHUNK = 1 << 16  # numbers drawn at once where a pass may be long


class Sampler(Generic[T]):
    """Gives the index of each item of a pass: subclasses define ``__iter__`` and ``__len__``."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__(self)")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ... up to the length of the data set."""

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The items in a random order, a new one each pass.

    Args:
        data_source: the data set.
        replacement: True draws each item from all of them, so some come more than once.
        num_samples: how many items a pass has (as many as the data set). Without replacement
            and with more than that, one random order follows another.
        generator: where the order comes from; None is the default generator.

    >>> sampler = RandomSampler(range(5), generator=Generator().manual_seed(0))
    >>> first, second = list(sampler), list(sampler)
    >>> sorted(first) == [0, 1, 2, 3, 4], first == second
    (True, False)
    """

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        if num_samples is not None:
            _check_count("RandomSampler", num_samples)
        self.data_source = data_source
        self.replacement = replacement
        self.generator = generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """How many items a pass has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        source = _for_one_pass(self.generator)
        return itertools.islice(self._endless(source), self.num_samples)

    def _endless(self, source: Generator) -> Iterator[int]:
        size = len(self.data_source)
        count = min(_CHUNK, self.num_samples)
        while size:
            if self.replacement:
                yield from randint(size, (count,), generator=source).tolist()
            else:
                yield from randperm(size, generator=source).tolist()

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in a random order, a new one each pass."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        order = randperm(len(self.indices), generator=_for_one_pass(self.generator)).tolist()
        return (self.indices[i] for i in order)

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices of 0..len(weights) - 1, each as probable as its weight says.

    Args:
        weights: a number that is not negative for each item; they need not add up to 1.
        num_samples: how many indices a pass has.
        replacement: False draws no index twice.
        generator: where the numbers come from; None is the default generator.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        _check_count("WeightedRandomSampler", num_samples)
        array = np.array(weights, np.float64)
        if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any() or not array.any():
            raise located(ValueError(
                f"WeightedRandomSampler: got weights of shape {array.shape}; expected one number "
                f"for each item, finite, not negative, and not all 0"
            ))  # fmt: skip
        positive = int(np.count_nonzero(array))
        if not replacement and num_samples > positive:
            raise located(ValueError(
                f"WeightedRandomSampler: got num_samples={num_samples} without replacement, but "
                f"only {positive} items have a weight above 0; draw fewer or with replacement"
            ))  # fmt: skip
        self.weights = array
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        source = _for_one_pass(self.generator)
        if not self.replacement:
            return iter(self._distinct(source))
        return itertools.islice(self._endless(source), self.num_samples)

    def _endless(self, source: Generator) -> Iterator[int]:
        """u of [0, total) lies in the stretch of one item."""
        ends = np.cumsum(self.weights)
        last = int(np.flatnonzero(self.weights)[-1])  # u may round up to the total
        count = min(_CHUNK, self.num_samples)
        while True:
            u = rand(count, dtype=dtypes.float64, generator=source).numpy() * ends[-1]
            yield from np.minimum(np.searchsorted(ends, u, side="right"), last).tolist()

    def _distinct(self, source: Generator) -> list[int]:
        """The smallest of exponential numbers with the weights as rates (Efraimidis, Spirakis)."""
        u = rand(len(self.weights), dtype=dtypes.float64, generator=source)
        waiting = -(1 - u).log().numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            keys = np.where(self.weights > 0, waiting / self.weights, np.inf)
        return np.argsort(keys, kind="stable")[: self.num_samples].tolist()

    def __len__(self) -> int:
        return self.num_samples


class DistributedSampler(Sampler[int]):
    """The part of the items that one of several processes takes: every ``num_replicas``-th.

    The order of a pass follows from ``seed`` and the epoch that ``set_epoch`` named, alike in all
    processes.

    Args:
        dataset: the data set.
        num_replicas: how many processes there are, and
        rank: which of them this is, from 0 on; both must be given.
        shuffle: False takes the items in their order.
        seed: the same in all processes.
        drop_last: True leaves out items so that all parts are equal; False repeats some.

    >>> [list(DistributedSampler(range(5), 2, rank, shuffle=False)) for rank in range(2)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None or not 0 <= rank < num_replicas:
            raise located(ValueError(
                f"DistributedSampler: got num_replicas={num_replicas} and rank={rank}; expected "
                f"both, the rank being at least 0 and less than num_replicas"
            ))  # fmt: skip
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Names the pass that comes next; without it all passes have one order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        order: list[int] = list(range(size))
        if self.shuffle:
            source = Generator().manual_seed(self.seed, stream=self.epoch)
            order = randperm(size, generator=source).tolist()
        total = len(self) * self.num_replicas
        endless = itertools.cycle(order) if order else iter(order)
        return itertools.islice(endless, self.rank, total, self.num_replicas)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.num_replicas)
        return whole + (rest > 0 and not self.drop_last)


class BatchSampler(Sampler[list[int]]):
    """Lists of ``batch_size`` indices of another sampler.

    >>> list(BatchSampler(SequentialSampler("abcde"), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool = False) -> None:
        _check_count("BatchSampler", batch_size, "batch_size")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return whole + (rest > 0 and not self.drop_last)


def _check_count(who: str, value: Any, name: str = "num_samples") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise located(ValueError(f"{who}: got {name}={value!r}; expected a whole number above 0"))


def _for_one_pass(generator: Generator | None) -> Generator:
    """A generator seeded with one number of ``generator``."""
    source = default_generator if generator is None else generator
    return Generator().manual_seed(randint((1 << 63) - 1, (), generator=source).item())
