"""Which loops LLVM's strength reduction is to look at: the quick ones inside.

That pass rewrites addresses so that they step along with a loop. Inside a nest that is worth
having. For the loops around, whose addresses are sums printed where they change (``llvm_index``),
it finds nothing, and takes half of the time that code generation takes, since it looks at all that
depends on a loop's variable, in all loops inside. So the variable of such a loop is hidden: it goes
through ``launder.invariant.group`` on its way round, which costs no instruction.
"""

from __future__ import annotations

from collections.abc import Iterator

from treadle.ir.loop import Assign, Const, If, Loop, Statement

WRITE_OUT = 64  # vector loops with constant bounds up to this length are written out
_DEEP = 3  # loops in which what does no arithmetic is the copying beside some large kernel's work


def is_written_out(loop: Loop) -> bool:
    """Whether a vector loop, outside others of its kind, is straight-line code."""
    if not isinstance(loop.lo, Const) or not isinstance(loop.hi, Const):
        return False
    return int(loop.hi.value) - int(loop.lo.value) <= WRITE_OUT


def is_worth_reducing(loop: Loop, depth: int, in_vector: bool) -> bool:
    """Whether to show a loop that is the ``depth``-th of a nest, from the outside.

    ``in_vector`` tells that it is inside the full vectors of a vector loop. What such a loop itself
    reads lies side by side, so its variable is an index as it is.
    """
    if loop.kind == "vector" or _holds_loop(loop.body, in_vector):
        return False
    return depth < _DEEP or any(s.op == "fma" for s in _all(loop.body) if isinstance(s, Assign))


def _all(body: list[Statement]) -> Iterator[Statement]:
    for statement in body:
        yield statement
        if isinstance(statement, (Loop, If)):
            yield from _all(statement.body)


def _holds_loop(body: list[Statement], in_vector: bool) -> bool:
    """Whether a loop is left when what is written out is written out."""
    for statement in _all(body):
        if isinstance(statement, Loop) and statement.kind != "unrolled":
            vector = statement.kind == "vector" and not in_vector
            if not vector or not is_written_out(statement):
                return True
    return False
