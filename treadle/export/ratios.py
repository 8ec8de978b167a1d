"""Numbers that are ratios of open sizes: ``factor * (a / b)``, as a batch norm's n / (n - 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm, prod

import numpy as np

from treadle.ir.size import Monomial, Size, monomials

Ratio = tuple[float, Size, Size]
_LARGEST = 1 << 20  # denominator that a coefficient may have
_DIGITS = 12


def ratio_at(ratio: Ratio, sizes: Mapping[str, int]) -> float:
    """What it comes to, each step rounded to a double."""
    factor, a, b = ratio
    return factor * (a.at(sizes) / b.at(sizes))


def fit_ratio(values: Sequence[float], points: Sequence[Mapping[str, int]]) -> Ratio | None:
    """The ratio that has exactly these values where the sizes are as ``points`` say, if one has.

    >>> points = [{"N": n} for n in (3, 5, 8, 13, 21, 34, 50)]
    >>> fit_ratio([0.1 * (64 * p["N"] / (64 * p["N"] - 1)) for p in points], points)
    (0.1, 64*N, 64*N - 1)
    """
    basis = [m for m in monomials(list(points[0])) if len(set(m)) == len(m)]
    table = np.array([[float(prod(p[n] for n in m)) for m in basis] for p in points])
    v = np.array(values, float)
    for top in range(len(basis) - 1, 0, -1):  # b's coefficient of this one is 1
        others = [i for i in range(len(basis)) if i != top]
        columns = np.hstack([table, -v[:, None] * table[:, others]])
        scale = np.abs(columns).max(0) + 1e-300
        found, *_ = np.linalg.lstsq(columns / scale, v * table[:, top], rcond=1e-13)
        found = found / scale
        below = dict(zip(others, found[len(basis) :], strict=True)) | {top: 1.0}
        ratio = _whole(basis, found[: len(basis)], below, top)
        if ratio is not None and _is_right(ratio, values, points):
            return ratio
    return None


def _whole(
    basis: Sequence[Monomial], above: Sequence[float], below: Mapping[int, float], top: int
) -> Ratio | None:
    """The ratio with whole coefficients, where these are close to fractions."""
    factor = float(f"{above[top]:.{_DIGITS}g}")
    if not factor:
        return None
    a = [Fraction(x / factor).limit_denominator(_LARGEST) for x in above]
    b = [Fraction(below[i]).limit_denominator(_LARGEST) for i in range(len(basis))]
    common = lcm(*(x.denominator for x in (*a, *b)))
    if common > _LARGEST:
        return None
    sizes = [Size({m: x * common for m, x in zip(basis, part, strict=True)}) for part in (a, b)]
    return factor, sizes[0], sizes[1]


def _is_right(ratio: Ratio, values: Sequence[float], points: Sequence[Mapping[str, int]]) -> bool:
    return all(
        ratio[2].at(point) and ratio_at(ratio, point) == value
        for value, point in zip(values, points, strict=True)
    )


__all__ = ["Ratio", "fit_ratio", "ratio_at"]
