"""Programs that run, and go on training, without the code that made them.

>>> import treadle
>>> from treadle import nn
>>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
>>> x = treadle.ones(5, 3)
>>> program = export(model, (x,), dynamic_shapes={"input": {0: Dim("N")}})
>>> bool((program(x) == model(x)).all()), tuple(program(treadle.ones(7, 3)).shape)
(True, (7, 2))

A training step is exported as it is written; calling the program goes on training:

>>> optimizer = treadle.optim.Adam(model.parameters(), lr=0.1)
>>> def step(x, y):
...     optimizer.zero_grad()
...     loss = ((model(x) - y) ** 2).mean()
...     loss.backward()
...     optimizer.step()
...     return loss
>>> trained = export({"predict": model, "train": step}, {"predict": (x,), "train": (x, x[:, :2])})
>>> losses = [trained.run("train", x, x[:, :2]).item() for _ in range(20)]
>>> losses[-1] < losses[0]
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.export.bind import GraphError
    from treadle.export.capture import ExportError
    from treadle.export.exporting import export
    from treadle.export.program import ExportedProgram, Steps
    from treadle.export.program_file import ProgramFileError, load, save
    from treadle.export.sizes import Dim, dims

__all__ = [
    "Dim", "ExportError", "ExportedProgram", "GraphError", "ProgramFileError", "Steps", "dims",
    "export", "load", "save",
]  # fmt: skip
_HOMES = {
    "bind": ("GraphError",), "capture": ("ExportError",), "exporting": ("export",),
    "program": ("ExportedProgram", "Steps"), "program_file": ("ProgramFileError", "load", "save"),
    "sizes": ("Dim", "dims"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Whoever only runs a file loads nothing of what makes one."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
