"""The registry of primitives, and what the records of all families share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.ir.node import Type, type_of
from treadle.ir.op import Cost, ErrorSample, Op, Sample

OPS: dict[str, Op] = {}

FLOATS = dtypes.FLOATS
INTS = dtypes.INTS
NUMERIC = FLOATS + INTS
ALL = dtypes.ALL


def register(op: Op) -> Op:
    """Adds the record to the registry; a name is taken once."""
    if op.name in OPS:
        raise ValueError(f"the op {op.name!r} is registered twice")
    OPS[op.name] = op
    return op


def get(name: str) -> Op:
    """The record of that name."""
    try:
        return OPS[name]
    except KeyError:
        raise KeyError(f"there is no op {name!r}; there are {', '.join(sorted(OPS))}") from None


def import_families() -> None:
    """Imports every family of ops: then ``OPS`` has them all."""
    from importlib import import_module
    from pkgutil import iter_modules

    from treadle import ops

    for module in iter_modules(ops.__path__):
        import_module(f"{ops.__name__}.{module.name}")


def find(name: str) -> Op | None:
    """The record of that name, from whichever family; None where there is none.

    Families that nobody has used yet are imported when a name is not known.
    """
    if name not in OPS:
        import_families()
    return OPS.get(name)


def check_dtype(name: str, kind: Type, allowed: Sequence[DType]) -> None:
    """DTypeError unless the operand's dtype is one that the op takes."""
    if kind.dtype not in allowed:
        names = ", ".join(d.name for d in allowed)
        raise DTypeError(
            f"{name}: got an operand of dtype {kind.dtype.name}; it takes {names}; convert the "
            f"tensor with .to(dtype) first"
        )


def check_same(name: str, types: Sequence[Type]) -> None:
    """ShapeError or DTypeError unless all operands have one shape and one dtype."""
    first = types[0]
    for other in types[1:]:
        if other.shape != first.shape:
            raise ShapeError(
                f"{name}: got shapes {first.shape} and {other.shape}; they must be equal here "
                f"(expand one of them first)"
            )
        if other.dtype is not first.dtype:
            raise DTypeError(
                f"{name}: got dtypes {first.dtype.name} and {other.dtype.name}; they must be "
                f"equal here (convert one of them first)"
            )


def elements_cost(
    per_element: int,
) -> Callable[[Sequence[Type], Type | tuple[Type, ...], dict[str, Any]], Cost]:
    """The cost of ``per_element`` operations for each element of the largest operand."""

    def cost(inputs: Sequence[Type], out: Type | tuple[Type, ...], attrs: dict[str, Any]) -> Cost:
        outs = out if isinstance(out, tuple) else (out,)
        everything = [*inputs, *outs]
        return Cost(
            per_element * max(t.size for t in everything), sum(t.nbytes for t in everything)
        )

    return cost


def no_cost(inputs: Sequence[Type], out: Any, attrs: dict[str, Any]) -> Cost:
    """The cost of an op that only re-reads memory."""
    return Cost(0, 0)


def no_errors() -> Iterable[ErrorSample]:
    """Written where every operand that the dtype check lets through is accepted."""
    return ()


def refuses(name: str, *args: np.ndarray[Any, Any], **attrs: Any) -> Iterable[ErrorSample]:
    """The error sample of an op that does not take the dtype of the first of these."""
    return (ErrorSample(args, attrs, DTypeError, f"{name}: got an operand of dtype"),)


def numpy_function(name: str) -> Callable[..., Any]:
    """NumPy's function of that name, looked up when it is called."""
    return lambda *args, **kwargs: getattr(np, name)(*args, **kwargs)


def rng(seed: int = 0) -> np.random.Generator:
    """The generator that samples are drawn from."""
    return np.random.default_rng(seed)


def floats(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> np.ndarray:
    """A float32 sample array."""
    return rng(seed).uniform(low, high, shape).astype(np.float32)


__all__ = [
    "ALL", "FLOATS", "INTS", "NUMERIC", "OPS", "Cost", "ErrorSample", "Sample", "check_dtype",
    "check_same", "elements_cost", "floats", "get", "no_cost", "no_errors", "numpy_function",
    "refuses", "register", "rng", "type_of",
]  # fmt: skip
