"""How tensors look when printed: PyTorch's text, to the character."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from math import inf
from typing import Any, TypeAlias

from treadle.autodiff.batching import placeholder_before
from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.ir.node import Leaf, located, recorder
from treadle.tensor.handle import Handle
from treadle.tensor.storage import array_of

Array: TypeAlias = "np.ndarray[Any, Any]"


class _Options(Record):
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {
    "default": _Options(),
    "short": _Options(precision=2, edgeitems=2),
    "full": _Options(threshold=inf),
}
_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors are printed, for the whole process; None leaves an option as it is.

    Args:
        precision: digits after the point (4).
        threshold: tensors with more elements than this are summarised (1000).
        edgeitems: elements shown at each end of a summarised dimension (3).
        linewidth: characters to a line (80).
        profile: "default", "short" or "full": where the other options start from.
        sci_mode: True or False for scientific notation always or never; None lets the values
            decide.

    >>> import treadle
    >>> with printoptions(precision=2):
    ...     print(treadle.tensor([1.12345]))
    tensor([1.12])
    """
    global _options
    given = {
        "precision": precision, "threshold": threshold, "edgeitems": edgeitems,
        "linewidth": linewidth,
    }  # fmt: skip
    named = {name: value for name, value in given.items() if value is not None}
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise located(ValueError(
                f"set_printoptions: got {name}={value!r}; it must be a number that is not negative"
            ))  # fmt: skip
    if profile is not None and profile not in _PROFILES:
        raise located(ValueError(
            f"set_printoptions: got profile={profile!r}; expected one of "
            f"{', '.join(map(repr, _PROFILES))}"
        ))  # fmt: skip
    start = _options if profile is None else _PROFILES[profile]
    _options = start._replace(**named, sci_mode=sci_mode)  # type: ignore[arg-type]


def get_printoptions() -> dict[str, Any]:
    """The options in use, as ``set_printoptions`` takes them."""
    return _options._asdict()


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """``set_printoptions`` inside a ``with`` block."""
    global _options
    before = _options
    set_printoptions(**options)
    try:
        yield
    finally:
        _options = before


class Methods(Handle):
    """``repr``, ``str`` and ``format``. Printing a tensor evaluates it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return tensor_text(self)

    def __format__(self, spec: str) -> str:
        if not self.node.shape:
            return format(array_of(self.node).item(), spec)
        if spec:
            raise located(ShapeError(
                f"format: got the format {spec!r} for a tensor of shape {self.node.shape}; only "
                f"a tensor without dimensions takes one; use treadle.set_printoptions"
            ))  # fmt: skip
        return str(self)


def tensor_text(tensor: Handle) -> str:
    """``tensor([1., 2.], requires_grad=True)``."""
    prefix = "tensor("
    node = tensor.node
    if recorder.state.outer is not None and placeholder_before(node) is not None:
        return f"tensor(<one of many examples>, size={node.shape}, dtype={node.dtype})"
    array = array_of(node)
    body = _nested(array, len(prefix))
    suffixes = []
    if (not array.size and array.ndim != 1) or (array.size and not _options.edgeitems):
        suffixes.append(f"size={array.shape}")
    default = dtypes.get_default_dtype()
    evident = [default, default.to_complex()]  # what the printed text itself tells
    if array.size:
        evident += [dtypes.int64, dtypes.bool_]
    if node.dtype not in evident:
        suffixes.append(f"dtype={node.dtype}")
    if node.needs_grad:
        leaf = isinstance(node, Leaf)
        suffixes.append("requires_grad=True" if leaf else f"grad_fn=<{node.op.name}>")
    return _with_suffixes(prefix + body, suffixes, len(prefix))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Adds each suffix, on a new line where it does not fit."""
    used = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if used + len(suffix) + 2 > _options.linewidth:
            text += f",\n{' ' * indent}{suffix}"
            used = indent + len(suffix)
        else:
            text += f", {suffix}"
            used += len(suffix) + 2
    return text + ")"


# --- numbers --------------------------------------------------------------------------------------


class _Format(Record):
    """Numbers to texts of at least ``width`` characters."""

    text: Callable[[Any], str]
    width: int

    def __call__(self, value: Any) -> str:
        return self.text(value).rjust(self.width)


def _format_for(shown: Array) -> _Format:
    """One format for all elements: the widest decides."""
    if shown.dtype.kind == "c":
        return _format_of_pairs(_format_for(shown.real), _format_for(shown.imag))
    if shown.dtype.kind in "biu":
        return _Format(str, max((len(str(x)) for x in shown.ravel().tolist()), default=1))
    values = shown.astype(np.float64).ravel()  # exact, also from bfloat16
    values = values[np.isfinite(values) & (values != 0)]
    precision = _options.precision
    if not values.size:
        return _Format(_whole, 1)
    if _uses_exponents(np.abs(values)):
        text = _scientific(precision)
    elif (values == np.ceil(values)).all():
        text = _whole
    else:
        text = _fixed(precision)
    return _Format(text, max(len(text(x)) for x in values.tolist()))


def _format_of_pairs(real: _Format, imaginary: _Format) -> _Format:
    """``1.+2.j``; the real parts stand below each other."""

    def text(value: complex) -> str:
        second = imaginary.text(value.imag)
        return f"{real(value.real)}{'' if second.startswith('-') else '+'}{second}j"

    return _Format(text, real.width + imaginary.width + 1)


def _uses_exponents(sizes: Array) -> bool:
    if _options.sci_mode is not None:
        return _options.sci_mode
    low, high = sizes.min(), sizes.max()
    with np.errstate(over="ignore"):
        return bool(high / low > 1000 or high > 1e8 or low < 1e-4)


def _scientific(precision: int) -> Callable[[float], str]:
    return lambda x: f"{x:.{precision}e}"


def _fixed(precision: int) -> Callable[[float], str]:
    return lambda x: f"{x:.{precision}f}"


def _whole(x: float) -> str:
    """``2.``, with the point that tells a float."""
    return f"{x:.0f}" + ("." if abs(x) < inf else "")


# --- brackets -------------------------------------------------------------------------------------


def _nested(array: Array, indent: int) -> str:
    """The elements in nested brackets; ``indent`` is where the text begins in its line."""
    if not array.size:
        return "[]"
    summarised = array.size > _options.threshold
    number = _format_for(_edges(array) if summarised else array)
    return _brackets(array, indent, summarised, number)


def _edges(array: Array) -> Array:
    """The elements that a summary shows."""
    edge = _options.edgeitems
    kept = [
        [*range(edge), *range(size - edge, size)] if size > 2 * edge else range(size)
        for size in array.shape
    ]
    return array[np.ix_(*(np.asarray(indices, np.intp) for indices in kept))]


def _brackets(array: Array, indent: int, summarised: bool, number: _Format) -> str:
    if array.ndim == 0:
        return number(array.item())
    edge = _options.edgeitems
    cut = summarised and len(array) > 2 * edge
    parts = [array[:edge], array[len(array) - edge :]] if cut else [array]
    if array.ndim == 1:
        texts = [[number(x) for x in part.tolist()] for part in parts]
    else:
        texts = [[_brackets(row, indent + 1, summarised, number) for row in p] for p in parts]
    if cut:
        texts.insert(1, [" ..." if array.ndim == 1 and edge else "..."])
    items = list(chain(*texts))
    line_break = ",\n" + " " * (indent + 1)
    if array.ndim > 1:
        return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(items) + "]"
    per_line = max(1, (_options.linewidth - indent) // (number.width + 2))
    lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
    return "[" + line_break.join(lines) + "]"


__all__ = ["get_printoptions", "printoptions", "set_printoptions"]
