"""Views' names with ``_copy``: the same elements in memory of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.tensor import complex_numbers as c
from treadle.tensor import movement as m
from treadle.tensor.assembly import unfold
from treadle.tensor.spellings import clone, detach
from treadle.tensor.strided import as_strided
from treadle.tensor.tensor import Tensor


def _copy(name: str, view: Callable[..., Any]) -> Callable[..., Any]:
    def copied(input: Any, *args: Any, **options: Any) -> Any:
        found = view(input, *args, **options)
        return clone(found) if isinstance(found, Tensor) else tuple(map(clone, found))

    copied.__name__ = copied.__qualname__ = f"{name}_copy"
    copied.__doc__ = f"``{name}`` with memory of its own."
    return copied


def _slice(input: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    axis = m.axis_of("slice_copy", dim, input.ndim)
    return input[(*(slice(None),) * axis, slice(start, end, step))]


alias_copy = _copy("alias", lambda x: x)
as_strided_copy = _copy("as_strided", as_strided)
detach_copy = _copy("detach", detach)
diagonal_copy = _copy("diagonal", m.diagonal)
expand_copy = _copy("expand", m.expand)
permute_copy = _copy("permute", m.permute)
select_copy = _copy("select", m.select)
slice_copy = _copy("slice", _slice)
split_copy = split_with_sizes_copy = _copy("split", m.split)
squeeze_copy = _copy("squeeze", m.squeeze)
t_copy = _copy("t", m.t)
transpose_copy = _copy("transpose", m.transpose)
unbind_copy = _copy("unbind", m.unbind)
unfold_copy = _copy("unfold", unfold)
unsqueeze_copy = _copy("unsqueeze", m.unsqueeze)
view_copy = _copy("view", m.view)
view_as_complex_copy = _copy("view_as_complex", c.view_as_complex)
view_as_real_copy = _copy("view_as_real", c.view_as_real)

__all__ = [
    "alias_copy", "as_strided_copy", "detach_copy", "diagonal_copy", "expand_copy", "permute_copy",
    "select_copy", "slice_copy", "split_copy", "split_with_sizes_copy", "squeeze_copy", "t_copy",
    "transpose_copy", "unbind_copy", "unfold_copy", "unsqueeze_copy", "view_as_complex_copy",
    "view_as_real_copy", "view_copy",
]  # fmt: skip
