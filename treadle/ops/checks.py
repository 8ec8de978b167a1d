"""Values that must keep to a rule: targets without NaN, probabilities, labels, rows of a table.

``check`` hands its operand on as it is, or fails when it is evaluated, so that whatever is computed
from a bad value gets the error instead. All elements are tested at full speed by the kernel, which
only finds that one is bad; which one, and how many, is looked up on the way to the error text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, EvaluationError, IndexRangeError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Refusal
from treadle.ir.node import Node, Type
from treadle.ir.op import ANY_LEADING, DIAGONAL, ErrorSample, Loops, Op, Sample
from treadle.ops.registry import FLOATS, check_dtype, elements_cost, floats, register

if TYPE_CHECKING:
    from treadle.ir.loop import Builder, Kernel, Operand

Array: TypeAlias = "np.ndarray[Any, Any]"
_GROUP = 16  # elements tested side by side


class Rule(Record):
    """``bad(k, x, *limits)`` says of an element whether it is refused; ``find`` is it in NumPy."""

    bad: Callable[..., Operand]
    find: Callable[..., Array]
    dtypes: tuple[DType, ...]
    error: type[Exception]


def _beyond(k: Builder, x: Operand, size: Operand) -> Operand:
    # Negative numbers are the largest ones without a sign.
    return k.compare("ge", *(k.bitcast(v, dtypes.uint64) for v in (x, size)))


def _outside_unit(k: Builder, x: Operand) -> Operand:
    low, high = (k.compare(name, x, k.const(limit, x.dtype)) for name, limit in (
        ("lt", 0.0), ("gt", 1.0)
    ))  # fmt: skip
    return k.op("or", low, high)


def _not_above_zero(k: Builder, x: Operand) -> Operand:
    is_nan = k.compare("ne", x, x)
    return k.op("or", k.compare("le", x, k.const(0.0, x.dtype)), is_nan)


def _not_zero_or_above(k: Builder, x: Operand) -> Operand:
    is_nan = k.compare("ne", x, x)
    return k.op("or", k.compare("lt", x, k.const(0.0, x.dtype)), is_nan)


RULES = {
    "not_nan": Rule(lambda k, x: k.compare("ne", x, x), lambda x: x != x, FLOATS, EvaluationError),
    # A NaN is not refused here: as a prediction it is no mistake.
    "in_unit_interval": Rule(
        _outside_unit, lambda x: (x < 0) | (x > 1), FLOATS, EvaluationError
    ),
    "positive": Rule(_not_above_zero, lambda x: ~(x > 0), FLOATS, EvaluationError),
    "not_negative": Rule(_not_zero_or_above, lambda x: ~(x >= 0), FLOATS, EvaluationError),
    "index_in_range": Rule(
        _beyond, lambda x, size: (x < 0) | (x >= size), (dtypes.int64,), IndexRangeError
    ),
    # negative ones count from the end
    "index_wraps": Rule(
        lambda k, x, size: _beyond(k, k.add(x, size), k.add(size, size)),
        lambda x, size: (x < -size) | (x >= size), (dtypes.int64,), IndexRangeError,
    ),
    "label_in_range": Rule(
        lambda k, x, size, ignored: k.op(
            "and", _beyond(k, x, size), k.compare("ne", x, ignored)
        ),
        lambda x, size, ignored: ((x < 0) | (x >= size)) & (x != ignored),
        (dtypes.int64,), IndexRangeError,
    ),
}  # fmt: skip


# --- kernel ---------------------------------------------------------------------------------------


def _kernel(short: str, rule: str, num_limits: int, copies: bool) -> Kernel:
    """Fails where an element is refused; copies the elements where ``copies``."""
    from treadle.ir.loop import BEGIN, END, Builder  # only where a kernel is built

    dtype = dtypes.by_short(short)
    wide = dtypes.float32 if dtype.kind == "f" and dtype.bits == 16 else dtype
    flag = dtypes.int32 if wide.bits == 32 else dtypes.int64
    k = Builder(f"check_{rule}_{short}{'_copy' if copies else ''}")
    out = k.pointer("out", dtype) if copies else None
    x = k.pointer("x", dtype)
    limits = [k.size(f"limit{i}") for i in range(num_limits)]
    flags = k.local(flag, _GROUP)

    def test(at: Operand, place: Operand) -> None:
        value = k.load(x, at)
        if out is not None:
            k.store(out, at, value)
        is_bad = RULES[rule].bad(k, k.convert(value, wide), *limits)
        known = k.load(flags, place)
        k.store(flags, place, k.select(is_bad, 1, known))

    with k.loop(0, _GROUP, kind="vector") as j:
        k.store(flags, j, k.const(0, flag))
    whole = k.add(BEGIN, k.mul(k.div(k.sub(END, BEGIN), _GROUP), _GROUP))
    with k.loop(BEGIN, whole, step=_GROUP) as i, k.loop(0, _GROUP, kind="vector") as j:
        test(k.add(i, j), j)
    with k.loop(whole, END) as i:
        test(i, k.sub(i, whole))
    with k.loop(0, _GROUP) as j, k.when(k.compare("ne", k.load(flags, j), 0)):
        k.fail(1)
    return k.kernel


def check_launch(
    operand: Argument, layout: Layout, rule: str, limits: tuple[int, ...],
    message: str | Refusal, out: Argument | None = None,
) -> Launch:  # fmt: skip
    """Tests a contiguous operand, and copies it to ``out`` if given."""
    count = prod(layout.shape)
    spec = KernelSpec(_kernel, (layout.dtype.short, rule, len(limits), out is not None))
    arguments = (operand,) if out is None else (out, operand)
    return Launch(spec, (*arguments, *limits), count, count, message)


def _plan(
    inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    x, rule, limits, words = inputs[0], attrs["rule"], attrs["limits"], attrs["words"]
    if prod(x.shape) == 0:
        return Plan(())
    refusal = Refusal(1, x, lambda array: _error(array, rule, limits, words))
    return Plan((check_launch(In(0), x, rule, limits, refusal, Out(0)),))


def _error(x: Array, rule: str, limits: tuple[int, ...], words: str) -> Exception:
    """The words about the first bad element and how many there are."""
    with np.errstate(invalid="ignore"):
        bad = np.argwhere(RULES[rule].find(x, *limits))
    first = tuple(bad[0].tolist())
    where = f" at {list(first)}" if first else ""
    if len(bad) > 1:
        where += f" (and {len(bad) - 1} more)"
    value = f"{x[first]:g}" if x.dtype.kind == "f" else x[first]
    return RULES[rule].error(words.format(value=value, where=where))


# --- record ---------------------------------------------------------------------------------------


def _infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    check_dtype("check", types[0], RULES[attrs["rule"]].dtypes)
    return types[0]


def _samples() -> Iterable[Sample]:
    said = "got {value}{where}"
    for seed, shape in enumerate(((), (1,), (16,), (3, 15), (2, 0, 3), (5, 7, 3), (1000,))):
        x = floats(*shape, seed=seed)
        yield Sample((x,), {"rule": "not_nan", "limits": (), "words": said})
        inside = floats(*shape, low=0.25, high=0.75, seed=seed)
        for rule in ("in_unit_interval", "positive", "not_negative"):
            yield Sample((inside,), {"rule": rule, "limits": (), "words": said})
    labels = np.array([[0, 3, 1], [2, 1, 3]])
    yield Sample((labels,), {"rule": "label_in_range", "limits": (10, -100), "words": said})
    yield Sample((labels[1],), {"rule": "index_in_range", "limits": (10,), "words": said})


def _errors() -> Iterable[ErrorSample]:
    whole = np.ones(2, np.int64)
    for rule, x in (("not_nan", whole), ("label_in_range", whole.astype(np.float32))):
        attrs = {"rule": rule, "limits": (), "words": ""}
        yield ErrorSample((x,), attrs, DTypeError, "check: got an operand of dtype")


def _identity(g: Node, n: Node) -> Node:
    return g


check = register(
    Op(
        name="check", family="checks", traits=frozenset({"check"}), infer=_infer,
        gradient=(_identity,), residuals=(), lower=Loops(_plan, frozenset({0})),
        jvp=DIAGONAL, batch=ANY_LEADING,
        reference=lambda x, rule, limits, words: x, samples=_samples, errors=_errors,
        cost=elements_cost(1), dtypes=FLOATS,  # or what the rule is for
        doc="x, unless an element breaks ``RULES[rule]`` (with ``limits``): then the error "
        "``words``, in which {value} and {where} are the first one and its place",
    )
)  # fmt: skip

__all__ = ["RULES", "check", "check_launch"]
