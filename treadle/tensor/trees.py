"""Trees of tensors: tuples, named tuples, lists and dictionaries with anything for leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.ir.node import located


def _parts(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]] | None:
    """The branches of a container and how to make it again from others; None for a leaf."""
    if isinstance(tree, dict):
        keys = list(tree)
        kind = type(tree)
        return list(tree.values()), lambda new: kind(zip(keys, new, strict=True))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        named = type(tree)
        return list(tree), lambda new: named(*new)
    if type(tree) in (tuple, list):
        return list(tree), type(tree)
    return None


class Structure:
    """What a tree is without its leaves: ``rebuild(leaves)`` is a tree of that shape."""

    __slots__ = ("branches", "count", "make")

    def __init__(self, make: Any, branches: list[Structure]) -> None:
        self.make = make
        self.branches = branches
        self.count: int = sum(b.count for b in branches) if make else 1

    def rebuild(self, leaves: Sequence[Any]) -> Any:
        """The tree with these leaves, in order."""
        left = iter(leaves)
        return self._rebuild(left)

    def _rebuild(self, left: Any) -> Any:
        return self.make([b._rebuild(left) for b in self.branches]) if self.make else next(left)


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of a tree in order, and its structure.

    >>> leaves, structure = flatten({"a": (1, 2), "b": 3})
    >>> leaves, structure.rebuild([4, 5, 6])
    ([1, 2, 3], {'a': (4, 5), 'b': 6})
    """
    parts = _parts(tree)
    if parts is None:
        return [tree], Structure(None, [])
    branches = [flatten(part) for part in parts[0]]
    return [x for leaves, _ in branches for x in leaves], Structure(
        parts[1], [s for _, s in branches]
    )


def spread(name: str, prefix: Any, tree: Any) -> list[Any]:
    """The leaf of ``prefix`` that stands over each leaf of ``tree``.

    >>> spread("in_dims", (0, None), ([1, 2], {"a": 3}))
    [0, 0, None]
    """
    over, under = _parts(prefix), _parts(tree)
    if over is None:
        return [prefix] * flatten(tree)[1].count
    if under is None or len(over[0]) != len(under[0]):
        raise located(ValueError(
            f"{name}: got {prefix!r} for a {type(tree).__name__}"
            f"{'' if under is None else f' of {len(under[0])} parts'}; it is one number for the "
            f"whole of it, or has its structure"
        ))  # fmt: skip
    pairs = zip(over[0], under[0], strict=True)
    return [x for above, below in pairs for x in spread(name, above, below)]


__all__ = ["Structure", "flatten", "spread"]
