"""Tensors of more than 2^31 elements, which take no memory because they are expanded."""

from __future__ import annotations

import pytest

import treadle
from treadle.base.errors import IndexRangeError

SIZE = (1 << 31) + 5


@pytest.fixture(name="long")
def _long() -> treadle.Tensor:
    return treadle.ones(1, dtype=treadle.uint8).expand(SIZE)


def test_reductions_see_every_element(long: treadle.Tensor):
    assert long.sum().item() == SIZE
    assert long.max().item() == 1
    assert long[1 << 31 :].sum().item() == 5


def test_reductions_over_either_axis():
    wide = treadle.ones(1, 1, dtype=treadle.int8).expand(1 << 20, (1 << 11) + 3)
    assert (wide.sum(0) == 1 << 20).all().item()
    assert wide.t().sum(0).sum().item() == wide.numel()


def test_indices_beyond_32_bits(long: treadle.Tensor):
    assert long[treadle.tensor([0, SIZE - 1, -SIZE])].tolist() == [1, 1, 1]
    with pytest.raises(IndexRangeError, match=rf"\[{-SIZE}, {SIZE}\)"):
        long[treadle.tensor([SIZE])].tolist()
