"""What a checkpoint may hold in the end: plain values, nested neither too deep nor in circles."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from treadle.base.dtypes import DType
from treadle.io.pickle_machine import Refusal
from treadle.tensor.tensor import Device, Size, Tensor

MAX_DEPTH = 100
_MAX_UNFOLDED = 1 << 20  # values that a walk may meet, however few there are
_VALUES = (type(None), bool, int, float, complex, str, bytes, DType, Device)
_DICTS = (dict, OrderedDict, defaultdict, Counter)
_SEQUENCES = (list, tuple, Size, set, frozenset)


def check_plain(root: Any) -> list[Tensor]:
    """The tensors in a structure, each once, in order.

    Refusal for what is no plain value, for what contains itself, what is nested deeper than
    ``MAX_DEPTH``, and what is small in memory but endless to walk (a list that holds another twice,
    which holds a third twice, and so on).
    """
    tensors: dict[int, Tensor] = {}
    unfolded: dict[int, int] = {}  # of each container that is done: how many values a walk meets
    path: list[tuple[Any, Iterator[Any], int]] = []
    open_ids: set[int] = set()

    def enter(value: Any) -> int:
        """The values met at a leaf or a container that is done; 0 where it was opened."""
        kind = type(value)
        if isinstance(value, Tensor):
            tensors.setdefault(id(value), value)
        elif kind in _DICTS or kind in _SEQUENCES:
            if id(value) in unfolded:
                return unfolded[id(value)]
            if id(value) in open_ids:
                raise Refusal(f"a {kind.__name__} in it contains itself")
            if len(path) >= MAX_DEPTH:
                raise Refusal(f"it is nested deeper than {MAX_DEPTH} levels")
            open_ids.add(id(value))
            path.append((value, iter(value.values() if kind in _DICTS else value), 1))
            return 0
        elif kind not in _VALUES and kind is not np.ndarray and not isinstance(value, np.generic):
            name = getattr(value, "name", kind.__name__)
            raise Refusal(f"it holds {name} itself, which is no tensor and no plain value")
        return 1

    enter(root)
    while path:
        container, rest, count = path.pop()
        for value in rest:
            path.append((container, rest, count))
            met = enter(value)
            if not met:
                break
            path.pop()
            count += met
        else:
            if count > _MAX_UNFOLDED + 100 * len(unfolded):
                raise Refusal("it holds the same parts again and again, millions of times")
            open_ids.discard(id(container))
            unfolded[id(container)] = count
            if path:
                outer, others, before = path.pop()
                path.append((outer, others, before + count))
    return list(tensors.values())
