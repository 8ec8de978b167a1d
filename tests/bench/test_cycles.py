"""The count of cycles that stands beside the kernel benchmark's loops."""

from __future__ import annotations

import pytest

from bench.cycles import least_cycles, least_cycles_of
from treadle.base import dtypes
from treadle.ir.loop import BEGIN, END, Builder
from treadle.runtime.jit import host_target

pytestmark = pytest.mark.skipif(host_target().vector_bits != 256, reason="a model of AVX2")


def test_a_loop_takes_as_long_as_its_busiest_pipe() -> None:
    k = Builder("chain")
    out, x = k.pointer("out", dtypes.float32), k.pointer("x", dtypes.float32)
    with k.loop(BEGIN, END, kind="vector") as i:
        value = v = k.load(x, i)
        for _ in range(40):
            value = k.fma(value, v, v)
        k.store(out, i, value)
    assert least_cycles(k.kernel, 4) == 40 / 2 / 8  # two a cycle, eight elements each


def test_loops_that_compute_have_a_count_and_others_none() -> None:
    for name in ("exp", "tanh", "erf", "normal", "dropout"):
        cycles = least_cycles_of(name)
        assert cycles is not None
        assert 0.5 < cycles < 5
    assert least_cycles_of("add") is None
