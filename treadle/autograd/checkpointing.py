"""Checkpointing: values for the gradient are computed again instead of kept.

``checkpoint`` runs a function and keeps what it recorded as a list of operations, without values.
The backward pass records them again, from the same inputs, and goes through them. So random numbers
are the same by themselves, the function's Python runs once, and its result has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from treadle.autodiff.reverse import backward
from treadle.autodiff.variables import variable
from treadle.base.record import Record
from treadle.ir import node as ir_node
from treadle.ir.node import Node, Site, located, recorder
from treadle.ir.op import Op
from treadle.ops.bundle import Bundled, record_call
from treadle.ops.movement import alias
from treadle.ops.project import project
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.trees import flatten


class _Step(Record):
    """One operation: ``inputs`` are the numbers of steps, or ~ those of values from outside."""

    op: Op
    attrs: dict[str, Any]
    call: Any  # that of a Function
    inputs: tuple[int, ...]
    needs_grad: bool
    site: Site | None


class _Segment:
    """What a function recorded, for the node that stands for it."""

    is_pure = False
    name = "checkpoint"

    def __init__(self, nodes: Sequence[Node], outside: dict[Node, int], outs: list[Node]) -> None:
        numbers = {n: i for i, n in enumerate(nodes)} | {n: ~i for n, i in outside.items()}
        self.steps = [
            _Step(
                n.op, n.attrs, n.call if isinstance(n, Bundled) else None,
                tuple([numbers[i] for i in n.inputs]), n.needs_grad, n.site,
            )
            for n in nodes
        ]  # fmt: skip
        self.outs = [numbers[n] for n in outs]
        self.count = len(outs)

    def again(self, outside: Sequence[Node]) -> list[Node]:
        """Records the steps once more; the outputs."""
        made: list[Node] = []
        state = recorder.state
        before = state.grad_enabled, state.site
        try:
            for s in self.steps:
                inputs = [made[i] if i >= 0 else outside[~i] for i in s.inputs]
                state.grad_enabled, state.site = s.needs_grad, s.site
                if s.call is None:
                    made.append(s.op(*inputs, **s.attrs))
                else:
                    made.append(record_call(s.call, inputs[: s.call.count], inputs[s.call.count :]))
                    made[-1].needs_grad = s.needs_grad
        finally:
            state.grad_enabled, state.site = before
        return [made[i] for i in self.outs]

    def gradient(self, g: Any, node: Node) -> list[Node | None]:
        """Computes the segment again and goes back through it."""
        state = recorder.state
        enabled, state.grad_enabled = state.grad_enabled, True
        try:
            outside = [variable(x) if x.needs_grad else alias(x) for x in node.inputs[self.count :]]
            pairs = [
                (out, a) for out, a in zip(self.again(outside), g, strict=True) if a is not None
            ]
            found = backward(
                [out for out, _ in pairs], [a for _, a in pairs], wanted=outside,
                create_graph=enabled, retain_graph=enabled,
            )  # fmt: skip
        finally:
            state.grad_enabled = enabled
        return [found.get(x) for x in outside]

    def tangent(self, moved: Sequence[Node | None], node: Node) -> Any:
        """As follows from ``gradient``."""
        return NotImplemented

    def batched(self, inputs: list[Node], has: list[bool], size: int, node: Node) -> Node:
        """Never asked for: under vmap nothing is checkpointed."""
        raise located(RuntimeError("checkpoint: a checkpointed segment met a batch"))


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Callable[[], Any] | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args)``, whose intermediate values the gradient computes again.

    The memory between the forward and the backward pass is that of the arguments and the result.
    Parameters that the function uses get their gradients as always. Recomputation repeats the
    recorded operations, so it gives the same values, random ones included, and does not call the
    function again: the options on how to (``use_reentrant`` and the rest) change nothing.

    >>> import treadle
    >>> x = treadle.tensor([1.0, 2.0], requires_grad=True)
    >>> checkpoint(lambda x: x.sin().exp(), x, use_reentrant=False).sum().backward()
    >>> x.grad.shape
    treadle.Size([2])
    """
    if context_fn is not None and context_fn is not noop_context_fn:
        raise located(NotImplementedError(
            "checkpoint: got context_fn; nothing is called when values are computed again, so "
            "there is nothing that a context could change; leave it out"
        ))  # fmt: skip
    state = recorder.state
    if not state.grad_enabled or state.outer is not None:
        return function(*args, **kwargs)
    first = ir_node._next_order()
    capturing, state.capturing = state.capturing, True
    try:
        result = function(*args, **kwargs)
    finally:
        state.capturing = capturing
    leaves, structure = flatten(result)
    outs = [x.node for x in leaves if isinstance(x, Handle) and _is_inside(x.node, first)]
    if not outs:
        return result
    node = _segment(outs, first)
    numbers = {n: i for i, n in enumerate(outs)}
    return structure.rebuild([
        wrap(project(node, index=numbers[x.node]))
        if isinstance(x, Handle) and x.node in numbers else x
        for x in leaves
    ])  # fmt: skip


def _is_inside(n: Node, first: float) -> bool:
    return n.order > first and n.needs_grad and bool(n.inputs)


def _segment(outs: list[Node], first: float) -> Node:
    """The node that stands for what leads to ``outs`` since ``first``."""
    inside, todo = set(outs), list(outs)
    outside: dict[Node, int] = {}
    while todo:
        for i in todo.pop().inputs:
            if not (i.order > first and i.inputs):
                outside.setdefault(i, len(outside))
            elif i not in inside:
                inside.add(i)
                todo.append(i)
    nodes = sorted(inside, key=lambda n: n.order)
    segment = _Segment(nodes, outside, outs)
    for n in nodes:  # whose values nobody will ask for
        n.needs_grad = False
    recorder.state.scan = None
    return record_call(segment, outs, list(outside))


def checkpoint_sequential(
    functions: Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    **kwargs: Any,
) -> Any:
    """A chain of functions (or an ``nn.Sequential``) as ``segments`` checkpoints.

    >>> import treadle
    >>> x = treadle.ones(2, requires_grad=True)
    >>> y = checkpoint_sequential([treadle.sin, treadle.cos, treadle.exp], 2, x)
    >>> y.sum().backward()
    """
    chain = list(functions)
    if segments < 1 or segments > max(len(chain), 1):
        raise located(ValueError(
            f"checkpoint_sequential: got segments={segments} for {len(chain)} functions; give from "
            f"1 to as many"
        ))  # fmt: skip
    length = len(chain) // segments

    def run(start: int, end: int) -> Callable[[Any], Any]:
        def part(x: Any) -> Any:
            for function in chain[start:end]:
                x = function(x)
            return x

        return part

    last = length * (segments - 1)
    for start in range(0, last, length):
        input = checkpoint(run(start, start + length), input, use_reentrant=use_reentrant, **kwargs)
    return run(last, len(chain))(input)  # whose values are needed at once


def noop_context_fn() -> tuple[Any, Any]:
    """The contexts that ``checkpoint`` has by itself: none."""
    return nullcontext(), nullcontext()


__all__ = ["checkpoint", "checkpoint_sequential", "noop_context_fn"]
