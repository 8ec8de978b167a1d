"""Samplers: what they give, how often, and from which random numbers."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)


def seeded(seed: int = 0) -> treadle.Generator:
    return treadle.Generator().manual_seed(seed)


def test_sequential() -> None:
    sampler = SequentialSampler("abc")
    assert (list(sampler), len(sampler)) == ([0, 1, 2], 3)


def test_random_gives_each_item_once() -> None:
    sampler = RandomSampler(range(100), generator=seeded())
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert len(sampler) == 100
    again = RandomSampler(range(100), generator=seeded())
    assert [list(again), list(again)] == [first, second]


def test_a_pass_takes_one_number_however_much_of_it_is_used() -> None:
    makers: list[Any] = [
        lambda g: RandomSampler(range(1000), generator=g),
        lambda g: RandomSampler(range(10), replacement=True, num_samples=1000, generator=g),
        lambda g: SubsetRandomSampler(range(50), generator=g),
        lambda g: WeightedRandomSampler([1, 2, 3], 100, generator=g),
        lambda g: WeightedRandomSampler([1, 2, 3], 2, replacement=False, generator=g),
    ]
    states = []
    for make in makers:
        for whole in (True, False):
            generator = seeded()
            items = iter(make(generator))
            if whole:
                list(items)
            else:
                next(items)
            states.append(generator.get_state().tolist())
    assert all(state == states[0] for state in states)


def test_the_default_generator_is_used() -> None:
    with treadle.random.fork_rng():
        orders = []
        for _ in range(2):
            treadle.manual_seed(5)
            orders.append(list(RandomSampler(range(20))))
        assert orders[0] == orders[1]


def test_random_with_replacement_is_uniform() -> None:
    sampler = RandomSampler(range(4), replacement=True, num_samples=100_000, generator=seeded())
    counts = Counter(sampler)
    assert sum(counts.values()) == len(sampler) == 100_000
    assert all(abs(counts[i] - 25_000) < 700 for i in range(4))


def test_more_samples_than_items() -> None:
    order = list(RandomSampler(range(5), num_samples=12, generator=seeded()))
    assert len(order) == 12
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert len(set(order[10:])) == 2


def test_an_empty_data_set_has_no_order() -> None:
    assert list(RandomSampler([])) == []
    assert list(SubsetRandomSampler([])) == []


def test_subset_random() -> None:
    sampler = SubsetRandomSampler([7, 3, 5], generator=seeded())
    assert sorted(sampler) == [3, 5, 7]
    assert len(sampler) == 3


def test_weights() -> None:
    weights = [0, 1, 3, 0]
    sampler = WeightedRandomSampler(weights, 80_000, generator=seeded())
    counts = Counter(sampler)
    assert set(counts) == {1, 2}
    assert abs(counts[1] - 20_000) < 700


def test_weights_without_replacement() -> None:
    drawn = []
    generator = seeded()
    for _ in range(400):
        order = list(WeightedRandomSampler([1, 0, 3], 2, replacement=False, generator=generator))
        assert sorted(order) == [0, 2]
        drawn.append(order[0])
    assert abs(np.mean(np.array(drawn) == 2) - 0.75) < 0.07


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSampler("ab", num_samples=0), r"got num_samples=0; expected a whole number"),
        (lambda: WeightedRandomSampler([1], 2.5), r"got num_samples=2\.5"),
        (
            lambda: WeightedRandomSampler([-1, 2], 1),
            r"weights of shape \(2,\); expected one number",
        ),
        (lambda: WeightedRandomSampler([0, 0], 1), r"not all 0"),
        (lambda: WeightedRandomSampler([[1.0]], 1), r"weights of shape \(1, 1\)"),
        (lambda: WeightedRandomSampler([1, 0], 2, False), r"only 1 items have a weight above 0"),
        (lambda: BatchSampler([1], 0), r"got batch_size=0"),
        (lambda: BatchSampler([1], True), r"got batch_size=True"),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_subclass_must_say_how_it_iterates() -> None:
    class Bare(Sampler[int]):
        pass

    with pytest.raises(NotImplementedError, match=r"Bare must define __iter__"):
        list(Bare())


@pytest.mark.parametrize("size", [0, 1, 5, 6])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches(size: int, batch_size: int, drop_last: bool) -> None:
    sampler = BatchSampler(range(size), batch_size, drop_last)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    whole = [list(range(size))[i : i + batch_size] for i in range(0, size, batch_size)]
    assert batches == [b for b in whole if len(b) == batch_size or not drop_last]


@pytest.mark.parametrize("size", [0, 1, 5, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_the_items(size: int, drop_last: bool) -> None:
    def parts(epoch: int, **options: Any) -> list[list[int]]:
        samplers = [
            DistributedSampler(range(size), 3, rank, drop_last=drop_last, **options)
            for rank in range(3)
        ]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        return [list(sampler) for sampler in samplers]

    found = parts(0, seed=1)
    length = size // 3 if drop_last else -(-size // 3)
    assert [len(part) for part in found] == [length] * 3
    taken = [i for part in found for i in part]
    assert set(taken) <= set(range(size))
    if drop_last:
        assert len(set(taken)) == len(taken)
    else:
        assert set(taken) == set(range(size))
    assert parts(0, seed=1) == found
    if size == 8:
        assert parts(1, seed=1) != found != parts(0, seed=2)
    assert parts(4, shuffle=False)[1] == [i % size for i in range(1, 3 * length, 3)]


def test_a_rank_that_is_none() -> None:
    for options in ({}, {"num_replicas": 2}, {"num_replicas": 2, "rank": 2}):
        with pytest.raises(ValueError, match="expected both, the rank being at least 0"):
            DistributedSampler([1], **options)
