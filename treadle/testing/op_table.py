"""The op table: every record tried on its own samples.

Each check takes one op and raises AssertionError with the sample that failed. ``tests/ops`` runs
them over the whole registry; ``make sweep-bits`` style sweeps can run them over more.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.ir.node import Node
from treadle.ir.op import Joint, NoGradient, NotYet, Op, Sample
from treadle.ops.project import results
from treadle.ops.registry import OPS
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.gradients import check_grads
from treadle.testing.layouts import strided_node as strided

_FAMILIES = ("bundle", "checks", "contraction", "elementwise", "functions", "indexing", "movement",
             "project", "random", "reduce", "scan", "sort", "source", "window")  # fmt: skip
# Relative error of one op against the reference, which computes in f64 (f32 for 16-bit inputs).
TOLERANCE = {"f64": 1e-12, "f32": 2e-6, "f16": 2e-3, "bf16": 1.6e-2}


def all_ops() -> list[Op]:
    """Every registered op, all families imported."""
    for family in _FAMILIES:
        importlib.import_module(f"treadle.ops.{family}")
    return [OPS[name] for name in sorted(OPS)]


def cast_sample(sample: Sample, dtype: DType) -> tuple[np.ndarray, ...]:
    """The sample's arrays with those of the first input's dtype turned into ``dtype``."""
    first = sample.args[0].dtype if sample.args else None
    return tuple(_rounded(x, dtype) if x.dtype == first else x for x in sample.args)


def _rounded(x: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype.kind in "iu":
        x = np.abs(np.trunc(x * 3)) + 1 if dtype.kind == "u" else np.trunc(x * 3)
    if dtype.kind == "b":
        return x > 0
    return x.astype(dtype.numpy)


def sample_dtypes(op: Op, sample: Sample) -> list[DType]:
    """The dtypes to try a sample in: all floats for float samples, its own for others."""
    if not sample.args or sample.args[0].dtype.kind != "f":
        return [dtypes.from_numpy(sample.args[0].dtype)] if sample.args else []
    return [d for d in op.dtypes if "dtype" not in sample.attrs or d.is_floating_point]


def usual(op: Op, sample: Sample) -> tuple[np.ndarray, ...]:
    """The sample's arrays in a dtype that the op takes (as they are where that is one)."""
    tried = sample_dtypes(op, sample)
    known = dtypes.from_numpy(sample.args[0].dtype) if sample.args else None
    return sample.args if known in tried or not tried else cast_sample(sample, tried[0])


def run(op: Op, arrays: tuple[np.ndarray, ...], attrs: dict[str, Any]) -> list[np.ndarray]:
    """All results of the op on these arrays."""
    return evaluate(op(*(node_from_array(x) for x in arrays), **attrs))


def evaluate(node: Node) -> list[np.ndarray]:
    """The results of a node, copied."""
    nodes = results(node) if isinstance(node.type, tuple) else (node,)
    return [array_of(n).copy() for n in nodes]


def reference_results(op: Op, arrays: tuple[np.ndarray, ...], attrs: dict[str, Any]) -> list[Any]:
    """The reference on widened floats."""
    wide = [
        x.astype(np.float64) if x.dtype.kind == "f" or x.dtype.name == "bfloat16" else x
        for x in arrays
    ]
    with np.errstate(all="ignore"):
        out = op.reference(*wide, **attrs)
    return list(out) if isinstance(out, tuple) else [out]


def check_values(op: Op, sample: Sample, dtype: DType) -> None:
    """The value agrees with the NumPy reference; strided operands give the same bits."""
    arrays = cast_sample(sample, dtype)
    got = run(op, arrays, sample.attrs)
    expected = reference_results(op, arrays, sample.attrs)
    for g, e in zip(got, expected, strict=True):
        e = np.asarray(e)
        if g.shape != e.shape:
            raise AssertionError(f"{op.name}: shape {g.shape}, reference {e.shape}: {sample}")
        if g.dtype.kind in "biu":
            same = np.array_equal(g, e.astype(g.dtype))
        else:
            tolerance = TOLERANCE[dtypes.from_numpy(g.dtype).short]
            with np.errstate(all="ignore"):
                same = np.allclose(
                    g.astype(np.float64), e.astype(np.float64), tolerance,
                    tolerance * (1 + np.nanmax(np.abs(e), initial=0)), equal_nan=True,
                )  # fmt: skip
        if not same:
            raise AssertionError(f"{op.name} {dtype.name}: got {g}, reference {e}: {sample}")
    again = evaluate(op(*(strided(x) for x in arrays), **sample.attrs))
    for g, s in zip(got, again, strict=True):
        if g.tobytes() != s.tobytes():
            raise AssertionError(f"{op.name} {dtype.name}: strided operands differ: {sample}")


def check_gradients(op: Op, sample: Sample, order: int = 2) -> None:
    """Gradients to second order against finite differences, in f64."""
    arrays = tuple(x.astype(np.float64) if x.dtype.kind == "f" else x for x in sample.args)
    tensors = []
    for x in arrays:
        t = wrap(node_from_array(x))
        if x.dtype == np.float64:
            t.requires_grad_()
        tensors.append(t)
    probe = op(*(t.node for t in tensors), **sample.attrs)
    count = len(probe.type) if isinstance(probe.type, tuple) else 0
    for index in range(max(count, 1)):

        def function(*xs: Any, index: int = index) -> Any:
            node = op(*(x.node for x in xs), **sample.attrs)
            return wrap(results(node)[index] if count else node)

        out = function(*tensors)
        if out.dtype.is_floating_point and out.requires_grad:
            check_grads(function, tensors, order)


def check_errors(op: Op) -> int:
    """Every error sample is refused with its text; returns how many there are."""
    count = 0
    for sample in op.errors():
        count += 1
        try:
            op(*(node_from_array(x) for x in sample.args), **sample.attrs)
        except sample.error as error:
            text = str(error)
            if sample.text not in text:
                raise AssertionError(f"{op.name}: {text!r} lacks {sample.text!r}") from None
            if not text.endswith("]"):
                raise AssertionError(f"{op.name}: {text!r} does not name the line") from None
        else:
            raise AssertionError(f"{op.name}: {sample} was accepted")
    return count


def incomplete_fields(op: Op) -> Iterator[str]:
    """What a record leaves unsaid."""
    for name in ("name", "family", "infer", "lower", "reference", "samples", "errors", "cost",
                 "dtypes", "doc", "traits"):  # fmt: skip
        if not getattr(op, name):
            yield name
    gradient = op.gradient
    if isinstance(gradient, NoGradient):
        if not gradient.reason:
            yield "gradient"
    elif not isinstance(gradient, (Joint, tuple)):
        yield "gradient"
    for name in ("jvp", "batch"):
        rule = getattr(op, name)
        if rule is None or (isinstance(rule, NotYet) and not rule.what):
            yield name
