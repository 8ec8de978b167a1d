"""Functions and methods that are loaded when they are first named.

A program uses a few dozen of some thousand functions, and loading the modules of all would be most
of what ``import treadle`` takes. ``names.py`` says where each is. As a method such a name is a
``Later`` until then: looking it up imports the module and puts all of the module's methods in
place, so that from then on they are as near as any.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from treadle.tensor.names import FUNCTIONS, METHODS

# The module of each function of ``treadle`` that is loaded later.
WHERE = {name: module for module, names in FUNCTIONS.items() for name in names.split()}


class Later:
    """A method of ``LaterMethods`` whose module is not loaded yet."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        found = self._put_in_place()
        return found.__get__(instance, owner) if hasattr(found, "__get__") else found

    def __set__(self, instance: Any, value: Any) -> None:
        self._put_in_place()
        setattr(instance, self.name, value)  # which the attribute may want to see

    def _put_in_place(self) -> Any:
        methods = vars(import_module(self.module).Methods)
        for name in _METHODS[self.module].split():
            setattr(LaterMethods, name, methods[name])
        return methods[self.name]


_METHODS = {**METHODS}
# The methods of tensors that are in the modules of ``METHODS``, and those that are handed over.
LaterMethods = type("LaterMethods", (), {
    "__slots__": (),
    **{name: Later(module, name) for module, names in METHODS.items() for name in names.split()},
})  # fmt: skip


def hand_over(module: str, names: str) -> None:
    """Gives tensors the methods of these names, of a module that this room cannot know."""
    _METHODS[module] = names
    for name in names.split():
        setattr(LaterMethods, name, Later(module, name))
