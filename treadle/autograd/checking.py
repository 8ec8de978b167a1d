"""Gradients held against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from treadle.autograd.recorded import Recorded
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, located
from treadle.tensor.creation import tensor
from treadle.tensor.gradients import grad
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.storage import array_of, node_from_array
from treadle.tensor.tensor import Tensor
from treadle.tensor.trees import flatten


class GradcheckError(RuntimeError):
    """A gradient that is not what finite differences say."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the Jacobians of ``func`` are those that central differences with step ``eps`` give.

    Inputs that require a gradient are tried; they should be float64. GradcheckError tells which
    output and input differ, or False is returned where not ``raise_exception``.

    Args:
        nondet_tol: How far two runs of the backward pass may differ.
        check_batched_grad: Also computes the Jacobian in one batched pass.
        check_forward_ad, check_batched_forward_grad: Also in forward mode.
        fast_mode: Compares the Jacobians in one random direction only.
        check_undefined_grad, check_grad_dtypes, masked: Accepted; gradients always have the dtype
            of their tensor, and outputs that nobody used count as zeros.

    >>> import treadle
    >>> x = treadle.tensor([0.5, 2.0], dtype=treadle.float64, requires_grad=True)
    >>> gradcheck(lambda x: x.sin() * x, (x,))
    True
    """
    args = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    wanted = [p for p, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    if not wanted:
        raise located(ValueError(
            "gradcheck: got no input that requires a gradient; call requires_grad_() on those to "
            "be checked"
        ))  # fmt: skip
    complex_ = [p for p in wanted if args[p].dtype.kind == "c"]
    if complex_:
        raise located(TypeError(
            f"gradcheck: got the complex input {complex_[0]}; check a function of its real and "
            f"imaginary parts (view_as_real)"
        ))  # fmt: skip
    try:
        _check(func, args, wanted, eps, atol, rtol, nondet_tol, fast_mode, {
            "backward": check_backward_ad, "batched backward": check_batched_grad,
            "forward": check_forward_ad, "batched forward": check_batched_forward_grad,
        })  # fmt: skip
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(
    func: Callable[..., Any], args: tuple[Any, ...], wanted: list[int], eps: float, atol: float,
    rtol: float, nondet_tol: float, fast: bool, ways: dict[str, bool],
) -> None:  # fmt: skip
    run = Recorded("gradcheck", func, args, wanted, False)
    real = [n for n in run.nodes if n.dtype.is_floating_point]
    run.nodes = real
    if fast:
        ways = {"backward": ways["backward"], "forward": ways["forward"]}
        numeric, methods = _one_direction(run, func, args, wanted, eps)
    else:
        numeric = _numeric(func, args, wanted, real, eps)
        methods = {
            "backward": lambda: _by_rows(run), "batched backward": run.rows,
            "forward": lambda: _by_columns(run), "batched forward": run.columns,
        }  # fmt: skip
    for way in [w for w, asked in ways.items() if asked]:
        analytic = [[array_of(n) for n in row] for row in methods[way]()]
        if way == "backward":
            _check_repeats(analytic, methods[way](), nondet_tol)
        for out, row in enumerate(analytic):
            for p, found in zip(wanted, row, strict=True):
                expected = numeric[out][wanted.index(p)].reshape(found.shape)
                if not np.allclose(found, expected, rtol, atol, equal_nan=True):
                    raise located(GradcheckError(
                        f"gradcheck: the Jacobian of output {out} by input {p} in {way} mode is "
                        f"not that of finite differences\nnumerical: {expected}\n"
                        f"analytical: {found}"
                    ))  # fmt: skip


def _check_repeats(first: list[list[Any]], again: list[list[Node]], tolerance: float) -> None:
    for row, repeated in zip(first, again, strict=True):
        for a, b in zip(row, repeated, strict=True):
            if a.size and np.max(np.abs(a - array_of(b))) > tolerance:
                raise located(GradcheckError(
                    f"gradcheck: two backward passes differ by more than nondet_tol={tolerance}"
                ))  # fmt: skip


def _unit(node: Node, at: int) -> Node:
    unit = np.zeros(node.type.size, node.dtype.numpy)
    unit[at] = 1
    return node_from_array(unit.reshape(node.shape), node.dtype)


def _by_rows(run: Recorded) -> list[list[Node]]:
    """The Jacobians by one backward pass for every element of the outputs."""
    return [
        [
            _stacked([found[i] for found in passes], (*out.shape, *v.shape), v)
            for i, v in enumerate(run.variables)
        ]
        for position, out in enumerate(run.nodes)
        for passes in [[run.pull({position: _unit(out, e)}) for e in range(out.type.size)]]
    ]


def _by_columns(run: Recorded) -> list[list[Node]]:
    """The same by one forward pass for every element of the inputs."""
    passes = [
        [run.push({i: _unit(v, e)}) for e in range(v.type.size)]
        for i, v in enumerate(run.variables)
    ]
    return [
        [
            node_from_array(np.stack(
                [array_of(found[position]) for found in passes[i]], -1
            ).reshape(*out.shape, *v.shape) if v.type.size else np.zeros((*out.shape, *v.shape)))
            for i, v in enumerate(run.variables)
        ]
        for position, out in enumerate(run.nodes)
    ]  # fmt: skip


def _stacked(nodes: Sequence[Node], shape: tuple[int, ...], like: Node) -> Node:
    arrays = [array_of(n) for n in nodes]
    return node_from_array(
        np.stack(arrays).reshape(shape) if arrays else np.zeros(shape), like.dtype
    )


def _results(func: Callable[..., Any], args: Sequence[Any]) -> list[Any]:
    leaves = [x for x in flatten(func(*args))[0] if isinstance(x, Handle)]
    return [
        array_of(x.node).astype(np.float64) for x in leaves if x.node.dtype.is_floating_point
    ]  # fmt: skip


def _moved(args: tuple[Any, ...], steps: dict[int, Any]) -> list[Any]:
    """The arguments with some of them moved by arrays."""
    return [
        tensor(array_of(x.node) + steps[p], dtype=x.dtype, requires_grad=True)
        if p in steps else x
        for p, x in enumerate(args)
    ]  # fmt: skip


def _numeric(
    func: Callable[..., Any], args: tuple[Any, ...], wanted: list[int], outputs: list[Node],
    eps: float,
) -> list[list[Any]]:  # fmt: skip
    """Central differences: [output][input] of shape (output elements, input elements)."""
    found = [
        [np.zeros((n.type.size, args[p].numel())) for p in wanted] for n in outputs
    ]  # fmt: skip
    for column, p in enumerate(wanted):
        shape = tuple(args[p].shape)
        for at in range(math.prod(shape)):
            step = np.zeros(math.prod(shape))
            step[at] = eps
            ahead, behind = (
                _results(func, _moved(args, {p: sign * step.reshape(shape)})) for sign in (1, -1)
            )
            for out, (a, b) in enumerate(zip(ahead, behind, strict=True)):
                found[out][column][:, at] = ((a - b) / (2 * eps)).reshape(-1)
    return found


def _one_direction(
    run: Recorded, func: Callable[..., Any], args: tuple[Any, ...], wanted: list[int], eps: float
) -> tuple[list[list[Any]], dict[str, Callable[[], list[list[Node]]]]]:
    """u^T J v for random unit vectors u and v: by differences, and ways to get it."""
    random = np.random.default_rng(0)

    def direction(n: Node) -> Any:
        x = random.standard_normal(n.shape)
        return x / max(float(np.linalg.norm(x)), 1e-30)

    left = [direction(n) for n in run.nodes]
    right = [direction(v) for v in run.variables]
    numeric: list[list[Any]] = [[] for _ in run.nodes]
    for p, v in zip(wanted, right, strict=True):
        pair = [_results(func, _moved(args, {p: s * eps * v})) for s in (1, -1)]
        for row, u, a, b in zip(numeric, left, *pair, strict=True):
            row.append(np.asarray(((a - b) / (2 * eps) * u).sum()))

    def product(a: Node, weight: Any) -> Node:
        return node_from_array(np.asarray((array_of(a) * weight).sum()))

    def backward() -> list[list[Node]]:
        return [
            [
                product(a, v)
                for a, v in zip(
                    run.pull({i: node_from_array(u, n.dtype)}), right, strict=True
                )
            ]
            for i, (u, n) in enumerate(zip(left, run.nodes, strict=True))
        ]  # fmt: skip

    def forward() -> list[list[Node]]:
        pushed = [
            run.push({i: node_from_array(v, x.dtype)})
            for i, (v, x) in enumerate(zip(right, run.variables, strict=True))
        ]
        return [[product(t[i], u) for t in pushed] for i, u in enumerate(left)]

    return numeric, {"backward": backward, "forward": forward}


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """``gradcheck`` of the gradient of ``func``, by its inputs and by the gradients of its outputs.

    ``grad_outputs`` are drawn at random if not given.

    >>> import treadle
    >>> x = treadle.tensor([0.5, 2.0], dtype=treadle.float64, requires_grad=True)
    >>> gradgradcheck(lambda x: x.sin() * x, (x,))
    True
    """
    args = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    outputs = [x for x in flatten(func(*args))[0] if x.requires_grad]
    if grad_outputs is None:
        random = np.random.default_rng(1)
        weights = [
            wrap(node_from_array(random.standard_normal(tuple(y.shape)), y.dtype))
            for y in outputs
        ]  # fmt: skip
    else:
        weights = list(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else [grad_outputs]
    weights = [w.detach().requires_grad_() for w in weights]
    count = len(args)

    def gradient(*given: Any) -> tuple[Tensor, ...]:
        xs = [x for x in given[:count] if isinstance(x, Tensor) and x.requires_grad]
        ys = [y for y in flatten(func(*given[:count]))[0] if y.requires_grad]
        found = grad(ys, xs, list(given[count:]), create_graph=True, materialize_grads=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradient, (*args, *weights), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_batched_grad=check_batched_grad, check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev, fast_mode=fast_mode,
    )  # fmt: skip


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
