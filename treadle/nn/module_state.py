"""What a module saves and loads: parameters and buffers by path, and state of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.record import Record
from treadle.ir.node import located
from treadle.nn.parameter import Parameter, is_lazy
from treadle.tensor.arithmetic import cast
from treadle.tensor.creation import as_tensor
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.hooks import RemovableHandle
from treadle.tensor.tensor import Tensor

EXTRA = "_extra_state"  # the name of what ``get_extra_state`` gives
_PLAN = "treadle.plan"  # where a loading in progress is noted


class LoadResult(Record):
    """What ``load_state_dict`` found: names that were missing, and names nobody knows."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"LoadResult(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"
        )


class _Entry(Record):
    """A value that is to be loaded."""

    module: ModuleState
    name: str
    value: Any


class ModuleState:
    """The part of ``Module`` that is about ``state_dict``."""

    _version: int = 1  # of what a class saves; saved with it

    if TYPE_CHECKING:
        _parameters: dict[str, Any]
        _buffers: dict[str, Any]
        _modules: dict[str, Any]
        _non_persistent_buffers_set: set[str]
        _state_hooks: dict[str, dict[int, Any]]

    # --- hooks -----------------------------------------------------------------------------------

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(module, prefix, keep_vars)`` before the module's state is collected."""
        return RemovableHandle(self._state_hooks["before_saving"], hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(module, state_dict, prefix, local_metadata)``, which may change the state.

        ``state_dict`` has the module's part, and all below it, under names with ``prefix``.
        """
        return RemovableHandle(self._state_hooks["after_saving"], hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook`` before the module looks for its part of a state, which it may change.

        Its arguments: module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys and error_msgs.
        """
        return RemovableHandle(self._state_hooks["before_loading"], hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        """The older form, whose hook does not get the module unless ``with_module``."""
        if with_module:
            return self.register_load_state_dict_pre_hook(hook)
        return self.register_load_state_dict_pre_hook(lambda module, *args: hook(*args))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(module, incompatible_keys)`` when a state has been loaded.

        The hook may take names out of ``incompatible_keys.missing_keys`` and ``unexpected_keys``.
        """
        return RemovableHandle(self._state_hooks["after_loading"], hook)

    def get_extra_state(self) -> Any:
        """To be defined by modules that save more than tensors: what ``state_dict`` is to hold."""
        raise located(RuntimeError(
            f"{type(self).__name__} has no get_extra_state(); define it with set_extra_state()"
        ))  # fmt: skip

    def set_extra_state(self, state: Any) -> None:
        """To be defined with ``get_extra_state``: takes back what that gave."""
        raise located(RuntimeError(
            f"{type(self).__name__} has no set_extra_state(); define it with get_extra_state()"
        ))  # fmt: skip

    def _has_extra(self) -> bool:
        return type(self).get_extra_state is not ModuleState.get_extra_state

    # --- saving ----------------------------------------------------------------------------------

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """All parameters and persistent buffers by path, and what ``get_extra_state`` gives.

        The tensors show the module's own values, also those of later; ``copy.deepcopy`` keeps what
        is there now. ``keep_vars`` gives the parameters themselves. They are added to
        ``destination``, if that is given.
        """
        given = dict(zip(("destination", "prefix", "keep_vars"), args, strict=False))
        destination = given.get("destination", destination)
        prefix = given.get("prefix", prefix)
        keep_vars = given.get("keep_vars", keep_vars)
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in list(self._state_hooks["before_saving"].values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in list(self._state_hooks["after_saving"].values()):
            changed = hook(self, destination, prefix, metadata)
            destination = destination if changed is None else changed
        return destination

    def _own_state(self) -> dict[str, Tensor]:
        """The parameters and persistent buffers of this module itself."""
        transient = self._non_persistent_buffers_set
        kept = {k: b for k, b in self._buffers.items() if k not in transient}
        return {k: x for k, x in {**self._parameters, **kept}.items() if x is not None}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Puts the module's own part into ``destination``."""
        for name, member in self._own_state().items():
            destination[prefix + name] = member if keep_vars or is_lazy(member) else member.detach()
        if self._has_extra():
            destination[prefix + EXTRA] = self.get_extra_state()

    # --- loading ---------------------------------------------------------------------------------

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> LoadResult:
        """Takes the values of ``state_dict`` (tensors or arrays), converted to each dtype.

        With ``assign`` the tensors themselves take the places of the module's, with their dtypes.
        Everything is checked before anything is changed. RuntimeError where shapes differ or, if
        ``strict``, names are missing or unknown: it lists them all.

        >>> import treadle
        >>> layer = treadle.nn.Linear(2, 1)
        >>> layer.load_state_dict({"weight": [[1.0, 2.0]], "bias": [3.0]})
        <All keys matched successfully>
        """
        if not isinstance(state_dict, Mapping):
            raise located(TypeError(
                f"load_state_dict: got a {type(state_dict).__name__}; it takes a dictionary of "
                f"tensors, such as state_dict() or treadle.load(file) gives"
            ))  # fmt: skip
        versions = getattr(state_dict, "_metadata", None) or {}
        state = OrderedDict(state_dict)
        plan: list[_Entry] = []
        missing: list[str] = []
        unexpected: list[str] = []
        problems: list[str] = []
        todo: list[tuple[str, Any]] = [("", self)]
        visited: list[Any] = []
        while todo:
            prefix, module = todo.pop()
            visited.append(module)
            metadata = dict(versions.get(prefix[:-1], {}))
            metadata |= {"assign_to_params_buffers": assign, _PLAN: plan}
            module._load_from_state_dict(
                state, prefix, metadata, strict, missing, unexpected, problems
            )
            below = [(f"{prefix}{k}.", m) for k, m in module._modules.items() if m is not None]
            todo.extend(reversed(below))
        result = LoadResult(missing, list(dict.fromkeys(unexpected)))
        for module in reversed(visited):
            for hook in list(module._state_hooks["after_loading"].values()):
                hook(module, result)
        if problems or (strict and (missing or result.unexpected_keys)):
            raise located(RuntimeError(_refusal(self, result, problems, state, strict)))
        _carry_out(plan, assign)
        return result

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Notes what of ``state_dict`` is the module's own, and what does not fit."""
        for hook in list(self._state_hooks["before_loading"].values()):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                 error_msgs)  # fmt: skip
        plan = local_metadata[_PLAN]
        own = self._own_state()
        for name, member in own.items():
            if prefix + name not in state_dict:
                missing_keys.append(prefix + name)
                continue
            value = as_tensor(state_dict[prefix + name])
            if not is_lazy(member) and not is_lazy(value):
                if value.node.shape == (1,) and member.node.shape == ():
                    value = value[0]  # as PyTorch before 0.4 saved numbers
                if value.node.shape != member.node.shape:
                    error_msgs.append(
                        f"size mismatch for {prefix}{name}: got {value.node.shape}, the module has "
                        f"{member.node.shape}"
                    )
                    continue
            plan.append(_Entry(self, name, value))
        if self._has_extra():
            if prefix + EXTRA in state_dict:
                plan.append(_Entry(self, EXTRA, state_dict[prefix + EXTRA]))
            elif strict:
                missing_keys.append(prefix + EXTRA)
        for name in state_dict:
            if name.startswith(prefix):
                first, *rest = name[len(prefix) :].split(".")
                mine = not rest and (first in own or (first == EXTRA and self._has_extra()))
                if not mine and self._modules.get(first) is None:
                    unexpected_keys.append(name)


def _carry_out(plan: Sequence[_Entry], assign: bool) -> None:
    """Gives the members their new values."""
    with no_grad():
        for module, name, value in plan:
            if name == EXTRA:
                module.set_extra_state(value)
                continue
            is_parameter = name in module._parameters
            target = (module._parameters if is_parameter else module._buffers)[name]
            if is_lazy(value):
                continue  # neither has a value yet
            if assign:
                known = value
                if is_parameter:
                    needs = target.requires_grad
                    known = value if isinstance(value, Parameter) else Parameter(value, needs)
                    known.requires_grad_(needs)
                setattr(module, name, known)
                continue
            if is_lazy(target):
                target.materialize(tuple(value.shape), dtype=target.dtype)
            target._write(cast(value.detach().node, target.dtype))


# --- what is wrong with a state -------------------------------------------------------------------


def _refusal(
    module: Any, found: LoadResult, problems: Sequence[str], state: Mapping[str, Any], strict: bool
) -> str:
    """The error's text: all names, with shapes, and the prefix that explains them."""
    lines = []
    if strict:
        own = {
            f"{path}.{name}" if path else name: member
            for path, part in module.named_modules(remove_duplicate=False)
            for name, member in part._own_state().items()
        }
        for what, names, source in (
            ("missing", found.missing_keys, own), ("unexpected", found.unexpected_keys, state),
        ):  # fmt: skip
            if names:
                listed = ", ".join(name + _shape_of(source.get(name)) for name in names)
                lines.append(f"{what}: {listed}")
        lines += _prefix_hint(found, own, state)
    lines += problems
    hint = "; strict=False ignores missing and unexpected names" if strict else ""
    listed = "".join(f"\n    {line}" for line in lines)
    return f"load_state_dict: the state does not fit {type(module).__name__}{hint}:{listed}\n"


def _shape_of(value: Any) -> str:
    shape = None if is_lazy(value) else getattr(value, "shape", None)
    return "" if shape is None else f" {tuple(shape)}"


def _prefix_hint(found: LoadResult, own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """How to mend names that differ by what stands in front of all of them."""
    longer = _prefix(list(state), set(own))
    if longer:
        return [
            f"every name of the state has {longer!r} in front; pass "
            f"{{name.removeprefix({longer!r}): value for name, value in state.items()}}"
        ]
    shorter = _prefix(found.missing_keys, set(state))
    if shorter:
        return [
            f"every missing name is there without {shorter!r} in front; load into that part of the "
            f"module, or pass {{{shorter!r} + name: value for name, value in state.items()}}"
        ]
    return []


def _prefix(names: Sequence[str], known: set[str]) -> str:
    """The start that all names have in front of a known one; empty where there is none."""
    if not names:
        return ""
    first = names[0]
    cuts = [at + 1 for at, c in enumerate(first) if c == "."]
    for cut in cuts:
        start = first[:cut]
        if all(n.startswith(start) and n[cut:] in known for n in names):
            return start
    return ""


__all__ = ["LoadResult", "ModuleState"]
