"""Every primitive against its reference, its finite differences and its error samples."""

from __future__ import annotations

import pytest

import treadle
from treadle.ir.op import NoGradient
from treadle.testing import op_table

OPS = op_table.all_ops()
WITH_SAMPLES = [op for op in OPS if list(op.samples())]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_record_is_complete(op):
    assert list(op_table.incomplete_fields(op)) == []


def test_ops_without_samples_are_the_known_ones():
    bare = {op.name for op in OPS} - {op.name for op in WITH_SAMPLES}
    # Data, numbers, a result of several, a user's function: nothing of their own to compute.
    assert bare == {"buffer", "scalar", "project", "bundle"}


@pytest.mark.parametrize("op", WITH_SAMPLES, ids=lambda op: op.name)
def test_values(op):
    for sample in op.samples():
        for dtype in op_table.sample_dtypes(op, sample) or [treadle.float32]:
            op_table.check_values(op, sample, dtype)


@pytest.mark.parametrize(
    "op",
    [op for op in WITH_SAMPLES if not isinstance(op.gradient, NoGradient)],
    ids=lambda op: op.name,
)
def test_gradients_to_second_order(op):
    for sample in op.samples():
        if sample.smooth and sample.args:
            op_table.check_gradients(op, sample)


@pytest.mark.parametrize(
    "op",
    [op for op in WITH_SAMPLES if not isinstance(op.jvp, NoGradient)],
    ids=lambda op: op.name,
)
def test_forward_mode(op):
    for sample in op.samples():
        if sample.smooth and sample.args:
            op_table.check_forward_mode(op, sample)


@pytest.mark.parametrize(
    "op",
    [op for op in WITH_SAMPLES if "random" not in op.traits and "source" not in op.traits],
    ids=lambda op: op.name,
)
def test_batching(op):
    for sample in op.samples():
        op_table.check_batching(op, sample)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_error_samples(op):
    op_table.check_errors(op)


@pytest.mark.parametrize("op", WITH_SAMPLES, ids=lambda op: op.name)
def test_same_bits_with_any_number_of_threads(op):
    before = treadle.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            treadle.set_num_threads(threads)
            results.append(
                [
                    [x.tobytes() for x in op_table.run(op, op_table.usual(op, s), s.attrs)]
                    for s in op.samples()
                ]
            )
        assert results[0] == results[1] == results[2]
    finally:
        treadle.set_num_threads(before)


def test_error_samples_cover_what_takes_operands():
    silent = [
        op.name for op in WITH_SAMPLES
        if next(iter(op.samples())).args and not list(op.errors())
    ]  # fmt: skip
    # These accept every shape and dtype there is.
    assert set(silent) <= {
        "alias", "detach", "graft", "flip", "convert", "scatter_reduced",
    }  # fmt: skip
