"""Which layer records what, while a function is captured.

Modules are wrapped meanwhile, and sites know the path of the innermost one that runs, as
``encoder.0.linear``. So are ``backward`` and ``Optimizer.step``: what is recorded between their begin
and their end is theirs, ``backward.encoder.0.linear``. A drawing collapses by it.
"""

from __future__ import annotations

import re
from threading import get_ident
from types import TracebackType
from typing import Any

from treadle.export.state import State
from treadle.ir import node as ir_node
from treadle.ir.node import Marks, Node, Site
from treadle.nn.module import Module
from treadle.optim.optimizer import Optimizer
from treadle.tensor.tensor import Tensor

_FOREIGN = re.compile(r"[^\w.-]")  # what a scope in a program file may not have


class _Marked(tuple):  # type: ignore[type-arg]
    """A site that knows its scope."""

    scope: str


class Scopes:
    """Notes scopes in this thread while the context lasts.

    Modules have the names under which the function knows them, others that of their class in the
    module that calls them.
    """

    def __init__(self, state: State) -> None:
        self._names = {
            id(module): _FOREIGN.sub("_", path)
            for name, root in state.modules.items()
            for path, module in root.named_modules(prefix=name)
        }
        self._stack = [""]
        self._spans: list[tuple[int, int, str]] = []  # orders of nodes
        self._thread = get_ident()
        self._replaced: list[tuple[type, str, Any]] = []
        self._mark = Marks.mark

    def __enter__(self) -> Scopes:
        for kind, name in ((Module, "__call__"), (Tensor, "backward"), (Optimizer, "step")):
            original = vars(kind)[name]
            self._replaced.append((kind, name, original))
            wrapped = self._module(original) if kind is Module else self._span(original, name)
            setattr(kind, name, wrapped)
        Marks.mark = self._marked
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        Marks.mark = self._mark
        for owner, name, original in reversed(self._replaced):
            setattr(owner, name, original)

    def of(self, n: Node) -> str:
        """The scope in which a node was recorded: empty outside all of them."""
        layer: str = getattr(n.site, "scope", "")
        for begin, end, name in self._spans:
            if begin < n.order < end:
                return f"{name}.{layer}" if layer else name
        return layer

    def _span(self, original: Any, name: str) -> Any:
        def call(subject: Any, *args: Any, **kwargs: Any) -> Any:
            begin = ir_node._next_order()
            try:
                return original(subject, *args, **kwargs)
            finally:
                if get_ident() == self._thread:
                    self._spans.append((begin, ir_node._next_order(), name))

        return call

    def _module(self, original: Any) -> Any:
        def call(subject: Any, *args: Any, **kwargs: Any) -> Any:
            if get_ident() != self._thread:
                return original(subject, *args, **kwargs)
            self._stack.append(self._path(subject))
            try:
                return original(subject, *args, **kwargs)
            finally:
                self._stack.pop()

        return call

    def _path(self, module: Module) -> str:
        known = self._names.get(id(module))
        if known is not None:
            return known
        outer = self._stack[-1]
        name = type(module).__name__
        return f"{outer}.{name}" if outer else name

    def _marked(self, site: Site) -> Site:
        marked = _Marked(site)
        marked.scope = self._stack[-1] if get_ident() == self._thread else ""
        return marked


__all__ = ["Scopes"]
