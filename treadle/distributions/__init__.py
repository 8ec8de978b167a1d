"""Probability distributions, under the names of ``torch.distributions``; loaded by need.

>>> import treadle
>>> d = treadle.distributions.Normal(treadle.zeros(2), treadle.ones(2))
>>> tuple(d.sample((3,)).shape)
(3, 2)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treadle.base.paths import add_paths

if TYPE_CHECKING:
    from treadle.distributions.classes import *  # noqa: F403
    from treadle.distributions.combined import *  # noqa: F403
    from treadle.distributions.constraint_registry import *  # noqa: F403
    from treadle.distributions.discrete import *  # noqa: F403
    from treadle.distributions.distribution import *  # noqa: F403
    from treadle.distributions.kl import *  # noqa: F403
    from treadle.distributions.location_scale import *  # noqa: F403
    from treadle.distributions.multivariate import *  # noqa: F403
    from treadle.distributions.positive import *  # noqa: F403
    from treadle.distributions.relaxed import *  # noqa: F403
    from treadle.distributions.transformed import *  # noqa: F403
    from treadle.distributions.transforms import *  # noqa: F403

_MODULES = ("constraint_registry", "constraints", "kl", "transforms", "utils")
_NAMES = {
    "classes": "Categorical Multinomial OneHotCategorical OneHotCategoricalStraightThrough",
    "combined": "Independent MixtureSameFamily TransformedDistribution",
    "constraint_registry": "biject_to transform_to",
    "discrete": "Bernoulli Binomial Geometric NegativeBinomial Poisson",
    "distribution": "Distribution ExponentialFamily",
    "kl": "kl_divergence register_kl",
    "location_scale": "Cauchy GeneralizedPareto Gumbel Laplace Normal StudentT Uniform VonMises",
    "multivariate": "LKJCholesky LowRankMultivariateNormal MultivariateNormal Wishart",
    "positive": "Beta Chi2 Dirichlet Exponential FisherSnedecor Gamma",
    "relaxed": "ContinuousBernoulli LogisticNormal RelaxedBernoulli RelaxedOneHotCategorical",
    "transformed": "HalfCauchy HalfNormal InverseGamma Kumaraswamy LogNormal Pareto Weibull",
    "transforms": "AbsTransform AffineTransform CatTransform ComposeTransform "
                  "CorrCholeskyTransform CumulativeDistributionTransform ExpTransform "
                  "IndependentTransform LowerCholeskyTransform PositiveDefiniteTransform "
                  "PowerTransform ReshapeTransform SigmoidTransform SoftmaxTransform "
                  "SoftplusTransform StackTransform StickBreakingTransform TanhTransform Transform "
                  "identity_transform",
}  # fmt: skip
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}
# PyTorch has a module for each: ``distributions.normal.Normal``.
_PATHS = {
    "bernoulli": "discrete", "beta": "positive", "binomial": "discrete", "categorical": "classes",
    "cauchy": "location_scale", "chi2": "positive", "continuous_bernoulli": "relaxed",
    "dirichlet": "positive", "exp_family": "distribution", "exponential": "positive",
    "fishersnedecor": "positive", "gamma": "positive", "generalized_pareto": "location_scale",
    "geometric": "discrete", "gumbel": "location_scale", "half_cauchy": "transformed",
    "half_normal": "transformed", "independent": "combined", "inverse_gamma": "transformed",
    "kumaraswamy": "transformed", "laplace": "location_scale", "lkj_cholesky": "multivariate",
    "log_normal": "transformed", "logistic_normal": "relaxed",
    "lowrank_multivariate_normal": "multivariate", "mixture_same_family": "combined",
    "multinomial": "classes", "multivariate_normal": "multivariate",
    "negative_binomial": "discrete", "normal": "location_scale", "one_hot_categorical": "classes",
    "pareto": "transformed", "poisson": "discrete", "relaxed_bernoulli": "relaxed",
    "relaxed_categorical": "relaxed", "studentT": "location_scale",
    "transformed_distribution": "combined", "uniform": "location_scale",
    "von_mises": "location_scale", "weibull": "transformed", "wishart": "multivariate",
}  # fmt: skip
add_paths(__name__, {name: f".{module}" for name, module in _PATHS.items()})


def __getattr__(name: str) -> Any:
    """Distributions and transforms are loaded when they are first named."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _WHERE:
        found = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE, *_MODULES})


__all__ = sorted(_WHERE)
