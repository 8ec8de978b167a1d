"""The record of a primitive operation: all that is known of it, in one place (section 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.dtypes import DType
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.ir.launch import Layout, Plan

if TYPE_CHECKING:
    from treadle.ir.loop import Builder, Operand
    from treadle.ir.node import Node, Type


# --- how an op becomes code: one of these is an op's ``lower`` ---------------------------------


class Elementwise(Record):
    """``emit(k, *operands, **attrs)`` gives the result of one element.

    ``compute``: "own" does the arithmetic in the operands' dtype, "f32" widens f16 and bf16
    operands first and rounds the result once. Ops whose IR statement rounds correctly use "own".
    """

    emit: Callable[..., Operand]
    compute: str = "own"


class View(Record):
    """A movement that only re-reads memory: ``move(layout, type, **attrs)`` gives the new layout's
    strides and the offset in elements, or None where the data must be copied first."""

    move: Callable[..., tuple[tuple[int, ...], int] | None]


class Reduction(Record):
    """A reduction over ``attrs['axes']`` in the order of section 4.

    ``accumulators(dtype)`` gives for the input's dtype the list of accumulators, each
    (dtype, identity); ``lift(k, x, r)`` turns the element with logical index ``r`` into a tuple,
    one operand per accumulator; ``merge(k, a, b)`` combines two tuples (``a`` comes before ``b``);
    ``finish(k, acc, n)`` gives the outputs from the last tuple and the count ``n`` (an i64).
    ``step``, if there is one, takes the place of ``merge`` for a ``b`` that is one lifted element
    or the identity, behind all elements of ``a``.
    """

    accumulators: Callable[[DType], list[tuple[DType, float | int | bool]]]
    lift: Callable[[Builder, Operand, Operand], tuple[Operand, ...]]
    merge: Callable[[Builder, tuple[Operand, ...], tuple[Operand, ...]], tuple[Operand, ...]]
    finish: Callable[[Builder, tuple[Operand, ...], Operand], tuple[Operand, ...]]
    step: (
        Callable[[Builder, tuple[Operand, ...], tuple[Operand, ...]], tuple[Operand, ...]] | None
    ) = None


class Contraction(Record):
    """For ``codegen/contraction.py``: 'matmul', 'conv_forward', 'conv_input', 'conv_weight'."""

    kind: str


class Loops(Record):
    """A kernel of its own: ``plan(inputs, outputs, attrs, threads)`` over the operands' layouts.

    Outputs are contiguous. ``contiguous`` names the inputs that must be contiguous too (they are
    copied when they are not); the others may have any strides.
    """

    plan: Callable[[Sequence[Layout], Sequence[Layout], dict[str, Any], int], Plan]
    contiguous: frozenset[int] = frozenset()


class Library(Record):
    """A call of NumPy on the host: ``call(*arrays, **attrs)`` gives the result, or several.

    It is pinned as section 4 of the design says: one algorithm, which attributes, dtypes and shapes
    decide, on one thread. What it raises is the node's error.
    """

    call: Callable[..., Any]


class Nested:
    """Applies the bodies among its attributes (``ir/body.py``) within one call, which
    ``compiler/control.py`` makes."""


class Source:
    """Has no kernel: its value is made by the recorder (buffers, scalars)."""


class Bundle:
    """Has no kernel: its results are its first inputs."""


Lowering = Elementwise | View | Reduction | Contraction | Loops | Library | Nested | Source | Bundle


# --- what else a record holds -------------------------------------------------------------------


class NoGradient(Record):
    """Written where an op has no gradient; ``reason`` is told to who asks for one."""

    reason: str


class Forward(Record):
    """How the tangent of a result follows from those of the inputs, by the op's own nature."""

    how: str


# Its Jacobian is diagonal and so its own transpose: the gradient rules take tangents as well.
DIAGONAL = Forward("the gradient rules, of the tangents")
# Linear in all its floating inputs together, or in each of them with the others fixed.
LINEAR = Forward("the op itself, of all tangents at once")
MULTILINEAR = Forward("the op itself, of one tangent after the other")
# Right for every op with a gradient: the gradient is linear in g, and transposed by a gradient.
TRANSPOSED = Forward("the gradient of the gradient rules")


class Stacked(Record):
    """The batching rule of most ops: all inputs get a leading axis, and the op is applied to these.

    ``attrs(size, node)`` gives the attributes it then has; ``node`` is without the axis.
    """

    attrs: Callable[[int, Node], dict[str, Any]]


class NoBatching(Record):
    """Written where an op cannot meet a batch; ``reason`` says why."""

    reason: str


# Any other batching rule is a function ``rule(inputs, batched, size, node)``: the inputs, of which
# those ``batched`` have a leading axis of ``size``; it gives the node whose results all have it.
Batching = Stacked | NoBatching | Callable[[list["Node"], list[bool], int, "Node"], "Node"]


class Joint(Record):
    """A gradient that is computed for all inputs at once: ``rule(g, node)`` gives a sequence."""

    rule: Callable[[Any, Any], Sequence[Any]]


Gradient = tuple[Callable[["Node", "Node"], "Node | None"] | NoGradient, ...]


class Sample(Record):
    """Inputs on which the op table tries an op: arrays and attributes."""

    args: tuple[np.ndarray, ...]
    attrs: dict[str, Any] = {}
    smooth: bool = True  # the gradient can be checked by finite differences here


class ErrorSample(Record):
    """Inputs that must be refused when recorded, and the text that the error must contain."""

    args: tuple[np.ndarray, ...]
    attrs: dict[str, Any]
    error: type[Exception]
    text: str


class Cost(Record):
    """Floating (or integer) operations, and bytes read and written."""

    flops: int
    bytes: int


# Batching rules of ops that take any leading axes, that name one axis, and that name several.
ANY_LEADING = Stacked(lambda size, n: n.attrs)
NEXT_AXIS = Stacked(lambda size, n: n.attrs | {"axis": n.attrs["axis"] + 1})
NEXT_AXES = Stacked(lambda size, n: n.attrs | {"axes": tuple([a + 1 for a in n.attrs["axes"]])})


class Op:
    """A primitive. Calling it with nodes records it: ``mul(a, b)``, ``reduce_sum(a, axes=(0,))``.

    ``infer(types, attrs)`` checks the operands and gives the result's type (a tuple of types for
    several outputs). ``gradient`` has one function ``f(g, node)`` per input, written in other ops;
    ``residuals`` names the values that they read: input positions and ``"out"``. ``jvp`` is a
    ``Forward``, or ``f(tangents, node)``, where a tangent may be None; left out it follows from the
    gradient. ``batch`` is left out for elementwise ops only.
    ``reference(*arrays, **attrs)`` is the same in NumPy. ``dtypes`` are those of the first input
    that the op takes.
    """

    __slots__ = (
        "batch", "cost", "doc", "dtypes", "errors", "family", "gradient", "infer", "jvp", "lower",
        "name", "pairs", "reference", "residuals", "samples", "traits", "version",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        family: str,
        traits: frozenset[str],
        infer: Callable[[Sequence[Type], dict[str, Any]], Type | tuple[Type, ...]],
        gradient: Gradient | NoGradient | Joint,
        residuals: tuple[int | str, ...],
        lower: Lowering,
        reference: Callable[..., Any],
        samples: Callable[[], Iterable[Sample]],
        errors: Callable[[], Iterable[ErrorSample]],
        cost: Callable[[Sequence[Type], Type | tuple[Type, ...], dict[str, Any]], Cost],
        dtypes: tuple[DType, ...],
        doc: str,
        jvp: Forward | Callable[[Sequence[Any], Any], Any] | None = None,
        batch: Batching | None = None,
        version: int = 1,
    ) -> None:
        self.name = name
        self.family = family
        self.traits = traits
        self.infer = infer
        self.gradient = gradient
        self.residuals = residuals
        self.lower = lower
        self.reference = reference
        self.samples = samples
        self.errors = errors
        self.cost = cost
        self.dtypes = dtypes
        self.doc = doc
        if jvp is None:
            jvp = DIAGONAL if "elementwise" in traits else TRANSPOSED
        self.jvp: Any = gradient if isinstance(gradient, NoGradient) else jvp
        self.batch: Any = ANY_LEADING if batch is None and "elementwise" in traits else batch
        self.version = version
        # Signatures of two operands of one type, by that type (see ``ir.node.record_pair``).
        self.pairs: dict[Any, Any] = {}

    def __call__(self, *inputs: Node, **attrs: Any) -> Node:
        """Records the op."""
        if not attrs and len(inputs) == 2:
            a, b = inputs
            if a.type is b.type:
                return recording.record_pair(self, a, b)
        return recording.record(self, inputs, attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


# At the end, because nodes are made of ops: what ``Op.__call__`` records with.
from treadle.ir import node as recording  # noqa: E402
