"""Functions of tensors that record the same nodes whenever they get arguments of the same kind.

    @composed
    def linear(input, weight, bias=None): ...

The first call with tensors of given types (and other arguments of given values) makes a template of
what it records; the next ones record a call of it (``ir/call.py``), without running the function.
So it may look at nothing but shapes, dtypes and its other arguments, must not write to a tensor,
and returns tensors that it made. What draws random numbers or reads values is noticed, and run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from treadle.base.dtypes import DType, get_default_dtype
from treadle.base.flags import flags
from treadle.base.record import Record
from treadle.ir.call import Template, call_template, template_of
from treadle.ir.node import Leaf, Node, Recording, Scalar, recorder, user_site
from treadle.tensor.handle import Handle, wrap

F = TypeVar("F", bound=Callable[..., Any])
_MOST = 1024  # templates of one function
_PLAIN = frozenset({type(None), bool, int, str, DType})
MISSING = object()


class Made(Record):
    """A template with its numbers; ``extra`` is for who made it."""

    template: Template
    constants: tuple[Scalar, ...]
    extra: Any = None


class Templates(dict[Any, Made | None]):
    """What is known of a function by its arguments: a template, or None where there can be none."""

    def find(self, key: Any) -> Any:
        """The template, None, or ``MISSING``."""
        return self.get(key, MISSING)

    def put(self, key: Any, template: Made | None) -> None:
        """Remembers it, and forgets the oldest where there are too many."""
        self[key] = template
        if len(self) > _MOST:
            self.pop(next(iter(self)), None)


def capture(
    state: Recording, function: Callable[[], Any], nodes: Sequence[Node],
    outs_of: Callable[[Any], Sequence[Node] | None],
) -> tuple[Any, Made | None]:  # fmt: skip
    """Runs ``function``; its result and the template of what it recorded, if there is one.

    Where there is one, what was recorded is taken back: the template is to be called instead.
    """
    pending = state.pending
    start = len(pending)
    last = pending[-1] if start else None
    state.capturing = True
    try:
        result = function()
    finally:
        state.capturing = False
    outs = outs_of(result)
    made = pending[start:]
    evaluated = len(pending) < start or (start and pending[start - 1] is not last)
    if not made or outs is None or evaluated:
        return result, None
    args = {n: position for position, n in reversed(list(enumerate(nodes)))}
    found = template_of(made, args, outs)
    if found is None:
        return result, None
    del pending[start:]
    state.nbytes -= found[0].nbytes
    return result, Made(*found)


def composed(function: F) -> F:
    """The function, recorded as calls of templates."""
    templates = Templates()
    find: Callable[..., Any] = templates.get

    @functools.wraps(function)
    def recorded(*args: Any, **options: Any) -> Any:
        state = recorder.state
        if state.capturing or state.site is not None or flags.PROGRAMS == "off":
            return function(*args, **options)
        key: list[Any] = [state.grad_enabled, get_default_dtype(), state.autocast]
        nodes: list[Node] = []
        for x in (*args, *options, *options.values()) if options else args:
            if isinstance(x, Handle):
                n = x._node if x._base is None else x.node
                nodes.append(n)
                key += (n.type, n.needs_grad)
            elif x is None:
                key.append(x)
            elif (kind := x.__class__) in _PLAIN:
                key += (kind, x)
            else:
                part = _static(x)
                if part is None:
                    return function(*args, **options)
                key.append(part)
        if len(nodes) > 1 and len(set(nodes)) < len(nodes):
            key.append(tuple(map(nodes.index, nodes)))  # which are the same
        whole = tuple(key)
        known = find(whole, MISSING)
        if known is None:
            return function(*args, **options)
        if known is MISSING:
            if any(type(n) is Scalar for n in nodes):  # a number looks like a constant
                return function(*args, **options)
            result, known = capture(state, lambda: function(*args, **options), nodes, _outs)
            if known is not None and type(result) is tuple:
                made = [t._node for t in result]
                known = known._replace(extra=tuple(map(list(dict.fromkeys(made)).index, made)))
            templates.put(whole, known)
            if known is None:
                return result
        template, constants, extra = known
        outs = call_template(template, constants, tuple(nodes), state, user_site(), None)
        return wrap(outs[0]) if extra is None else tuple([wrap(outs[i]) for i in extra])

    return recorded  # type: ignore[return-value]


_by_operands = Templates()


def recorded_call(function: Callable[..., Node], what: Any, nodes: tuple[Node, ...]) -> Node:
    """What ``function(what, *nodes)`` records and returns, as the call of a template.

    It is known by ``function``, ``what`` and the types of the nodes, some of which may be numbers.
    """
    state = recorder.state
    if state.capturing or state.site is not None or flags.PROGRAMS == "off":
        return function(what, *nodes)
    whole: tuple[Any, ...]
    if len(nodes) == 2:  # as below, written out
        a, b = nodes
        whole = (
            function, what, state.grad_enabled, a is b, a.type, a.needs_grad, type(a) is Scalar,
            b.type, b.needs_grad, type(b) is Scalar,
        )  # fmt: skip
    else:
        which = tuple(map(nodes.index, nodes))  # are the same
        kinds = [(n.type, n.needs_grad, type(n) is Scalar) for n in nodes]
        whole = (function, what, state.grad_enabled, which, *kinds)
    known = _by_operands.find(whole)
    if known is None:
        return function(what, *nodes)
    if known is MISSING:
        # A number of its own, or it would look like a constant.
        nodes = tuple([n.twin() if type(n) is Scalar else n for n in nodes])
        result, known = capture(state, lambda: function(what, *nodes), nodes, lambda n: [n])
        _by_operands.put(whole, known)
        if known is None:
            return result
    return call_template(known.template, known.constants, nodes, state, user_site(), None)[0]


def _static(x: Any) -> Any:
    """What stands for an argument that is no tensor in the key; None where nothing can."""
    if x.__class__ is float:
        return "-0" if not x and math.copysign(1, x) < 0 else None if x != x else (float, x)
    if x.__class__ is tuple and all(type(i) in _PLAIN for i in x):
        return x, tuple(map(type, x))
    if isinstance(x, tuple) and all(type(i) is int for i in x):  # a shape
        return tuple(x), int
    return None


def _outs(result: Any) -> list[Node] | None:
    """The nodes of what a function returned, if these are tensors with no past."""
    tensors = result if type(result) is tuple else (result,)
    if not tensors or any(
        not isinstance(t, Handle) or t._base is not None or t._version or isinstance(t._node, Leaf)
        for t in tensors
    ):
        return None
    return [t._node for t in tensors]


__all__ = ["MISSING", "Templates", "capture", "composed", "recorded_call"]
