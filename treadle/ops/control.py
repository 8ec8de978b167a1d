"""Control flow: ops that apply bodies (``ir/body.py``) again and again, or one of two.

A body takes its carries first, then what it is handed of the scanned operands, then what it
captured. Gradients are ops of control flow as well, whose bodies come of the rules of the ops in
the body: the forward part is computed again from the carries that were kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.ir.body import Body, interned
from treadle.ir.call import Spec
from treadle.ir.node import Node, Type, signature_of, type_of
from treadle.ir.op import Cost, ErrorSample, Joint, Nested, Op, Sample
from treadle.ops.elementwise import add, lt, mul
from treadle.ops.project import results
from treadle.ops.registry import floats, register


class Rules:
    """Gradients and batching of these ops, by their names; set by the room that traces bodies."""

    gradient: ClassVar[dict[str, Callable[[Any, Node], Sequence[Node | None]]]] = {}
    batch: ClassVar[dict[str, Callable[[list[Node], list[bool], int, Node], Node]]] = {}


def several(n: Node) -> list[Node]:
    """The results of an op with one or several."""
    return list(results(n)) if isinstance(n.type, tuple) else [n]


def _types(found: Sequence[Type]) -> Any:
    return found[0] if len(found) == 1 else tuple(found)


def _stacked(kind: Type, count: int) -> Type:
    return type_of(kind.dtype, (count, *kind.shape), kind.device)


def _check(name: str, body: Body, kinds: Sequence[Type]) -> None:
    for i, (kind, expected) in enumerate(zip(kinds, body.args, strict=True)):
        if kind is not expected:
            raise ShapeError(
                f"{name}: got {kind} for argument {i} of a body that takes {expected}; trace the "
                f"body again for these types"
            )


def _cost_of(body: Body) -> Cost:
    flops = 0
    for spec in body.specs:
        sig = spec.sig
        flops += sig.op.cost(sig.inputs, sig.type, sig.attrs).flops
    return Cost(flops, 0)


def _whole_cost(bodies: Sequence[Body], times: int, kinds: Sequence[Type], out: Any) -> Cost:
    outs = out if isinstance(out, tuple) else (out,)
    flops = times * max(_cost_of(body).flops for body in bodies)
    return Cost(flops, sum(t.nbytes for t in (*kinds, *outs)))


def _apply(body: Body, arrays: Sequence[Any]) -> list[Any]:
    """The body in NumPy, by the ops' references."""
    made: list[Any] = []
    for spec in body.specs:
        operands = [made[r] if r >= 0 else arrays[~r] for r in spec.inputs]  # type: ignore[operator,index]
        made.append(spec.sig.op.reference(*operands, **spec.sig.attrs))
    return [made[r] if r >= 0 else arrays[~r] for r in body.results]


_SHARED: dict[str, Any] = {
    "family": "control", "traits": frozenset({"control"}), "residuals": (), "lower": Nested(),
    # Those of its samples: a body takes what it was traced for.
    "dtypes": (dtypes.float32,),
}  # fmt: skip


# --- scan ---------------------------------------------------------------------------------------


def _scan_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Any:
    body, length = attrs["body"], attrs["length"]
    carries, scanned = attrs["carries"], attrs["scanned"]
    ends = carries + scanned
    taken = [
        type_of(t.dtype, t.shape[1:], t.device) if carries <= i < ends else t
        for i, t in enumerate(types)
    ]
    _check("scan", body, taken)
    for i, t in enumerate(types[carries:ends], carries):
        if t.shape[0] != length:
            raise ShapeError(f"scan: got {t} for operand {i}; expected {length} slices")
    made = body.types
    if made[:carries] != body.args[:carries]:
        raise ShapeError(
            f"scan: got a body that makes {list(made[:carries])} of the carries "
            f"{list(body.args[:carries])}; they must stay what they are"
        )
    places = length + 1 if attrs["keep"] else 0
    rings = [_stacked(kind, places) for kind in made[:carries]]
    return _types([*rings, *made[:carries], *[_stacked(k, length) for k in made[carries:]]])


def _scan_reference(*arrays: Any, **attrs: Any) -> Any:
    body, length, carries, scanned = (attrs[k] for k in ("body", "length", "carries", "scanned"))
    carry, xs = list(arrays[:carries]), arrays[carries : carries + scanned]
    captured = arrays[carries + scanned :]
    kept, ys = [carry], []
    order = range(length)[::-1] if attrs["reverse"] else range(length)
    for i in order:
        made = _apply(body, [*carry, *(x[i] for x in xs), *captured])
        carry = made[:carries]
        kept.append(carry)
        ys.append(made[carries:])
    if attrs["reverse"]:
        ys.reverse()
    stacks = [np.stack(values) for values in zip(*kept, strict=True)]
    if not attrs["keep"]:
        stacks = [x[:0] for x in stacks]
    outs = [*stacks, *carry]
    for k, kind in enumerate(body.types[carries:]):
        empty = np.zeros((0, *kind.shape), kind.dtype.numpy)
        outs.append(np.stack([y[k] for y in ys]) if ys else empty)
    return outs[0] if len(outs) == 1 else tuple(outs)


def _sample_body(results: tuple[int, ...], *specs: tuple[Op, tuple[int, ...]]) -> Body:
    """A body of vectors of 3: of so many arguments as it names."""
    kind = type_of(dtypes.float32, (3,))
    made = [
        Spec(signature_of(op, (kind,) * len(inputs), {}), inputs, False, 0) for op, inputs in specs
    ]
    lowest = min(min(inputs) for _, inputs in specs)
    return interned((kind,) * ~lowest + (kind,), tuple(made), results)


def _define(name: str, infer: Any, reference: Any, cost: Any, **rest: Any) -> Op:
    return register(
        Op(
            name=name, infer=infer, reference=reference, cost=cost,
            gradient=Joint(lambda g, n: Rules.gradient[name](g, n)),
            batch=lambda inputs, batched, size, n: Rules.batch[name](inputs, batched, size, n),
            **rest, **_SHARED,
        )
    )  # fmt: skip


def _scan_samples() -> Iterable[Sample]:
    # carry' = carry * x + captured, y = carry'
    body = _sample_body((1, 1), (mul, (~0, ~1)), (add, (0, ~2)))
    for length in (0, 1, 4):
        for reverse in (False, True):
            for keep in (False, True):
                attrs = {"body": body, "length": length, "carries": 1, "scanned": 1}
                args = (floats(3), floats(length, 3, seed=1), floats(3, seed=2))
                yield Sample(args, {**attrs, "reverse": reverse, "keep": keep}, smooth=False)


def _scan_errors() -> Iterable[ErrorSample]:
    for sample in list(_scan_samples())[-1:]:
        x, xs, captured = sample.args
        yield ErrorSample(
            (x[:2], xs, captured), sample.attrs, ShapeError, "scan: got f32[2] for argument 0"
        )
        yield ErrorSample(
            (x, xs[:2], captured), sample.attrs, ShapeError, "scan: got f32[2,3] for operand 1"
        )


scan: Op = _define(
    "scan", _scan_infer, _scan_reference,
    lambda kinds, out, attrs: _whole_cost([attrs["body"]], attrs["length"], kinds, out),
    samples=_scan_samples, errors=_scan_errors,
    doc="(carry, y) = body(carry, x, captured) for the slices x of the scanned operands: the "
    "carries stacked (none, where they are not kept), the last carries, the ys stacked",
)  # fmt: skip


# --- while_loop ---------------------------------------------------------------------------------


def _while_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Any:
    body, carries = attrs["body"], attrs["carries"]
    _check("while_loop", body, types)
    _check("while_loop", attrs["test"], types)
    if body.types != body.args[:carries]:
        raise ShapeError(
            f"while_loop: got a body that makes {list(body.types)} of {list(body.args[:carries])}; "
            f"they must stay what they are"
        )
    return (*body.types, type_of(dtypes.int64, ()))


def _while_reference(*arrays: Any, **attrs: Any) -> Any:
    carries = attrs["carries"]
    carry, captured, count = list(arrays[:carries]), arrays[carries:], 0
    while _apply(attrs["test"], [*carry, *captured])[0]:
        carry = _apply(attrs["body"], [*carry, *captured])
        count += 1
    return (*carry, np.int64(count))


def _while_samples() -> Iterable[Sample]:
    kind, flag = type_of(dtypes.float32, ()), type_of(dtypes.bool_, ())
    grown = Spec(signature_of(mul, (kind, kind), {}), (~0, ~1), False, 0)
    below = Spec(signature_of(lt, (kind, kind), {}), (~0, ~2), False, 0)
    body, test = interned((kind,) * 3, (grown,), (0,)), interned((kind,) * 3, (below,), (0,))
    if body.types != (kind,) or test.types != (flag,):
        raise ShapeError("the sample of while_loop is no loop")
    for start in (1.0, 50.0, 200.0):
        args = tuple(np.array(x, np.float32) for x in (start, 2.0, 100.0))
        yield Sample(args, {"test": test, "body": body, "carries": 1}, smooth=False)


def _while_errors() -> Iterable[ErrorSample]:
    for sample in list(_while_samples())[:1]:
        args = (np.ones(2, np.float32), *sample.args[1:])
        yield ErrorSample(args, sample.attrs, ShapeError, "while_loop: got f32[2] for argument 0")


while_loop: Op = _define(
    "while_loop", _while_infer, _while_reference,
    lambda kinds, out, attrs: _whole_cost([attrs["body"]], 1, kinds, out),
    samples=_while_samples, errors=_while_errors,
    doc="carry = body(carry, captured) as long as test(carry, captured); the carries, and how "
    "often that was",
)  # fmt: skip


# --- cond ---------------------------------------------------------------------------------------


def _cond_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Any:
    flag, *operands = types
    if flag is not type_of(dtypes.bool_, (), flag.device):
        raise ShapeError(f"cond: got {flag} for what is decided by; expected b1[]")
    then, other = attrs["then"], attrs["other"]
    _check("cond", then, operands)
    _check("cond", other, operands)
    if then.types != other.types:
        raise ShapeError(
            f"cond: got branches that make {list(then.types)} and {list(other.types)}; they must "
            f"make the same"
        )
    return _types(then.types)


def _cond_reference(flag: Any, *arrays: Any, then: Body, other: Body) -> Any:
    outs = _apply(then if flag else other, arrays)
    return outs[0] if len(outs) == 1 else tuple(outs)


def _cond_samples() -> Iterable[Sample]:
    then = _sample_body((0, ~1), (mul, (~0, ~1)))
    other = _sample_body((0, ~0), (add, (~0, ~1)))
    for flag in (True, False):
        args = (np.array(flag), floats(3), floats(3, seed=1))
        yield Sample(args, {"then": then, "other": other}, smooth=False)


def _cond_errors() -> Iterable[ErrorSample]:
    for sample in list(_cond_samples())[:1]:
        flag, x, y = sample.args
        yield ErrorSample((x, x, y), sample.attrs, ShapeError, "cond: got f32[3] for what is")
        yield ErrorSample((flag, x[:2], y), sample.attrs, ShapeError, "cond: got f32[2] for argu")


cond: Op = _define(
    "cond", _cond_infer, _cond_reference,
    lambda kinds, out, attrs: _whole_cost([attrs["then"], attrs["other"]], 1, kinds, out),
    samples=_cond_samples, errors=_cond_errors,
    doc="the results of one body where the first operand is true, those of the other otherwise",
)  # fmt: skip

__all__ = ["Rules", "cond", "scan", "several", "while_loop"]
