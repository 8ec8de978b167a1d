"""What a tensor is underneath: a handle that points to a node, and may alias another handle.

Nodes never change; assignment re-points handles. A *view* handle remembers the handle it was taken
from (its base), the chain of view ops that leads to it, and the version of the base it was built
at. A write through any alias re-points the base and raises its version; other views notice when
they are next read and are rebuilt from the base by their chain. So everything behaves as if the
memory were shared, as PyTorch documents, while no value that a gradient needs is ever overwritten.

A base is no view itself, with one exception: a detached view (``detach``, ``data``) shares values
with its base but has a history of its own, which its views belong to. What is written through it
reaches the base without gradients, and the other way round. So chains of bases are two at most.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from treadle.base.dtypes import bool_
from treadle.base.errors import GradientError
from treadle.ir.node import Leaf, Node, located, make_signature, record, recorder, user_site
from treadle.ir.op import Op
from treadle.ops.elementwise import where
from treadle.ops.movement import (
    alias,
    detach,
    expand,
    flip,
    graft,
    permute,
    reshape,
    slice_,
    slice_update,
)
from treadle.ops.source import number

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

ViewStep = tuple[Op, dict[str, Any]]


class Handle:
    """Points to a node; the base of ``Tensor``, which adds what users call."""

    __slots__ = (
        "__dict__", "__weakref__", "_after", "_base", "_chain", "_grad", "_hooks", "_node",
        "_turns", "_version",
    )  # fmt: skip

    _node: Node
    _base: Tensor | None
    _chain: tuple[ViewStep, ...]
    _version: int
    _grad: Tensor | None
    # Not there unless used: hooks of the gradient (``hooks.py``), and what ``turn`` writes.
    _hooks: Any
    _after: dict[int, Any]
    _turns: tuple[tuple[int, tuple[ViewStep, ...]], ...]

    @property
    def node(self) -> Node:
        """The node that this handle stands for now."""
        base = self._base
        if base is not None:
            current = base if base._base is None else _refreshed(base)
            if current._version != self._version:
                self._rebuild(base)
        return self._node

    def _rebuild(self, base: Tensor) -> None:
        for version, undone in getattr(base, "_turns", ()):
            if version > self._version:
                self._chain = undone + self._chain
        # With gradients whatever the mode: a view made without has a detach step.
        self._node = _recorded(True, self._rebuilt, base)
        self._version = base._version

    def _rebuilt(self, base: Tensor) -> Node:
        node = base._node
        for op, attrs in self._chain:
            node = op(node, **attrs)
        if _is_detached(self):
            return _carried_over(self, self._node, node, hidden=True)
        return make_leaf(node, self) if isinstance(self._node, Leaf) else node

    def _write(self, node: Node) -> None:
        """Makes ``node`` the value of this handle and of all that alias it."""
        old = self.node
        base = self._base
        owner: Any = self if base is None or _is_detached(self) else base
        if recorder.state.outer is not None:
            from treadle.autodiff.batching import check_write  # only under vmap

            check_write(owner._node, node)
        grad_enabled = recorder.state.grad_enabled
        if old.needs_grad and grad_enabled and isinstance(owner._node, Leaf):
            what = "a leaf" if owner is self else "a view of a leaf"
            raise located(GradientError(
                f"an in-place operation on {what} tensor that requires a gradient (shape "
                f"{old.shape}); do it inside `with treadle.no_grad():`, or write `x = x + ...`"
            ))  # fmt: skip
        if owner is self:
            self._replace(node)
            return
        owner._replace(_unviewed(self._chain, owner._node, node))
        # Otherwise the view is rebuilt when read, with the history that the base has kept.
        if grad_enabled and node.needs_grad >= old.needs_grad:
            self._node = node
            self._version = owner._version

    def _replace(self: Any, node: Node) -> None:
        """``_write`` for a handle with a history of its own: a base, or a detached view of one."""
        root, hidden = self._base, not recorder.state.grad_enabled
        if root is None:
            self._node = _carried_over(self, self._node, node, hidden)
            self._version += 1
            return
        # The base gets the values and no more.
        _recorded(False, lambda: root._replace(_unviewed(self._chain, root._node, node)))
        self._node = _carried_over(self, self._node, node, hidden)
        self._version = root._version


def turn(handle: Handle, view: Handle) -> Any:
    """Makes ``handle`` show what ``view``, a view of it, shows: how ``squeeze_`` and the like end.

    Views of the handle still show what they did: they undo the turn when they are next rebuilt,
    which a new version makes them do.
    """
    old = handle.node
    if isinstance(old, Leaf) and recorder.state.grad_enabled:
        raise located(GradientError(
            f"an in-place operation on a leaf tensor that requires a gradient (shape {old.shape}); "
            f"do it inside `with treadle.no_grad():`, or write `x = x...`"
        ))  # fmt: skip
    known = handle._chain if view._base is handle._base else ()
    steps = tuple([s for s in view._chain[len(known) :] if s[0] is not detach])
    stages = [old]
    for op, attrs in steps:
        stages.append(_recorded(True, partial(op, stages[-1], **attrs)))
    root: Handle = handle if handle._base is None else handle._base
    is_base = root is handle or _is_detached(handle)
    root._version += 1
    if is_base:
        undone = tuple([
            _inverse(op, attrs, before)
            for (op, attrs), before in zip(reversed(steps), reversed(stages[:-1]), strict=True)
        ])  # fmt: skip
        handle._turns = (*getattr(handle, "_turns", ()), (root._version, undone))
    if root is not handle:
        cut = len(handle._chain) - (1 if is_base else 0)  # a detached view ends in its detach
        handle._chain = handle._chain[:cut] + steps + handle._chain[cut:]
    handle._node = make_leaf(stages[-1], handle) if isinstance(old, Leaf) else stages[-1]
    handle._version = root._version
    return handle


def _inverse(op: Op, attrs: dict[str, Any], before: Node) -> ViewStep:
    """The step back to ``before``, for steps that keep all elements."""
    if op is permute:
        axes = attrs["axes"]
        return permute, {"axes": tuple(sorted(range(len(axes)), key=axes.__getitem__))}
    return reshape, {"shape": before.shape}


def _is_detached(handle: Handle) -> bool:
    """True for a view that shares its base's memory and not its history."""
    return bool(handle._chain) and handle._chain[-1][0] is detach


def _refreshed(handle: Handle) -> Handle:
    """The handle with its node up to date."""
    handle.node  # noqa: B018
    return handle


def _recorded(with_gradients: bool, function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)``, recorded with or without gradients whatever the mode.

    Not a ``with`` block: Ctrl-C on entering its ``__exit__`` would leave the mode changed.
    """
    state = recorder.state
    before = state.grad_enabled
    state.grad_enabled = with_gradients
    try:
        return function(*args)
    finally:
        state.grad_enabled = before


def _carried_over(handle: Handle, old: Node, new: Node, hidden: bool) -> Node:
    """``new`` for a handle that stood for ``old``: leaves stay leaves, history stays history.

    A ``hidden`` write (through ``.data``, or without gradients) leaves the gradient of ``old``. Any
    other one that needs no gradient stops it: what it replaced has the gradient 0.
    """
    if isinstance(old, Leaf):
        return make_leaf(new, handle)
    if not old.needs_grad or new.needs_grad:
        return new
    if hidden:
        return _recorded(True, graft, new, old)
    never = expand(number(False, bool_), shape=old.shape)
    return _recorded(True, where, never, old, new)


def _unviewed(chain: tuple[ViewStep, ...], base: Node, value: Node) -> Node:
    """``base`` with the part that the view steps show replaced by ``value``."""
    stages = [base]
    for op, attrs in chain[:-1]:
        stages.append(op(stages[-1], **attrs))
    for (op, attrs), before in zip(reversed(chain), reversed(stages), strict=True):
        value = _unviewed_step(op, attrs, before, value)
    return value


def _unviewed_step(op: Op, attrs: dict[str, Any], before: Node, value: Node) -> Node:
    if op is reshape:
        return reshape(value, shape=before.shape)
    if op is permute:
        return permute(value, **_inverse(op, attrs, before)[1])
    if op is flip:
        return flip(value, axes=attrs["axes"])
    if op is slice_:
        return slice_update(before, value, starts=attrs["starts"], steps=attrs["steps"])
    if op is detach:
        return detach(value) if value.needs_grad else value
    if op.name in ("as_real", "as_complex", "strided"):
        from treadle.ops.strided import overwritten  # few programs have such views

        written = overwritten(op, attrs, before, value)
        if written is not None:
            return written
    raise located(RuntimeError(
        f"an in-place operation on a tensor made by {op.name}(), where several elements share one "
        f"place in memory; call .clone() first"
    ))  # fmt: skip


def make_leaf(value: Node, owner: Handle) -> Leaf:
    """A leaf with that value, whose gradient goes to ``owner``."""
    if isinstance(value, Leaf):
        value = detach(value)
    leaf = _made_leaf(value, owner, value.value)
    if value.value is None:
        recorder.state.pending.append(leaf)
    return leaf


def _made_leaf(value: Node, owner: Handle, made: Any) -> Leaf:
    """A leaf for ``value``, which has been ``made``, or will be where that is None."""
    sig = _leaf_signatures.get(value.type)
    if sig is None:
        sig = _leaf_signatures[value.type] = make_signature(alias, {}, (value.type,))
    leaf = Leaf(sig, (value,), recorder.state.site or user_site(), True)
    leaf.owner = weakref.ref(owner)
    leaf.spent = True  # nothing flows further back
    if made is not None:
        leaf.set_value((*made,))
        leaf.keep = True
        leaf.inputs = ()
    return leaf


_leaf_signatures: dict[Any, Any] = {}
_tensor_class: type[Tensor]
_bare = object.__new__  # without Tensor.__new__, which is for users


def set_tensor_class(cls: type[Tensor]) -> None:
    """Called once by ``tensor.py``: the class that ``wrap`` makes."""
    global _tensor_class
    _tensor_class = cls


def wrap(node: Node) -> Tensor:
    """A new tensor for a node."""
    tensor = _bare(_tensor_class)
    tensor._node = node
    tensor._base = None
    tensor._chain = ()
    tensor._version = 0
    tensor._grad = None
    return tensor


def view_of(tensor: Handle, op: Op, **attrs: Any) -> Tensor:
    """A handle that shows ``tensor`` through a view op, sharing its memory."""
    source = tensor.node
    view = wrap(record(op, (source,), attrs))
    base: Any = tensor._base
    chain = tensor._chain
    if base is None or (_is_detached(tensor) and op is not detach):
        base, chain = tensor, ()  # what has a history of its own is the base of its views
    chain += ((op, attrs),)
    if source.needs_grad and not recorder.state.grad_enabled:
        chain += ((detach, {}),)
    if base._base is not None and chain[-1][0] is detach:
        base, chain = base._base, base._chain + chain
    view._base, view._chain = base, chain
    view._version = base._version
    return view


def commit(
    handles: Sequence[Handle],
    nodes: Sequence[Node],
    entries: Sequence[tuple[dict[str, Any], str, Any]] = (),
) -> None:
    """Re-points many handles, none of them a view, and sets dictionary entries: all, or nothing.

    Signals are handled between bytecodes, and this is a single call into C: Ctrl-C cannot leave
    half of a network updated.
    """
    deque(commitment(handles, nodes, entries), maxlen=0)


def commitment(
    handles: Sequence[Handle],
    nodes: Sequence[Node],
    entries: Sequence[tuple[dict[str, Any], str, Any]] = (),
    values: Mapping[Node, Any] | None = None,
) -> Iterable[object]:
    """What ``commit`` does, once it is gone through.

    ``values`` are those that the nodes will have by then; no handle has a history in that case.
    """
    count = len(handles)
    hidden = not recorder.state.grad_enabled
    carried = [
        n if not h._node.needs_grad
        else _made_leaf(n, h, values[n]) if values is not None and type(h._node) is Leaf
        else _carried_over(h, h._node, n, hidden)
        for h, n in zip(handles, nodes, strict=True)
    ]  # fmt: skip
    versions = [h._version + 1 for h in handles]
    names = chain(repeat("_node", count), repeat("_version", count))
    moves = map(setattr, chain(handles, handles), names, chain(carried, versions))
    puts = map(dict.__setitem__, *zip(*entries, strict=True)) if entries else ()
    return chain(moves, puts)
