"""Derives the polynomial coefficients of ``treadle/ops/mathlib`` (needs mpmath).

``python -m tools.minimax`` prints every table, ``python -m tools.minimax sin_f32`` those whose
name contains the argument. A table minimises the largest of ``|weight(x) * (f(x) - p(x))|`` on an
interval (Remez's exchange on a dense grid); its coefficients are then rounded to the dtype. The
error printed is that of the rounded ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf

Function = Callable[[mpf], mpf]


class Table(NamedTuple):
    """One polynomial: ``count`` coefficients for ``f`` on [lo, hi]."""

    f: Function
    weight: Function
    lo: mpf
    hi: mpf
    count: int
    dtype: type[np.floating]


def remez(x: list[mpf], f: list[mpf], w: list[mpf], count: int) -> list[mpf]:
    """The best c in ``sum c[i] * x**i`` for f on the grid x with weights w."""
    size = len(x)
    points = [round((1 - np.cos(np.pi * i / count)) / 2 * (size - 1)) for i in range(count + 1)]
    while True:
        rows = [[x[p] ** i for i in range(count)] + [(-1) ** n / w[p]]
                for n, p in enumerate(points)]  # fmt: skip
        *c, level = mp.lu_solve(mp.matrix(rows), mp.matrix([f[p] for p in points]))
        error = [w[j] * (f[j] - mp.polyval(c[::-1], x[j])) for j in range(size)]
        if max(map(abs, error)) < abs(level) * mpf("1.001"):
            return c
        points = exchange(error, count + 1)


def exchange(error: list[mpf], count: int) -> list[int]:
    """The ``count`` neighbouring extrema of alternating sign that hold the largest errors."""
    extrema: list[int] = []
    for j, e in enumerate(error):
        if extrema and (error[extrema[-1]] > 0) == (e > 0):
            if abs(e) > abs(error[extrema[-1]]):
                extrema[-1] = j
        else:
            extrema.append(j)
    while len(extrema) > count:
        extrema.pop(0 if abs(error[extrema[0]]) < abs(error[extrema[-1]]) else -1)
    return extrema


def fit(table: Table) -> tuple[list[float], float]:
    """The rounded coefficients, lowest power first, and the largest weighted error left."""
    size = 60 * table.count
    middle, half = (table.hi + table.lo) / 2, (table.hi - table.lo) / 2
    x = [middle - half * mp.cos(mp.pi * (j + mpf(1) / 2) / size) for j in range(size)]
    f = [table.f(v) for v in x]
    w = [abs(table.weight(v)) for v in x]
    rounded = [float(table.dtype(float(c))) for c in remez(x, f, w, table.count)]
    error = [w[j] * (f[j] - mp.polyval(rounded[::-1], x[j])) for j in range(len(x))]
    return rounded, float(max(map(abs, error)))


def _log_tail(x: mpf) -> mpf:
    return (mp.log1p(x) - x + x * x / 2) / x**3


def _atanh_ratio(z: mpf) -> mpf:
    s = mp.sqrt(z)
    return mp.atanh(s) / s


def tables() -> dict[str, Table]:
    """Every polynomial of ``treadle/ops/mathlib`` by name."""
    f32, f64 = np.float32, np.float64
    ln2, one = mp.log(2), mpf(1)
    half_ln2, quarter_pi = ln2 / 2 * mpf("1.0001"), mp.pi / 4 * mpf("1.002")
    root = mp.sqrt(2)
    z_log, z_trig = ((root - 1) / (root + 1)) ** 2, quarter_pi**2
    found: dict[str, Table] = {}

    def add(name: str, counts: dict[type[np.floating], int], f: Function, weight: Function,
            lo: mpf, hi: mpf) -> None:  # fmt: skip
        for dtype, count in counts.items():
            short = "f32" if dtype is f32 else "f64"
            found[f"{name}_{short}"] = Table(f, weight, lo, hi, count, dtype)

    # exp(r) = 1 + r + r^2 p(r), relative to exp(r) - 1
    add("exp", {f32: 5, f64: 10}, lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: r**2 / mp.expm1(r), -half_ln2, half_ln2)  # fmt: skip
    # 2^r = 1 + r p(r)
    add("exp2", {f32: 6, f64: 11}, lambda r: mp.expm1(r * ln2) / r,
        lambda r: r * 2**-r, -one / 2, one / 2)  # fmt: skip
    # log(1 + f) = f - f^2/2 + f^3 p(f)
    add("log", {f32: 9}, _log_tail, lambda x: x**3 / mp.log1p(x), 1 / root - 1, root - 1)
    # atanh(s) = s + s z p(z), z = s^2
    add("atanh", {f64: 7}, lambda z: (_atanh_ratio(z) - 1) / z, lambda z: z, mpf(0), z_log)
    # atanh(s) = s + s z (1/3 + z p(z))
    add("atanh_tail", {f64: 9}, lambda z: ((_atanh_ratio(z) - 1) / z - one / 3) / z,
        lambda z: z**2, mpf(0), z_log)  # fmt: skip
    # sin(y) = y + y z p(z), cos(y) = 1 - z/2 + z^2 p(z), z = y^2
    add("sin", {f32: 3, f64: 6}, lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
        lambda z: z, mpf(0), z_trig)  # fmt: skip
    add("cos", {f32: 3, f64: 6}, lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
        lambda z: z**2, mpf(0), z_trig)  # fmt: skip
    # erf(x) = x + x p(z) below 1, 1 - exp(p(x - 1)) above
    add("erf", {f32: 7, f64: 14}, lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
        lambda z: 1, mpf(0), one)  # fmt: skip
    add("log_erfc", {f64: 20}, lambda t: mp.log(mp.erfc(1 + t)), lambda t: mp.erfc(1 + t),
        mpf(0), mpf(5))  # fmt: skip
    # 4 (1 - erfc(x)^(1/4)) = x + x p(x), relative to erf(x)
    add("erfc_root", {f32: 11}, lambda x: 4 * (1 - mp.root(mp.erfc(x), 4)) / x - 1,
        lambda x: x * mp.root(mp.erfc(x), 4) ** 3 / mp.erf(x), mpf(10) ** -9,
        mpf("3.95"))  # fmt: skip
    return found


def main(wanted: str = "") -> None:
    """Prints the tables whose name contains ``wanted``."""
    mp.dps = 60
    for name, table in tables().items():
        if wanted in name:
            coefficients, error = fit(table)
            print(f"# {name}: error 2^{np.log2(error):.1f}")
            for c in coefficients:
                print(f"    {c:.9g}," if table.dtype is np.float32 else f"    {c!r},")


if __name__ == "__main__":
    main(*sys.argv[1:])
