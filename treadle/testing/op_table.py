"""The op table: every record tried on its own samples.

Each check takes one op and raises AssertionError with the sample that failed. ``tests/ops`` runs
them over the whole registry; ``make sweep-bits`` style sweeps can run them over more.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from treadle.autodiff.batching import vectorized
from treadle.autodiff.forward import tangents
from treadle.autodiff.reverse import backward
from treadle.autodiff.variables import variable
from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.ir.node import Node
from treadle.ir.op import Forward, Joint, NoBatching, NoGradient, Op, Sample, Stacked
from treadle.ops.project import results
from treadle.ops.registry import OPS, import_families
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.testing.gradients import check_grads
from treadle.testing.layouts import strided_node as strided

# Relative error of one op against the reference, which computes in f64 (f32 for 16-bit inputs).
TOLERANCE = {"f64": 1e-12, "f32": 2e-6, "f16": 2e-3, "bf16": 1.6e-2}


def all_ops() -> list[Op]:
    """Every registered op, all families imported."""
    import_families()
    importlib.import_module("treadle.autodiff.bodies")  # the rules of control flow
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
            tolerance = TOLERANCE[dtypes.from_numpy(g.dtype).to_real().short]
            with np.errstate(all="ignore"):
                same = np.allclose(
                    g.astype(np.complex128), e.astype(np.complex128), tolerance,
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


def check_forward_mode(op: Op, sample: Sample) -> None:
    """The tangents are right if the gradients are: <J v, u> is <v, J^T u>, in f64."""
    random = np.random.default_rng(0)

    def drawn(kind: Any) -> Node:
        return node_from_array(random.standard_normal(kind.shape).astype(kind.dtype.numpy))

    wide = {"f": np.float64, "c": np.complex128}
    arrays = [x.astype(wide.get(x.dtype.kind, x.dtype)) for x in sample.args]
    inputs = [node_from_array(x) for x in arrays]
    given = {variable(n): drawn(n.type) for n in inputs if n.dtype.is_inexact}
    leaves = iter(given)
    out = op(*(next(leaves) if n.dtype.is_inexact else n for n in inputs), **sample.attrs)
    outputs = [n for n in (results(out) if isinstance(out.type, tuple) else (out,)) if n.needs_grad]
    weights = [drawn(n.type) for n in outputs]
    pushed = tangents(outputs, given)
    pulled = backward(outputs, weights, wanted=given, retain_graph=True)
    ahead = [_product(t, w) for t, w in zip(pushed, weights, strict=True) if t is not None]
    back = [_product(v, pulled[x]) for x, v in given.items() if x in pulled]
    if not np.isclose(sum(ahead), sum(back), 1e-9, 1e-9):
        raise AssertionError(f"{op.name}: <Jv, u> is {ahead}, <v, J^T u> is {back}: {sample}")


def _product(a: Node, b: Node) -> float:
    return float(np.real(np.vdot(array_of(a), array_of(b))))


def check_batching(op: Op, sample: Sample) -> None:
    """A batch gives the bits of its examples: all inputs batched, and each of them alone."""
    arrays = usual(op, sample)
    examples = [(x, x.reshape(-1)[::-1].reshape(x.shape)) for x in arrays]
    alone = [tuple(i == j for i in range(len(arrays))) for j in range(len(arrays))]
    for batched in {(True,) * len(arrays), *alone}:
        pairs = list(zip(examples, batched, strict=True))
        stacks = [node_from_array(np.stack(e)) for e, has in pairs if has]

        def function(places: list[Node], batched: tuple[bool, ...] = batched) -> list[Node]:
            left = iter(places)
            fixed = (node_from_array(x) for x in arrays)
            inputs = [next(left) if h else x for x, h in zip(fixed, batched, strict=True)]
            node = op(*inputs, **sample.attrs)
            return list(results(node)) if isinstance(node.type, tuple) else [node]

        together = [array_of(n) for n, _ in vectorized(function, stacks, 2, "error")]
        for example in range(2):
            chosen = tuple(e[example if has else 0] for e, has in pairs)
            for got, expected in zip(together, run(op, chosen, sample.attrs), strict=True):
                if got[example].tobytes() != expected.tobytes():
                    raise AssertionError(
                        f"{op.name}: example {example} of a batch gives {got[example]}, by itself "
                        f"{expected} (batched: {batched}): {sample}"
                    )


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
    if not (isinstance(op.jvp, (Forward, NoGradient)) or callable(op.jvp)):
        yield "jvp"
    batch = op.batch
    has_none = isinstance(batch, NoBatching) and batch.reason
    if not (isinstance(batch, Stacked) or callable(batch) or has_none):
        yield "batch"
