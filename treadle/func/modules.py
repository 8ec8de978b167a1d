"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treadle.ir.node import located
from treadle.tensor.joining import stack

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

_KINDS = ("_parameters", "_buffers")


def _places(module: Any) -> dict[str, tuple[dict[str, Any], str]]:
    """Where the parameters and buffers of a module tree are kept, by their names."""
    return {
        f"{path}.{name}" if path else name: (vars(part)[kind], name)
        for path, part in module.named_modules(remove_duplicate=False)
        for kind in _KINDS
        for name in vars(part)[kind]
    }


def functional_call(
    module: Any,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls a module with other tensors in place of its parameters and buffers.

    What is not named keeps its own. Tensors that are one under several names stay so when one name
    is given (unless ``tie_weights`` is False). With ``strict`` exactly the names of the module must
    be given.

    >>> import treadle
    >>> layer = treadle.nn.Linear(2, 1, bias=False)
    >>> weight = treadle.tensor([[1.0, 10.0]])
    >>> functional_call(layer, {"weight": weight}, treadle.tensor([3.0, 4.0])).tolist()
    [43.0]
    """
    given = _merged(parameter_and_buffer_dicts)
    places = _places(module)
    _check_names(module, given, places, strict)
    if tie_weights:
        given = _tied(given, places)
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    before = [(*places[name], places[name][0][places[name][1]]) for name in given]
    try:
        for name, tensor in given.items():
            kept, key = places[name]
            kept[key] = tensor
        return module(*arguments, **(kwargs or {}))
    finally:
        for kept, key, tensor in before:
            kept[key] = tensor


def _merged(dicts: Any) -> dict[str, Any]:
    if isinstance(dicts, Mapping):
        return dict(dicts)
    merged: dict[str, Any] = {}
    for part in dicts:
        if not isinstance(part, Mapping):
            raise located(TypeError(
                f"functional_call: got a {type(part).__name__} for parameters; give a dictionary "
                f"from names to tensors, or several"
            ))  # fmt: skip
        twice = sorted(merged.keys() & part.keys())
        if twice:
            raise located(ValueError(
                f"functional_call: got {', '.join(twice)} in more than one dictionary; name each "
                f"tensor once"
            ))  # fmt: skip
        merged.update(part)
    return merged


def _check_names(module: Any, given: dict[str, Any], places: Any, strict: bool) -> None:
    unknown = [name for name in given if name not in places]
    missing = [name for name in places if name not in given] if strict else []
    if (unknown and strict) or missing:
        raise located(RuntimeError(
            f"functional_call: got names that {type(module).__name__} does not have: "
            f"{', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
        ))  # fmt: skip
    for name in unknown:
        del given[name]


def _tied(given: dict[str, Any], places: Any) -> dict[str, Any]:
    """The same tensor under its other names, unless these are given something else."""
    by_value = {id(places[name][0][places[name][1]]): name for name in given}
    tied = dict(given)
    for name, (kept, key) in places.items():
        first = by_value.get(id(kept[key]))
        if name not in given and first is not None and kept[key] is not None:
            tied[name] = given[first]
    return tied


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and the buffers of like modules, stacked, to be mapped over by ``vmap``.

    >>> import treadle
    >>> models = [treadle.nn.Linear(3, 2) for _ in range(5)]
    >>> params, buffers = stack_module_state(models)
    >>> tuple(params["weight"].shape)
    (5, 2, 3)
    """
    models = list(models)
    if not models:
        raise located(ValueError("stack_module_state: got no module; give at least one"))
    kinds = {type(m).__name__: None for m in models}
    if len(kinds) > 1:
        raise located(ValueError(
            f"stack_module_state: got modules of the classes {', '.join(kinds)}; they must be "
            f"alike"
        ))  # fmt: skip
    if len({m.training for m in models}) > 1:
        raise located(ValueError(
            "stack_module_state: got modules in training and in evaluation mode; call train() or "
            "eval() on all of them"
        ))  # fmt: skip
    parameters, buffers = (
        {name: _stacked(name, same) for name, same in _by_name(models, kind)}
        for kind in ("named_parameters", "named_buffers")
    )
    return parameters, buffers


def _by_name(models: Sequence[Any], kind: str) -> Iterator[tuple[str, list[Any]]]:
    states = [dict(getattr(m, kind)()) for m in models]
    return ((name, [state[name] for state in states]) for name in states[0])


def _stacked(name: str, tensors: list[Any]) -> Any:
    wanted = {t.requires_grad for t in tensors}
    if len(wanted) > 1:
        raise located(ValueError(
            f"stack_module_state: got {name} with and without requires_grad; make all modules alike"
        ))  # fmt: skip
    return stack([t.detach() for t in tensors]).requires_grad_(wanted.pop())


__all__ = ["functional_call", "stack_module_state"]
