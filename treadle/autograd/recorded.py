"""A function run on variables: what every derivative of functions is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from treadle.autodiff.batching import vectorized
from treadle.autodiff.forward import tangents as tangents_of
from treadle.autodiff.reverse import backward
from treadle.autodiff.variables import settle, variable
from treadle.base.dtypes import int64
from treadle.base.errors import GradientError, ShapeError
from treadle.ir.node import Leaf, Node, Type, located, recorder
from treadle.ops.elementwise import add, cast, eq
from treadle.ops.movement import concatenate, expand, permute, reshape, zeros_of
from treadle.ops.source import iota, number
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.tensor import Tensor
from treadle.tensor.trees import Structure, flatten

NEVER = float("inf")


class Recorded:
    """A function run on variables, and what it gave.

    Args:
        name: Who runs it, for errors.
        function: The function.
        args: Its arguments.
        argnums: Which of them are variables; these are trees of tensors.
        has_aux: It returns a pair, of which only the first is to be differentiated.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...],
        argnums: int | Sequence[int], has_aux: bool, kwargs: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        positions = _positions(name, argnums, len(args))
        tree = tuple(args[p] for p in positions)
        leaves, structure = flatten(tree if not isinstance(argnums, int) else tree[0])
        self.inputs: Structure = structure
        self.variables: list[Leaf] = []
        with _differentiable():
            self.variables += [variable(_checked(name, x).node) for x in leaves]
            given = structure.rebuild([wrap(v) for v in self.variables])
            new = list(args)
            for p, x in zip(positions, [given] if isinstance(argnums, int) else given, strict=True):
                new[p] = x
            result = function(*new, **(kwargs or {}))
        self.aux: Any = None
        if has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise located(TypeError(
                    f"{name}: has_aux=True is for functions that return a pair (output, aux); got "
                    f"a {type(result).__name__}"
                ))  # fmt: skip
            result, self.aux = result
        outputs, self.outputs = flatten(result)
        for x in outputs:
            if not isinstance(x, Handle):
                raise located(TypeError(
                    f"{name}: the function returned a {type(x).__name__}; it must return tensors, "
                    f"or tuples, lists and dictionaries of tensors"
                ))  # fmt: skip
        self.nodes: list[Node] = [x.node for x in outputs]

    @property
    def first(self) -> float:
        """The order of the first node that is recorded here."""
        return min((v.order for v in self.variables), default=NEVER)

    def pull(self, adjoints: dict[int, Node]) -> list[Node]:
        """The adjoints of the variables, from those of some outputs (by their numbers)."""
        with _differentiable():
            found = backward(
                [self.nodes[i] for i in adjoints], list(adjoints.values()), wanted=self.variables,
                retain_graph=True, create_graph=True,
            )  # fmt: skip
            return [found[v] if v in found else zeros_of(v.type) for v in self.variables]

    def push(self, given: dict[int, Node]) -> list[Node]:
        """The tangents of the outputs, from those of some variables (by their numbers)."""
        with _differentiable():
            found = tangents_of(self.nodes, {self.variables[i]: t for i, t in given.items()})
            pairs = zip(self.nodes, found, strict=True)
            return [zeros_of(n.type) if t is None else t for n, t in pairs]

    def rows(self, chunk_size: int | None = None) -> list[list[Node]]:
        """The Jacobian of every output by every variable, in reverse mode."""
        found = []
        for position, out in enumerate(self.nodes):

            def row(unit: Node, position: int = position) -> list[Node]:
                return self.pull({position: unit})

            found.append([
                reshape(n, shape=(*out.shape, *v.shape))
                for n, v in zip(_products(row, out.type, chunk_size), self.variables, strict=True)
            ])  # fmt: skip
        return found

    def columns(self) -> list[list[Node]]:
        """The same in forward mode."""
        found: list[list[Node]] = [[] for _ in self.nodes]
        for position, v in enumerate(self.variables):

            def column(unit: Node, position: int = position) -> list[Node]:
                return self.push({position: unit})

            for to, n, out in zip(found, _products(column, v.type), self.nodes, strict=True):
                turned = permute(n, axes=(*range(1, len(n.shape)), 0))
                to.append(reshape(turned, shape=(*out.shape, *v.shape)))
        return found

    def settled(self, nodes: Sequence[Node], since: float) -> list[Tensor]:
        """Results for whoever called (see ``autodiff.variables.settle``)."""
        return [wrap(n) for n in settle(nodes, self.variables, since)]

    def settled_tree(self, tree: Any, since: float) -> Any:
        """The same for the tensors of a tree."""
        leaves, structure = flatten(tree)
        tensors = iter(
            self.settled([x.node for x in leaves if isinstance(x, Handle)], since)
        )  # fmt: skip
        return structure.rebuild([next(tensors) if isinstance(x, Handle) else x for x in leaves])


@contextmanager
def _differentiable() -> Iterator[None]:
    """Records with gradients, and node by node: all of them are wanted."""
    state = recorder.state
    before = state.grad_enabled, state.capturing
    state.grad_enabled = state.capturing = True
    try:
        yield
    finally:
        state.grad_enabled, state.capturing = before


def _positions(name: str, argnums: int | Sequence[int], count: int) -> list[int]:
    positions = []
    for p in [argnums] if isinstance(argnums, int) else argnums:
        if not -count <= p < count:
            raise located(ValueError(
                f"{name}: got argnums={argnums} for a call with {count} positional arguments"
            ))  # fmt: skip
        positions.append(p % count)
    return positions


def _checked(name: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise located(TypeError(
            f"{name}: got a {type(x).__name__} to differentiate by; it takes tensors, or tuples, "
            f"lists and dictionaries of tensors; name the arguments that are tensors by argnums"
        ))  # fmt: skip
    if not x.dtype.is_inexact:
        raise located(GradientError(
            f"{name}: got a tensor of dtype {x.dtype.name} to differentiate by; only "
            f"floating-point tensors have derivatives; convert it with .float() first"
        ))  # fmt: skip
    return x


def matching(name: str, what: str, tree: Any, nodes: Sequence[Node]) -> list[Node]:
    """The leaves of a tree of tensors that go with ``nodes``, one for each and of its type."""
    leaves, _ = flatten(tree)
    if len(leaves) != len(nodes):
        raise located(ValueError(
            f"{name}: got {len(leaves)} {what} for {len(nodes)} tensors; give one for each"
        ))  # fmt: skip
    for x, n in zip(leaves, nodes, strict=True):
        if not isinstance(x, Handle):
            raise located(TypeError(f"{name}: got a {type(x).__name__} among the {what}"))
        if x.node.type.layout != n.type.layout:
            raise located(ShapeError(
                f"{name}: got {x.node.type} among the {what} for a tensor {n.type}; shapes and "
                f"dtypes must be equal"
            ))  # fmt: skip
    return [x.node for x in leaves]


def _units(kind: Type, start: int, count: int) -> Node:
    """The unit vectors from number ``start`` on of a space of tensors: (count, *shape)."""
    shape = (count, kind.size)
    rows = add(iota(shape=shape, axis=0, dtype=int64), expand(number(start, int64), shape=shape))
    ones = eq(rows, iota(shape=shape, axis=1, dtype=int64))
    return reshape(cast(ones, kind.dtype), shape=(count, *kind.shape))


def _products(
    function: Callable[[Node], list[Node]], kind: Type, chunk_size: int | None = None
) -> list[Node]:
    """``function`` of every unit vector of a space: each result with an axis for them in front."""
    step = max(kind.size, 1) if chunk_size is None else chunk_size
    chunks = []
    for start in range(0, max(kind.size, 1), step):
        count = min(step, kind.size - start)
        made = vectorized(
            lambda places: function(places[0]), [_units(kind, start, count)], count, "error"
        )
        chunks.append([n if has else expand(n, shape=(count, *n.shape)) for n, has in made])
    return [
        concatenate(*same, axis=0) if len(chunks) > 1 else same[0]
        for same in zip(*chunks, strict=True)
    ]


__all__ = ["NEVER", "Recorded", "matching"]
