"""Nodes: one application of an op each, immutable, typed, and tied to the user's line.

Recording is the hot path of the framework. What it costs per call is one dictionary look-up by
operand types: a ``Signature`` (op, attributes, types of the inputs) is made once and holds all that
follows from it, so that an operation seen before is neither checked nor planned again.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any

from treadle.base.dtypes import DType
from treadle.base.errors import TreadleError
from treadle.base.flags import flags
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import Layout, contiguous
from treadle.ir.op import Bundle, NoGradient, Op, View

_INTERN_LIMIT = 1 << 16  # forgetting what was interned costs time, never correctness


class Type:
    """What is known of a value before it is computed. Interned: make it with ``type_of``."""

    __slots__ = ("device", "dtype", "layout", "nbytes", "ndim", "shape", "size")

    def __init__(self, dtype: DType, shape: Shape, device: str) -> None:
        self.dtype = dtype
        self.shape = shape
        self.device = device
        self.ndim = len(shape)
        self.size = prod(shape)
        self.nbytes = self.size * dtype.itemsize
        self.layout: Layout = contiguous(dtype, shape)

    def __repr__(self) -> str:
        return f"{self.dtype.short}[{','.join(map(str, self.shape))}]"


_types: dict[tuple[DType, Shape, str], Type] = {}


def type_of(dtype: DType, shape: Shape, device: str = "cpu") -> Type:
    """The type with these parts.

    >>> from treadle.base import dtypes
    >>> type_of(dtypes.float32, (2, 3))
    f32[2,3]
    """
    key = (dtype, shape, device)
    known = _types.get(key)
    if known is None:
        if len(_types) >= _INTERN_LIMIT:
            _types.clear()
        known = _types[key] = Type(dtype, shape, device)
    return known


class Signature:
    """An op with its attributes and the types of its inputs: what structure is made of."""

    __slots__ = (
        "attrs", "gradients", "inputs", "is_view", "nbytes", "op", "plan", "plans", "residuals",
        "simple", "type", "types",
    )  # fmt: skip

    def __init__(self, op: Op, attrs: dict[str, Any], inputs: tuple[Type, ...]) -> None:
        self.op = op
        self.attrs = attrs
        self.inputs = inputs
        result: Any = op.infer(inputs, attrs)
        self.types: tuple[Type, ...] = result if isinstance(result, tuple) else (result,)
        self.type: Any = result if isinstance(result, tuple) else self.types[0]
        self.nbytes = sum(t.nbytes for t in self.types)
        self.is_view = isinstance(op.lower, (View, Bundle))  # needs no memory of its own
        # None: nothing flows back. A tuple: a rule per input. Joint: one rule for all.
        gradient = op.gradient
        differentiable = not isinstance(gradient, NoGradient) and any(
            t.dtype.is_inexact for t in self.types
        )
        self.gradients: Any = gradient if differentiable else None
        if "project" in op.traits and self.types[0].dtype.is_inexact:
            self.gradients = ()  # backward() hands the adjoint on, in its place
        self.residuals = op.residuals
        # Filled in by the compiler: plans by the layouts of the inputs; ``plan`` when all of
        # them are contiguous, ``simple`` the short form of it where there is one.
        self.plan: Any = None
        self.simple: Any = None
        self.plans: dict[Any, Any] = {}


_signatures: dict[tuple[Any, ...], Signature] = {}


class Node:
    """One application of an op.

    ``value`` is None until evaluated, then what the device made of it (one value, or a tuple of
    them for several outputs); ``address`` is where it lies, if row-major, else 0. ``site`` is the
    (code, instruction) that recorded it. ``order`` rises with time, so that sorting by it is a
    topological sort. ``spent`` means that backward() has been here and released the graph. ``uses``
    and ``keep`` belong to the evaluator.
    """

    __slots__ = (
        "__weakref__", "address", "error", "inputs", "keep", "needs_grad", "order", "sig", "site",
        "spent", "type", "uses", "value",
    )  # fmt: skip

    def __init__(
        self, sig: Signature, inputs: tuple[Node, ...], site: Site | None, needs_grad: bool
    ) -> None:
        self.sig = sig
        self.type = sig.type
        self.inputs = inputs
        self.site = site
        self.needs_grad = needs_grad
        self.order = _next_order()
        self.value: Any = None
        self.address = 0
        self.error: Exception | None = None
        self.uses = 0
        self.keep = False
        self.spent = False

    def set_value(self, value: Any) -> None:
        """Gives the node its value (None takes it away)."""
        self.value = value
        single = value is not None and type(self.type) is Type
        self.address = value[2] if single and value[1] is self.type.layout else 0

    @property
    def op(self) -> Op:
        """The op applied."""
        return self.sig.op

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of this application."""
        return self.sig.attrs

    @property
    def shape(self) -> Shape:
        """The shape of the result."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The dtype of the result."""
        return self.type.dtype

    def name(self) -> str:
        """The name of the op, as ``grad_fn.name()`` asks for it."""
        return self.op.name

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """Where a gradient goes from here: for every input its node, or None, and 0."""
        return tuple([(i if i.needs_grad else None, 0) for i in self.inputs])

    def __repr__(self) -> str:
        return f"<node {self.op.name}: {self.type} [{describe_site(self.site)}]>"


class Leaf(Node):
    """A value that gradients are asked for; ``owner()`` is the tensor whose ``grad`` they go to."""

    __slots__ = ("owner",)

    owner: Callable[[], Any]


class Scalar(Node):
    """A 0-d value known when recorded; ``packed`` are its bytes. Its value is made on demand.

    The number is no part of the signature: programs that differ in a number are the same program.
    """

    __slots__ = ("number", "packed")

    def __init__(self, sig: Signature, packed: bytes, number: float | int | bool) -> None:
        super().__init__(sig, (), None, False)
        self.packed = packed
        self.number = number

    def twin(self) -> Scalar:
        """The same number as a node of its own."""
        return Scalar(self.sig, self.packed, self.number)


# Between two orders there is room for those of a call's nodes (``ir/call.py``).
ORDERS_APART = 1 << 20
_next_order = itertools.count(0, ORDERS_APART).__next__
_bare = object.__new__


# --- the user's line ------------------------------------------------------------------------------

Site = tuple[CodeType, int]
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PROGRAMS = os.path.join(_PACKAGE, "testing", "scenarios")  # written as users write


class _Internal(dict[str, bool]):
    """Of every file name, whether it is one of Treadle's own."""

    def __missing__(self, filename: str) -> bool:
        known = filename.startswith((_PACKAGE, "<string>")) and not filename.startswith(_PROGRAMS)
        self[filename] = known
        return known


_internal = _Internal()
is_internal: Callable[[str], bool] = _internal.__getitem__


def user_site() -> Site | None:
    """The innermost frame that is not Treadle's own (None where there is none)."""
    try:
        frame = sys._getframe(2)  # who asks is Treadle's own
    except ValueError:
        return None
    internal = _internal
    while frame is not None:
        code = frame.f_code
        if not internal[code.co_filename]:
            mark = Marks.mark
            return (code, frame.f_lasti) if mark is None else mark((code, frame.f_lasti))
        frame = frame.f_back  # type: ignore[assignment]
    return None


class Marks:
    """What a profiler adds to the sites of nodes while it records: the layer they belong to."""

    mark: Callable[[Site], Site] | None = None


def describe_site(site: Site | None) -> str:
    """``train.py:41``."""
    if site is None:
        return "unknown line"
    code, instruction = site
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            line = number
    return f"{os.path.basename(code.co_filename)}:{line}"


# --- recording --------------------------------------------------------------------------------


class Replaced:
    """Values whose handles come to stand for what is being evaluated.

    Nobody but those handles will ask for ``olds``, so they may be overwritten. ``moves(values)``,
    those of ``news`` by node, gives what re-points the handles, to be gone through in one call into
    C; ``is_done`` once that has happened.
    """

    __slots__ = ("is_done", "moves", "news", "olds")

    def __init__(
        self, olds: frozenset[Node], news: Sequence[Node],
        moves: Callable[[Mapping[Node, Any]], Iterable[object]],
    ) -> None:  # fmt: skip
        self.olds = olds
        self.news = news
        self.moves = moves
        self.is_done = False


class Recording:
    """What a Python thread has recorded and not yet evaluated, and how it records.

    ``pending`` has nodes and calls (``ir/call.py``); ``scan`` is what is known of their structure.
    ``capturing`` is set while a template is made, and while one may not be used. ``is_ahead``:
    the user waits for the compiler, and wants to be told where it fails. ``is_whole``: the graph
    must not be evaluated before what is being recorded is there as a whole. ``outer`` is the
    recording of which this one is a part that cannot be evaluated as it stands (a function under
    vmap, see ``autodiff/batching.py``), and ``began`` the order at which that began; ``draws``:
    every random number is to be drawn so many times.
    ``tracer`` is asked instead of the evaluator while a function is exported. ``replaced`` is there
    while an optimizer has its new values evaluated.
    """

    __slots__ = (
        "autocast", "began", "capturing", "draws", "grad_enabled", "is_ahead", "is_whole",
        "nbytes", "outer", "pending", "replaced", "scan", "site", "tracer",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pending: list[Any] = []
        self.nbytes = 0
        self.grad_enabled = True
        self.site: Site | None = None  # set while backward() records for a node of the user's
        self.capturing = False
        self.is_ahead = False
        self.is_whole = False
        self.scan: Any = None
        self.outer: Recording | None = None
        self.began = 0
        self.draws = 1
        self.autocast: DType | None = None  # what mixed precision shortens products to
        self.tracer: Any = None
        self.replaced: Replaced | None = None


class _Recorder(threading.local):
    """``recorder.state`` is the Recording of this thread (one look-up for all of it)."""

    def __init__(self) -> None:
        self.state = Recording()


recorder = _Recorder()


def _no_evaluator() -> None:
    raise TreadleError("no evaluator is installed; import treadle, not treadle.ir alone")


# What comes from outside is there and stays until the graph that reads it has run; of the results
# of a graph only few exist at the same time. So a byte of the former counts as much as 16 of these.
_OUTSIDE = 16


class _Limits:
    """The budget of one thread's pending graph, and who evaluates it when it is passed."""

    __slots__ = ("evaluate", "nbytes", "nodes")

    def __init__(self) -> None:
        self.nodes = flags.PENDING_NODES
        self.nbytes = flags.PENDING_BYTES
        self.evaluate = _no_evaluator  # replaced by the compiler, which is a lower room


Limits = _Limits()


class Values:
    """``of(n)`` is the value of a node; set by the compiler, which is a lower room."""

    of: Callable[[Node], Any]


def _no_complex(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    raise TreadleError("no rules for complex numbers are there; import treadle, not treadle.ir")


class Complex:
    """How an op is recorded that has to do with complex numbers: as others of their parts.

    ``record`` is set by the room of the ops. Signatures of such ops do not exist, except of those
    few that take complex values as they are (``holds_complex``): so real ones are never asked.
    """

    record: Callable[[Op, Sequence[Node], dict[str, Any]], Node] = staticmethod(_no_complex)


def _is_complex(op: Op, types: Sequence[Any], attrs: dict[str, Any]) -> bool:
    """Whether an op without a signature is one for ``Complex.record``."""
    if "holds_complex" in op.traits:
        return False
    dtype = attrs.get("dtype")
    if dtype is not None and dtype.kind == "c":
        return True
    return any(type(t) is Type and t.dtype.kind == "c" for t in types)


def make_signature(op: Op, attrs: dict[str, Any], types: tuple[Type, ...]) -> Signature:
    """Checks the operands (``infer`` raises) and makes the signature."""
    for name, value in attrs.items():
        hash(value)
        if isinstance(value, list):
            raise TypeError(f"{op.name}: attribute {name} must be hashable, got {value!r}")
    try:
        return Signature(op, attrs, types)
    except (ValueError, TypeError, IndexError) as error:
        raise located(error) from None


def located(error: Exception) -> Exception:
    """The error with the user's line at its end (once, however many rooms it passes)."""
    if hasattr(error, "site"):
        return error
    site = recorder.state.site or user_site()
    told = type(error)(f"{error} [{describe_site(site)}]")
    told.site = site  # type: ignore[attr-defined]
    return told


def signature_of(op: Op, types: tuple[Type, ...], attrs: dict[str, Any]) -> Signature:
    """The signature, made when it is first asked for."""
    key = (op, types, *attrs.items()) if attrs else (op, types)
    sig = _signatures.get(key)
    if sig is None:
        sig = make_signature(op, attrs, types)
        if len(_signatures) >= _INTERN_LIMIT:
            for other in {s.op for s in list(_signatures.values())}:
                other.pairs.clear()
            _signatures.clear()
        _signatures[key] = sig
    return sig


def record(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """Appends a node to this thread's pending graph and returns it."""
    inputs = tuple(inputs)
    types = tuple([i.type for i in inputs])
    sig = _signatures.get((op, types, *attrs.items()) if attrs else (op, types))
    if sig is None:
        if _is_complex(op, types, attrs):
            return Complex.record(op, inputs, attrs)
        sig = signature_of(op, types, attrs)
    state = recorder.state
    needs_grad = False
    if state.grad_enabled and sig.gradients is not None:
        for i in inputs:
            if i.needs_grad:
                needs_grad = True
                break
    node = _bare(Node)  # Node.__init__ written out: one frame less per operation
    node.sig = sig
    node.type = sig.type
    node.inputs = inputs
    node.site = state.site or user_site()
    node.needs_grad = needs_grad
    node.order = _next_order()
    node.value = node.error = None
    node.address = node.uses = 0
    node.keep = node.spent = False
    pending = state.pending
    pending.append(node)
    state.nbytes = nbytes = state.nbytes + sig.nbytes
    if len(pending) >= Limits.nodes or nbytes >= Limits.nbytes:
        Limits.evaluate()
    return node


def record_pair(op: Op, a: Node, b: Node) -> Node:
    """``record(op, (a, b), {})`` for operands of one type: the commonest case, and the shortest."""
    kind = a.type
    sig = op.pairs.get(kind)
    if sig is None:
        if kind.dtype.kind == "c" and _is_complex(op, (kind,), {}):
            return Complex.record(op, (a, b), {})
        sig = op.pairs[kind] = signature_of(op, (kind, kind), {})
    state = recorder.state
    node = _bare(Node)  # as in ``record``
    node.sig = sig
    node.type = sig.type
    node.inputs = (a, b)
    node.site = state.site or user_site()
    node.needs_grad = (
        (a.needs_grad or b.needs_grad) and state.grad_enabled and sig.gradients is not None
    )
    node.order = _next_order()
    node.value = node.error = None
    node.address = node.uses = 0
    node.keep = node.spent = False
    pending = state.pending
    pending.append(node)
    state.nbytes = nbytes = state.nbytes + sig.nbytes
    if len(pending) >= Limits.nodes or nbytes >= Limits.nbytes:
        Limits.evaluate()
    return node


def from_value(source: Op, kind: Type, value: Any, site: Site | None = None) -> Node:
    """A node that is already evaluated (data that came from outside)."""
    key = (source, (), kind)
    sig = _signatures.get(key)
    if sig is None:
        sig = _signatures[key] = Signature(source, {"type": kind}, ())
    node = Node(sig, (), site, False)
    node.set_value(value)
    recorder.state.nbytes += kind.nbytes * _OUTSIDE
    return node
