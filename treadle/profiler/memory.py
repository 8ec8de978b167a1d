"""Memory by layer and by tensor: what is held now, and what was at the peak."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from treadle.base.record import Record
from treadle.compiler.peak import arena_at_peak
from treadle.compiler.watch import Evaluation
from treadle.ir.node import Node, Site, describe_site
from treadle.nn.module import Module
from treadle.optim.optimizer import Optimizer
from treadle.profiler.recording import layer_name
from treadle.runtime import memory
from treadle.tensor.handle import Handle
from treadle.tensor.memory import Holding, holdings

_GROWTH = 1.05  # of the peak, before it is looked at again
_ROWS = 20
_NOWHERE = "(outside of layers)"


class MemoryRow(Record):
    """One block: whose it is (as ``memory_by_owner`` says), its layer, name and type, its bytes."""

    owner: str
    layer: str
    name: str
    type: str
    nbytes: int


class MemoryReport:
    """Blocks by layer and by tensor; prints as both tables."""

    def __init__(self, rows: Iterable[MemoryRow], title: str) -> None:
        self.rows = sorted(rows, key=lambda row: -row.nbytes)
        self.title = title

    @property
    def nbytes(self) -> int:
        """All of it."""
        return sum(row.nbytes for row in self.rows)

    def by_layer(self) -> dict[str, dict[str, int]]:
        """Bytes by layer, and by owner in it; the largest layer first."""
        found: dict[str, dict[str, int]] = {}
        for row in self.rows:
            owners = found.setdefault(row.layer, {})
            owners[row.owner] = owners.get(row.owner, 0) + row.nbytes
        return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))

    def table(self, row_limit: int = _ROWS) -> str:
        """Both tables, with at most so many rows each."""
        lines = [f"{self.title}: {memory.pretty(self.nbytes)}", "", "by layer"]
        layers = list(self.by_layer().items())
        for layer, owners in layers[:row_limit]:
            parts = ", ".join(f"{owner} {memory.pretty(n)}" for owner, n in owners.items())
            lines.append(f"  {memory.pretty(sum(owners.values())):>11}  {layer}: {parts}")
        lines += _more(len(layers), row_limit)
        lines += ["", "by tensor"]
        for row in self.rows[:row_limit]:
            lines.append(
                f"  {memory.pretty(row.nbytes):>11}  {row.owner:<15}  {row.type:<18}  {row.name}"
            )
        lines += _more(len(self.rows), row_limit)
        return "\n".join(lines)

    __str__ = __repr__ = table


def _more(count: int, shown: int) -> list[str]:
    return [f"  and {count - shown} more"] if count > shown else []


def memory_report() -> MemoryReport:
    """Who holds the memory that is in use now, by layer and by tensor.

    It walks over all of Python's objects: some ten milliseconds.

    >>> import treadle
    >>> x = treadle.ones(256, 256).numpy()
    >>> print(treadle.profiler.memory_report())
    memory in use now: ...
    by layer
    ...
    """
    return MemoryReport(_rows(), "memory in use now")


class PeakWatch:
    """Looks who holds the memory whenever an evaluation needed more than any before it."""

    def __init__(self) -> None:
        self.report: MemoryReport | None = None
        self._largest = 0.0

    def note(self, e: Evaluation) -> None:
        """An evaluation is done."""
        program = e.program
        arena = program.arena if program is not None else 0
        total = memory.memory_stats()["allocated.current"] + arena
        if total <= self._largest * _GROWTH:
            return
        self._largest = total
        rows = list(_rows())
        if program is not None:
            first = program.made.trace.first
            for value, kind, nbytes in arena_at_peak(program.made):
                site = e.sites[value - first] if value is not None else None
                name = "workspaces of kernels" if value is None else _at(site)
                rows.append(MemoryRow("temporary", _layer_at(site), name, kind, nbytes))
        self.report = MemoryReport(rows, f"memory at the peak, {describe_site(e.place)}")


def _rows() -> Iterable[MemoryRow]:
    names = _Names()
    for held in holdings():
        yield names.row(held)


class _Names:
    """Names of parameters, gradients and states, by the modules and optimizers that are alive."""

    def __init__(self) -> None:
        modules, optimizers = [], []
        for x in gc.get_objects():
            if issubclass(type(x), Module):
                modules.append(x)
            elif issubclass(type(x), Optimizer):
                optimizers.append(x)
        self._named: dict[int, tuple[str, str]] = {}  # by id of a tensor: layer, name
        inner = {id(child) for m in modules for child in m._modules.values()}
        for root in modules:
            if id(root) not in inner:
                self._name_all(root)
        for optimizer in optimizers:
            for p, state in list(optimizer.state.items()):
                for key, value in state.items():
                    self._name_after(p, value, key)

    def _name_all(self, root: Module) -> None:
        for module in root.modules():
            layer = layer_name(root, module)
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    self._named.setdefault(id(tensor), (layer, f"{layer}.{name}"))
                    self._name_after(tensor, tensor._grad, "grad")

    def _name_after(self, tensor: Any, other: Any, suffix: str) -> None:
        known = self._named.get(id(tensor))
        if known is not None and isinstance(other, Handle):
            self._named.setdefault(id(other), (known[0], f"{known[1]}.{suffix}"))

    def row(self, held: Holding) -> MemoryRow:
        """The row of one block."""
        owner, thing, nbytes = held
        if thing is None:
            return MemoryRow(owner, _NOWHERE, "", "", nbytes)
        if type(thing) is tuple:
            call, index = thing
            kind = repr(call.template.specs[index].sig.type)
            return MemoryRow(owner, _layer_at(call.site), _at(call.site), kind, nbytes)
        node: Node = thing if isinstance(thing, Node) else thing._node
        known = self._named.get(id(thing))
        if known is not None:
            return MemoryRow(owner, known[0], known[1], repr(node.type), nbytes)
        return MemoryRow(owner, _layer_at(node.site), _at(node.site), repr(node.type), nbytes)


def _at(site: Site | None) -> str:
    return "made outside of operations" if site is None else describe_site(site)


def _layer_at(site: Site | None) -> str:
    return getattr(site, "layer", "") or _NOWHERE


__all__ = ["MemoryReport", "MemoryRow", "PeakWatch", "memory_report"]
