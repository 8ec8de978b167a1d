"""A program as a module; apart from ``program.py``, since running a file needs no modules."""

from __future__ import annotations

from typing import Any

from treadle.export.program import ExportedProgram
from treadle.nn.module import Module


class ProgramModule(Module):
    """A program as a module: its weights are the module's, ``forward`` runs the first graph.

    No gradient flows through it: what it computes is fixed, and a step that trains it is a graph of
    its own.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the first graph."""
        return self.program(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The program's weights by name."""
        return self.program.state_dict


__all__ = ["ProgramModule"]
