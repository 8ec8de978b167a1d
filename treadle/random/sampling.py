"""Random tensors, composed from the random primitives; names and arguments are PyTorch's.

16-bit floats that need scaling are drawn and scaled in float32 and rounded once.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, as_shape, broadcast_shapes, prod
from treadle.ir.node import Node, located, recorder
from treadle.ir.op import Op
from treadle.ops import elementwise as e
from treadle.ops.random import (
    UNIT_BITS,
    counters,
    random_bernoulli,
    random_bits,
    random_normal,
    random_uniform,
)
from treadle.ops.source import number
from treadle.random.generator import Generator, default_generator
from treadle.tensor.arithmetic import cast, operand_nodes
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.tensor.tensor import Tensor, check_device

T = TypeVar("T", bound=Tensor)
_HALF, _WHOLE = 1 << 63, 1 << 64


def _next_key(size: int, dtype: DType, generator: Generator | None) -> list[Node]:
    """The seed, the stream and the next offset for ``size`` elements."""
    source = default_generator if generator is None else generator
    key = source.next_offset(counters(size * recorder.state.draws, dtype))
    return [number((x + _HALF) % _WHOLE - _HALF, dtypes.int64) for x in key]


def draw(op: Op, shape: Shape, dtype: DType, generator: Generator | None = None) -> Node:
    """Records a random primitive with the generator's next counters."""
    nodes = _next_key(prod(shape), dtype, generator)
    attrs = {"shape": shape} if op is random_bits else {"shape": shape, "dtype": dtype}
    return op(*nodes, **attrs)


def draw_any(op: Op, name: str, shape: Shape, dtype: DType, generator: Generator | None) -> Node:
    """``draw`` of floats, or of complex numbers both of whose parts are drawn."""
    if dtype.kind != "c":
        return draw(op, shape, _check_float(name, dtype), generator)
    pairs = draw(op, (*shape, 2), dtype.to_real(), generator)
    if op is random_normal:  # so that the sum of both variances is 1
        pairs = e.mul(pairs, e.full_like(pairs, 0.5**0.5))
    return _complex(pairs)


def _complex(pairs: Node) -> Node:
    """(..., 2) as complex numbers (...)."""
    from treadle.ops.complex import as_complex  # few programs draw complex numbers

    return as_complex(pairs)


def draw_bernoulli(shape: Shape, p: float, generator: Generator | None = None) -> Node:
    """Records truth values that hold with probability p, rounded to a multiple of 2^-32."""
    return random_bernoulli(
        *_next_key(prod(shape), dtypes.bool_, generator),
        shape=shape,
        threshold=round(p * (1 << 32)),
    )


def _wide(dtype: DType) -> DType:
    """The dtype that numbers are scaled in."""
    return dtypes.float64 if dtype is dtypes.float64 else dtypes.float32


def _uniform(shape: Shape, low: float, high: float, dtype: DType, g: Generator | None) -> Node:
    if (low, high) == (0, 1):
        return draw(random_uniform, shape, dtype, g)
    unit = draw(random_uniform, shape, _wide(dtype), g)
    scaled = e.add(e.mul(unit, e.full_like(unit, high - low)), e.full_like(unit, low))
    return cast(scaled, dtype)


def _normal(shape: Shape, mean: Any, std: Any, dtype: DType, g: Generator | None) -> Node:
    """``z * std + mean`` for numbers and tensors that broadcast to ``shape``."""
    if not isinstance(mean, Handle) and not isinstance(std, Handle) and (mean, std) == (0, 1):
        return draw(random_normal, shape, dtype, g)
    z = wrap(draw(random_normal, shape, _wide(dtype), g))
    z_node, mean_node, std_node = operand_nodes("normal", _wide(dtype), z, mean, std)
    return cast(e.add(e.mul(z_node, std_node), mean_node), dtype)


def _integers(shape: Shape, low: int, high: int, dtype: DType, g: Generator | None) -> Node:
    """Whole numbers of low..high - 1.

    Up to 2^31 numbers: the upper half of a 32-bit word times their count. Beyond that: 63 bits
    modulo the count. The bias is at most the count over 2^32 or 2^63.
    """
    count = high - low
    word = draw(random_bits, shape, dtypes.int64, g)
    if count <= 1 << 31:
        product = e.mul(word, e.full_like(word, count))
        place = e.shift_right(product, e.full_like(word, 32))
    else:
        upper = e.bitwise_and(
            draw(random_bits, shape, dtypes.int64, g), e.full_like(word, (1 << 31) - 1)
        )
        wide = e.bitwise_or(e.shift_left(upper, e.full_like(word, 32)), word)
        place = e.remainder(wide, e.full_like(word, count))
    return cast(e.add(place, e.full_like(place, low)), dtype)


def _exponential(shape: Shape, dtype: DType, g: Generator | None) -> Node:
    """``-log(1 - u)``; where that is 0, half the smallest other number."""
    unit = draw(random_uniform, shape, dtype, g)
    floor = e.full_like(unit, 0.5 ** (UNIT_BITS[dtype.short] + 1))
    return e.maximum(e.neg(e.log1p(e.neg(unit))), floor)


def _check_range(name: str, low: int, high: int, dtype: DType) -> None:
    if high <= low:
        raise located(ValueError(
            f"{name}: got low={low} and high={high}; high must be greater than low"
        ))  # fmt: skip
    if high - low >= _HALF:
        raise located(ValueError(
            f"{name}: got low={low} and high={high}; there may be at most 2**63 - 1 numbers"
        ))  # fmt: skip
    if dtype.kind in "iu":
        info = np.iinfo(dtype.numpy)
        if low < info.min or high - 1 > info.max:
            raise located(ValueError(
                f"{name}: got low={low} and high={high}, but {dtype.name} holds {info.min} to "
                f"{info.max}; use a wider dtype"
            ))  # fmt: skip


def _check_float(name: str, dtype: DType) -> DType:
    if not dtype.is_floating_point:
        raise located(DTypeError(
            f"{name}: got dtype {dtype.name}; it makes floating-point numbers; use randint for "
            f"integers"
        ))  # fmt: skip
    return dtype


def _shape(size: Any) -> Shape:
    try:
        return as_shape(size)
    except ShapeError as error:
        raise located(error) from None


def _finished(node: Node, device: Any, requires_grad: bool) -> Tensor:
    if device is not None:
        check_device(device)
    out = wrap(node)
    return out.requires_grad_() if requires_grad else out


# --- new tensors ----------------------------------------------------------------------------------


def rand(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Uniform numbers of [0, 1); both parts of complex ones.

    >>> from treadle.random import manual_seed
    >>> _ = manual_seed(0)
    >>> tuple(rand(2, 3).shape)
    (2, 3)
    """
    kind = dtypes.as_dtype(dtype or dtypes.get_default_dtype())
    node = draw_any(random_uniform, "rand", _shape(size), kind, generator)
    return _finished(node, device, requires_grad)


def randn(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers of mean 0 and variance 1 (half of it for each part of complex ones)."""
    kind = dtypes.as_dtype(dtype or dtypes.get_default_dtype())
    node = draw_any(random_normal, "randn", _shape(size), kind, generator)
    return _finished(node, device, requires_grad)


def randint(
    *bounds_and_size: Any, low: int = 0, high: int | None = None, size: Any = None,
    generator: Generator | None = None, dtype: Any = dtypes.int64, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Whole numbers of low..high - 1: ``randint(high, size)`` or ``randint(low, high, size)``.

    Every number comes with a probability that is off by at most 1 / 2^32.
    """
    values = list(bounds_and_size)
    if values and size is None and not isinstance(values[-1], int):
        size = values.pop()
    if len(values) == 2:
        low, high = values
    elif values and high is None:
        (high,) = values
    elif values:
        (low,) = values
    if high is None or size is None:
        raise located(TypeError(
            "randint: got no high or no size; call randint(high, size) or randint(low, high, size)"
        ))  # fmt: skip
    kind = dtypes.as_dtype(dtype)
    _check_range("randint", int(low), int(high), kind)
    node = _integers(_shape(size), int(low), int(high), kind, generator)
    return _finished(node, device, requires_grad)


def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = dtypes.int64, device: Any = None
) -> Tensor:
    """A random order of 0..n - 1: the order that sorts 63 random bits for each (NumPy sorts)."""
    if n < 0:
        raise located(ValueError(f"randperm: got n={n}; it must not be negative"))
    keys = array_of(_integers((int(n),), 0, _HALF - 1, dtypes.int64, generator))
    order = np.argsort(keys, kind="stable")
    return _finished(node_from_array(order, dtypes.as_dtype(dtype)), device, False)


def rand_like(input: Tensor, *, dtype: Any = None, **options: Any) -> Tensor:
    """``rand`` in the shape and dtype of ``input``."""
    return rand(tuple(input.shape), dtype=dtype or input.dtype, **options)


def randn_like(input: Tensor, *, dtype: Any = None, **options: Any) -> Tensor:
    """``randn`` in the shape and dtype of ``input``."""
    return randn(tuple(input.shape), dtype=dtype or input.dtype, **options)


def randint_like(
    input: Tensor, low: int, high: int | None = None, *, dtype: Any = None, **options: Any
) -> Tensor:
    """``randint`` in the shape and dtype of ``input``; one bound is ``high``."""
    bounds = (0, low) if high is None else (low, high)
    return randint(*bounds, tuple(input.shape), dtype=dtype or input.dtype, **options)


def normal(
    mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers; ``mean`` and ``std`` are tensors that broadcast, or numbers with ``size``."""
    given = [x for x in (mean, std) if isinstance(x, Handle)]
    if not given and size is None:
        raise located(TypeError(
            "normal: got numbers for mean and std and no size; give size=(...) or a tensor"
        ))  # fmt: skip
    shape = broadcast_shapes(*(x.node.shape for x in given)) if given else _shape(size)
    known = given[0].node.dtype if given else dtypes.get_default_dtype()
    kind = _check_float("normal", dtypes.as_dtype(dtype or known))
    return _finished(_normal(shape, mean, std, kind, generator), device, requires_grad)


def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """1 with probability ``input`` (elementwise), or ``p`` where it is given, else 0."""
    node = input.node
    if p is not None:
        return wrap(_bernoulli(node.shape, p, node.dtype, generator))
    _check_float("bernoulli", node.dtype)
    unit = draw(random_uniform, node.shape, _wide(node.dtype), generator)
    return wrap(cast(e.lt(unit, cast(node, unit.dtype)), node.dtype))


def _bernoulli(shape: Shape, p: float, dtype: DType, g: Generator | None) -> Node:
    if not 0 <= p <= 1:
        raise located(ValueError(f"bernoulli: got p={p}; a probability is from 0 to 1"))
    return cast(draw_bernoulli(shape, p, g), dtype)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Indices drawn with the weights ``input``, (C,) or (N, C), which need not sum to 1.

    A race: index i finishes after an exponential time of rate ``input[i]``; the first one is the
    sample, the next ones are further samples without replacement. Evaluates the weights, to check
    them (and NumPy sorts the times).

    >>> from treadle import tensor
    >>> multinomial(tensor([0.0, 3.0, 0.0]), 1).tolist()
    [1]
    """
    node = input.node
    _check_float("multinomial", node.dtype)
    weights = array_of(node).astype(np.float64)
    if weights.ndim not in (1, 2) or num_samples < 1:
        raise located(ShapeError(
            f"multinomial: got weights of shape {node.shape} and num_samples={num_samples}; it "
            f"takes (C,) or (N, C), and at least one sample"
        ))  # fmt: skip
    possible = (weights > 0).sum(-1)
    needed = 1 if replacement else num_samples
    if not np.isfinite(weights).all() or (weights < 0).any() or (possible < needed).any():
        raise located(ValueError(
            f"multinomial: got weights of shape {node.shape} that cannot be drawn from; they must "
            f"be finite and not negative, and at least {needed} of every row positive"
        ))  # fmt: skip
    rounds = num_samples if replacement else 1
    shape = (*weights.shape[:-1], rounds, weights.shape[-1])
    times = array_of(_exponential(shape, dtypes.float64, generator))
    rates = np.broadcast_to(weights[..., None, :], shape)
    times = np.divide(times, rates, out=np.full(shape, np.inf), where=rates > 0)
    if replacement:
        return wrap(node_from_array(times.argmin(-1), dtypes.int64))
    order = np.argsort(times[..., 0, :], axis=-1, kind="stable")[..., :num_samples]
    return wrap(node_from_array(np.ascontiguousarray(order), dtypes.int64))


# --- in place: methods of Tensor ------------------------------------------------------------------


def uniform_(
    self: T, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None
) -> T:
    """Fills the tensor with uniform numbers of [from, to), of which a complex one has two."""
    dtype = _check_float("uniform_", self.dtype.to_real())
    if to < from_:
        raise located(ValueError(f"uniform_: got from={from_} and to={to}; to must not be smaller"))
    if not self.dtype.is_complex:
        self._write(_uniform(tuple(self.shape), from_, to, dtype, generator))
    else:
        self._write(_complex(_uniform((*self.shape, 2), from_, to, dtype, generator)))
    return self


def normal_(
    self: T, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> T:
    """Fills the tensor with normal numbers; of complex ones ``std`` is that of both parts."""
    dtype = _check_float("normal_", self.dtype.to_real())
    if std < 0:
        raise located(ValueError(f"normal_: got std={std}; it must not be negative"))
    if not self.dtype.is_complex:
        self._write(_normal(tuple(self.shape), mean, std, dtype, generator))
    else:
        pairs = _normal((*self.shape, 2), 0.0, std * 0.5**0.5, dtype, generator)
        self._write((wrap(_complex(pairs)) + mean).node)
    return self


def bernoulli_(self: T, p: float = 0.5, *, generator: Generator | None = None) -> T:
    """Fills the tensor with 1 (with probability ``p``) and 0."""
    self._write(_bernoulli(tuple(self.shape), p, self.dtype, generator))
    return self


def _largest(dtype: DType) -> int:
    """Up to here the dtype holds every whole number."""
    if dtype.kind == "f":
        return 1 << UNIT_BITS[dtype.short]
    return 1 if dtype.kind == "b" else int(np.iinfo(dtype.numpy).max)


def random_(
    self: T, from_: int | None = None, to: int | None = None, *, generator: Generator | None = None
) -> T:
    """Fills the tensor with whole numbers: ``random_(to)``, ``random_(from, to)``.

    Without bounds: from 0 to the largest integer, or for floats to 2^(bits of the significand).
    """
    dtype = self.dtype
    if to is None and from_ is not None:
        from_, to = 0, from_
    if to is None:
        to = min(_largest(dtype) + 1, _HALF - 1)
    _check_range("random_", from_ or 0, to, dtype)
    self._write(_integers(tuple(self.shape), from_ or 0, to, dtype, generator))
    return self


def exponential_(self: T, lambd: float = 1.0, *, generator: Generator | None = None) -> T:
    """Fills the tensor with exponential numbers of mean ``1 / lambd``: ``-log(1 - u) / lambd``.

    None is 0: where u is, half the smallest other number stands in its place.
    """
    dtype = _check_float("exponential_", self.dtype)
    if not 0 < lambd < math.inf:
        raise located(ValueError(f"exponential_: got lambd={lambd}; it must be positive"))
    spread = _exponential(tuple(self.shape), _wide(dtype), generator)
    self._write(cast(e.div(spread, e.full_like(spread, lambd)), dtype))
    return self


def geometric_(self: T, p: float, *, generator: Generator | None = None) -> T:
    """Fills the tensor with the number of trials until the first success of probability ``p``.

    An exponential time of rate ``-log(1 - p)``, rounded up.
    """
    if not 0 < p < 1:
        raise located(ValueError(f"geometric_: got p={p}; it must lie between 0 and 1"))
    wide = dtypes.float32 if self.dtype.bits == 16 else dtypes.float64
    time = _exponential(tuple(self.shape), wide, generator)
    trials = e.ceil(e.div(time, e.full_like(time, -math.log1p(-p))))
    self._write(cast(trials, self.dtype))
    return self


def cauchy_(
    self: T, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> T:
    """Fills the tensor with ``median + sigma * tan(pi * (u - 1/2))``, u uniform."""
    from treadle.ops.functions import tan

    dtype = _check_float("cauchy_", self.dtype)
    if not sigma > 0:
        raise located(ValueError(f"cauchy_: got sigma={sigma}; it must be positive"))
    u = draw(random_uniform, tuple(self.shape), _wide(dtype), generator)
    turned = tan(e.mul(e.sub(u, e.full_like(u, 0.5)), e.full_like(u, math.pi)))
    spread = e.mul(turned, e.full_like(u, sigma))
    self._write(cast(e.add(spread, e.full_like(u, median)), dtype))
    return self


def log_normal_(
    self: T, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> T:
    """Fills the tensor with ``exp(z)``, z normal with that mean and standard deviation."""
    dtype = _check_float("log_normal_", self.dtype)
    if not std > 0:
        raise located(ValueError(f"log_normal_: got std={std}; it must be positive"))
    z = _normal(tuple(self.shape), mean, std, _wide(dtype), generator)
    self._write(cast(e.exp(z), dtype))
    return self


class Methods:
    """What tensors have of this module; their room lies above this one and cannot know it."""

    __slots__ = ()

    uniform_, normal_, bernoulli_, random_ = uniform_, normal_, bernoulli_, random_
    exponential_, geometric_, cauchy_ = exponential_, geometric_, cauchy_
    log_normal_, bernoulli, multinomial = log_normal_, bernoulli, multinomial
