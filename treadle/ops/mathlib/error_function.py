"""erf."""

from __future__ import annotations

from treadle.base import dtypes
from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib.exponential import exp_bounded
from treadle.ops.mathlib.floats import Floats

# erf(x) = x + x p(x^2) for |x| <= 1
_ERF = {
    23: (
        0.128379166,
        -0.37612626,
        0.112836003,
        -0.0268544443,
        0.00518953614,
        -0.00080208492,
        7.88914404e-05,
    ),
    52: (
        0.1283791670955126,
        -0.37612638903183754,
        0.1128379167095512,
        -0.026866170645129868,
        0.005223977625423608,
        -0.000854832702195592,
        0.00012055332903808842,
        -1.4925647594409642e-05,
        1.6462045979174039e-06,
        -1.6364649537127996e-07,
        1.4792469550498667e-08,
        -1.2164968265731347e-09,
        8.710464782554549e-11,
        -4.2331296213978e-12,
    ),
}
# erf(x) = 1 - exp(p(x - 1)) for x >= 1
_LOG_ERFC = {
    23: (
        -1.84960556,
        -2.63896751,
        -0.843107104,
        -0.0415634811,
        0.0100464514,
        -0.00201196573,
        0.000289527525,
        -2.16866738e-05,
    ),
    52: (
        -1.8496055099332482,
        -2.638967514234791,
        -0.8431072563585149,
        -0.041561098045761406,
        0.010033825424138696,
        -0.001977902940491812,
        0.0002373242931080804,
        2.6271829994534117e-05,
        -2.7144736474871105e-05,
        9.58389476326525e-06,
        -2.0273999736665193e-06,
        1.1135470751662135e-07,
        1.2073320742313055e-07,
        -6.489955957455108e-08,
        2.0244937271144948e-08,
        -4.487845251036846e-09,
        7.197679287969692e-10,
        -7.993206930636398e-11,
        5.5074692295260335e-12,
        -1.7716496390514284e-13,
    ),
}


def erf(k: Builder, x: Operand) -> Operand:
    """The error function; at most 1.3 ulp (f32) and 1.0 ulp (f64).

    1 - erf(x) is small where x >= 1, so it need not be relatively exact: its logarithm is smooth.
    """
    f = Floats(k, x.dtype)
    size = f.abs(x)
    inner = f.fma(x, f.polynomial(f.mul(x, x), _ERF[f.mantissa]), x)
    beyond = 4.0 if f.dtype is dtypes.float32 else 6.0  # where erf rounds to 1
    t = f.sub(f.at_most(size, beyond), 1.0)
    outer = f.sub(1.0, exp_bounded(f, f.polynomial(t, _LOG_ERFC[f.mantissa])))
    outer = f.with_sign(outer, f.sign_bit(x))
    return f.select(f.op("lt", size, 1.0), inner, outer)
