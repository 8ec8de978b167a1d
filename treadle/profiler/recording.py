"""What is noted while a profiler records: spans of the host's time, and evaluations.

While it records, ``Module.__call__``, ``Tensor.backward`` and ``Optimizer.step`` are wrapped, and
what is recorded carries the path of its layer in its site; at other times nothing of this is there.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from treadle.base.record import Record
from treadle.compiler.watch import Evaluation, Watchers
from treadle.ir.node import Marks, Site
from treadle.nn.module import Module
from treadle.optim.optimizer import Optimizer
from treadle.runtime import memory
from treadle.tensor.tensor import Tensor

_MOST_SPANS = 200_000
_MOST_CALLS = 500_000  # of kernels

HOST, LAYER, USER, STEP = "host", "layer", "user", "step"


class Span(Record):
    """Something that the host did from ``begin`` to ``end``, on the clock of perf_counter."""

    name: str
    category: str
    begin: float
    end: float
    thread: int


class Noted(Record):
    """An evaluation, the thread that waited for it, and the bytes in use when it was done."""

    evaluation: Evaluation
    thread: int
    nbytes: int


class _Marked(tuple):
    """A site that knows its layer, and the innermost ``record_function`` around it."""

    layer: str
    label: str


class _Stack(threading.local):
    """The layers and labels that a thread is in."""

    def __init__(self) -> None:
        self.modules: list[Module] = []
        self.layers: list[str] = []
        self.labels: list[str] = []


_stack = _Stack()
_names: WeakKeyDictionary[Module, dict[int, str]] = WeakKeyDictionary()  # of a root's modules


def _mark(site: Site) -> Site:
    marked = _Marked(site)
    marked.layer = _stack.layers[-1] if _stack.layers else ""
    marked.label = _stack.labels[-1] if _stack.labels else ""
    return marked


def layer_name(root: Module, module: Module) -> str:
    """``Net.encoder.0``: the class of the outermost module that runs, and the path from there."""
    names = _names.get(root)
    if names is None or id(module) not in names:
        names = _names[root] = {id(m): name for name, m in root.named_modules()}
    path = names.get(id(module))
    if path is None:  # made and called on the way
        return f"{type(root).__name__}.({type(module).__name__})"
    return f"{type(root).__name__}.{path}" if path else type(root).__name__


class Recording:
    """What one recording gathers, in bounded memory; ``dropped`` counts what found no room."""

    active: Recording | None = None  # the one that runs

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.evaluations: list[Noted] = []
        self.dropped = 0
        self.begin = self.end = 0.0
        self.on_evaluation: Callable[[Evaluation], object] | None = None
        self._calls = 0
        self._replaced: list[tuple[type, str, Any]] = []

    def start(self) -> None:
        """Begins; RuntimeError where another recording runs."""
        if Recording.active is not None:
            raise RuntimeError(
                "a profiler is recording already; end it (leave its `with` block, or call stop()) "
                "before another one starts"
            )
        Recording.active = self
        for kind, name, label in (
            (Module, "__call__", None),
            (Tensor, "backward", "backward"),
            (Optimizer, "step", None),
        ):
            self._replaced.append((kind, name, vars(kind)[name]))
            setattr(kind, name, self._wrapped(vars(kind)[name], kind, label))
        Marks.mark = _mark
        Watchers.add(self._note)
        self.begin = perf_counter()

    def stop(self) -> None:
        """Ends, and puts everything back as it was."""
        self.end = perf_counter()
        Watchers.remove(self._note)
        Marks.mark = None
        for kind, name, original in self._replaced:
            setattr(kind, name, original)
        self._replaced = []
        Recording.active = None

    def add(self, name: str, category: str, begin: float) -> None:
        """A span that ends now."""
        if len(self.spans) >= _MOST_SPANS:
            self.dropped += 1
            return
        self.spans.append(Span(name, category, begin, perf_counter(), threading.get_ident()))

    def _note(self, evaluation: Evaluation) -> None:
        calls = len(evaluation.timed.times) if evaluation.timed is not None else 1
        if self._calls + calls > _MOST_CALLS:
            self.dropped += calls
            return
        self._calls += calls
        in_use = memory.memory_stats()["allocated.current"]
        self.evaluations.append(Noted(evaluation, threading.get_ident(), in_use))
        if self.on_evaluation is not None:
            begin = perf_counter()
            self.on_evaluation(evaluation)
            self.add("(looking at memory)", HOST, begin)

    def _wrapped(self, original: Any, kind: type, label: str | None) -> Any:
        if kind is Module:
            return self._module_call(original)

        @functools.wraps(original)
        def timed(subject: Any, *args: Any, **kwargs: Any) -> Any:
            begin = perf_counter()
            try:
                return original(subject, *args, **kwargs)
            finally:
                self.add(label or f"Optimizer.step#{type(subject).__name__}.step", HOST, begin)

        return timed

    def _module_call(self, original: Any) -> Any:
        @functools.wraps(original)
        def call(module: Module, *args: Any, **kwargs: Any) -> Any:
            stack = _stack
            stack.modules.append(module)
            name = layer_name(stack.modules[0], module)
            stack.layers.append(name)
            begin = perf_counter()
            try:
                return original(module, *args, **kwargs)
            finally:
                self.add(name, LAYER, begin)
                stack.layers.pop()
                stack.modules.pop()

        return call


class record_function:
    """Names a stretch of the program, as a context or a decorator; it costs nothing to speak of
    where no profiler records.

    Example::

        with record_function("forward"):
            loss = net(x)

    The kernels of what is recorded inside run when a value is needed; ``key_averages("label")``
    sums them up by the names given here.
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name
        self.args = args
        self._begins: list[float] = []

    def __enter__(self) -> record_function:
        self._begins.append(perf_counter())
        _stack.labels.append(self.name)
        return self

    def __exit__(self, *exc: object) -> None:
        begin = self._begins.pop()
        if _stack.labels:
            _stack.labels.pop()
        recording = Recording.active
        if recording is not None and begin >= recording.begin:
            recording.add(self.name, USER, begin)

    def __call__(self, function: Any) -> Any:
        """The function, its calls named."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return function(*args, **kwargs)

        return wrapped


__all__ = ["HOST", "LAYER", "STEP", "USER", "Noted", "Recording", "Span", "record_function"]
