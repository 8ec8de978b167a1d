"""Functions with derivatives of their own."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from treadle.autodiff.batching import vectorized
from treadle.base.errors import GradientError, ShapeError
from treadle.base.record import Record
from treadle.ir.node import Node, located, recorder
from treadle.ops import elementwise as e
from treadle.ops.bundle import record_call
from treadle.ops.movement import detach, expand, permute, zeros_of
from treadle.ops.project import project
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.tensor import Tensor


class Function:
    """A function with a gradient written by hand.

    Subclasses define static ``forward(ctx, *args)`` and ``backward(ctx, *grad_outputs)`` and are
    called by ``apply``. With a static ``setup_context(ctx, inputs, output)``, ``forward`` takes the
    arguments alone. The older form with ordinary methods, where ``self`` takes the place of ``ctx``
    and an instance is called, works too.

    Forward mode follows from ``backward``, if that can be differentiated, unless there is a static
    ``jvp(ctx, *tangents)``. Under ``vmap`` the function is batched as any other, unless there is a
    static ``vmap(info, in_dims, *args)``, which gives the output for the whole batch and its
    ``out_dims``; ``info`` has ``batch_size`` and ``randomness``.

    >>> import treadle
    >>> class Cube(treadle.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, grad_output):
    ...         (x,) = ctx.saved_tensors
    ...         return grad_output * 3 * x * x
    >>> x = treadle.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad.item()
    12.0
    """

    generate_vmap_rule = False  # PyTorch's; a rule is always made where there is no ``vmap``
    _saved: tuple[Any, ...] = ()
    _saved_ahead: tuple[Any, ...] = ()  # for jvp, if it is given tensors of its own
    _results: dict[Any, int] = {}  # the saved ones that are results, and which
    _node: Node | None = None  # the call whose backward runs
    _discrete: tuple[Any, ...] = ()
    _materialize = True
    _is_pure = False  # whether what backward records follows from the graph of forward
    needs_input_grad: tuple[bool, ...] = ()

    @staticmethod
    def forward(*args: Any) -> Any:
        """To be defined: the value."""
        raise NotImplementedError("a Function must define forward()")

    @staticmethod
    def backward(*args: Any) -> Any:
        """To be defined: one gradient (or None) for each argument of ``forward``."""
        raise NotImplementedError("a Function must define backward() to be differentiated")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """May be defined: keeps what ``backward`` needs; ``forward`` then takes no ``ctx``."""

    @staticmethod
    def jvp(*args: Any) -> Any:
        """May be defined: the tangents of the outputs from those of the arguments."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        """May be defined: (the output for a batch, its ``out_dims``)."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors (their values of now) for ``backward``."""
        self._saved = _kept(tensors)

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors for ``jvp``, where it needs others than ``backward``."""
        self._saved_ahead = _kept(tensors)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors kept by ``save_for_backward``; gradients flow on through all of them."""
        return tuple(self._shown(n) for n in self._saved)

    def _shown(self, saved: Any) -> Any:
        if isinstance(saved, Packed):
            return saved.unpacked()
        if not isinstance(saved, Node):
            return saved
        if self._node is None or saved not in self._results:
            return wrap(saved)
        return wrap(project(self._node, index=self._results[saved]))

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Says that no gradient flows through these outputs."""
        self._discrete = tuple(t.node for t in outputs)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Accepted for PyTorch's sake: arguments written and returned are seen without a mark."""

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros (the default) or None for outputs nobody used."""
        self._materialize = value

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Calls the function, recording its own gradient."""
        ctx = cls()
        if cls.setup_context is Function.setup_context:
            return _call(ctx, functools.partial(cls.forward, ctx), args)

        def forward(*args: Any) -> Any:
            output = cls.forward(*args)
            cls.setup_context(ctx, args, output)
            return output

        return _call(ctx, forward, args)

    def __call__(self, *args: Any) -> Any:
        """Calls a function written in the older way, with plain methods."""
        ctx = copy.copy(self)
        return _call(ctx, ctx.forward, args)


class SavedHooks:
    """``autograd.graph.saved_tensors_hooks`` that are in force, the innermost last."""

    stack: list[tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = []


class Packed:
    """A saved tensor in the keeping of a user's hooks."""

    def __init__(self, tensor: Tensor) -> None:
        pack, self.unpack = SavedHooks.stack[-1]
        self.packed = pack(tensor)

    def unpacked(self) -> Tensor:
        """The tensor again."""
        tensor = self.unpack(self.packed)
        if not isinstance(tensor, Handle):
            raise located(TypeError(
                f"saved_tensors_hooks: unpack_hook returned a {type(tensor).__name__}; it must "
                f"return a tensor"
            ))  # fmt: skip
        return tensor


def _kept(tensors: Sequence[Any]) -> tuple[Any, ...]:
    return tuple([
        t if not isinstance(t, Handle) else Packed(wrap(t.node)) if SavedHooks.stack else t.node
        for t in tensors
    ])  # fmt: skip


class VmapInfo(Record):
    """What ``Function.vmap`` is told."""

    batch_size: int
    randomness: str


class _Call:
    """One call of a Function: what the graph knows of it."""

    def __init__(
        self, ctx: Function, args: tuple[Any, ...], arguments: list[int], results: list[bool]
    ) -> None:
        self.ctx = ctx
        self.function = type(ctx).backward
        self.args = [None if isinstance(x, Handle) else x for x in args]
        self.arguments = arguments  # the positions of the tensors
        self.results = results  # which are tensors
        self.count = sum(results)
        self.name = type(ctx).__name__
        self.is_pure = type(ctx)._is_pure

    def gradient(self, g: Any, node: Node) -> list[Node | None]:
        """Runs the user's backward and checks what it returns."""
        saved = list(node.inputs[self.count + len(self.arguments) :])
        if not saved:
            return self.pulled(g, node)
        return self.pulled(g, node, _now(saved, self.saved_results, node)) + [None] * len(saved)

    @property
    def saved_results(self) -> list[int | None]:
        """Which result each of the saved tensors is, if it is one."""
        results = self.ctx._results
        return [results.get(n) for n in self.ctx._saved if isinstance(n, Node)]

    def pulled(self, g: Any, node: Node, saved: Sequence[Node] | None = None) -> list[Node | None]:
        """The adjoints of the arguments, ``saved`` in the place of what was."""
        ctx = self.ctx
        if saved is not None:
            ctx = copy.copy(ctx)
            left = iter(saved)
            ctx._saved = tuple([next(left) if isinstance(n, Node) else n for n in ctx._saved])
            ctx._results = {}
        adjoints = iter(zip(g, node.type, strict=True))
        grads = [self._materialized(*next(adjoints)) if t else None for t in self.results]
        site, recorder.state.site = recorder.state.site, None
        ctx._node = node
        try:
            results = self.function(ctx, *grads)
        finally:
            recorder.state.site = site
            ctx._node = None
        given = list(results) if isinstance(results, tuple) else [results]
        expected = len(self.ctx.needs_input_grad)
        while len(given) > expected and given[-1] is None:  # of arguments that were left out
            given.pop()
        if len(given) != expected:
            raise located(GradientError(
                f"{self.name}.backward: returned {len(given)} gradients for {expected} arguments "
                f"of forward; return one for each, None where there is none"
            ))  # fmt: skip
        inputs = node.inputs[self.count : self.count + len(self.arguments)]
        return [self._checked(given[p], p, i) for p, i in zip(self.arguments, inputs, strict=True)]

    def tangent(self, moved: Sequence[Node | None], node: Node) -> Any:
        """The tangents of the results by the user's ``jvp``, if there is one."""
        cls = type(self.ctx)
        if cls.jvp is Function.jvp:
            return NotImplemented
        given: list[Any] = list(self.args)
        for p, t, i in zip(
            self.arguments, moved[self.count :], node.inputs[self.count :], strict=False
        ):
            given[p] = self._materialized(t, i.type)
        ctx = copy.copy(self.ctx)
        ctx._saved, ctx._node = ctx._saved_ahead or ctx._saved, node
        site, recorder.state.site = recorder.state.site, None
        try:
            results = cls.jvp(ctx, *given)
        finally:
            recorder.state.site = site
        results = results if isinstance(results, tuple) else (results,)
        if len(results) != len(self.results):
            raise located(GradientError(
                f"{self.name}.jvp: returned {len(results)} tangents for {len(self.results)} "
                f"outputs of forward; return one for each, None where there is none"
            ))  # fmt: skip
        tensors = [t for t, is_tensor in zip(results, self.results, strict=True) if is_tensor]
        return [t.node if isinstance(t, Handle) else None for t in tensors]

    def batched(self, inputs: list[Node], has: list[bool], size: int, node: Node) -> Node:
        """The call for a batch: by the user's ``vmap``, or what one example does for all."""
        if type(self.ctx).vmap is not Function.vmap:
            return self._batched_by_itself(inputs, has, size)
        return _batched(self, inputs, has, size, node)

    def _batched_by_itself(self, inputs: list[Node], has: list[bool], size: int) -> Node:
        args: list[Any] = list(self.args)
        dims: list[int | None] = [None] * len(args)
        for p, x, h in zip(self.arguments, inputs[self.count :], has[self.count :], strict=False):
            args[p], dims[p] = wrap(x), 0 if h else None
        site, recorder.state.site = recorder.state.site, None
        try:
            given = type(self.ctx).vmap(VmapInfo(size, "error"), tuple(dims), *args)
        finally:
            recorder.state.site = site
        if not isinstance(given, tuple) or len(given) != 2:
            raise located(TypeError(
                f"{self.name}.vmap: returned a {type(given).__name__}; return the pair (output, "
                f"out_dims)"
            ))  # fmt: skip
        output, out_dims = given
        outputs = output if isinstance(output, tuple) else (output,)
        places = out_dims if isinstance(out_dims, tuple) else (out_dims,) * len(outputs)
        nodes = [
            _examples_first(t.node, d, size)
            for t, d in zip(outputs, places, strict=True) if isinstance(t, Handle)
        ]  # fmt: skip
        return together(nodes)

    def _materialized(self, adjoint: Node | None, kind: Any) -> Tensor | None:
        if adjoint is None and self.ctx._materialize:
            adjoint = zeros_of(kind)
        return None if adjoint is None else wrap(adjoint)

    def _checked(self, value: Any, position: int, argument: Node) -> Node | None:
        """The adjoint of one argument."""
        if value is None or not argument.needs_grad:
            return None
        if not isinstance(value, Handle):
            raise located(TypeError(
                f"{self.name}.backward: returned a {type(value).__name__} as the gradient for "
                f"argument {position}; return a tensor, or None where there is no gradient"
            ))  # fmt: skip
        adjoint = value.node
        if adjoint.shape != argument.shape:
            raise located(ShapeError(
                f"{self.name}.backward: returned a gradient of shape {adjoint.shape} for "
                f"argument {position} of shape {argument.shape}; they must be equal"
            ))  # fmt: skip
        return adjoint if adjoint.dtype is argument.dtype else e.convert(
            adjoint, dtype=argument.dtype
        )  # fmt: skip


def _examples_first(x: Node, dim: int | None, size: int) -> Node:
    if dim is None:
        return _stacked(x, size)
    axes = list(range(len(x.shape)))
    axes.insert(0, axes.pop(dim))
    return permute(x, axes=tuple(axes))


class _BatchedCall:
    """A call (of a function, or of a batch of them) for every example of a batch."""

    is_pure = False

    def __init__(self, call: Any, one: Node, saved: list[bool], size: int) -> None:
        self.call = call
        self.one = one  # the call of one example
        self.saved = saved  # which of the saved tensors differ from example to example
        self.size = size
        self.count: int = call.count
        self.arguments = call.arguments
        self.saved_results = call.saved_results

    def tangent(self, moved: Sequence[Node | None], node: Node) -> Any:
        """As follows from ``gradient``."""
        return NotImplemented

    def gradient(self, g: Any, node: Node) -> list[Node | None]:
        """Runs the user's backward for one example of all."""
        saved = list(node.inputs[self.count + len(self.arguments) :])
        return self.pulled(g, node, _now(saved, self.saved_results, node)) + [None] * len(saved)

    def pulled(self, g: Any, node: Node, saved: Sequence[Node]) -> list[Node | None]:
        """The adjoints of the arguments."""
        given = [a for a in g if a is not None]
        differ = [n for n, d in zip(saved, self.saved, strict=True) if d]
        flows: list[bool] = []

        def example(places: list[Node]) -> list[Node]:
            left = iter(places)
            adjoints = [None if a is None else next(left) for a in g]
            values = [next(left) if d else n for n, d in zip(saved, self.saved, strict=True)]
            found = self.call.pulled(adjoints, self.one, values)
            flows[:] = [a is not None for a in found]
            return [a for a in found if a is not None]

        made = iter(vectorized(example, [*given, *differ], self.size, "error"))
        stacked = (a if has else _stacked(a, self.size) for a, has in made)
        return [next(stacked) if is_there else None for is_there in flows]

    def batched(self, inputs: list[Node], has: list[bool], size: int, node: Node) -> Node:
        """For a batch of batches."""
        return _batched(self, inputs, has, size, node)


def _now(saved: list[Node], results: list[int | None], node: Node) -> list[Node]:
    """Saved tensors as those of this node: its results where they are these."""
    return [
        n if result is None else project(node, index=result)
        for n, result in zip(saved, results, strict=True)
    ]


def _stacked(x: Node, size: int) -> Node:
    return expand(x, shape=(size, *x.shape))


def _batched(
    call: _Call | _BatchedCall, inputs: list[Node], has: list[bool], size: int, node: Node
) -> Node:
    """What one example does, for all."""
    saved = call.count + len(call.arguments)
    stacked = [x if h else _stacked(x, size) for x, h in zip(inputs, has, strict=True)]
    results, arguments = stacked[: call.count], stacked[call.count : saved]
    made = _BatchedCall(call, node, has[saved:], size)
    bundled = record_call(made, results, [*arguments, *inputs[saved:]])
    needed = any(x.needs_grad for x in arguments)
    bundled.needs_grad = needed and recorder.state.grad_enabled
    return bundled


class _Together:
    """Values as the results of one node."""

    is_pure = True

    def __init__(self, count: int) -> None:
        self.count = count

    def tangent(self, moved: Sequence[Node | None], node: Node) -> Any:
        """Those of the values."""
        return moved[self.count :]

    def gradient(self, g: Any, node: Node) -> list[Node | None]:
        """That of each value."""
        return list(g)

    def batched(self, inputs: list[Node], has: list[bool], size: int, node: Node) -> Node:
        """The values of the batch."""
        return together([
            x if h else _stacked(x, size)
            for x, h in list(zip(inputs, has, strict=True))[self.count :]
        ])  # fmt: skip


def together(nodes: Sequence[Node]) -> Node:
    """One node whose results are these."""
    values = [detach(n) if n.needs_grad else n for n in nodes]
    made = record_call(_Together(len(nodes)), values, nodes)
    made.needs_grad = recorder.state.grad_enabled and any(n.needs_grad for n in nodes)
    return made


def _call(ctx: Function, forward: Any, args: tuple[Any, ...]) -> Any:
    positions = [p for p, x in enumerate(args) if isinstance(x, Handle)]
    inputs = [args[p].node for p in positions]
    enabled = recorder.state.grad_enabled
    ctx.needs_input_grad = tuple(isinstance(x, Tensor) and x.requires_grad for x in args)
    recorder.state.grad_enabled = False
    try:
        outputs = forward(*args)
    finally:
        recorder.state.grad_enabled = enabled
    results = outputs if isinstance(outputs, tuple) else (outputs,)
    under_vmap = recorder.state.outer is not None
    is_batched_by_itself = under_vmap and type(ctx).vmap is not Function.vmap
    needs_grad = enabled and any(ctx.needs_input_grad)
    if not needs_grad and not is_batched_by_itself:
        return outputs
    tensors = [t for t in results if isinstance(t, Handle)]
    if not tensors:
        raise located(TypeError(
            f"{type(ctx).__name__}.forward: returned a {type(outputs).__name__}; return a tensor "
            f"or a tuple of tensors"
        ))  # fmt: skip
    values = [detach(t.node) if t.node.needs_grad else t.node for t in tensors]
    call = _Call(ctx, args, positions, [isinstance(t, Handle) for t in results])
    # Where what is recorded is recorded again later, ``backward`` is to see the values of then.
    kept = ctx._saved if recorder.state.capturing else ()
    saved = [n for n in kept if isinstance(n, Node)]
    node = record_call(call, values, [*inputs, *saved])
    node.needs_grad = needs_grad
    ctx._results = {n: i for i, n in enumerate(values) if any(n is saved for saved in ctx._saved)}
    written = {
        id(args[p]) for p, before in zip(positions, inputs, strict=True)
        if args[p].node is not before
    }  # fmt: skip
    made = iter([
        t if t.node in ctx._discrete else _result(t, project(node, index=i), id(t) in written)
        for i, t in enumerate(tensors)
    ])  # fmt: skip
    final = tuple(next(made) if isinstance(t, Handle) else t for t in results)
    return final if isinstance(outputs, tuple) else final[0]


def _result(returned: Any, node: Node, is_written: bool) -> Tensor:
    """The tensor for one result: the argument itself where ``forward`` wrote to it."""
    if not is_written:
        return wrap(node)
    returned._write(node)
    return returned


# --- gradients that cannot be differentiated ------------------------------------------------------


class _Once:
    """The end of what can be differentiated."""

    count = 1
    is_pure = False

    def __init__(self, name: str) -> None:
        self.name = name

    def _refused(self, *args: Any) -> Any:
        raise located(GradientError(
            f"{self.name}: a gradient marked with @once_differentiable cannot be differentiated; "
            f"write backward() in tensor operations and leave the mark out"
        ))  # fmt: skip

    tangent = gradient = batched = _refused


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a ``backward`` whose result cannot be differentiated: doing so raises."""

    @functools.wraps(function)
    def marked(ctx: Any, *args: Any) -> Any:
        state = recorder.state
        enabled, state.grad_enabled = state.grad_enabled, False
        try:
            outputs = function(ctx, *args)
        finally:
            state.grad_enabled = enabled
        sources = [x.node for x in (*args, *ctx.saved_tensors) if isinstance(x, Handle)]
        if not enabled or not any(n.needs_grad for n in sources):
            return outputs
        name = type(ctx).__name__

        def ended(x: Any) -> Any:
            if not isinstance(x, Handle):
                return x
            return wrap(project(record_call(_Once(name), [x.node], sources), index=0))

        return tuple(map(ended, outputs)) if isinstance(outputs, tuple) else ended(outputs)

    return marked


__all__ = ["Function", "Packed", "SavedHooks", "VmapInfo", "once_differentiable", "together"]
