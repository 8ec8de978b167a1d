"""Threads that read batches ahead of the consumer."""

from __future__ import annotations

import contextlib
import itertools
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from treadle.compiler.tier0 import evaluate

END = object()  # what is read when a stream has no more items


@dataclass(frozen=True)
class WorkerInfo:
    """The thread that reads: its number, how many there are, a seed of its own, the data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _Current(threading.local):
    info: WorkerInfo | None = None
    item: Any = None  # the index of the item that is being read


_current = _Current()


def get_worker_info() -> WorkerInfo | None:
    """Which worker of a ``DataLoader`` this code runs in; None in any other thread."""
    return _current.info


@contextlib.contextmanager
def reading(index: Any) -> Iterator[None]:
    """Notes which item this thread reads; the note stays where that fails."""
    _current.item = index
    yield
    _current.item = None


class Workers:
    """``count`` threads for one pass over ``dataset``; each calls ``init`` with its number."""

    def __init__(
        self, count: int, dataset: Any, seed: int, init: Callable[[int], Any] | None
    ) -> None:
        self._pool = ThreadPoolExecutor(count, "treadle-data")
        self._infos = (WorkerInfo(i, count, seed + i, dataset) for i in itertools.count())
        self._lock = threading.Lock()
        self._init = init

    def read_ahead(
        self, requests: Iterator[Any], read: Callable[[Any], Any], depth: int, timeout: float
    ) -> Iterator[Any]:
        """``read(request)`` of all requests, in their order, ``depth`` of them ahead.

        Ends early where ``read`` gives END. The threads end with the iterator, also if that is
        dropped half-way.
        """
        waiting: deque[Future[Any]] = deque()
        submitted = received = 0
        try:
            for request in itertools.chain(requests, itertools.repeat(END)):
                if request is not END:
                    waiting.append(self._pool.submit(self._read, read, request, submitted))
                    submitted += 1
                    if len(waiting) <= depth:
                        continue
                if not waiting:
                    return
                batch = _result(waiting.popleft(), timeout, received)
                received += 1
                if batch is END:
                    return
                yield batch
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, read: Callable[[Any], Any], request: Any, number: int) -> Any:
        """Runs in a thread of the pool."""
        try:
            if _current.info is None:
                with self._lock:
                    _current.info = next(self._infos)
                if self._init is not None:
                    self._init(_current.info.id)
            batch = read(request)
            evaluate()  # what this thread recorded is computed here, not by the consumer
            return batch
        except BaseException as error:
            error.add_note(_note(error, request, number))
            _current.item = None
            raise


def _note(error: BaseException, request: Any, number: int) -> str:
    """Which thread, item and line it was."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    item = "" if _current.item is None else f"item {_current.item} of "
    return (
        f"[raised in DataLoader worker thread {_current.info.id if _current.info else '?'} while "
        f"reading {item}batch {number}: {_brief(request)}; {last.filename}:{last.lineno}]"
    )


def _result(future: Future[Any], timeout: float, number: int) -> Any:
    try:
        return future.result(timeout or None)
    except TimeoutError:
        if future.done():  # the data set's own TimeoutError
            raise
    raise RuntimeError(
        f"DataLoader: batch {number} was not read within timeout={timeout} s; raise the timeout, "
        f"use more workers, or look for what blocks in the data set"
    )


def _brief(request: Any) -> str:
    """``items [4, 5, 6, ...]``."""
    if isinstance(request, list) and len(request) > 8:
        return f"items [{', '.join(map(str, request[:8]))}, ...]"
    return f"items {request}"
