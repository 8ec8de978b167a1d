"""Bodies of control flow (``ir/body.py``) in a graph's text: attributes of plain values.

    ((f32, 3), (f32, 3)), (("mul", (-1, -2), ()), ("sum", (0,), (("axes", (0,)),))), (1,)

These are the types of the arguments, the operations with the values they read and their
attributes, and the results. Values are numbered in the order of the operations; -1 is the first
argument, -2 the second one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treadle.base.dtypes import DType
from treadle.base.errors import TreadleError
from treadle.ir.body import Body, interned
from treadle.ir.call import Spec
from treadle.ir.graph import Operation
from treadle.ir.node import Type, signature_of, type_of
from treadle.ir.op import Op


class BodyError(TreadleError, ValueError):
    """A body in a graph that is none: what was found, and what was expected there."""


def plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of an operation with plain values in place of bodies."""
    return {k: _told(v) if isinstance(v, Body) else v for k, v in attrs.items()}


def _told(body: Body) -> tuple[Any, ...]:
    operations = [
        (spec.sig.op.name, spec.inputs, tuple(plain(spec.sig.attrs).items())) for spec in body.specs
    ]
    return tuple([(t.dtype, *t.shape) for t in body.args]), tuple(operations), body.results


def with_bodies(op: Op, attrs: dict[str, Any], op_of: Callable[[Operation], Op]) -> dict[str, Any]:
    """The attributes of an op with bodies where it takes them.

    Raises:
        BodyError: where a value is no body, or the operations of one do not fit together.
    """
    if "control" not in op.traits:
        return attrs
    return {k: _made(v, op_of) if k in _NAMES else v for k, v in attrs.items()}


_NAMES = frozenset({"body", "test", "then", "other"})


def _made(told: Any, op_of: Callable[[Operation], Op]) -> Body:
    if not (type(told) is tuple and len(told) == 3 and all(type(x) is tuple for x in told)):
        raise BodyError(f"got {_short(told)} for a body; expected (types, operations, results)")
    args = tuple([_type(x) for x in told[0]])
    found: list[Any] = []

    def number(reference: Any) -> int:
        if type(reference) is not int or not -len(args) <= reference < len(found):
            raise BodyError(
                f"got {_short(reference)} for a value in a body; expected an operation before it, "
                f"0 to {len(found) - 1}, or an argument, -1 to {-len(args)}"
            )
        return reference

    def kind(reference: int) -> Any:
        return args[~reference] if reference < 0 else found[reference].sig.type

    for operation in told[1]:
        name, inputs, attrs = _operation(operation)
        op = op_of(Operation(name, (), attrs, None, ""))
        numbers = tuple([number(i) for i in inputs])
        attrs = with_bodies(op, attrs, op_of)
        sig = signature_of(op, tuple([kind(i) for i in numbers]), attrs)
        found.append(Spec(sig, numbers, False, 0))
    results = tuple([number(i) for i in told[2]])
    for i in results:
        if type(kind(i)) is not Type:
            raise BodyError(
                f"got operation {i} for a result of a body; it has several; project one"
            )
    return interned(args, tuple(found), results)


def _type(told: Any) -> Type:
    if not (
        type(told) is tuple and told and isinstance(told[0], DType)
        and all(type(n) is int and n >= 0 for n in told[1:])
    ):  # fmt: skip
        raise BodyError(f"got {_short(told)} for a type in a body; expected (dtype, sizes...)")
    return type_of(told[0], told[1:])


def _operation(told: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    if type(told) is tuple and len(told) == 3:
        name, inputs, attrs = told
        if type(name) is str and type(inputs) is tuple and type(attrs) is tuple:
            pairs = [x for x in attrs if type(x) is tuple and len(x) == 2 and type(x[0]) is str]
            if len(pairs) == len(attrs) == len(dict(pairs)):
                return name, inputs, dict(pairs)
    raise BodyError(
        f"got {_short(told)} for an operation of a body; expected (name, inputs, attributes)"
    )


def _short(told: Any) -> str:
    text = repr(told)
    return text if len(text) < 60 else f"{text[:60]}..."


__all__ = ["BodyError", "plain", "with_bodies"]
