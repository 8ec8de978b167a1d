"""One object file of all texts: kernels of every level, the driver, the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from treadle.base.errors import CompileError
from treadle.export.native.arithmetic import arithmetic
from treadle.export.native.kernels import Kernels
from treadle.export.native.targets import Machine, backends
from treadle.runtime.object_code import object_code


def compiled(
    driver: str, levels: Sequence[Kernels], machine: Machine, weights: bytes | None,
    says: Callable[[str], None],
) -> bytes:  # fmt: skip
    """The object file.

    The weights are no part of the text: a mark stands in their place, which is replaced in the
    finished file, so that their size costs no time.
    """
    texts = [driver]
    for kernels in levels:
        says(f"printing {len(kernels.specs)} kernels for {kernels.target.cpu}")
        texts += [kernels.text(n) for n in range(len(kernels.specs))]
    texts += arithmetic("".join(texts), machine.has_fma)
    mark = hashlib.sha256(b"weights" + driver.encode()).digest()
    if weights:
        rest = len(weights) - len(mark)
        marked = "".join(f"\\{b:02X}" for b in mark)
        texts.append(
            f"@weights = internal constant <{{[{len(mark)} x i8], [{rest} x i8]}}> "
            f'<{{[{len(mark)} x i8] c"{marked}", [{rest} x i8] zeroinitializer}}>, '
            f'section ".rodata.weights", align 64\n'
        )
    elif weights is not None:
        texts.append("@weights = internal constant [64 x i8] zeroinitializer, align 64\n")
    says(f"compiling {sum(len(k.specs) for k in levels)} kernels")
    backends()
    try:
        code = object_code(joined(texts, machine), machine.levels[0])
    except RuntimeError as error:
        raise CompileError(
            f"the library does not compile: {str(error).strip()}; this is a defect: please report "
            f"it with the program file"
        ) from error
    if weights:
        code = _filled(code, mark, weights)
    return code


def _filled(code: bytes, mark: bytes, weights: bytes) -> bytes:
    at = code.find(mark)
    if at < 0 or code.find(mark, at + 1) >= 0:
        raise CompileError("the place of the weights is not found in the object file")
    return b"".join((code[:at], weights, code[at + len(weights) :]))


def joined(texts: Iterable[str], machine: Machine) -> str:
    """Modules as one: what they declare, and their metadata, once."""
    layout = backends().Target.from_triple(machine.triple).create_target_machine().target_data
    parts = [f'target triple = "{machine.triple}"', f'target datalayout = "{layout}"']
    declared: dict[str, None] = {}
    for text in texts:
        lines = text.split("\n")
        parts += [x for x in lines if not x.startswith(("declare ", "!"))]
        declared.update(dict.fromkeys(x for x in lines if x.startswith(("declare ", "!"))))
    return "\n".join([*parts, *declared, ""])


__all__ = ["compiled", "joined"]
