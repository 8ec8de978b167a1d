"""Layer conformance: one call that tries everything a layer promises."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.nn.module import Module
from treadle.optim.sgd import SGD
from treadle.random.generator import fork_rng, manual_seed
from treadle.tensor.creation import tensor
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor
from treadle.testing.gradients import check_grads


def check_layer(
    make: Callable[[], Module],
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    *,
    num_classes: int | None = None,
    trains: bool = True,
    order: int = 1,
) -> None:
    """Raises AssertionError unless the layer that ``make`` builds keeps all that layers promise.

    Tried with a random input of ``input_shape`` (floats, or integers below ``num_classes``): the
    shape of the result; the text form; saving and loading, copying and pickling, to the same bits;
    training and evaluation mode; float64 and the 16-bit floats; gradients of input and parameters
    against finite differences up to ``order``; and that gradient steps lower a loss (unless not
    ``trains``).

    >>> from treadle import nn
    >>> check_layer(lambda: nn.Linear(3, 2), (4, 3), (4, 2))
    """
    with fork_rng():
        manual_seed(0)
        module = make()
        x = _input(input_shape, num_classes)
        _check_result(module, x, tuple(output_shape))
        _check_modes(module, x)
        _check_copies(module, make, x)
        _check_dtypes(module, x)
        _check_gradients(module, x, order)
        if trains and any(True for _ in module.parameters()):
            _check_training(make(), x)


def _input(shape: Sequence[int], num_classes: int | None) -> Tensor:
    rng = np.random.default_rng(1)
    if num_classes is not None:
        return tensor(rng.integers(0, num_classes, shape))
    return tensor(rng.uniform(-2, 2, shape).astype(np.float32))


def _expect(condition: bool, module: Module, problem: str) -> None:
    if not condition:
        raise AssertionError(f"{module}: {problem}")


def _value(module: Module, x: Tensor) -> np.ndarray[Any, Any]:
    """The result in evaluation mode."""
    was_training = module.training
    module.eval()
    with no_grad():
        value: np.ndarray[Any, Any] = module(x).numpy(copy=True)
    module.train(was_training)
    return value


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _check_result(module: Module, x: Tensor, shape: tuple[int, ...]) -> None:
    for mode in (True, False):
        out = module.train(mode)(x)
        _expect(
            tuple(out.shape) == shape,
            module,
            f"the result has shape {tuple(out.shape)}, not {shape}",
        )
    name = type(module).__name__
    _expect(repr(module).startswith(f"{name}("), module, f"the text form must start with {name}(")


def _check_modes(module: Module, x: Tensor) -> None:
    module.train()
    _expect(all(m.training for m in module.modules()), module, "train() must reach every module")
    module.eval()
    _expect(not any(m.training for m in module.modules()), module, "eval() must reach every module")
    before = {name: b.numpy(copy=True) for name, b in module.named_buffers()}
    same = _same(_value(module, x), _value(module, x))
    _expect(same, module, "evaluation must give the same result twice")
    for name, b in module.named_buffers():
        _expect(_same(before[name], b.numpy()), module, f"evaluation changed the buffer {name}")


def _check_copies(module: Module, make: Callable[[], Module], x: Tensor) -> None:
    """Loading a saved state, a deep copy and a pickle give the same bits, and share nothing."""
    expected = _value(module, x)
    loaded = make()
    loaded.load_state_dict(copy.deepcopy(module.state_dict()))
    copies = {
        "a layer with its state": loaded,
        "its deep copy": copy.deepcopy(module),
        "its pickle": pickle.loads(pickle.dumps(module)),
    }
    for what, other in copies.items():
        _expect(_same(_value(other, x), expected), module, f"{what} gives another result")
        names = [name for name, _ in other.named_parameters()]
        _expect(
            names == [name for name, _ in module.named_parameters()], module,
            f"{what} has the parameters {names}",
        )  # fmt: skip
        with no_grad():
            for p in other.parameters():
                p.add_(1)
    _expect(_same(_value(module, x), expected), module, "a copy shares its parameters")


def _check_dtypes(module: Module, x: Tensor) -> None:
    expected = _value(module, x).astype(np.float64)
    cases = ((dtypes.float64, 1e-4), (dtypes.float16, 2e-2), (dtypes.bfloat16, 1e-1))
    for dtype, tolerance in cases:
        other = copy.deepcopy(module).to(dtype)
        out = _value(other, _as(x, dtype))
        _expect(
            out.dtype == dtype.numpy, module, f"in {dtype.name} the result has dtype {out.dtype}"
        )
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        error = float(np.abs(out.astype(np.float64) - expected).max(initial=0))
        _expect(error <= tolerance * scale, module, f"in {dtype.name} the result is {error} off")


def _as(x: Tensor, dtype: DType) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def _check_gradients(module: Module, x: Tensor, order: int) -> None:
    """Of the input (if it is real) and of all parameters, in both modes."""
    real = x.is_floating_point()
    for mode in (True, False):
        network = copy.deepcopy(module).double().train(mode)
        slots = _places(network)
        inputs = [x.double().requires_grad_()] if real else []
        inputs += [p.detach().clone().requires_grad_() for _, _, p in slots]

        def function(*values: Tensor, network: Module = network, slots: Any = slots) -> Tensor:
            manual_seed(2)  # dropout draws the same every time
            given = list(values)
            source = given.pop(0) if real else x
            for (owner, name, _), value in zip(slots, given, strict=True):
                owner.__dict__["_parameters"][name] = value
            return network(source)

        if inputs:
            check_grads(function, inputs, order, rtol=1e-4)


def _places(module: Module) -> list[tuple[Module, str, Tensor]]:
    """Every parameter with the module and the name that hold it."""
    return [
        (owner, name, p)
        for owner in module.modules()
        for name, p in owner._parameters.items()
        if p is not None
    ]


def _check_training(module: Module, x: Tensor) -> None:
    manual_seed(3)
    module.train()
    target = tensor(np.random.default_rng(4).uniform(-1, 1, tuple(module(x).shape)))
    target = target.to(dtypes.float32)
    optimizer = SGD(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        manual_seed(5)
        loss = (module(x) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _expect(losses[-1] < losses[0], module, f"training does not lower the loss: {losses}")


__all__ = ["check_layer"]
