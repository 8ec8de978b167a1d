"""Kullback-Leibler divergences, by the classes of the two distributions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from treadle.distributions.classes import Categorical, OneHotCategorical
from treadle.distributions.combined import Independent, TransformedDistribution
from treadle.distributions.discrete import Bernoulli, Binomial, Geometric, Poisson
from treadle.distributions.distribution import Distribution, ExponentialFamily
from treadle.distributions.location_scale import Cauchy, Gumbel, Laplace, Normal, Uniform
from treadle.distributions.multivariate import (
    LowRankMultivariateNormal,
    MultivariateNormal,
    log_diagonal,
    solve_lower,
    squared_distance,
)
from treadle.distributions.positive import Beta, Dirichlet, Exponential, Gamma
from treadle.distributions.relaxed import ContinuousBernoulli
from treadle.distributions.transform import sum_rightmost
from treadle.distributions.transformed import HalfNormal, Pareto
from treadle.distributions.utils import euler_constant, softplus
from treadle.ir.node import located
from treadle.tensor.creation import full_like
from treadle.tensor.functions import xlogy
from treadle.tensor.gradients import grad
from treadle.tensor.selection import where
from treadle.tensor.tensor import Tensor

Rule = Callable[[Any, Any], Any]
_rules: dict[tuple[Any, Any], Rule] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Rule], Rule]:
    """Decorates a function of (p, q) as the divergence for these classes and those below them."""
    for kind in (type_p, type_q):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise located(TypeError(
                f"register_kl: got {kind!r}; it takes classes of distributions"
            ))  # fmt: skip

    def registered(function: Rule) -> Rule:
        _rules[type_p, type_q] = function
        _rule_for.cache_clear()
        return function

    return registered


@functools.cache
def _rule_for(type_p: Any, type_q: Any) -> Rule | None:
    """The rule of the nearest classes; those of p go first."""
    for p in type_p.__mro__:
        for q in type_q.__mro__:
            if (p, q) in _rules:
                return _rules[p, q]
    return None


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """``E_p[log p(x) - log q(x)]``, of every distribution of the batch.

    >>> import treadle
    >>> from treadle.distributions import Normal, kl_divergence
    >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0)).item()
    0.5
    """
    kinds: tuple[Any, Any] = (type(p), type(q))
    rule = _rule_for(*kinds)
    if rule is None:
        raise located(NotImplementedError(
            f"kl_divergence: got {type(p).__name__} and {type(q).__name__}, for which no formula "
            f"is registered; register one with @register_kl({type(p).__name__}, "
            f"{type(q).__name__}), or estimate it from samples"
        ))  # fmt: skip
    return rule(p, q)


def _infinite(x: Tensor) -> Tensor:
    return full_like(x, math.inf)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    first = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    first = where(q.probs == 0, math.inf, first)
    first = where(p.probs == 0, 0.0, first)
    second = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    second = where(q.probs == 1, math.inf, second)
    return first + where(p.probs == 1, 0.0, second)


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Any:
    p1, p0, q1, q0 = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    total = p1 + p0
    norms = q1.lgamma() + q0.lgamma() + total.lgamma()
    norms = norms - (q1 + q0).lgamma() - p1.lgamma() - p0.lgamma()
    slopes = (p1 - q1) * p1.digamma() + (p0 - q0) * p0.digamma()
    return norms + slopes + (q1 + q0 - total) * total.digamma()


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Any:
    count = p.total_count
    kl = count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p())
    return where(count > q.total_count, math.inf, kl)


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Any:
    t = p.probs * (p.logits - q.logits)
    t = where((q.probs == 0).expand_as(t), math.inf, t)
    return where((p.probs == 0).expand_as(t), 0.0, t).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Any:
    return _categorical(p._categorical, q._categorical)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: Any, q: Any) -> Any:
    slopes = p.mean * (p.logits - q.logits)
    p_rest = p._log_constant() + (-p.probs).log1p()
    return slopes + p_rest - q._log_constant() - (-q.probs).log1p()


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    norms = total.lgamma() - b.sum(-1).lgamma() - (a.lgamma() - b.lgamma()).sum(-1)
    return norms + ((a - b) * (a.digamma() - total.digamma().unsqueeze(-1))).sum(-1)


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(ExponentialFamily, ExponentialFamily)
def _family(p: Any, q: Any) -> Any:
    """The Bregman divergence of the logarithm of the normaliser."""
    if type(p) is not type(q):
        raise located(NotImplementedError(
            f"kl_divergence: got {type(p).__name__} and {type(q).__name__}; of exponential "
            f"families it knows pairs of one kind"
        ))  # fmt: skip
    p_params = [x.detach().requires_grad_() for x in p._natural_params]
    q_params = q._natural_params
    normalizer = p._log_normalizer(*p_params)
    slopes = grad(normalizer.sum(), p_params, create_graph=True)
    result = q._log_normalizer(*q_params) - normalizer
    for a, b, slope in zip(p_params, q_params, slopes, strict=True):
        result = result - sum_rightmost((b - a) * slope, len(q.event_shape))
    return result


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    first = b * (p.rate / q.rate).log() + b.lgamma() - a.lgamma()
    return first + (a - b) * a.digamma() + (q.rate - p.rate) * (a / p.rate)


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Any:
    ratio = p.scale / q.scale
    q_place, p_place = q.loc / q.scale, p.loc / q.scale
    shift = (q_place - p_place + (ratio + 1).lgamma()).exp()
    return -ratio.log() - q_place + p_place + ratio * euler_constant - (1 + euler_constant) + shift


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Any:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio, apart = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + apart / q.scale + ratio * (-apart / p.scale).exp() - 1


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio = (p.scale / q.scale) ** 2
    apart = ((p.loc - q.loc) / q.scale) ** 2
    return 0.5 * (ratio + apart - 1 - ratio.log())


@register_kl(Pareto, Pareto)
def _pareto(p: Any, q: Any) -> Any:
    ratio = q.alpha / p.alpha
    kl = q.alpha * (p.scale / q.scale).log() - ratio.log() + ratio - 1
    return where(p.scale < q.scale, math.inf, kl)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    kl = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), math.inf, kl)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Any:
    above = ((p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2).log()
    return above - (4 * p.scale * q.scale).log()


# --- vectors --------------------------------------------------------------------------------------


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: Any, q: Any) -> Any:
    if p.event_shape != q.event_shape:
        raise located(ValueError(
            f"kl_divergence: got vectors of {p.event_shape[0]} and {q.event_shape[0]} numbers; "
            f"they must be as long"
        ))  # fmt: skip
    p_factor, q_factor = p.scale_tril, q.scale_tril
    shape = (p_factor + q_factor).shape
    solved = solve_lower(q_factor.expand(shape), p_factor.expand(shape))
    trace = (solved * solved).sum((-2, -1))
    distance = squared_distance(q_factor, q.loc - p.loc)
    log_det = log_diagonal(q_factor) - log_diagonal(p_factor)
    return log_det + 0.5 * (trace + distance - p.event_shape[0])


for _kind in (MultivariateNormal, LowRankMultivariateNormal):
    register_kl(_kind, LowRankMultivariateNormal)(_multivariate)
register_kl(LowRankMultivariateNormal, MultivariateNormal)(_multivariate)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    count = p.reinterpreted_batch_ndims
    if count != q.reinterpreted_batch_ndims:
        raise located(NotImplementedError(
            f"kl_divergence: got Independent over {count} and over {q.reinterpreted_batch_ndims} "
            f"dimensions; they must be as many"
        ))  # fmt: skip
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), count)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Any:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise located(NotImplementedError(
            "kl_divergence: got distributions transformed in different ways; the transforms must "
            "be equal"
        ))  # fmt: skip
    return kl_divergence(p.base_dist, q.base_dist)


# --- of two kinds ---------------------------------------------------------------------------------


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Any, q: Any) -> Any:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Beta, ContinuousBernoulli)
def _beta_continuous_bernoulli(p: Any, q: Any) -> Any:
    return -p.entropy() - p.mean * q.logits - (-q.probs).log1p() - q._log_constant()


@register_kl(Beta, Exponential)
def _beta_exponential(p: Any, q: Any) -> Any:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


@register_kl(Beta, Gamma)
def _beta_gamma(p: Any, q: Any) -> Any:
    log_mean = p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma()
    c = q.concentration
    return -p.entropy() - (c * q.rate.log() - c.lgamma() + (c - 1) * log_mean - q.rate * p.mean)


def _against_normal(p: Any, q: Any) -> Any:
    """For p with a mean and a variance."""
    square = p.variance + (p.mean - q.loc) ** 2
    norm = 0.5 * (2 * math.pi * q.scale**2).log()
    return -p.entropy() + norm + square / (2 * q.scale**2)


_WITH_MOMENTS: tuple[type, ...] = (
    Beta, ContinuousBernoulli, Exponential, Gamma, Gumbel, Laplace, Uniform,
)  # fmt: skip
for _with_moments in _WITH_MOMENTS:
    register_kl(_with_moments, Normal)(_against_normal)


@register_kl(Beta, Uniform)
def _beta_uniform(p: Any, q: Any) -> Any:
    kl = -p.entropy() + (q.high - q.low).log()
    return where((q.low > 0) | (q.high < 1), math.inf, kl)


@register_kl(ContinuousBernoulli, Exponential)
def _continuous_bernoulli_exponential(p: Any, q: Any) -> Any:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


@register_kl(ContinuousBernoulli, Uniform)
def _continuous_bernoulli_uniform(p: Any, q: Any) -> Any:
    kl = -p.entropy() + (q.high - q.low).log()
    return where((q.low > 0) | (q.high < 1), math.inf, kl)


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Any, q: Any) -> Any:
    ratio, c = q.rate / p.rate, q.concentration
    first = -c * ratio.log() + ratio + c.lgamma()
    return first + c * euler_constant - (1 + euler_constant)


@register_kl(Exponential, Gumbel)
def _exponential_gumbel(p: Any, q: Any) -> Any:
    scale, place = p.rate * q.scale, q.loc / q.scale
    return scale.log() - 1 + place.exp() * scale / (scale + 1) - place + scale.reciprocal()


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Any, q: Any) -> Any:
    return -p.entropy() - q.rate.log() + q.rate * p.concentration / p.rate


@register_kl(Gamma, Gumbel)
def _gamma_gumbel(p: Any, q: Any) -> Any:
    scale, place = p.rate * q.scale, q.loc / q.scale
    c = p.concentration
    first = (c - 1) * c.digamma() - c.lgamma() - c
    growth = place.exp() * (1 + scale.reciprocal()) ** -c
    return first + scale.log() + c / scale - place + growth


@register_kl(Normal, Gumbel)
def _normal_gumbel(p: Any, q: Any) -> Any:
    place, ratio, shift = p.loc / q.scale, (p.scale / q.scale) ** 2, q.loc / q.scale
    growth = (-place + 0.5 * ratio + shift).exp()
    return -0.5 * ratio.log() + place - shift + growth - 0.5 * (1 + math.log(2 * math.pi))


@register_kl(Normal, Laplace)
def _normal_laplace(p: Any, q: Any) -> Any:
    apart = p.loc - q.loc
    z = apart / p.scale
    near = math.sqrt(2 / math.pi) * p.scale * (-0.5 * z**2).exp()
    far = apart * (math.sqrt(0.5) * z).erf()
    first = -(p.scale / q.scale).log() + (near + far) / q.scale
    return first - 0.5 * (1 + math.log(0.5 * math.pi))


@register_kl(Pareto, Exponential)
def _pareto_exponential(p: Any, q: Any) -> Any:
    scale = p.scale * q.rate
    first = (p.alpha / scale).log() - p.alpha.reciprocal() + p.alpha * scale / (p.alpha - 1) - 1
    return where(p.alpha <= 1, math.inf, first)


@register_kl(Pareto, Gamma)
def _pareto_gamma(p: Any, q: Any) -> Any:
    log_scale, c = p.scale.log() + q.rate.log(), q.concentration
    first = p.alpha.log() - c * log_scale + c.lgamma()
    rest = -c / p.alpha - 1 + p.alpha * q.rate * p.scale / (p.alpha - 1)
    return where(p.alpha <= 1, math.inf, first + rest)


@register_kl(Pareto, Normal)
def _pareto_normal(p: Any, q: Any) -> Any:
    variance = 2 * q.scale**2
    mean = p.scale * p.alpha / (p.alpha - 1)
    first = (math.sqrt(2 * math.pi) * q.scale / p.scale * p.alpha).log() - p.alpha.reciprocal() - 1
    moment = p.alpha * p.scale**2 / (p.alpha - 2)
    rest = (moment - 2 * q.loc * mean + q.loc**2) / variance
    return where(p.alpha <= 2, math.inf, first + rest)


@register_kl(Poisson, Bernoulli)
@register_kl(Poisson, Binomial)
def _poisson_bounded(p: Any, q: Any) -> Any:
    return _infinite(p.rate)


@register_kl(Uniform, Beta)
def _uniform_beta(p: Any, q: Any) -> Any:
    width = p.high - p.low
    a, b = q.concentration1, q.concentration0

    one = (a - 1) * (_x_log_x(p.high) - _x_log_x(p.low) - width) / width
    zero = (b - 1) * (_x_log_x(1 - p.high) - _x_log_x(1 - p.low) + width) / width
    norm = a.lgamma() + b.lgamma() - (a + b).lgamma()
    kl = norm - width.log() - one + zero
    return where((p.high > 1) | (p.low < 0), math.inf, kl)


def _x_log_x(x: Tensor) -> Tensor:
    return xlogy(x, x)


@register_kl(Uniform, ContinuousBernoulli)
def _uniform_continuous_bernoulli(p: Any, q: Any) -> Any:
    kl = -p.entropy() - p.mean * q.logits - (-q.probs).log1p() - q._log_constant()
    return where((p.high > 1) | (p.low < 0), math.inf, kl)


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Any, q: Any) -> Any:
    kl = q.rate * (p.high + p.low) / 2 - ((p.high - p.low) * q.rate).log()
    return where(p.low < 0, math.inf, kl)


@register_kl(Uniform, Gamma)
def _uniform_gamma(p: Any, q: Any) -> Any:
    width, c = p.high - p.low, q.concentration
    log_mean = (_x_log_x(p.high) - _x_log_x(p.low) - width) / width
    first = -c * q.rate.log() + c.lgamma() - width.log()
    kl = first + (1 - c) * log_mean + q.rate * (p.high + p.low) / 2
    return where(p.low < 0, math.inf, kl)


@register_kl(Uniform, Gumbel)
def _uniform_gumbel(p: Any, q: Any) -> Any:
    scale = q.scale / (p.high - p.low)
    high, low = (p.high - q.loc) / q.scale, (p.low - q.loc) / q.scale
    return scale.log() + 0.5 * (high + low) - scale * ((-high).exp() - (-low).exp())


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Any, q: Any) -> Any:
    width = p.high - p.low
    mean = (_x_log_x(p.high) - _x_log_x(p.low) - width) / width
    kl = mean * (q.alpha + 1) - q.alpha.log() - q.alpha * q.scale.log() - width.log()
    return where(p.low < q.scale, math.inf, kl)


# Values of p that q cannot give.
_OUTSIDE: tuple[tuple[type, type], ...] = (
    (Beta, Pareto), (ContinuousBernoulli, Pareto), (Exponential, Beta),
    (Exponential, ContinuousBernoulli), (Exponential, Pareto), (Exponential, Uniform),
    (Gamma, Beta), (Gamma, ContinuousBernoulli), (Gamma, Pareto), (Gamma, Uniform),
    (Gumbel, Beta), (Gumbel, ContinuousBernoulli), (Gumbel, Exponential), (Gumbel, Gamma),
    (Gumbel, Pareto), (Gumbel, Uniform), (Laplace, Beta), (Laplace, ContinuousBernoulli),
    (Laplace, Exponential), (Laplace, Gamma), (Laplace, Pareto), (Laplace, Uniform),
    (Normal, Beta), (Normal, ContinuousBernoulli), (Normal, Exponential), (Normal, Gamma),
    (Normal, Pareto), (Normal, Uniform), (Pareto, Beta), (Pareto, ContinuousBernoulli),
    (Pareto, Uniform),
)  # fmt: skip
for _pair in _OUTSIDE:
    register_kl(*_pair)(lambda p, q: _infinite(p.mean + 0 * q.mean))

__all__ = ["kl_divergence", "register_kl"]
