"""The loader: batches, order, workers, errors, what is left behind."""

import gc
import json
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    get_worker_info,
)
from treadle.utils import data as pytorchs_path

WORKERS = [0, 1, 3]


class Numbers(Dataset[Any]):
    """Item i is (i, [i, i]); some take longer, so that threads overtake each other."""

    def __init__(self, size: int, slow: int = 0) -> None:
        self.size = size
        self.slow = slow

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, np.ndarray[Any, Any]]:
        if not 0 <= index < self.size:
            raise IndexError(index)
        if self.slow and index % self.slow == 0:
            time.sleep(0.003)
        return index, np.full(2, index)


class Stream(IterableDataset[int]):
    def __init__(self, size: int) -> None:
        self.size = size
        self.started = 0

    def __iter__(self) -> Iterator[int]:
        self.started += 1
        yield from range(self.size)

    def __len__(self) -> int:
        return self.size


def firsts(loader: Any) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


def flat(lists: list[list[Any]]) -> list[Any]:
    return [x for part in lists for x in part]


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("treadle-data")]


def settles(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within two seconds."""
    for _ in range(400):
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    yield
    if not settles(lambda: not threads()):
        gc.collect()
        assert settles(lambda: not threads())


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (8, 4), (3, 10), (0, 2), (200, 3)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_in_order(num_workers: int, size: int, batch_size: int, drop_last: bool) -> None:
    loader = DataLoader(
        Numbers(size, slow=7), batch_size, num_workers=num_workers, drop_last=drop_last
    )
    expected = [list(range(size))[i : i + batch_size] for i in range(0, size, batch_size)]
    expected = [b for b in expected if len(b) == batch_size or not drop_last]
    assert firsts(loader) == expected
    assert len(loader) == len(expected)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_streams(num_workers: int) -> None:
    stream = Stream(10)
    loader = DataLoader(stream, batch_size=4, num_workers=num_workers)
    for _ in range(2):
        assert [b.tolist() for b in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert stream.started == 2
    assert len(loader) == 3
    whole = DataLoader(stream, 4, drop_last=True, num_workers=num_workers)
    assert [b.tolist() for b in whole] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(whole) == 2
    assert list(DataLoader(stream, None, num_workers=num_workers)) == list(range(10))


@pytest.mark.parametrize("num_workers", WORKERS)
def test_unbatched(num_workers: int) -> None:
    items = list(DataLoader(Numbers(3), batch_size=None, num_workers=num_workers))
    assert [i for i, _ in items] == [0, 1, 2]
    assert all(isinstance(x, treadle.Tensor) and x.tolist() == [i, i] for i, x in items)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_samplers_of_ones_own(num_workers: int) -> None:
    data = Numbers(6)
    by_item = DataLoader(data, 2, sampler=[5, 3, 1], num_workers=num_workers)
    assert firsts(by_item) == [[5, 3], [1]]
    by_batch = DataLoader(data, batch_sampler=BatchSampler([4, 2, 0], 2), num_workers=num_workers)
    assert firsts(by_batch) == [[4, 2], [0]]
    assert len(by_batch) == 2


def test_collate_fn_and_getitems() -> None:
    class Whole(Numbers):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [-i for i in indices]

    assert list(DataLoader(Whole(3), 2, collate_fn=sum)) == [-1, -2]


def test_any_container_is_a_data_set() -> None:
    assert [b.tolist() for b in DataLoader([1.5, 2.5, 3.5], 2)] == [[1.5, 2.5], [3.5]]
    assert list(DataLoader("abc", 2)) == [["a", "b"], ["c"]]


# --- random orders --------------------------------------------------------------------------------


def test_a_shuffle_depends_on_seed_and_epoch_alone() -> None:
    def epochs(seed: int, num_workers: int, size: int = 2) -> list[list[int]]:
        generator = treadle.Generator().manual_seed(seed)
        loader = DataLoader(
            Numbers(50, slow=11), size, shuffle=True, num_workers=num_workers, generator=generator
        )
        return [flat(firsts(loader)) for _ in range(2)]

    first = epochs(0, 0)
    assert first[0] != first[1]
    assert [sorted(e) for e in first] == [list(range(50))] * 2
    for num_workers in WORKERS:
        assert epochs(0, num_workers) == first
        assert epochs(0, num_workers, size=7) == first
    assert epochs(1, 0) != first


def test_reading_ahead_does_not_change_other_random_numbers() -> None:
    def run(num_workers: int) -> list[Any]:
        treadle.manual_seed(3)
        seen: list[Any] = []
        for batch, _ in DataLoader(Numbers(12), 4, shuffle=True, num_workers=num_workers):
            seen.append((batch.tolist(), treadle.rand(2).tolist()))
        return seen

    with treadle.random.fork_rng():
        assert run(0) == run(1) == run(3)


# --- tensor data sets -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", WORKERS)
def test_a_tensor_data_set_gives_what_its_items_give(num_workers: int) -> None:
    x = treadle.arange(60).reshape(20, 3) / 7
    data = Subset(TensorDataset(x, treadle.arange(20)), range(19, -1, -1))

    def batches(**options: Any) -> list[Any]:
        generator = treadle.Generator().manual_seed(0)
        loader = DataLoader(data, 6, shuffle=True, generator=generator, **options)
        return [[part.tolist() for part in batch] for batch in loader]

    by_item = batches(collate_fn=lambda items: treadle.data.default_collate(items))
    assert batches(num_workers=num_workers) == by_item


@pytest.mark.parametrize("num_workers", WORKERS)
def test_values_not_yet_computed_may_be_read_in_threads(num_workers: int) -> None:
    class Lazy(Dataset[Any]):
        def __init__(self) -> None:
            self.x = treadle.arange(40).reshape(20, 2) * 3  # pending in this thread

        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Any:
            return self.x[index] * 2 + 1

    batches = [b.tolist() for b in DataLoader(Lazy(), 5, num_workers=num_workers)]
    assert flat(batches) == (np.arange(40).reshape(20, 2) * 6 + 1).tolist()


def test_workers_hand_over_computed_values() -> None:
    loader = DataLoader([1, 2], 2, num_workers=1, collate_fn=lambda x: treadle.tensor(x) * 2 + 1)
    (batch,) = loader
    assert batch.node.value is not None
    assert batch.tolist() == [3, 5]


# --- workers --------------------------------------------------------------------------------------


def test_workers_know_who_they_are() -> None:
    barrier = threading.Barrier(3, timeout=5)
    started: list[int] = []

    class Asks(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index < 3:
                barrier.wait()  # each of the three threads must be here
            info = get_worker_info()
            assert info is not None
            return info.id, info.num_workers, info.seed

    generator = treadle.Generator().manual_seed(100)
    loader = DataLoader(
        Asks(9), None, num_workers=3, worker_init_fn=started.append, generator=generator
    )
    seen = {tuple(item) for item in loader}
    assert {i for i, _, _ in seen} == {0, 1, 2}
    assert all(n == 3 and seed == 100 + i for i, n, seed in seen)
    assert sorted(started) == [0, 1, 2]
    assert get_worker_info() is None


def test_only_so_much_is_read_ahead() -> None:
    read: list[int] = []

    class Counts(Numbers):
        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return index

    batches = iter(DataLoader(Counts(100), 1, num_workers=2, prefetch_factor=3))
    assert not read
    next(batches)
    assert settles(lambda: len(read) == 7)
    time.sleep(0.02)
    assert len(read) == 7  # the one received, and 3 for each worker
    del batches


def test_more_batches_than_fit_the_queue() -> None:
    loader = DataLoader(Numbers(600), 1, num_workers=3, prefetch_factor=1)
    assert flat(firsts(loader)) == list(range(600))


def test_dropped_iterators_leave_no_threads() -> None:
    loader = DataLoader(Numbers(1000, slow=1), 2, num_workers=3)
    for batch, _ in loader:
        assert batch.tolist() == [0, 1]
        break
    unused = iter(loader)
    half = iter(loader)
    next(half)
    assert threads()
    del unused, half
    assert settles(lambda: not threads())
    two = [iter(loader), iter(loader)]
    assert [next(it)[0].tolist() for it in two] == [[0, 1], [0, 1]]


class Fails(Numbers):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise ValueError("picture 5 is damaged")
        return index


@pytest.mark.parametrize("num_workers", [1, 3])
def test_an_exception_comes_with_its_traceback(num_workers: int) -> None:
    received = []
    with pytest.raises(ValueError, match="picture 5 is damaged") as caught:
        for batch in DataLoader(Fails(10), 2, num_workers=num_workers):
            received.append(batch.tolist())
    assert received == [[0, 1], [2, 3]]
    text = "".join(traceback.format_exception(caught.value))
    assert 'raise ValueError("picture 5 is damaged")' in text
    assert "in __getitem__" in text
    worker = (
        r"\[raised in DataLoader worker thread \d while reading item 5 of batch 2: items \[4, 5\]; "
        r".*test_loader\.py:\d+\]"
    )
    (note,) = caught.value.__notes__
    assert re.fullmatch(worker, note)


def test_an_exception_without_workers_is_the_data_sets_own() -> None:
    with pytest.raises(ValueError, match="picture 5 is damaged") as caught:
        list(DataLoader(Fails(10), 2))
    assert not hasattr(caught.value, "__notes__")


def test_an_exception_of_worker_init_fn_is_told() -> None:
    def init(worker: int) -> None:
        raise RuntimeError(f"no camera for worker {worker}")

    with pytest.raises(RuntimeError, match="no camera for worker 0"):
        list(DataLoader(Numbers(4), 2, num_workers=1, worker_init_fn=init))


def test_a_stream_that_fails() -> None:
    class Breaks(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            yield 1
            raise OSError("the connection was lost")

    with pytest.raises(OSError, match="the connection was lost"):
        list(DataLoader(Breaks(), 1, num_workers=2))


def test_timeout() -> None:
    release = threading.Event()

    class Blocks(Numbers):
        def __getitem__(self, index: int) -> Any:
            release.wait(5)
            return index

    try:
        with pytest.raises(RuntimeError, match=r"batch 0 was not read within timeout=0\.02 s"):
            list(DataLoader(Blocks(4), 2, num_workers=1, timeout=0.02))
    finally:
        release.set()


def test_a_timeout_of_the_data_sets_own_is_not_taken_for_ours() -> None:
    class Own(Numbers):
        def __getitem__(self, index: int) -> Any:
            raise TimeoutError("the camera is silent")

    with pytest.raises(TimeoutError, match="the camera is silent"):
        list(DataLoader(Own(4), 2, num_workers=1, timeout=5))


def test_ctrl_c_stops_a_waiting_loop() -> None:
    release = threading.Event()

    class Blocks(Numbers):
        def __getitem__(self, index: int) -> Any:
            release.wait(5)
            return index

    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(DataLoader(Blocks(4), 2, num_workers=2))
        assert time.monotonic() - begin < 2
    finally:
        release.set()
        timer.join()


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": -1}, "got num_workers=-1; expected a whole number, 0 or more"),
        ({"num_workers": 1.5}, r"got num_workers=1\.5"),
        ({"timeout": -1}, "got timeout=-1; expected seconds"),
        ({"prefetch_factor": 2}, "got prefetch_factor=2 and num_workers=0"),
        ({"prefetch_factor": 0, "num_workers": 1}, "got prefetch_factor=0 and num_workers=1"),
        ({"persistent_workers": True}, "got persistent_workers=True and num_workers=0"),
        ({"multiprocessing_context": "spawn"}, "workers are threads here; leave it out"),
        ({"shuffle": True, "sampler": [0]}, "got shuffle=True and a sampler"),
        ({"batch_sampler": [[0]], "shuffle": True}, "got a batch_sampler together with"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "got a batch_sampler together with"),
        ({"batch_size": None, "drop_last": True}, "got batch_size=None and drop_last=True"),
        ({"batch_size": 0}, "got batch_size=0; expected a whole number above 0"),
    ],
)
def test_arguments_that_do_not_go_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataLoader(Numbers(4), **arguments)


def test_streams_take_no_order_and_iterators_are_no_data_sets() -> None:
    with pytest.raises(ValueError, match="got an IterableDataset together with shuffle"):
        DataLoader(Stream(3), shuffle=True)
    with pytest.raises(TypeError, match=r"got a range_iterator as data set; expected one with"):
        DataLoader(iter(range(3)))


def test_pytorchs_arguments_and_path() -> None:
    loader = pytorchs_path.DataLoader(
        Numbers(4), 2, num_workers=2, pin_memory=True, persistent_workers=True, in_order=True
    )
    assert firsts(loader) == firsts(loader) == [[0, 1], [2, 3]]
    assert pytorchs_path.random_split is treadle.data.random_split


# --- randomness of items, and going on ------------------------------------------------------------


class Noisy(Numbers):
    """Item i draws random numbers; some items take longer."""

    def __getitem__(self, index: int) -> Any:
        super().__getitem__(index)
        return index, treadle.rand(2).tolist() + treadle.randn(1).tolist()


def _noisy(num_workers: int, size: int = 3, **options: Any) -> DataLoader[Any]:
    generator = treadle.Generator().manual_seed(5)
    return DataLoader(
        Noisy(10, slow=3), size, shuffle=True, num_workers=num_workers, generator=generator,
        collate_fn=lambda items: items, **options,
    )  # fmt: skip


@pytest.mark.parametrize("num_workers", [1, 3])
def test_what_an_item_draws_does_not_depend_on_the_workers(num_workers: int) -> None:
    alone, threaded = _noisy(0), _noisy(num_workers)
    first = list(alone)
    assert list(threaded) == first
    assert list(threaded) == list(alone) != first
    by_item = dict(flat(first))
    assert len({tuple(numbers) for numbers in by_item.values()}) == 10
    assert dict(flat(list(_noisy(num_workers, size=4)))) == by_item  # whatever the batches are
    assert dict(flat(list(_noisy(0)))) == by_item


def test_what_an_item_draws_leaves_the_programs_own_numbers_alone() -> None:
    with treadle.random.fork_rng():
        treadle.manual_seed(3)
        list(_noisy(0))
        after = treadle.rand(2).tolist()
        treadle.manual_seed(3)
        assert treadle.rand(2).tolist() == after


def test_an_item_may_seed_its_own_numbers() -> None:
    class Seeds(Numbers):
        def __getitem__(self, index: int) -> Any:
            treadle.manual_seed(index)
            return treadle.rand(1).item()

    seed = treadle.initial_seed()
    drawn = [x for (x,) in DataLoader(Seeds(3), 1, num_workers=2, collate_fn=list)]
    assert treadle.initial_seed() == seed
    own = treadle.Generator()
    assert drawn == [treadle.rand(1, generator=own.manual_seed(i)).item() for i in range(3)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_a_loader_goes_on_from_its_state(num_workers: int, done: int) -> None:
    loader = _noisy(num_workers)
    list(loader)  # a whole pass before
    batches = iter(loader)
    for _ in range(done):
        next(batches)
    saved = loader.state_dict()
    rest = list(batches)
    following = list(loader)
    again = _noisy(num_workers)
    again.load_state_dict(json.loads(json.dumps(saved)))
    assert len(json.dumps(saved)) < 300
    assert list(again) == rest
    assert list(again) == following


def test_after_a_whole_pass_the_next_one_follows() -> None:
    loader = _noisy(2)
    list(loader)
    saved = loader.state_dict()
    following = list(loader)
    again = _noisy(0)
    again.load_state_dict(saved)
    assert list(again) == following


def test_a_loader_on_the_default_generator_goes_on() -> None:
    with treadle.random.fork_rng():
        treadle.manual_seed(9)
        loader = DataLoader(Noisy(10), 3, shuffle=True, collate_fn=list)
        batches = iter(loader)
        next(batches)
        saved, state = loader.state_dict(), treadle.get_rng_state()
        expected = [*batches, treadle.rand(1).item(), *loader]
        treadle.manual_seed(0)
        again = DataLoader(Noisy(10), 3, shuffle=True, collate_fn=list)
        again.load_state_dict(saved)
        treadle.set_rng_state(state)
        assert [*again, treadle.rand(1).item(), *again] == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_goes_on_from_its_state(num_workers: int) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Stream(10), 3, num_workers=num_workers)

    first = loader()
    batches = iter(first)
    next(batches)
    again = loader()
    again.load_state_dict(first.state_dict())
    assert (
        [b.tolist() for b in again] == [b.tolist() for b in batches] == [[3, 4, 5], [6, 7, 8], [9]]
    )


@pytest.mark.parametrize("state", [None, {}, {"epoch": 1}, {
    "epoch": 1, "batches": 1, "key": [1, 2, 3], "before": [], "after": [],
}])  # fmt: skip
def test_states_that_are_none(state: Any) -> None:
    with pytest.raises(ValueError, match=r"load_state_dict: got .*; expected what state_dict\(\)"):
        _noisy(0).load_state_dict(state)
