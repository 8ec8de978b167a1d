"""Where an instruction of LLVM's text goes: printing with common subexpressions and hoisting.

Instructions without effects are printed once: the text of one is its value number, and it goes to
the outermost level whose values it reads, so that what does not change in a loop is computed before
it. A *level* is the body of a loop or of an If while it is being printed; its lines are put into
those of the level around it when it ends. All that may move is arithmetic, which in loop IR never
traps: nothing here can change a bit.
"""

from __future__ import annotations

import re

_NAMES = re.compile(r"%[\w.]+").findall
# Too slow to compute where an If might have saved it.
_SLOW = re.compile(r"[su]div|[sfu]rem|fdiv|call .*sqrt").match
_FARTHEST = 2  # loops that an instruction leaves: out of more it would only hold a register


class _Level:
    """The lines of a loop or an If so far; ``texts`` are the instructions known in it alone."""

    __slots__ = ("block", "is_loop", "lines", "texts")

    def __init__(self, is_loop: bool, block: str) -> None:
        self.is_loop = is_loop
        self.block = block
        self.lines: list[str] = []
        self.texts: list[str] = []


class TextPrinter:
    """Lines of LLVM's language in nested levels."""

    def __init__(self) -> None:
        self.count = 0
        self.levels = [_Level(False, "entry")]
        self.depths: dict[str, int] = {}  # of names: the level that computes them
        self._known: dict[str, str] = {}  # instructions: the name of their result

    def name(self, stem: str) -> str:
        """A name not yet used."""
        self.count += 1
        return f"{stem}{self.count}"

    def line(self, text: str) -> None:
        """Appends an instruction that has an effect."""
        self.levels[-1].lines.append("  " + text)

    def lines(self, lines: list[str]) -> None:
        """Appends the lines of a level that has ended."""
        self.levels[-1].lines += lines

    def label(self, name: str) -> None:
        """Begins a basic block."""
        level = self.levels[-1]
        level.lines.append(f"{name}:")
        level.block = name

    @property
    def block(self) -> str:
        """The basic block being printed."""
        return self.levels[-1].block

    def new(self, depth: int | None = None) -> str:
        """A name for a value of this level (or of the one given), to be defined by ``line``."""
        result = "%" + self.name("v")
        self.depths[result] = len(self.levels) - 1 if depth is None else depth
        return result

    def read(self, text: str) -> str:
        """Appends an instruction with a result that depends on the moment: a load."""
        result = self.new()
        self.levels[-1].lines.append(f"  {result} = {text}")
        return result

    def emit(self, text: str) -> str:
        """The name of the result of an instruction without effects, printed where it is due."""
        result = self._known.get(text)
        if result is not None:
            return result
        depths = self.depths
        needed = max([depths[name] for name in _NAMES(text)], default=0)
        depth = len(self.levels) - 1
        if needed < depth:
            depth = self._home(text, needed, depth)
        level = self.levels[depth]
        result = self._known[text] = self.new(depth)
        level.texts.append(text)
        level.lines.append(f"  {result} = {text}")
        return result

    def _home(self, text: str, needed: int, depth: int) -> int:
        """Out of loops that do not change it; out of an If only on the way there."""
        best, loops = depth, 0
        while depth > needed:
            if self.levels[depth].is_loop:
                loops += 1
                if loops > _FARTHEST and not _SLOW(text):
                    break
                best = depth - 1
            elif _SLOW(text):
                break
            depth -= 1
        return best

    def enter(self, block: str, is_loop: bool) -> None:
        """Begins a level with its first basic block, whose label it prints."""
        self.levels.append(_Level(is_loop, block))
        self.label(block)

    def leave(self) -> list[str]:
        """Ends the level; the caller puts its lines after what leads into them."""
        level = self.levels.pop()
        for text in level.texts:
            del self._known[text]
        return level.lines
