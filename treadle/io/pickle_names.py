"""The names that a checkpoint's pickle may use besides PyTorch's own: containers, NumPy's arrays.

Each maker checks what it is given and makes one plain value; none of them calls anything else.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.io.pickle_machine import Maker, Refusal, plain_key
from treadle.tensor.tensor import Device, Size

Array = np.ndarray[Any, Any]
_NUMPY_KINDS = "biufc"
_MAX_DIMENSIONS = 64


class TypeName:
    """A type that is only named: the factory of a defaultdict, the class of an array."""

    def __init__(self, name: str, kind: Any = None) -> None:
        self.name = name
        self.kind = kind


class NumpyType:
    """A NumPy dtype while it is read: its name, and then its byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if type(code) is not str or len(code) > 8:
            raise Refusal(f"numpy.dtype is called with {code!r:.40}")
        try:
            self.dtype = np.dtype(code)
        except TypeError:
            raise Refusal(f"numpy.dtype is called with {code!r}") from None
        if self.dtype.kind not in _NUMPY_KINDS or self.dtype.hasobject:
            raise Refusal(
                f"it holds a NumPy array of dtype {code}; only numbers and bools are data"
            )

    def set_state(self, state: Any) -> None:
        """Takes the byte order of what ``numpy.dtype.__reduce__`` gave."""
        order: Any = state[1] if type(state) is tuple and len(state) > 1 else None
        if type(order) is not str or order not in ("<", ">", "|", "="):
            raise Refusal("the state of a NumPy dtype in it is damaged")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]


def sizes(values: Any, what: str) -> tuple[int, ...]:
    """A tuple of at most 64 whole numbers that are not negative."""
    fits = isinstance(values, (tuple, list)) and len(values) <= _MAX_DIMENSIONS
    if not fits or not all(type(n) is int and 0 <= n < 1 << 62 for n in values):
        raise Refusal(f"{what} is {values!r:.60}; expected whole numbers, 0 or more")
    return tuple(values)


def plain_names(charge: Callable[[int], None]) -> dict[str, Any]:
    """What names outside PyTorch stand for; what is made is charged."""

    def pairs(source: Iterable[Any]) -> list[Any]:
        found = list(source.items()) if isinstance(source, Mapping) else list(source)
        charge(200 * len(found))
        return found

    def ordered(source: Any = ()) -> OrderedDict[Any, Any]:
        return OrderedDict(_checked_pairs(pairs(source)))

    def with_default(factory: Any = None, source: Any = ()) -> defaultdict[Any, Any]:
        kind = factory.kind if type(factory) is TypeName else None
        if kind is None and factory is not None:
            raise Refusal(f"a defaultdict is made with the factory {factory!r:.60}")
        return defaultdict(kind, _checked_pairs(pairs(source)))

    def counter(source: Any = ()) -> Counter[Any]:
        return Counter(dict(_checked_pairs(pairs(source))))

    def set_of(kind: Any) -> Callable[..., Any]:
        def make(items: Any = ()) -> Any:
            found = pairs(items)
            for item in found:
                plain_key(item)
            return kind(found)

        return make

    makers: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": ordered, "collections.defaultdict": with_default,
        "collections.Counter": counter, "_codecs.encode": _encoded, "torch.Size": _size_of,
        "torch.device": _device, "numpy.dtype": NumpyType,
    }  # fmt: skip
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        makers |= {f"{module}._reconstruct": _unfilled, f"{module}.scalar": _scalar}
    names: dict[str, Any] = {"numpy.ndarray": TypeName("numpy.ndarray")}
    for module in ("builtins", "__builtin__"):
        makers |= {f"{module}.set": set_of(set), f"{module}.frozenset": set_of(frozenset),
                   f"{module}.complex": _complex}  # fmt: skip
        for kind in (int, float, str, list, dict):
            names[f"{module}.{kind.__name__}"] = TypeName(kind.__name__, kind)
    names |= {f"torch.{d.name}": d for d in (*dtypes.ALL, *dtypes.COMPLEX)}
    return names | {name: Maker(name, make) for name, make in makers.items()}


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        raise Refusal(f"_codecs.encode is called with the encoding {encoding!r:.40}")
    return text.encode("latin-1")


def _scalar(kind: Any, data: Any) -> Any:
    return _filled(kind, (), data)[()]


def _unfilled(kind: Any, shape: Any, code: Any) -> Array:
    if type(kind) is not TypeName or kind.name != "numpy.ndarray":
        raise Refusal("a NumPy array of a class of its own")
    return np.empty(0, np.int8)


def _size_of(values: Any = ()) -> Size:
    return Size(sizes(values, "a torch.Size"))


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _checked_pairs(found: list[Any]) -> list[Any]:
    for pair in found:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise Refusal("a dictionary in it is made of something else than keys and values")
        plain_key(pair[0])
    return found


def _device(kind: Any, index: Any = None) -> Device:
    if type(kind) is not str or len(kind) > 32 or (index is not None and type(index) is not int):
        raise Refusal(f"torch.device is called with {kind!r:.40} and {index!r:.40}")
    return Device(kind, index)


def _filled(kind: Any, shape: tuple[int, ...], data: Any) -> Array:
    """An array of these bytes."""
    if type(kind) is not NumpyType or type(data) is not bytes:
        raise Refusal("a NumPy array in it has no dtype or no bytes")
    count = 1
    for n in shape:
        count *= n
    if len(data) != count * kind.dtype.itemsize:
        raise Refusal(
            f"a NumPy array of shape {shape} and dtype {kind.dtype} has {len(data):,} bytes; "
            f"expected {count * kind.dtype.itemsize:,}"
        )
    return np.frombuffer(data, kind.dtype).reshape(shape)


def plain_setters(charge: Callable[[int], None]) -> dict[type, Callable[[Any, Any], None]]:
    """How the values of ``plain_names`` that are made in two steps get their state."""

    def set_array(target: Array, state: Any) -> None:
        # version, shape, dtype, whether the order is that of columns, bytes
        if type(state) is not tuple or len(state) != 5 or type(state[4]) is not bytes:
            raise Refusal("the state of a NumPy array in it is damaged")
        _, shape, kind, by_columns, data = state
        charge(len(data))
        dims = sizes(shape, "the shape of a NumPy array")
        _filled(kind, dims, data)
        whole: Any = (1, dims, kind.dtype, bool(by_columns), data)
        target.__setstate__(whole)

    return {np.ndarray: set_array, NumpyType: NumpyType.set_state, OrderedDict: _set_metadata}


def _set_metadata(target: Any, state: Any) -> None:
    """A state dict keeps the versions of its modules as an attribute."""
    if (
        type(state) is not dict
        or set(state) != {"_metadata"}
        or not isinstance(state["_metadata"], dict)
    ):
        raise Refusal("it sets attributes of an OrderedDict other than a state dict's _metadata")
    target._metadata = state["_metadata"]
