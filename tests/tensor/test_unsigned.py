"""The wider unsigned dtypes."""

from __future__ import annotations

import numpy as np
import pytest

import treadle

WIDE = (treadle.uint16, treadle.uint32, treadle.uint64)


@pytest.mark.parametrize("dtype", WIDE)
def test_arithmetic_wraps_as_numpys(dtype: treadle.DType) -> None:
    top = int(np.iinfo(dtype.numpy).max)
    x = treadle.tensor([0, 7, top], dtype=dtype)
    a = x.numpy()
    with np.errstate(over="ignore"):
        for got, expected in (
            (x + x, a + a), (x * 3, a * dtype.numpy.type(3)), (x // 2, a // 2), (x % 5, a % 5),
            (x > 6, a > 6), (x & 5, a & 5), (x >> 1, a >> 1), (x.float(), a.astype(np.float32)),
            (x.sort(descending=True).values, np.sort(a)[::-1]), (x.max(), a.max()),
            (x.flip(0), a[::-1]), (x.bool(), a.astype(bool)),
        ):  # fmt: skip
            assert got.numpy().tobytes() == np.ascontiguousarray(expected).tobytes()


def test_promotion() -> None:
    pairs = (
        (treadle.uint8, treadle.uint32, treadle.uint32),
        (treadle.uint16, treadle.int8, treadle.int32),
        (treadle.uint32, treadle.int32, treadle.int64),
        (treadle.uint64, treadle.float32, treadle.float32),
        (treadle.uint16, treadle.bool, treadle.uint16),
        (treadle.uint16, treadle.int64, treadle.int64),
    )  # fmt: skip
    for a, b, expected in pairs:
        assert treadle.promote_types(a, b) is treadle.promote_types(b, a) is expected
    with pytest.raises(TypeError, match="got int8 and uint64, which no integer dtype holds both"):
        treadle.promote_types(treadle.uint64, treadle.int8)


def test_numbers_keep_their_bits() -> None:
    assert treadle.tensor([2**64 - 1, 5], dtype=treadle.uint64).tolist() == [2**64 - 1, 5]
    assert treadle.tensor(np.array([2**32 - 1], np.uint32)).item() == 2**32 - 1
    with pytest.raises(OverflowError, match="does not fit uint16"):
        treadle.tensor([1], dtype=treadle.uint16) + 70000
