"""Derives ``treadle/ops/mathlib/tables.py``, the polynomials of the special functions (mpmath).

``python -m tools.minimax_special > treadle/ops/mathlib/tables.py`` writes the file;
``python -m tools.minimax_special erf`` prints only the tables whose name contains the argument.
Each table is fitted as in ``tools/minimax``; its error is the comment behind its name.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator

import numpy as np
from mpmath import mp, mpf

from tools.minimax import Table, fit

Function = Callable[[mpf], mpf]
F32: type[np.floating] = np.float32
F64: type[np.floating] = np.float64


def _relative(f: Function) -> Function:
    """The weight that makes errors relative to f."""
    return lambda x: 1 / f(x)


def _ratio(f: Function) -> Function:
    """``(f(s)/s - 1) / z`` with ``z = s**2``: the tail of an odd function."""

    def tail(z: mpf) -> mpf:
        s = mp.sqrt(z)
        return (f(s) / s - 1) / z

    return tail


def _inverse(dtypes: dict[type[np.floating], int], name: str, f: Function, hi: mpf
             ) -> Iterator[tuple[str, Table]]:  # fmt: skip
    for dtype, count in dtypes.items():
        yield _named(name, dtype), Table(_ratio(f), lambda z: z, mpf(0), hi, count, dtype)


def _named(name: str, dtype: type[np.floating]) -> str:
    return f"{name}_{'F32' if dtype is F32 else 'F64'}"


def _elementary() -> Iterator[tuple[str, Table]]:
    # asin(s) = s + s z p(z), atan and sinh likewise; z = s^2
    yield from _inverse({F32: 5, F64: 12}, "ASIN", mp.asin, mpf("0.2500001"))
    yield from _inverse({F32: 5, F64: 11}, "ATAN", mp.atan, mpf("0.1716"))
    yield from _inverse({F32: 4, F64: 7}, "SINH", mp.sinh, mpf(1))


def _erfcx(x: mpf) -> mpf:
    return mp.exp(x * x) * mp.erfc(x)


def _error_functions() -> Iterator[tuple[str, Table]]:
    # erfcx(x) = p(q) / (1 + 2x), q = (x - 4)/(x + 4)
    def scaled(q: mpf) -> mpf:
        x = 4 * (1 + q) / (1 - q)
        return (1 + 2 * x) * _erfcx(x)

    for dtype, count in ((F32, 12), (F64, 25)):
        high = mpf("0.9") if dtype is F64 else mpf("0.7")
        yield (
            _named("ERFCX", dtype),
            Table(scaled, lambda q: 1 / scaled(q), mpf(-1), high, count, dtype),
        )

    # erfinv(x) = x p, by w = -log(1 - x^2) where it is small and s = sqrt(w) elsewhere
    def by_w(w: mpf) -> mpf:
        if w < mpf("1e-8"):
            x = mp.sqrt(w)
            return mp.sqrt(mp.pi) / 2 * (1 + (mp.pi / 12 - mpf(0)) * x * x)
        x = mp.sqrt(-mp.expm1(-w))
        return _erfinv(w) / x

    pieces = {
        F32: (("0", "5", 10, False), ("2.236", "4.1", 10, True)),
        F64: (("0", "6.25", 25, False), ("2.5", "4", 20, True), ("4", "6.1", 19, True)),
    }
    for dtype, rows in pieces.items():
        for i, (lo, hi, count, root) in enumerate(rows):
            a, b = mpf(lo), mpf(hi)
            middle = (a + b) / 2

            def f(t: mpf, middle: mpf = middle, root: bool = root) -> mpf:
                return by_w((t + middle) ** 2 if root else t + middle)

            half = (b - a) / 2
            yield (
                _named(f"ERFINV{i}", dtype),
                Table(f, _relative(f), -half, half, count, dtype),
            )
    # far in the tail, for ndtri: by s/8 - 1, s/16 - 1
    for i, (a, b, count) in enumerate(((6, 12, 19), (12, 28, 21))):
        middle, half = mpf(a + b) / 2, mpf(b - a) / 2

        def g(t: mpf, middle: mpf = middle, half: mpf = half) -> mpf:
            return by_w((t * half + middle) ** 2)

        yield f"NDTRI{i}_F64", Table(g, _relative(g), mpf(-1), mpf(1), count, F64)


def _erfinv(w: mpf) -> mpf:
    """erfinv(sqrt(1 - exp(-w))) by Newton's method on log(erfc)."""
    x = mp.sqrt(-mp.expm1(-w))
    if x < mpf("0.9"):
        return mp.erfinv(x)
    # 1 - x = e^-w / (1 + x)
    target = -w - mp.log(1 + x)
    y = mp.sqrt(w)
    for _ in range(200):
        e = mp.erfc(y)
        step = (mp.log(e) - target) * e / (-2 / mp.sqrt(mp.pi) * mp.exp(-y * y))
        y -= step
        if abs(step) < mpf(10) ** (-mp.dps + 10) * y:
            return y
    raise ArithmeticError(f"erfinv did not converge at w = {w}")


def _gamma_functions() -> Iterator[tuple[str, Table]]:
    half = mpf(1) / 2

    # lgamma(2 + t) = t p(t)
    def near_two(t: mpf) -> mpf:
        return mp.loggamma(2 + t) / t if t else mp.psi(0, 2)

    yield "LGAMMA_F64", Table(near_two, lambda t: 1 / near_two(t), -half, half, 18, F64)

    # lgamma(x) = (x - 1/2) log x - x + log(2 pi)/2 + p(z)/x, z = 1/x^2
    def stirling(z: mpf) -> mpf:
        if z < mpf("1e-12"):
            return mpf(1) / 12 - z / 360
        x = 1 / mp.sqrt(z)
        return (mp.loggamma(x) - (x - half) * mp.log(x) + x - mp.log(2 * mp.pi) / 2) * x

    yield "STIRLING_F64", Table(stirling, lambda z: 1, mpf(0), mpf(1) / 64, 8, F64)
    root = mp.findroot(lambda x: mp.psi(0, x), mpf("1.4616321449683623"))
    # digamma(x) = (x - x0) p(t), x = 2^k (t + 3/2)
    for k in range(3):

        def over(t: mpf, k: int = k) -> mpf:
            x = (t + mpf(3) / 2) * 2**k
            return mp.psi(0, x) / (x - root) if x != root else mp.psi(1, root)

        yield f"DIGAMMA{k}_F64", Table(over, _relative(over), -half, half, 22, F64)

    # digamma(x) = log x - 1/(2x) - z p(z), z = 1/x^2
    def tail(z: mpf) -> mpf:
        if z < mpf("1e-12"):
            return mpf(1) / 12 - z / 120
        x = 1 / mp.sqrt(z)
        return (mp.log(x) - 1 / (2 * x) - mp.psi(0, x)) / z

    yield "DIGAMMA_TAIL_F64", Table(tail, lambda z: 1, mpf(0), mpf(1) / 64, 8, F64)


def _modified_bessel() -> Iterator[tuple[str, Table]]:
    # I_n(x) = (x/2)^n p(z), z = x^2/4, x <= 8; e^x / sqrt(x) p(1/x - 1/16) above
    for n in (0, 1):

        def series(z: mpf, n: int = n) -> mpf:
            return mp.hyp0f1(n + 1, z)

        def large(t: mpf, n: int = n) -> mpf:
            u = t + mpf(1) / 16
            if u < mpf("1e-6"):
                m = 4 * n * n
                return (1 - (m - 1) / 8 * u + (m - 1) * (m - 9) * u * u / 128) / mp.sqrt(2 * mp.pi)
            return mp.besseli(n, 1 / u) * mp.exp(-1 / u) / mp.sqrt(u)

        yield f"I{n}_F64", Table(series, _relative(series), mpf(0), mpf(16), 17, F64)
        yield (
            f"I{n}_LARGE_F64",
            Table(large, lambda t: mpf("2.6"), -mpf(1) / 16, mpf(1) / 16, 24, F64),
        )

    # K0(x) = p(z) - log(x) I0(x), K1(x) = 1/x + log(x) I1(x) + x p(z); z = x^2, x <= 1
    def k0(z: mpf) -> mpf:
        x = mp.sqrt(z)
        return mp.besselk(0, x) + mp.log(x) * mp.besseli(0, x)

    def k1(z: mpf) -> mpf:
        x = mp.sqrt(z)
        return (mp.besselk(1, x) - 1 / x - mp.log(x) * mp.besseli(1, x)) / x

    yield "K0_F64", Table(k0, lambda z: 4, mpf("1e-12"), mpf(1), 8, F64)
    yield "K1_F64", Table(k1, lambda z: 2, mpf("1e-12"), mpf(1), 8, F64)
    # K_n(x) = e^-x / sqrt(x) p(t): t = 1/x - 5/8 for x <= 4, 1/x - 1/8 above
    for n in (0, 1):
        for i, (a, b, count) in enumerate((("0.25", "1", 19), ("0", "0.25", 17))):
            middle = (mpf(a) + mpf(b)) / 2

            def g(t: mpf, n: int = n, middle: mpf = middle) -> mpf:
                u = t + middle
                if u < mpf("1e-6"):
                    m = 4 * n * n
                    square = (m - 1) * (m - 9) * u * u / 128
                    return (1 + (m - 1) / mpf(8) * u + square) * mp.sqrt(mp.pi / 2)
                return mp.besselk(n, 1 / u) * mp.exp(1 / u) / mp.sqrt(u)

            half = (mpf(b) - mpf(a)) / 2
            yield f"K{n}_LARGE{i}_F64", Table(g, _relative(g), -half, half, count, F64)


def _bessel() -> Iterator[tuple[str, Table]]:
    # for x <= 4 (J0) or 3, t = 2 (x/4)^2 - 1 or 2 (x/3)^2 - 1:
    # J0(x) = (x^2 - a^2) p(t) with its zero a, J1(x) = x p(t),
    # Y0(x) = 2/pi log(x) J0(x) + p(t), Y1(x) = 2/pi (log(x) J1(x) - 1/x) + x p(t)
    def root(t: mpf, end: int = 3) -> mpf:
        return mp.sqrt(mpf(end * end) / 2 * (t + 1))

    low, high = mpf(-1) + mpf("1e-12"), mpf(1)
    for n in (0, 1):
        a = mp.besseljzero(0, 1) ** 2

        def j(t: mpf, n: int = n, a: mpf = a) -> mpf:
            x = root(t, 4 - n)
            return mp.besselj(n, x) / (x if n else x * x - a)

        def y(t: mpf, n: int = n) -> mpf:
            x = root(t)
            log = mp.log(x) * mp.besselj(n, x)
            return (mp.bessely(n, x) - 2 / mp.pi * (log - (1 / x if n else 0))) / x**n

        yield f"J{n}_F64", Table(j, _relative(j), low, high, 13 - n, F64)
        yield f"Y{n}_F64", Table(y, lambda t: mpf(4), low, high, 12, F64)

    # beyond and up to 8, t over that from -1 to 1: (x - a) p(t) or (x - a)(x - b) p(t), the zeros
    for name, f, zeros, end, count in (
        ("J0", lambda x: mp.besselj(0, x), [mp.besseljzero(0, 2)], 4, 17),
        ("J1", lambda x: mp.besselj(1, x), [mp.besseljzero(1, i) for i in (1, 2)], 3, 18),
        ("Y0", lambda x: mp.bessely(0, x), [mp.besselyzero(0, i) for i in (2, 3)], 3, 27),
        ("Y1", lambda x: mp.bessely(1, x), [mp.besselyzero(1, 2)], 3, 28),
    ):

        def middle(t: mpf, f: Function = f, zeros: list[mpf] = zeros, end: int = end) -> mpf:
            x = ((8 - end) * t + 8 + end) / 2
            return f(x) / mp.fprod(x - zero for zero in zeros)

        yield (
            f"{name}_MIDDLE_F64",
            Table(middle, _relative(middle), mpf(-1), mpf(1), count, F64),
        )

    # for x > 8, z = 1/x^2: J_n + i Y_n = sqrt(2/(pi x)) m(z) e^(i (x - pi/4 - n pi/2 + a(z)/x))
    for n in (0, 1):

        def hankel(z: mpf, n: int = n) -> tuple[mpf, mpf]:
            x = 1 / mp.sqrt(z)
            h = mp.besselj(n, x) + 1j * mp.bessely(n, x)
            h *= mp.exp(-1j * (x - mp.pi / 4 - n * mp.pi / 2))
            return abs(h) * mp.sqrt(mp.pi * x / 2), mp.arg(h) * x

        def modulus(z: mpf, g: Callable[[mpf], tuple[mpf, mpf]] = hankel) -> mpf:
            return g(z)[0]

        def phase(z: mpf, g: Callable[[mpf], tuple[mpf, mpf]] = hankel) -> mpf:
            return g(z)[1]

        tiny = mpf("1e-9")
        yield f"MODULUS{n}_F64", Table(modulus, lambda z: 1, tiny, mpf(1) / 64, 13, F64)
        yield f"PHASE{n}_F64", Table(phase, lambda z: 1, tiny, mpf(1) / 64, 13, F64)


def tables() -> Iterator[tuple[str, Table]]:
    """Every table of ``mathlib/tables.py``, in order."""
    for family in (_elementary, _error_functions, _gamma_functions, _modified_bessel, _bessel):
        yield from family()


def main(wanted: str = "") -> None:
    """Prints the tables whose name contains ``wanted``."""
    mp.dps = 50
    print('"""Polynomials of the special functions, lowest power first.')
    print('\nWritten by ``python -m tools.minimax_special``, which says what each one is.\n"""\n')
    for name, table in tables():
        if wanted in name:
            coefficients, error = fit(table)
            digits = [f"{c:.9g}" if table.dtype is F32 else repr(c) for c in coefficients]
            rows = textwrap.wrap(", ".join(digits) + ",", 96)
            print(f"{name} = (  # error 2^{np.log2(error):.1f}")
            print("".join(f"    {row}\n" for row in rows) + ")  # fmt: skip", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
