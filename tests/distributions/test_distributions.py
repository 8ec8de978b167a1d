"""Distributions: densities by integration, moments by samples, divergences by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treadle
from treadle import distributions as D

F64 = treadle.float64


def t(*values):
    return treadle.tensor(values[0] if len(values) == 1 else values, dtype=F64)


# name, distribution, where to integrate its density
CONTINUOUS = [
    (D.Normal(t(0.5), t(1.5)), (-15, 15)),
    (D.Laplace(t(0.5), t(1.5)), (-40, 40)),
    (D.Gumbel(t(0.5), t(1.5)), (-10, 60)),
    (D.StudentT(t(8.0), t(0.5), t(1.5)), (-200, 200)),
    (D.Uniform(t(-1.0), t(2.0)), (-0.999999, 1.999999)),
    (D.VonMises(t(0.0), t(2.0)), (-math.pi, math.pi)),
    (D.GeneralizedPareto(t(0.0), t(1.0), t(0.1)), (0, 400)),
    (D.Exponential(t(2.0)), (0, 20)),
    (D.Gamma(t(2.5), t(1.5)), (0, 40)),
    (D.Chi2(t(3.0)), (0, 80)),
    (D.FisherSnedecor(t(4.0), t(20.0)), (0, 150)),
    (D.Beta(t(2.0), t(3.0)), (0, 1)),
    (D.LogNormal(t(0.1), t(0.5)), (0, 60)),
    (D.HalfNormal(t(1.5)), (0, 15)),
    (D.InverseGamma(t(6.0), t(5.0)), (1e-3, 100)),
    (D.Weibull(t(1.5), t(2.0)), (0, 12)),
    (D.Pareto(t(1.0), t(8.0)), (1, 60)),
    (D.Kumaraswamy(t(2.0), t(3.0)), (0, 1)),
    (D.ContinuousBernoulli(t(0.3)), (0, 1)),
    (D.RelaxedBernoulli(t(2.0), t(0.4)), (0, 1)),
    (D.MixtureSameFamily(D.Categorical(t(0.3, 0.7)), D.Normal(t(-1.0, 2.0), t(0.5, 1.0))),
     (-10, 15)),
    (D.TransformedDistribution(D.Normal(t(0.0), t(1.0)),
                               [D.AffineTransform(1.0, -2.0), D.SigmoidTransform()]), (0, 1)),
]  # fmt: skip


def name_of(x):
    return type(x).__name__ if isinstance(x, D.Distribution) else ""


def middle(low, high, count=400_001):
    step = (high - low) / count
    return low + (np.arange(count) + 0.5) * step, step


@pytest.mark.parametrize(("d", "limits"), CONTINUOUS, ids=name_of)
def test_densities(d, limits):
    x, step = middle(*limits)
    density = d.log_prob(t(x)).exp().numpy()
    assert (density * step).sum() == pytest.approx(1, abs=2e-3)
    for wanted, power in (("mean", 1), ("variance", 2)):
        try:
            value = getattr(d, wanted).item()
        except NotImplementedError:
            continue
        if isinstance(d, D.VonMises):
            continue  # of a circle
        mean = (x * density * step).sum()
        found = mean if power == 1 else ((x - mean) ** 2 * density * step).sum()
        assert found == pytest.approx(value, rel=2e-2, abs=1e-3)
    try:
        entropy = d.entropy().item()
    except NotImplementedError:
        return
    logs = np.where(density > 0, np.log(np.maximum(density, 1e-300)), 0)
    assert -(density * logs * step).sum() == pytest.approx(entropy, abs=1e-2)


@pytest.mark.parametrize(("d", "limits"), CONTINUOUS, ids=name_of)
def test_samples_have_the_moments(d, limits):
    treadle.manual_seed(0)
    drawn = d.sample((100_000,))
    assert tuple(drawn.shape) == (100_000,)
    x = drawn.numpy()
    grid, step = middle(*limits)
    weights = d.log_prob(t(grid)).exp().numpy() * step
    mean = (grid * weights).sum()
    deviation = math.sqrt(((grid - mean) ** 2 * weights).sum())
    assert x.mean() == pytest.approx(mean, abs=0.02 * deviation)
    assert x.std() == pytest.approx(deviation, rel=0.05)
    if d.has_rsample:
        assert tuple(d.rsample((2, 3)).shape) == (2, 3)


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (lambda p: D.Normal(p, 2.0 * p), 0.7),
        (lambda p: D.Weibull(p, t(1.7)), 0.7),
        (lambda p: D.Laplace(p, p), 0.7),
        (lambda p: D.Gumbel(p, t(1.0)), 0.7),
        (lambda p: D.Kumaraswamy(p, t(2.0)), 0.7),
        (lambda p: D.Cauchy(t(0.0), p), 0.7),
    ],
)
def test_gradients_of_samples_are_those_of_the_inverse_distribution_function(make, at):
    def slope_of_cdf(value):
        """d cdf / d parameter and the density, by differences."""
        step = 1e-6
        up, down = (make(t(at + s)).cdf(t(value)).item() for s in (step, -step))
        density = (make(t(at)).cdf(t(value + step)) - make(t(at)).cdf(t(value - step))).item()
        return -(up - down) / density

    p = t(at).requires_grad_()
    x = make(p).rsample()
    (slope,) = treadle.autograd.grad(x, p)
    assert slope.item() == pytest.approx(slope_of_cdf(x.item()), rel=1e-4)


# dx/da of gamma numbers, -(dF/da)/p, by 30-digit arithmetic (mpmath)
@pytest.mark.parametrize(
    ("concentration", "x", "slope"),
    [(0.5, 0.2, 0.79405056633), (2.5, 1.7, 0.87504438142), (2.5, 4.0, 1.3396081954),
     (100.0, 110.0, 1.0501606212), (0.01, 0.02, 6.8761256688)],
)  # fmt: skip
def test_gradients_of_gamma_numbers(concentration, x, slope):
    found = treadle.random.gamma.gamma_slope(t(concentration), t(x))
    assert found.item() == pytest.approx(slope, rel=1e-8)


def test_gradients_of_expectations():
    treadle.manual_seed(1)
    c = t(2.0, 3.0).requires_grad_()
    D.Dirichlet(c).rsample((100_000,))[:, 0].mean().backward()
    np.testing.assert_allclose(c.grad.numpy(), [3 / 25, -2 / 25], atol=2e-3)  # of c0 / (c0 + c1)
    a = t(1.5).requires_grad_()
    D.Gamma(a, t(2.0)).rsample((100_000,)).mean().backward()
    assert a.grad.item() == pytest.approx(0.5, abs=5e-3)


DISCRETE = [
    (D.Bernoulli(t(0.3)), 2), (D.Geometric(t(0.3)), 200), (D.Binomial(7, t(0.3)), 8),
    (D.NegativeBinomial(t(3.0), t(0.4)), 200), (D.Poisson(t(3.5)), 60),
]  # fmt: skip


@pytest.mark.parametrize(("d", "count"), DISCRETE, ids=name_of)
def test_counts(d, count):
    treadle.manual_seed(2)
    k = np.arange(count, dtype=np.float64)
    p = d.log_prob(t(k)).exp().numpy()
    assert p.sum() == pytest.approx(1)
    assert (k * p).sum() == pytest.approx(d.mean.item())
    assert (k**2 * p).sum() - (k * p).sum() ** 2 == pytest.approx(d.variance.item())
    x = d.sample((20_000,)).numpy()
    assert x.mean() == pytest.approx(d.mean.item(), abs=0.05 * math.sqrt(d.variance.item()))
    assert np.unique(x % 1).tolist() == [0.0]
    if not isinstance(d, (D.NegativeBinomial, D.Poisson)):  # which have no closed form
        wanted = -(p * np.log(np.maximum(p, 1e-300))).sum()
        assert d.entropy().item() == pytest.approx(wanted, rel=1e-6)


def test_classes():
    treadle.manual_seed(3)
    p = np.array([0.2, 0.0, 0.5, 0.3])
    d = D.Categorical(t(2 * p))
    np.testing.assert_allclose(d.probs.numpy(), p)
    shares = np.bincount(d.sample((50_000,)).numpy(), minlength=4) / 50_000
    np.testing.assert_allclose(shares, p, atol=0.01)
    assert d.log_prob(treadle.tensor([0, 3])).exp().tolist() == pytest.approx([0.2, 0.3])
    assert d.entropy().item() == pytest.approx(-sum(x * math.log(x) for x in p if x), abs=1e-6)
    logits = t(np.log([0.2, 0.8])).requires_grad_()
    D.Categorical(logits=logits).log_prob(treadle.tensor(1)).backward()
    np.testing.assert_allclose(logits.grad.numpy(), [-0.2, 0.2])
    assert D.Categorical(t(np.ones((2, 3)))).expand((4, 2)).sample((5,)).shape == (5, 4, 2)
    hot = D.OneHotCategoricalStraightThrough(t(p).requires_grad_())
    assert hot.rsample().sum().item() == pytest.approx(1)
    counts = D.Multinomial(10, t(p)).sample((3,))
    assert counts.sum(-1).tolist() == [10.0] * 3
    assert D.Multinomial(2, t(0.5, 0.5)).log_prob(t(1.0, 1.0)).exp().item() == pytest.approx(0.5)


def test_vectors():
    treadle.manual_seed(4)
    mean, cov = np.array([1.0, -1.0]), np.array([[2.0, 0.6], [0.6, 1.0]])
    x = np.array([0.3, 0.4])
    wanted = -0.5 * (x - mean) @ np.linalg.inv(cov) @ (x - mean) - 0.5 * math.log(
        (2 * math.pi) ** 2 * np.linalg.det(cov)
    )
    for options in (
        {"covariance_matrix": t(cov)}, {"precision_matrix": t(np.linalg.inv(cov))},
        {"scale_tril": t(np.linalg.cholesky(cov))},
    ):  # fmt: skip
        d = D.MultivariateNormal(t(mean), **options)
        assert d.log_prob(t(x)).item() == pytest.approx(wanted)
        np.testing.assert_allclose(d.covariance_matrix.numpy(), cov)
        np.testing.assert_allclose(d.precision_matrix.numpy(), np.linalg.inv(cov))
    np.testing.assert_allclose(np.cov(d.rsample((100_000,)).numpy().T), cov, atol=0.05)
    factor, diag = np.array([[1.0], [0.5]]), np.array([1.0, 0.75])
    low = D.LowRankMultivariateNormal(t(mean), t(factor), t(diag))
    full = D.MultivariateNormal(t(mean), t(factor @ factor.T + np.diag(diag)))
    assert low.log_prob(t(x)).item() == pytest.approx(full.log_prob(t(x)).item())
    assert D.kl_divergence(low, full).item() == pytest.approx(0, abs=1e-12)
    wishart = D.Wishart(t(5.0), t(cov)).sample((20_000,))
    np.testing.assert_allclose(wishart.mean(0).numpy(), 5 * cov, rtol=0.05)
    lkj = D.LKJCholesky(3, t(1.0)).sample((4,))
    np.testing.assert_allclose((lkj @ lkj.mT).diagonal(0, -2, -1).numpy(), 1)


PAIRS = [
    (CONTINUOUS[i][0], q, CONTINUOUS[i][1])
    for i, q in (
        (0, D.Normal(t(0.0), t(1.0))), (0, D.Gumbel(t(0.0), t(3.0))),
        (0, D.Laplace(t(0.2), t(2.0))),
        (1, D.Laplace(t(0.0), t(1.0))), (1, D.Normal(t(0.0), t(2.0))),
        (2, D.Gumbel(t(0.0), t(2.0))), (2, D.Normal(t(0.0), t(4.0))),
        (4, D.Uniform(t(-2.0), t(2.0))), (4, D.Gumbel(t(0.0), t(2.0))),
        (7, D.Exponential(t(1.0))), (7, D.Gamma(t(2.0), t(1.0))), (7, D.Gumbel(t(0.0), t(2.0))),
        (8, D.Gamma(t(2.0), t(1.0))), (8, D.Gumbel(t(0.0), t(2.0))), (8, D.Exponential(t(1.0))),
        (11, D.Beta(t(1.0), t(2.0))), (11, D.Gamma(t(1.0), t(2.0))),
        (11, D.Uniform(t(-1.0), t(2.0))),
        (11, D.ContinuousBernoulli(t(0.4))), (13, D.HalfNormal(t(1.0))),
        (16, D.Pareto(t(0.5), t(3.0))), (16, D.Exponential(t(2.0))), (16, D.Gamma(t(2.0), t(1.0))),
        (16, D.Normal(t(1.0), t(1.0))), (18, D.ContinuousBernoulli(t(0.6))),
        (18, D.Uniform(t(-1.0), t(2.0))), (18, D.Exponential(t(1.0))),
        (12, D.LogNormal(t(0.0), t(1.0))),
    )
]  # fmt: skip


@pytest.mark.parametrize(("p", "q", "limits"), PAIRS, ids=name_of)
def test_divergences(p, q, limits):
    x, step = middle(*limits)
    x = t(x)
    p_log = p.log_prob(x)
    wanted = (p_log.exp() * (p_log - q.log_prob(x))).sum().item() * step
    assert D.kl_divergence(p, q).item() == pytest.approx(wanted, rel=1e-2, abs=1e-3)


def test_divergences_of_counts_and_what_is_not_known():
    for p, q, count in (
        (D.Bernoulli(t(0.3)), D.Bernoulli(t(0.6)), 2), (D.Poisson(t(2.0)), D.Poisson(t(3.0)), 60),
        (D.Binomial(5, t(0.3)), D.Binomial(5, t(0.6)), 6),
        (D.Geometric(t(0.3)), D.Geometric(t(0.6)), 200),
        (D.Bernoulli(t(0.3)), D.Poisson(t(2.0)), 2),
    ):  # fmt: skip
        k = t(np.arange(count, dtype=np.float64))
        wanted = (p.log_prob(k).exp() * (p.log_prob(k) - q.log_prob(k))).sum().item()
        assert D.kl_divergence(p, q).item() == pytest.approx(wanted)
    assert D.kl_divergence(D.Exponential(t(1.0)), D.Uniform(t(0.0), t(1.0))).item() == math.inf
    with pytest.raises(NotImplementedError, match="kl_divergence: got Cauchy and Normal, for"):
        D.kl_divergence(D.Cauchy(0.0, 1.0), D.Normal(0.0, 1.0))

    class Mine(D.Normal):
        pass

    D.register_kl(Mine, Mine)(lambda p, q: "mine")
    assert D.kl_divergence(Mine(0.0, 1.0), Mine(0.0, 1.0)) == "mine"
    assert D.kl_divergence(Mine(0.0, 1.0), D.Normal(0.0, 1.0)).item() == 0


def test_bad_parameters_and_values_are_told():
    with pytest.raises(ValueError, match=r"Normal: got scale = \[-1\.0\]; it must be in Positive"):
        D.Normal(0.0, -1.0)
    with pytest.raises(ValueError, match=r"Categorical: got neither of probs and logits; give one"):
        D.Categorical()
    with pytest.raises(ValueError, match=r"got a value of shape \(\) with elements outside"):
        D.Exponential(1.0).log_prob(treadle.tensor(-1.0))
    with pytest.raises(ValueError, match="Bernoulli: got the value 1; it must be a tensor"):
        D.Bernoulli(0.5).log_prob(1)
    assert D.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    width = treadle.nn.Linear(1, 1)(treadle.ones(1)) * 0 - 1  # still to be computed
    value = D.Normal(0.0, width).rsample()
    with pytest.raises(RuntimeError, match=r"Normal: got scale = -1 at \[0\]; it must be in Pos"):
        value.item()


def test_shapes_and_text():
    d = D.Independent(D.Normal(treadle.zeros(2, 3), treadle.ones(3)), 1)
    assert (d.batch_shape, d.event_shape) == ((2,), (3,))
    assert d.sample((4,)).shape == (4, 2, 3)
    assert d.expand((5, 2)).log_prob(treadle.zeros(3)).shape == (5, 2)
    assert repr(D.Normal(0.0, 1.0)) == "Normal(loc: 0.0, scale: 1.0)"
    assert (
        repr(D.Normal(treadle.zeros(2), treadle.ones(2)))
        == "Normal(loc: Size([2]), scale: Size([2]))"
    )
    from treadle.distributions.normal import Normal

    assert Normal is D.Normal
    assert not D.Normal(0.0, 1.0).sample().requires_grad
