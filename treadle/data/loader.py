"""The loader: batches from a data set."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

from treadle.data.collate import default_collate, default_convert, gathered
from treadle.data.dataset import IterableDataset
from treadle.data.position import Keyed, Position, states_of
from treadle.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from treadle.data.worker import END, Workers, reading
from treadle.ir.node import located
from treadle.random import Generator, default_generator

T = TypeVar("T")


class DataLoader(Generic[T]):
    """Reads a data set in batches: iterate over it once per epoch.

    The batches are the same, and in the same order, with any number of workers, also where the data
    set draws random numbers: what it draws from the default generator while it reads item ``i``
    follows from the seed, the pass and ``i``. (Python's and NumPy's own generators know nothing of
    this.) Workers are threads: nothing is pickled or forked, and the data set is shared.

    Args:
        dataset: anything with ``__getitem__`` and ``__len__``, or an ``IterableDataset``.
        batch_size: items in a batch; None gives single items, not batched.
        shuffle: True for a new random order each epoch, which ``generator`` decides.
        sampler: gives the indices, in place of ``shuffle``.
        batch_sampler: gives lists of indices, in place of ``batch_size``, ``shuffle``,
            ``sampler`` and ``drop_last``.
        num_workers: threads that read ahead; 0 reads when a batch is asked for. An
            ``IterableDataset`` is read by one.
        collate_fn: makes a batch of a list of items (``default_collate``).
        drop_last: True leaves out a last batch that is not full.
        timeout: seconds to wait for a batch of the workers; 0 for as long as it takes.
        worker_init_fn: called with the worker's number in each thread.
        generator: what random orders come from; None is the default generator.
        prefetch_factor: how many batches each worker reads ahead (2).
        pin_memory, pin_memory_device, persistent_workers, in_order: taken for PyTorch's sake, and
            without effect: all memory is the CPU's, threads start at once, the order is kept.

    An exception in a worker is raised here, with the traceback from the data set, and a note of the
    item and the line.

    >>> import treadle
    >>> data = treadle.data.TensorDataset(treadle.arange(5))
    >>> [batch.tolist() for (batch,) in DataLoader(data, batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(
            num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context
        )
        self._is_stream = isinstance(dataset, IterableDataset)
        _check_dataset(dataset)
        _check_order(self._is_stream, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if sampler is None and not self._is_stream:
            random = RandomSampler(dataset, generator=generator) if shuffle else None
            sampler = random or SequentialSampler(dataset)
        if batch_sampler is not None:
            batch_size = None
        elif batch_size is not None:
            batch_sampler = BatchSampler(sampler or (), batch_size, drop_last)
        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor or (2 if num_workers else None)
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self._position = Position()
        self._is_batched = batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if self._is_batched else default_convert)

    def __iter__(self) -> Iterator[Any]:
        position, generators = self._position, self._generators()
        goes_on = position.begin()
        if not goes_on:
            position.before = [g._state for g in generators]
            position.key = generators[0].next_offset(1)
            position.epoch += 1
        # What draws an order does so when it begins; what was handed out before is passed over.
        with contextlib.ExitStack() as drawn:
            if goes_on:
                drawn.enter_context(states_of(generators, position.before))
                generators[0].next_offset(1)
            requests = self._requests()
            if not self._is_stream:
                requests = _begun(requests, position.batches)
        keyed = Keyed(position.key or (0, 0, 0))
        batches = self._batches(requests, self._reader(keyed, position.batches))
        return _counted(batches, position)

    def _batches(self, requests: Iterator[Any], read: Callable[[Any], Any]) -> Iterator[Any]:
        if not self.num_workers:
            return itertools.takewhile(lambda batch: batch is not END, map(read, requests))
        count = 1 if self._is_stream else self.num_workers
        seed = (self.generator or default_generator).initial_seed()
        workers = Workers(count, self.dataset, seed, self.worker_init_fn)
        depth = self.num_workers * (self.prefetch_factor or 1)
        return workers.read_ahead(requests, read, depth, self.timeout)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, in a few numbers: after the batches that were handed out.

        With ``load_state_dict`` another loader of the same arguments goes on with the very next
        batch, in the same order and with the same random numbers. The state of the default
        generator is not in it: programs save that once, by ``get_rng_state``.

        >>> loader = DataLoader(range(6), 2)
        >>> batches = iter(loader)
        >>> next(batches).tolist()
        [0, 1]
        >>> again = DataLoader(range(6), 2)
        >>> again.load_state_dict(loader.state_dict())
        >>> [batch.tolist() for batch in again]
        [[2, 3], [4, 5]]
        """
        return self._position.state_dict(self._generators())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the next pass go on where ``state_dict`` was taken; streams are read up to there.

        An order that a sampler draws from elsewhere than a Treadle generator cannot be repeated.
        """
        self._position = Position()
        self._position.load(state_dict, self._generators())

    def _generators(self) -> list[Generator]:
        """Those that the order and the random numbers of a pass come from."""
        own = self.generator or default_generator
        sampler = getattr(self.batch_sampler, "sampler", self.sampler)
        found = [own]
        for source in (self.batch_sampler, sampler, self.sampler):
            generator = getattr(source, "generator", None)
            if isinstance(generator, Generator) and generator not in found:
                found.append(generator)
        return found if default_generator in found else [*found, default_generator]

    def __len__(self) -> int:
        if not self._is_stream:
            return len(self.batch_sampler if self._is_batched else self.sampler)  # type: ignore[arg-type]
        size = len(self.dataset)
        if self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def _requests(self) -> Iterator[Any]:
        """What ``_reader`` is called with, for each batch in turn."""
        if self._is_stream:
            return itertools.repeat(self.batch_size)
        return iter(self.batch_sampler if self._is_batched else self.sampler)  # type: ignore[arg-type]

    def _reader(self, keyed: Keyed, done: int) -> Callable[[Any], Any]:
        if not self._is_stream:
            return partial(self._read_batch if self._is_batched else self._read_item, keyed)
        items = self._stream(done)

        def read(size: int | None) -> Any:
            with keyed.of_stream():
                return self._read_on(items, size)

        return read

    def _read_item(self, keyed: Keyed, index: Any) -> Any:
        with keyed.of_item(index), reading(index):
            return self.collate_fn(self.dataset[index])

    def _read_batch(self, keyed: Keyed, indices: list[Any]) -> Any:
        dataset = self.dataset
        if self.collate_fn is default_collate:
            batch = gathered(dataset, indices)
            if batch is not None:
                return batch
        if hasattr(dataset, "__getitems__"):
            with keyed.of_item(indices[0] if indices else 0):
                return self.collate_fn(dataset.__getitems__(indices))
        items = []
        for index in indices:
            with keyed.of_item(index), reading(index):
                items.append(dataset[index])
        with keyed.of_item(("batch", *indices)):
            return self.collate_fn(items)

    def _stream(self, done: int) -> Iterator[Any]:
        """The items of a stream; its ``__iter__`` runs in the thread that reads."""
        items = iter(self.dataset)
        yield from itertools.islice(items, done * (self.batch_size or 1), None)

    def _read_on(self, items: Iterator[Any], size: int | None) -> Any:
        """The next batch of a stream, or END."""
        batch = list(itertools.islice(items, size or 1))
        if not batch or (self.drop_last and len(batch) < (size or 1)):
            return END
        return self.collate_fn(batch if size else batch[0])


def _begun(requests: Iterator[Any], done: int) -> Iterator[Any]:
    """The requests after the first ``done``, of which one is made already."""
    return itertools.chain(list(itertools.islice(requests, done, done + 1)), requests)


def _counted(batches: Iterator[Any], position: Position) -> Iterator[Any]:
    """Notes how many have been handed out, and that there are no more."""
    begun = position.key
    for batch in batches:
        if position.key == begun:
            position.batches += 1
        yield batch
    if position.key == begun:
        position.key = None
        position.batches = 0


# --- checks ---------------------------------------------------------------------------------------


def _refuse(text: str) -> Exception:
    return located(ValueError(f"DataLoader: {text}"))


def _check_workers(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent: bool, context: Any
) -> None:
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise _refuse(f"got num_workers={num_workers!r}; expected a whole number, 0 or more")
    if not timeout >= 0:
        raise _refuse(f"got timeout={timeout!r}; expected seconds, 0 (wait for ever) or more")
    if context is not None:
        raise _refuse(
            f"got multiprocessing_context={context!r}; workers are threads here; leave it out"
        )
    if prefetch_factor is not None and (num_workers == 0 or prefetch_factor < 1):
        raise _refuse(
            f"got prefetch_factor={prefetch_factor} and num_workers={num_workers}; it must be 1 or "
            f"more, and only workers read ahead"
        )
    if persistent and num_workers == 0:
        raise _refuse("got persistent_workers=True and num_workers=0; set num_workers above 0")


def _check_dataset(dataset: Any) -> None:
    if not hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
        raise located(TypeError(
            f"DataLoader: got a {type(dataset).__name__} as data set; expected one with "
            f"__getitem__ and __len__; make what can only be iterated over an IterableDataset"
        ))  # fmt: skip


def _check_order(
    is_stream: bool,
    batch_size: int | None,
    shuffle: bool | None,
    sampler: Any,
    batch_sampler: Any,
    drop_last: bool,
) -> None:
    if is_stream and (shuffle or sampler is not None or batch_sampler is not None):
        raise _refuse(
            "got an IterableDataset together with shuffle, sampler or batch_sampler; such a data "
            "set decides its order itself; shuffle inside it"
        )
    if shuffle and sampler is not None:
        raise _refuse("got shuffle=True and a sampler; the sampler decides the order; drop one")
    others = batch_size != 1 or shuffle or sampler is not None or drop_last
    if batch_sampler is not None and others:
        raise _refuse(
            "got a batch_sampler together with batch_size, shuffle, sampler or drop_last; it "
            "decides all of these; leave them out"
        )
    if batch_size is None and drop_last:
        raise _refuse("got batch_size=None and drop_last=True; without batches none is dropped")
