"""Special functions under PyTorch's names: ``treadle.special.expit``, ``gammaln``, ``i0e`` ..."""

from __future__ import annotations

from treadle.tensor.arithmetic import erf, expm1, log1p, round
from treadle.tensor.arithmetic import sigmoid as expit
from treadle.tensor.functions import (
    bessel_j0,
    bessel_j1,
    bessel_y0,
    bessel_y1,
    digamma,
    entr,
    erfc,
    erfcx,
    erfinv,
    exp2,
    i0,
    i0e,
    i1,
    i1e,
    log_ndtr,
    logit,
    modified_bessel_k0,
    modified_bessel_k1,
    ndtr,
    ndtri,
    polygamma,
    scaled_modified_bessel_k0,
    scaled_modified_bessel_k1,
    sinc,
    xlog1py,
    xlogy,
)
from treadle.tensor.functions import digamma as psi
from treadle.tensor.functions import lgamma as gammaln
from treadle.tensor.functions import mvlgamma as multigammaln
from treadle.tensor.reduction import log_softmax, logsumexp, softmax

__all__ = [
    "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "digamma", "entr", "erf", "erfc", "erfcx",
    "erfinv", "exp2", "expit", "expm1", "gammaln", "i0", "i0e", "i1", "i1e", "log1p",
    "log_ndtr", "log_softmax", "logit", "logsumexp", "modified_bessel_k0", "modified_bessel_k1",
    "multigammaln", "ndtr", "ndtri", "polygamma", "psi", "round", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1", "sinc", "softmax", "xlog1py", "xlogy",
]  # fmt: skip
