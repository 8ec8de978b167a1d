"""Records behave as the NamedTuples that type checkers take them for."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import pytest

from treadle.base.record import Record


class Point(Record):
    """A place."""

    x: int
    y: int = 0

    @property
    def total(self) -> int:
        return self.x + self.y


class Named(Point):
    """A derived class keeps the fields."""


class Twin(NamedTuple):
    """The same as the standard library makes it."""

    x: int
    y: int = 0


@pytest.mark.parametrize("args, kwargs", [((1,), {}), ((1, 2), {}), ((), {"y": 3, "x": 1})])
def test_a_record_is_what_a_named_tuple_is(args, kwargs):
    point, twin = Point(*args, **kwargs), Twin(*args, **kwargs)
    assert point == twin
    assert hash(point) == hash(twin)
    assert repr(point) == repr(twin).replace("Twin", "Point")
    assert (point.x, point.y, point.total) == (twin.x, twin.y, sum(twin))
    assert point._asdict() == twin._asdict()
    assert point._replace(x=7) == twin._replace(x=7)
    assert Point._make([4, 5]) == Twin._make([4, 5])
    for name in ("_fields", "_field_defaults", "__match_args__"):
        assert getattr(Point, name) == getattr(Twin, name)


def test_copies():
    point = Named(1, 2)
    for other in (pickle.loads(pickle.dumps(point)), copy.deepcopy(point), point._replace()):
        assert type(other) is Named
        assert other == point
    match point:
        case Point(x=x, y=y):
            assert (x, y) == (1, 2)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: Point(), r"Point.__new__\(\) missing 1 required positional argument: 'x'"),
        (lambda: Point(1, 2, 3), r"Point.__new__\(\) takes from 2 to 3 positional arguments"),
        (lambda: Point(1, z=2), r"unexpected keyword argument 'z'"),
        (lambda: Point(1)._replace(z=2, t=3), "Point has no field z, t"),
        (lambda: type(Point)("Empty", (Record,), {}), "Empty: got 0 fields; a record has 1 to 10"),
    ],
)
def test_mistakes(call, text):
    with pytest.raises(TypeError, match=text):
        call()


def test_fields_are_read_only():
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Point(1).z = 2  # type: ignore[attr-defined]


def test_defaults_come_last():
    space = {"__annotations__": {"x": "int", "y": "int"}, "x": 0}
    with pytest.raises(TypeError, match="Odd: a field without a default follows one with"):
        type(Point)("Odd", (Record,), space)
