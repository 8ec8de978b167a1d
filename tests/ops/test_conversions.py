"""Conversions round once: against exact rounding of the integers, near every kind of tie."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.ir.loop_arithmetic import round_exact


def _integers(dtype):
    """Numbers on, just above and just below ties of 8, 11, 24 and 53 bits, of every size."""
    info = np.iinfo(dtype)
    values = [info.min, info.max, 0]
    for exponent in range(info.bits - 1):
        for bits in (8, 9, 11, 12, 24, 25, 53, 54):
            tie = (1 << exponent) + (1 << max(exponent - bits, 0))
            sticky = 1 << max(exponent - 2 * bits, 0)
            values += [s * (tie + d) for s in (1, -1) for d in (0, 1, -1, sticky, -sticky)]
    return np.array([x for x in values if info.min <= x <= info.max], dtype)


@pytest.mark.parametrize("source", [np.int64, np.int32, np.int16])
@pytest.mark.parametrize(
    "target", [dtypes.bfloat16, dtypes.float16, dtypes.float32, dtypes.float64]
)
def test_integers_are_rounded_once(source, target):
    array = _integers(source)
    got = treadle.from_numpy(array).to(target).double().tolist()
    assert got == [float(round_exact(int(x), 0, target)) for x in array]


def test_an_integer_just_above_a_tie_of_bfloat16_goes_up():
    above = treadle.tensor([2**30 + 2**22 + 1, 2**30 + 2**22], dtype=treadle.int32)
    assert above.to(treadle.bfloat16).double().tolist() == [2**30 + 2**23, 2**30]
