"""Control flow in the graph: loops and choices that run without a return to Python.

A function that is handed in is called once, to be recorded; what it recorded then runs for other
values, all passes in one native call. What it reads from outside is captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.autodiff.bodies import traced, with_arguments
from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.ir.body import Body
from treadle.ir.node import Node, Type, located, recorder, type_of
from treadle.ops import control
from treadle.ops.control import several
from treadle.ops.elementwise import convert
from treadle.ops.movement import permute, reshape
from treadle.ops.source import number
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.trees import Structure, flatten

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

_Made = tuple[Body, list[Node], Structure]


def scan(
    combine_fn: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, *, dim: int = 0,
    reverse: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """A loop over the slices of ``xs``, with a carry.

    Computes ``carry, y = combine_fn(carry, x)`` for x the slices along ``dim``, from the last one
    on if ``reverse``, and returns the last carry and the ys, stacked along a first dimension (in
    the order of the slices). ``init``, ``xs`` and y may be tensors, or tuples, lists and
    dictionaries of them.

    ``combine_fn`` is called once, to be recorded. The carry keeps its shapes and dtypes. The
    gradient keeps the carries of all passes and computes the rest again.

    Errors: ShapeError where the carry changes its type, or sizes along ``dim`` differ;
    EvaluationError where the function asks for a value; RuntimeError where it draws random numbers.

    >>> import treadle
    >>> carry, sums = scan(lambda c, x: (c + x, c + x), treadle.tensor(0), treadle.arange(5))
    >>> carry, sums
    (tensor(10), tensor([ 0,  1,  3,  6, 10]))
    """
    carries, structure = _flat("scan", "init", init)
    over, slices = _sliced(xs, dim)
    count = len(carries)
    kinds = [x.type for x in carries]
    shapes: list[Structure] = []

    def function(places: list[Node]) -> list[Node]:
        tensors = [wrap(n) for n in places]
        given = structure.rebuild(tensors[:count]), slices.rebuild(tensors[count:])
        made = combine_fn(*given)
        if type(made) is not tuple or len(made) != 2:
            raise located(TypeError(
                f"scan: got a {type(made).__name__} from combine_fn; expected (carry, y), a tuple "
                f"of two"
            ))  # fmt: skip
        after = _same_carry("scan", "combine_fn", structure, kinds, made[0])
        ys, told = _flat("scan", "y", made[1])
        shapes.append(told)
        return [*after, *ys]

    operands = [*carries, *over]
    slice_kinds = [type_of(x.dtype, x.shape[1:], x.type.device) for x in over]
    body, captured = traced(
        "scan", function, [*kinds, *slice_kinds], [x.needs_grad for x in operands], True
    )
    operands += captured
    outs: list[Node] = []
    if body.results:
        keep = recorder.state.grad_enabled and any(x.needs_grad for x in operands)
        outs = several(control.scan(
            *operands, body=body, length=over[0].shape[0], carries=count, scanned=len(over),
            reverse=bool(reverse), keep=keep,
        ))  # fmt: skip
    carry = structure.rebuild([wrap(n) for n in outs[count : 2 * count]])
    return carry, shapes[0].rebuild([wrap(n) for n in outs[2 * count :]])


def map(f: Callable[..., Any], xs: Any, *args: Any) -> Any:
    """``f(x, *args)`` for the slices x of ``xs`` along the first dimension, stacked.

    ``f`` is called once, to be recorded; the slices are computed one after the other. ``vmap``
    computes them all at once, which takes more memory and, for small ones, less time.

    >>> import treadle
    >>> treadle.map(lambda x, y: x * x + y, treadle.arange(4), treadle.tensor(10))
    tensor([10, 11, 14, 19])
    """
    return scan(lambda carry, x: (carry, f(x, *args)), (), xs)[1]


def cond(
    pred: Tensor | bool, true_fn: Callable[..., Any], false_fn: Callable[..., Any],
    operands: Sequence[Any] = (),
) -> Any:  # fmt: skip
    """``true_fn(*operands)`` where ``pred`` is true, ``false_fn(*operands)`` otherwise.

    ``pred`` is a tensor of one element, and decides when the graph runs: both functions are called
    to be recorded, and one of them is computed. (For a Python bool, one is called.) They return
    tensors, or tuples, lists and dictionaries of them, of the same types.

    Errors: ShapeError where the branches make different types; EvaluationError where they ask for a
    value; TypeError where they return something else.

    >>> import treadle
    >>> x = treadle.tensor([1.0, -4.0])
    >>> treadle.cond(x.sum() > 0, lambda x: x * 2, lambda x: -x, (x,))
    tensor([-1.,  4.])
    """
    if isinstance(pred, bool):
        return (true_fn if pred else false_fn)(*operands)
    flag = _flag("cond", "pred", pred)
    nodes, structure = _flat("cond", "operands", tuple(operands))
    made = [
        _branch(name, branch, nodes, structure)
        for name, branch in (("true_fn", true_fn), ("false_fn", false_fn))
    ]
    (then, first, told), (other, second, also) = made
    if not _alike(told, also) or then.types != other.types:
        raise located(ShapeError(
            f"cond: got {_listed(then.types)} from true_fn and {_listed(other.types)} from "
            f"false_fn; both must return the same structure of the same types"
        ))  # fmt: skip
    if not then.results:
        return told.rebuild([])
    common = len(nodes)
    then = with_arguments(then, common, [], [n.type for n in second])
    other = with_arguments(other, common, [n.type for n in first], [])
    outs = control.cond(flag, *nodes, *first, *second, then=then, other=other)
    return told.rebuild([wrap(n) for n in several(outs)])


def while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Sequence[Any]
) -> Any:
    """``carried = body_fn(*carried)`` as long as ``cond_fn(*carried)`` is true.

    ``carried_inputs`` is a tuple or list of tensors, or of tuples, lists and dictionaries of them,
    which keep their shapes and dtypes. ``cond_fn`` returns a tensor of one element. Both functions
    are called once, to be recorded. The gradient reads how often the loop ran, and keeps the
    carried values of all passes.

    A loop that never ends cannot be interrupted: it does not return to Python.

    Errors: as for ``scan``.

    >>> import treadle
    >>> treadle.while_loop(lambda n, x: x < 100, lambda n, x: (n + 1, x * 3),
    ...                    (treadle.tensor(0), treadle.tensor(1)))
    (tensor(5), tensor(243))
    """
    given = tuple(carried_inputs)
    nodes, structure = _flat("while_loop", "carried_inputs", given)
    kinds = [n.type for n in nodes]
    wants = [n.needs_grad for n in nodes]
    if not nodes:
        raise located(TypeError(
            "while_loop: got no tensor in carried_inputs; a loop that carries nothing along ends "
            "at once or never"
        ))  # fmt: skip

    def ask(places: list[Node]) -> list[Node]:
        answer = cond_fn(*structure.rebuild([wrap(n) for n in places]))
        return [_flag("while_loop", "cond_fn", answer)]

    def step(places: list[Node]) -> list[Node]:
        made = body_fn(*structure.rebuild([wrap(n) for n in places]))
        if isinstance(made, Handle):
            made = (made,)
        made = tuple(made) if type(made) is list else made
        return _same_carry("while_loop", "body_fn", structure, kinds, made)

    test, first = traced("while_loop", ask, kinds, wants, True)
    body, second = traced("while_loop", step, kinds, wants, True)
    test = with_arguments(test, len(nodes), [], [n.type for n in second])
    body = with_arguments(body, len(nodes), [n.type for n in first], [])
    made = control.while_loop(*nodes, *first, *second, test=test, body=body, carries=len(nodes))
    return structure.rebuild([wrap(n) for n in several(made)[:-1]])


def _branch(
    name: str, function: Callable[..., Any], nodes: Sequence[Node], structure: Structure
) -> _Made:
    told: list[Structure] = []

    def record(places: list[Node]) -> list[Node]:
        made = function(*structure.rebuild([wrap(n) for n in places]))
        leaves, made_structure = _flat("cond", f"the result of {name}", made)
        told.append(made_structure)
        return leaves

    body, captured = traced("cond", record, [n.type for n in nodes], [n.needs_grad for n in nodes])
    return body, captured, told[0]


def _flat(name: str, what: str, tree: Any) -> tuple[list[Node], Structure]:
    """The nodes of a tree of tensors."""
    leaves, structure = flatten(tree)
    for leaf in leaves:
        if not isinstance(leaf, Handle):
            raise located(TypeError(
                f"{name}: got a {type(leaf).__name__} in {what}; expected tensors, or tuples, "
                f"lists and dictionaries of them (make numbers tensors with treadle.tensor)"
            ))  # fmt: skip
    return [leaf.node for leaf in leaves], structure


def _sliced(xs: Any, dim: int) -> tuple[list[Node], Structure]:
    """What a scan goes over, with the dimension in front."""
    leaves, structure = _flat("scan", "xs", xs)
    if not leaves:
        raise located(TypeError(
            "scan: got no tensor in xs, along which it is to go; loop with while_loop where there "
            "is none"
        ))  # fmt: skip
    over = [_leading(x, dim) for x in leaves]
    sizes = [x.shape[0] for x in over]
    if len(set(sizes)) > 1:
        raise located(ShapeError(
            f"scan: got xs of sizes {sizes} along dimension {dim}; expected equal ones"
        ))  # fmt: skip
    return over, structure


def _leading(x: Node, dim: int) -> Node:
    """The dimension brought to the front."""
    rank = len(x.shape)
    if not -rank <= dim < rank:
        raise located(IndexError(
            f"scan: got dim {dim} for xs of shape {x.shape}; expected {-rank} to {rank - 1}"
            if rank else "scan: got xs with a tensor without dimensions; it goes along one of them"
        ))  # fmt: skip
    axis = dim % rank
    return permute(x, axes=(axis, *(a for a in range(rank) if a != axis))) if axis else x


def _same_carry(
    name: str, function: str, structure: Structure, kinds: Sequence[Type], made: Any
) -> list[Node]:
    nodes, after = _flat(name, f"the carry that {function} returned", made)
    if not _alike(structure, after) or [n.type for n in nodes] != list(kinds):
        raise located(ShapeError(
            f"{name}: got {_listed([n.type for n in nodes])} from {function} for the carry "
            f"{_listed(kinds)}; it must keep its structure, shapes and dtypes"
        ))  # fmt: skip
    return nodes


def _alike(a: Structure, b: Structure) -> bool:
    if a.count != b.count:
        return False
    numbers = range(a.count)
    return bool(a.rebuild(numbers) == b.rebuild(numbers))


def _listed(kinds: Sequence[Any]) -> str:
    return f"({', '.join(str(kind) for kind in kinds)})"


def _flag(name: str, what: str, value: Any) -> Node:
    """A value that decides, as a node of one bool."""
    if isinstance(value, bool):
        return number(value, dtypes.bool_)
    if not isinstance(value, Handle) or value.node.type.size != 1:
        told = f"shape {value.node.shape}" if isinstance(value, Handle) else type(value).__name__
        raise located(TypeError(
            f"{name}: got {told} for {what}; expected a tensor of one element"
        ))  # fmt: skip
    n = value.node
    n = n if n.dtype is dtypes.bool_ else convert(n, dtype=dtypes.bool_)
    return reshape(n, shape=()) if n.shape else n


__all__ = ["cond", "map", "scan", "while_loop"]
