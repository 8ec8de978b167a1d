"""Bodies of control flow: how they are traced, differentiated and applied to batches.

A body's gradient is traced as it is itself: on placeholders, from which the body's operations are
recorded once more and walked back. So the ops' own rules are all there is, and gradients of
gradients are bodies again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from treadle.autodiff.batching import (
    Placeholder,
    Words,
    needed_for,
    recorded,
    varying_of,
    vectorized,
)
from treadle.autodiff.reverse import backward
from treadle.autodiff.variables import variable
from treadle.base import dtypes
from treadle.base.errors import GradientError
from treadle.ir.body import Body, applied, body_of, interned
from treadle.ir.node import Node, Type, Values, located, recorder, type_of
from treadle.ir.op import Bundle
from treadle.ops.bundle import record_call
from treadle.ops.control import Rules, cond, scan, several, while_loop
from treadle.ops.elementwise import add, where
from treadle.ops.movement import expand, flip, permute, reshape, slice_
from treadle.ops.reduce import reduce_any
from treadle.ops.source import number

Function = Callable[[list[Node]], list[Node]]


def words_for(name: str) -> Words:
    """What is told to whom takes an argument of a body of ``name`` for a value."""
    return Words(
        f"{name}: a tensor made inside of a function that {name} traces was used outside of it; "
        f"return it from the function, and do not keep it in a list or write it into a tensor "
        f"that comes from outside",
        f"{name}: got a call for the value of a tensor (by item(), bool(), numpy(), or an `if` or "
        f"a loop that depends on it) inside of a function that is traced once and then run for "
        f"other values; choose with treadle.where or treadle.cond, loop with treadle.while_loop "
        f"or treadle.scan",
        f"{name}: got an in-place operation that writes a value made inside of a traced function "
        "into a tensor of shape {shape} that comes from outside; carry it along, or return it",
    )


def traced(
    name: str, function: Function, kinds: Sequence[Type], needs_grad: Sequence[bool],
    hoist: bool = False,
) -> tuple[Body, list[Node]]:  # fmt: skip
    """The body of a function of values of these types, and the values from outside that it reads,
    which are its last arguments.

    With ``hoist``, what does not depend on the arguments is recorded outside of it, once.
    """
    words = words_for(name)
    places = [Placeholder(k, w, words) for k, w in zip(kinds, needs_grad, strict=True)]
    inner, outputs = recorded(function, places)
    nodes: Sequence[Node] = inner.pending
    for n in nodes:
        if "random" in n.op.traits:
            raise _located_at(n, RuntimeError(
                f"{name}: a random operation is called inside of a traced function, which would "
                f"draw the same numbers again and again; draw before, and hand the numbers in"
            ))  # fmt: skip
        if isinstance(n.op.lower, Bundle):
            raise _located_at(n, RuntimeError(
                f"{name}: a function with a gradient of its own (autograd.Function) is called "
                f"inside of a traced function; its Python would not run again; write it in "
                f"operations"
            ))  # fmt: skip
    if hoist:
        outer, varying = recorder.state, varying_of(nodes, places)
        for n in nodes:
            if n not in varying:
                outer.pending.append(n)
                outer.nbytes += n.sig.nbytes
        nodes = [n for n in nodes if n in varying]
    chosen = needed_for(outputs, {*nodes})
    nodes = [n for n in nodes if n in chosen]
    inside = {*nodes, *places}
    found = dict.fromkeys(i for n in [*nodes] for i in n.inputs if i not in inside)
    found.update(dict.fromkeys(n for n in outputs if n not in inside))
    captured = list(found)
    return body_of(nodes, [*places, *captured], outputs), captured


def _located_at(n: Node, error: Exception) -> Exception:
    """The error with the line that recorded the node."""
    state = recorder.state
    before, state.site = state.site, n.site
    try:
        return located(error)
    finally:
        state.site = before


def _derived(
    body: Body, key: Hashable, function: Function, kinds: Sequence[Type]
) -> tuple[Body, list[Node]]:
    """A body made of another one, once; all that it captures is numbers."""
    if key not in body.derived:
        body.derived[key] = traced("a gradient", function, kinds, [False] * len(kinds))
    made: tuple[Body, list[Node]] = body.derived[key]
    return made


def zeros(kind: Type) -> Node:
    """Zeros of that type."""
    zero = number(0, kind.dtype)
    if not kind.shape:
        return zero
    return expand(reshape(zero, shape=(1,) * kind.ndim), shape=kind.shape)


def pulled_back(
    body: Body, inputs: Sequence[Node], wanted: Sequence[int], adjoints: Sequence[Node | None]
) -> list[Node]:
    """The adjoints of the inputs ``wanted`` of a body, from those of its results."""
    state = recorder.state
    before, state.grad_enabled = state.grad_enabled, True
    try:
        variables = {i: variable(inputs[i]) for i in wanted}
        outs = applied(body, [variables.get(i, x) for i, x in enumerate(inputs)])
    finally:
        state.grad_enabled = before
    pairs = [(o, g) for o, g in zip(outs, adjoints, strict=True) if g is not None]
    found = backward(
        [o for o, _ in pairs], [g for _, g in pairs], wanted=list(variables.values()),
        retain_graph=True, with_hooks=False,
    )  # fmt: skip
    return [found.get(v, None) or zeros(body.args[i]) for i, v in variables.items()]


def _is_floating(kind: Type) -> bool:
    return kind.dtype.is_floating_point


def _adjoints_of(g: Any, n: Node) -> list[Node | None]:
    return list(g) if isinstance(n.type, tuple) else [g]


def _part(x: Node, start: int, length: int) -> Node:
    """Some slices of a stack."""
    starts = (start, *(0 for _ in x.shape[1:]))
    return slice_(x, starts=starts, sizes=(length, *x.shape[1:]), steps=(1,) * len(x.shape))


def element(x: Node, index: int) -> Node:
    """One slice of a stack."""
    return reshape(_part(x, index, 1), shape=x.shape[1:])


# --- scan ---------------------------------------------------------------------------------------


def _scan_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    """A scan the other way round over the carries that were kept.

    Its carries are the adjoints of the carries, and the sums of those of what was captured.
    """
    attrs, inputs = n.attrs, n.inputs
    body, length, carries, scanned = (attrs[k] for k in ("body", "length", "carries", "scanned"))
    if not attrs["keep"]:
        raise located(GradientError(
            "scan: got a gradient for a scan that did not keep its carries; it was recorded where "
            "none of its operands required a gradient"
        ))  # fmt: skip
    adjoints, made = _adjoints_of(g, n), several(n)
    ends = carries + scanned
    moving = [i for i in range(carries) if _is_floating(body.args[i])]
    slices = [i for i in range(carries, ends) if inputs[i].needs_grad]
    sums = [i for i in range(ends, len(inputs)) if inputs[i].needs_grad]
    rings = [i for i in moving if adjoints[i] is not None]
    outs = [k for k in range(len(made) - 2 * carries) if adjoints[2 * carries + k] is not None]

    def along(x: Node, first: int) -> Node:
        """Of a ring, what belongs to the passes: before each of them (0), or after it (1)."""
        x = _part(x, first, length)
        return flip(x, axes=(0,)) if attrs["reverse"] else x

    init = [_or_zeros(adjoints[carries + i], body.args[i]) for i in moving]
    init += [zeros(body.args[i]) for i in sums]
    over = [along(made[i], 0) for i in range(carries)] + [*inputs[carries:ends]]
    over += [along(adjoints[i], 1) for i in rings]  # type: ignore[arg-type]
    over += [adjoints[2 * carries + k] for k in outs]

    def step(places: list[Node]) -> list[Node]:
        take = iter(places)
        reached = {i: next(take) for i in moving}
        summed = [next(take) for _ in sums]
        operands = [next(take) for _ in range(ends)]
        for i in rings:
            reached[i] = add(reached[i], next(take))
        given: list[Node | None] = [reached.get(i) for i in range(carries)]
        given += [next(take) if k in outs else None for k in range(len(made) - 2 * carries)]
        operands += take
        back = pulled_back(body, operands, [*moving, *slices, *sums], given)
        first, last = len(moving), len(moving) + len(slices)
        totals = [add(x, y) for x, y in zip(summed, back[last:], strict=True)]
        return [*back[:first], *totals, *back[first:last]]

    kinds = [x.type for x in init] + [_slice_type(x) for x in over] + list(body.args[ends:])
    key = ("scan", *moving, -1, *slices, -1, *sums, -1, *rings, -1, *outs)
    back, numbers = _derived(body, key, step, kinds)
    operands = [*init, *over, *inputs[ends:], *numbers]
    found = scan(
        *operands, body=back, length=length, carries=len(init), scanned=len(over),
        reverse=not attrs["reverse"], keep=any(x.needs_grad for x in operands),
    )  # fmt: skip
    results = several(found)[len(init) :]
    given = dict(zip([*moving, *sums, *slices], results, strict=True))
    for i in rings:  # of the first place of the ring, which is where the carry began
        given[i] = add(given[i], element(adjoints[i], 0))  # type: ignore[arg-type]
    return [given.get(i) for i in range(len(inputs))]


def _or_zeros(adjoint: Node | None, kind: Type) -> Node:
    return zeros(kind) if adjoint is None else adjoint


def _slice_type(x: Node) -> Type:
    return type_of(x.dtype, x.shape[1:], x.type.device)


# --- while_loop ---------------------------------------------------------------------------------


def _while_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    """That of a scan of as many passes as there were, whose number is read now."""
    attrs, inputs = n.attrs, n.inputs
    carries = attrs["carries"]
    memory, layout, address = Values.of(several(n)[-1])
    offset = (address - memory.address) // layout.dtype.itemsize
    passes = int(memory.array(layout.dtype, (), (), offset))
    state = recorder.state
    before, state.grad_enabled = state.grad_enabled, True
    try:
        kept = scan(
            *inputs, body=attrs["body"], length=passes, carries=carries, scanned=0,
            reverse=False, keep=True,
        )  # fmt: skip
    finally:
        state.grad_enabled = before
    return _scan_gradient([None] * carries + list(g)[:carries], kept)


# --- cond ---------------------------------------------------------------------------------------


def _cond_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    """A choice between the gradients of the branches."""
    attrs, (flag, *inputs) = n.attrs, n.inputs
    adjoints = _adjoints_of(g, n)
    given = [k for k, x in enumerate(adjoints) if x is not None]
    wanted = [i for i, x in enumerate(inputs) if x.needs_grad]
    kinds = [x.type for x in inputs] + [adjoints[k].type for k in given]  # type: ignore[union-attr]
    made = []
    for body in (attrs["then"], attrs["other"]):

        def function(places: list[Node], body: Body = body) -> list[Node]:
            reached = dict(zip(given, places[len(inputs) :], strict=True))
            along = [reached.get(k) for k in range(len(adjoints))]
            return pulled_back(body, places[: len(inputs)], wanted, along)

        made.append(_derived(body, ("cond", *given, -1, *wanted), function, kinds))
    operands = [*inputs, *(x for x in adjoints if x is not None)]
    (then, first), (other, second) = made
    then, other = _with_more(then, len(operands), first, second, True), _with_more(
        other, len(operands), first, second, False
    )  # fmt: skip
    found = cond(flag, *operands, *first, *second, then=then, other=other)
    results = dict(zip(wanted, several(found), strict=True))
    return [None, *(results.get(i) for i in range(len(inputs)))]


def _with_more(
    body: Body, common: int, first: Sequence[Node], second: Sequence[Node], is_first: bool
) -> Body:
    """The body with the arguments of two bodies: the common ones, then what each captured."""
    return with_arguments(
        body, common,
        [] if is_first else [n.type for n in first], [n.type for n in second] if is_first else [],
    )  # fmt: skip


def with_arguments(body: Body, common: int, before: Sequence[Type], behind: Sequence[Type]) -> Body:
    """The body with more arguments, which it does not read: ``before`` those from ``common`` on,
    and ``behind`` all."""
    if not before and not behind:
        return body
    more = len(before)

    def moved(reference: Any) -> Any:
        return reference if reference >= 0 or ~reference < common else ~(~reference + more)

    specs = tuple([s._replace(inputs=tuple(map(moved, s.inputs))) for s in body.specs])
    args = (*body.args[:common], *before, *body.args[common:], *behind)
    return interned(args, specs, tuple(map(moved, body.results)))


# --- batches ------------------------------------------------------------------------------------


class _Parts:
    """The results of an op, put in order one by one, as those of one node."""

    is_pure = True

    def __init__(self, count: int) -> None:
        self.count = count

    def gradient(self, g: Any, n: Node) -> Sequence[Node | None]:
        """Each adjoint is that of the operand with its number."""
        return list(g)


def _together(parts: Sequence[Node]) -> Node:
    if len(parts) == 1:
        return parts[0]
    return record_call(_Parts(len(parts)), parts, parts)


def _batched_body(
    name: str, body: Body, batched: Sequence[bool], size: int
) -> tuple[Body, list[Node]]:
    """The body of all examples, whose results all have a leading axis."""
    flags = list(batched)

    def function(places: list[Node]) -> list[Node]:
        stacks = [p for p, has in zip(places, flags, strict=True) if has]

        def one(examples: list[Node]) -> list[Node]:
            left = iter(examples)
            chosen = [next(left) if has else p for p, has in zip(places, flags, strict=True)]
            return applied(body, chosen)

        return [_stacked(x, has, size) for x, has in vectorized(one, stacks, size, "error")]

    kinds = [
        type_of(k.dtype, (size, *k.shape), k.device) if has else k
        for k, has in zip(body.args, flags, strict=True)
    ]
    return _derived(body, (name, *flags, size), function, kinds)


def _stacked(x: Node, has: bool, size: int) -> Node:
    if has:
        return x
    return expand(reshape(x, shape=(1, *x.shape)), shape=(size, *x.shape))


def _second_first(x: Node) -> Node:
    """The first two axes exchanged."""
    return permute(x, axes=(1, 0, *range(2, len(x.shape))))


def _scan_batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    attrs = n.attrs
    carries, ends = attrs["carries"], attrs["carries"] + attrs["scanned"]
    flags = [i < carries or has for i, has in enumerate(batched)]
    body, numbers = _batched_body("scan", attrs["body"], flags, size)
    operands = [
        _stacked(x, has, size) if i < carries else _second_first(x) if has and i < ends else x
        for i, (x, has) in enumerate(zip(inputs, batched, strict=True))
    ]
    made = several(scan(*operands, *numbers, **{**attrs, "body": body}))
    ring = range(carries, 2 * carries)  # the last carries have no axis of passes
    return _together([x if k in ring else _second_first(x) for k, x in enumerate(made)])


def _while_batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    """A loop for all examples, in which those that are through stay as they are."""
    attrs = n.attrs
    carries = attrs["carries"]
    flags = [i < carries or has for i, has in enumerate(batched)]
    test, first = _batched_body("while_loop", attrs["test"], flags, size)
    body, second = _batched_body("while_loop", attrs["body"], flags, size)
    counted = type_of(dtypes.int64, (size,))
    operands = [
        _stacked(x, has, size) if i < carries else x
        for i, (x, has) in enumerate(zip(inputs, batched, strict=True))
    ]
    operands = [*operands[:carries], zeros(counted), *operands[carries:]]
    kinds = [x.type for x in (*operands, *first, *second)]

    def split(places: list[Node]) -> tuple[list[Node], list[Node]]:
        """What the test and what the body takes."""
        rest = len(places) - len(second)
        common = [*places[:carries], *places[carries + 1 : rest - len(first)]]
        return [*common, *places[rest - len(first) : rest]], [*common, *places[rest:]]

    def any_left(places: list[Node]) -> list[Node]:
        (left,) = applied(test, split(places)[0])
        return [reduce_any(left, axes=(0,))]

    def step(places: list[Node]) -> list[Node]:
        for_test, for_body = split(places)
        (left,) = applied(test, for_test)
        made = applied(body, for_body)
        chosen = [
            where(_over(left, new.shape), new, old)
            for new, old in zip(made, places[:carries], strict=True)
        ]
        one = expand(reshape(number(1, dtypes.int64), shape=(1,)), shape=(size,))
        return [*chosen, where(left, add(places[carries], one), places[carries])]

    (asked, more), (stepped, extra) = (
        _derived(body, ("while_loop", name, *flags, size), function, kinds)
        for name, function in (("test", any_left), ("step", step))
    )
    common = len(kinds)
    asked = with_arguments(asked, common, [], [x.type for x in extra])
    stepped = with_arguments(stepped, common, [x.type for x in more], [])
    made = several(while_loop(
        *operands, *first, *second, *more, *extra, test=asked, body=stepped, carries=carries + 1
    ))  # fmt: skip
    return _together(made[:-1])


def _over(flags: Node, shape: Sequence[int]) -> Node:
    """A flag for each example, for all of its elements."""
    return expand(reshape(flags, shape=(shape[0], *(1 for _ in shape[1:]))), shape=tuple(shape))


def _cond_batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    """One branch for all where one flag is; else both, and a choice for each example."""
    attrs = n.attrs
    flag, operands = inputs[0], inputs[1:]
    (then, first), (other, second) = (
        _batched_body("cond", attrs[name], batched[1:], size) for name in ("then", "other")
    )
    if not batched[0]:
        then = _with_more(then, len(operands), first, second, True)
        other = _with_more(other, len(operands), first, second, False)
        return cond(flag, *operands, *first, *second, then=then, other=other)
    pairs = zip(applied(then, [*operands, *first]), applied(other, [*operands, *second]),
                strict=True)  # fmt: skip
    return _together([where(_over(flag, a.shape), a, b) for a, b in pairs])


Rules.gradient.update(scan=_scan_gradient, while_loop=_while_gradient, cond=_cond_gradient)
Rules.batch.update(scan=_scan_batch, while_loop=_while_batch, cond=_cond_batch)

__all__ = ["element", "traced", "with_arguments", "zeros"]
