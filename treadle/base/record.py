"""Records: tuples whose elements have names, as ``typing.NamedTuple`` makes them, at a tenth of
the price.

    class Point(Record):
        x: int
        y: int = 0

A ``NamedTuple`` costs a third of a millisecond when its module is imported, since the standard
library compiles source text for each class; with forty on the way to ``import treadle`` that is
most of what importing takes. Here ``__new__`` is a ready function of as many arguments whose names
are put in. For type checkers a Record is a NamedTuple.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    from collections import _tuplegetter
    from types import FunctionType

    _make = tuple.__new__
    # For 1, 2, 3, ... fields: calling one costs what calling a NamedTuple does.
    _NEW = (
        lambda cls, a: _make(cls, (a,)),
        lambda cls, a, b: _make(cls, (a, b)),
        lambda cls, a, b, c: _make(cls, (a, b, c)),
        lambda cls, a, b, c, d: _make(cls, (a, b, c, d)),
        lambda cls, a, b, c, d, e: _make(cls, (a, b, c, d, e)),
        lambda cls, a, b, c, d, e, f: _make(cls, (a, b, c, d, e, f)),
        lambda cls, a, b, c, d, e, f, g: _make(cls, (a, b, c, d, e, f, g)),
        lambda cls, a, b, c, d, e, f, g, h: _make(cls, (a, b, c, d, e, f, g, h)),
        lambda cls, a, b, c, d, e, f, g, h, i: _make(cls, (a, b, c, d, e, f, g, h, i)),
        lambda cls, a, b, c, d, e, f, g, h, i, j: _make(cls, (a, b, c, d, e, f, g, h, i, j)),
    )

    class _RecordType(type):
        """Turns the annotations of a class into fields."""

        def __new__(meta, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> type:
            if bases[0].__bases__ != (tuple,):  # Record itself, or derived from a record
                return super().__new__(meta, name, bases, space)
            fields = tuple(space.get("__annotations__", ()))
            if not 0 < len(fields) <= len(_NEW):
                raise TypeError(
                    f"{name}: got {len(fields)} fields; a record has 1 to {len(_NEW)}, and its "
                    f"module says `from __future__ import annotations`"
                )
            defaults = {field: space.pop(field) for field in fields if field in space}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one with a default")
            new = FunctionType(
                _NEW[len(fields) - 1].__code__.replace(
                    co_varnames=("cls", *fields), co_name="__new__", co_qualname=f"{name}.__new__"
                ),
                globals(), "__new__", tuple(defaults.values()),
            )  # fmt: skip
            getters = {field: _tuplegetter(i, "") for i, field in enumerate(fields)}
            space = {
                "__slots__": (), "__match_args__": fields, "_fields": fields,
                "_field_defaults": defaults, "__new__": new, **getters, **space,
            }  # fmt: skip
            return super().__new__(meta, name, bases, space)

    class Record(tuple, metaclass=_RecordType):
        """The base class of records."""

        __slots__ = ()

        @classmethod
        def _make(cls, elements: Any) -> Any:
            return cls(*elements)

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes: Any) -> Any:
            known = {field: changes.pop(field, old) for field, old in self._asdict().items()}
            if changes:
                raise TypeError(f"{type(self).__name__} has no field {', '.join(changes)}")
            return _make(type(self), known.values())

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def __repr__(self) -> str:
            parts = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({parts})"


__all__ = ["Record"]
