"""What became of the last step, in words: programs, kernels with their lines, and why.

``explain`` looks at the records that ``compiler/watch.py`` keeps of evaluations, and at what the
programs were made of; nothing is computed for it while the user's program runs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base.record import Record
from treadle.compiler import watch
from treadle.compiler.device import Device, Limits, get_device
from treadle.compiler.kernels import KernelUse, kernels_of
from treadle.compiler.watch import Evaluation, Forced
from treadle.ir.node import Signature, Site, describe_site

_WORTH_MEASURING_AGAIN = 1.1  # of the limit: then the limit was measured too low
_ROWS = 12
_WIDTH = 46  # of a kernel's name in a table
_BUDGETS = {
    "PENDING_NODES": "the budget of operations (TREADLE_PENDING_NODES)",
    "PENDING_BYTES": "the budget of memory (TREADLE_PENDING_BYTES)",
}
_WORDS = {
    "__repr__": "print", "__str__": "print", "__format__": "print",
    "__bool__": "bool(), as `if` asks for it", "__float__": "float()", "__int__": "int()",
    "__index__": "use as an index", "__len__": "len()", "__array__": "conversion to NumPy",
    "__contains__": "in", "__iter__": "iteration",
}  # fmt: skip


class Difference(Record):
    """Where an evaluation first differs from the one before it from the same line."""

    site: Site | None
    text: str


class Explanation:
    """What ``treadle.explain`` gives: prints as text, draws itself by ``save``."""

    def __init__(self, evaluations: Sequence[Evaluation], renewed: Sequence[Evaluation]) -> None:
        self.evaluations = tuple(evaluations)
        self._renewed = tuple(renewed)
        self._device = get_device("cpu")
        self._limits = self._device.limits()
        self._kernels = {e: kernels_of(e, self._device, self._limits) for e in self.evaluations}
        if any(k.share > _WORTH_MEASURING_AGAIN for ks in self._kernels.values() for k in ks):
            self._limits = self._device.limits(again=True)
            self._kernels = {e: kernels_of(e, self._device, self._limits) for e in self.evaluations}

    def kernels(self) -> list[KernelUse]:
        """All kernels of the step, in the order in which they ran."""
        return [kernel for e in self.evaluations for kernel in self._kernels[e]]

    def differences(self) -> list[Difference]:
        """Why something was compiled again lately, oldest first."""
        found = [difference(e.before, e) for e in self._renewed if e.before is not None]
        return [d for d in found if d is not None]

    def svg(self) -> str:
        """The step as a drawing: kernels with what was fused into them, and what they read."""
        from treadle.compiler.drawing import draw

        return draw([(e, self._kernels[e]) for e in self.evaluations], html=False)

    def html(self) -> str:
        """The drawing as a page that can be moved, scaled and asked for details."""
        from treadle.compiler.drawing import draw

        return draw([(e, self._kernels[e]) for e in self.evaluations], html=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the drawing: an ``.svg``, or an ``.html`` page.

        Raises ValueError for any other ending.
        """
        name = os.fspath(path)
        if not name.endswith((".svg", ".html")):
            raise ValueError(f"save got the path {name!r}; it must end in .svg or .html")
        with open(name, "w", encoding="utf-8") as file:
            file.write(self.svg() if name.endswith(".svg") else self.html())

    def __str__(self) -> str:
        if not self.evaluations:
            return "nothing has been evaluated yet"
        lines = [self._headline(), _machine(self._device, self._limits)]
        last = len(self.evaluations) - 1
        for position, e in enumerate(self.evaluations):
            in_the_middle = position < last and _is_step(self.evaluations[last])
            lines += ["", *_told(e, self._kernels[e], in_the_middle)]
        again = self.differences()
        if again:
            lines += ["", "compiled again:"]
            lines += [f"  {d.text}" for d in again]
        return "\n".join(lines)

    __repr__ = __str__

    def _headline(self) -> str:
        count = len(self.evaluations)
        kernels = self.kernels()
        seconds = sum(e.seconds for e in self.evaluations)
        inside = sum(k.seconds for k in kernels)
        return (
            f"the last step: {_plural(count, 'evaluation')}, {_time(seconds)}, of it "
            f"{_time(inside)} in {_plural(len(kernels), 'kernel')}"
        )


def explain() -> Explanation:
    """What became of the last step: print it, or ``save`` it as a drawing.

    The last step is what was evaluated since the optimizer step before the last one; where there
    was no optimizer, the last evaluation. Kernel times are those of the last run that was timed
    (the first, second, fourth, ... and every 64th run of a program are).

    >>> import treadle
    >>> _ = (treadle.ones(3) + 1).numpy()
    >>> print(treadle.explain())
    the last step: ...
    """
    return Explanation(_last_step(list(watch.recent)), list(watch.renewed))


def tell(evaluation: Evaluation) -> str:
    """What TREADLE_DEBUG=explain prints of an evaluation: all that is new, else one line."""
    if evaluation.ran or (evaluation.program is not None and evaluation.run > 1):
        return f"[treadle] {_first_line(evaluation)}; {_how(evaluation)}"
    device = get_device("cpu")
    lines = _told(evaluation, kernels_of(evaluation, device, device.limits()), False)
    if evaluation.before is not None:
        found = difference(evaluation.before, evaluation)
        if found is not None:
            lines.append(f"  new: {found.text}")
    return "\n".join(f"[treadle] {line}".rstrip() for line in lines)


def _last_step(evaluations: list[Evaluation]) -> list[Evaluation]:
    ends = [i for i, e in enumerate(evaluations) if _is_step(e)]
    if not ends:
        return evaluations[-1:]
    return evaluations[ends[-2] + 1 if len(ends) > 1 else 0 :]


def _is_step(e: Evaluation) -> bool:
    return e.forced.function == watch.OPTIMIZER


# --- one evaluation -------------------------------------------------------------------------------


def _told(e: Evaluation, kernels: Sequence[KernelUse], in_the_middle: bool) -> list[str]:
    lines = [_first_line(e), f"  {_how(e)}"]
    if in_the_middle:
        lines.append("  in the middle of a step: what follows is a program of its own")
    lines += [f"  {line}" for line in _operations(e, kernels)]
    if e.program is not None:
        made = e.program.made
        results = sum(s.nbytes for s in made.storages if s.is_result)
        lines.append(f"  memory: {_bytes(e.program.arena)} while it runs, {_bytes(results)} kept")
    lines += _segments(e)
    if kernels:
        lines += ["", *table(kernels)]
    fused = [k for k in kernels if len(k.uses) > 1]
    if fused:
        lines += ["", "  fused:"]
        alike: dict[str, list[int]] = {}
        for k in fused:
            alike.setdefault(f"{k.kind} over {k.space}: {k.by_line()}", []).append(k.number)
        for text, numbers in alike.items():
            more = f" (and {len(numbers) - 1} more like it)" if len(numbers) > 1 else ""
            lines.append(f"  {numbers[0]:>4}  {text}{more}")
    return lines


def _first_line(e: Evaluation) -> str:
    return f"evaluation forced by {who(e.forced)}: {_time(e.seconds)}"


def who(forced: Forced) -> str:
    """``Optimizer.step() at train.py:12``."""
    name = forced.function.rpartition(".")[2]
    word = _BUDGETS.get(name) or _WORDS.get(name) or f"{forced.function}()"
    if forced.debugger:
        word = f"a look ({word}) at a breakpoint"
    return f"{word} at {describe_site(forced.site)}"


def _how(e: Evaluation) -> str:
    program = e.program
    if e.ran:
        inside = sum(len(r.known.sites) for r in e.ran if isinstance(r, watch.Ran))
        return f"{e.reason}; {100 * inside / e.size:.0f} % of it ran in segments seen before"
    if program is None:
        return f"ran operation by operation: {e.reason}"
    if e.known is None:
        return ""
    timed = "" if e.timed is None else f", times are of run {e.timed.run}"
    return f"ran as a program (run {e.run}{timed}): {e.known.stage(program)}"


def _segments(e: Evaluation) -> list[str]:
    """Which segments ran, the one with most operations first."""
    found: dict[int, list[watch.Ran]] = {}
    for ran in e.ran:
        if isinstance(ran, watch.Ran):
            found.setdefault(id(ran.known), []).append(ran)
    ordered = sorted(found.values(), key=lambda runs: -len(runs) * len(runs[0].known.sites))
    lines = ["", "  segments:"] if ordered else []
    for runs in ordered[:_ROWS]:
        known, program = runs[0].known, runs[0].program
        places = list(dict.fromkeys(map(describe_site, known.sites)))
        more = f" and {len(places) - 2} lines more" if len(places) > 2 else ""
        lines.append(
            f"  {len(runs):>4} times {_plural(len(known.sites), 'operation')} from "
            f"{', '.join(places[:2])}{more}: {known.stage(program)}"
        )
    rest = ordered[_ROWS:]
    if rest:
        lines.append(f"  {sum(map(len, rest)):>4} times {_plural(len(rest), 'segment')} more")
    return lines


def _operations(e: Evaluation, kernels: Sequence[KernelUse]) -> list[str]:
    count = e.size
    in_groups = [k for k in kernels if len(k.uses) > 1]
    computed = sum(len(k.uses) for k in kernels)
    text = f"{_plural(count, 'operation')} in {_plural(len(kernels), 'kernel')}"
    if in_groups:
        members = sum(len(k.uses) for k in in_groups)
        text += f": {members} are fused into {len(in_groups)} of them"
    if count > computed:
        text += f"; {count - computed} cost nothing (views, and what is computed once)"
    if in_groups:
        alone = Counter(k.why_alone() for k in kernels if len(k.uses) == 1)
        if alone:
            reasons = ", ".join(f"{n} {reason}" for reason, n in alone.most_common())
            return [text, f"alone: {reasons}"]
    return [text]


def table(kernels: Sequence[KernelUse], rows: int = _ROWS) -> list[str]:
    """The dearest kernels as lines of a table."""
    head = (
        f"  {'kernel':<{_WIDTH + 6}}{'time':>9}{'%':>6}{'Gflop/s':>9}{'GB/s':>7}"
        f"{'of limit':>10}  lines"
    )
    whole = sum(k.seconds for k in kernels) or 1.0
    ordered = sorted(kernels, key=lambda k: -k.seconds)
    lines = [head]
    for k in ordered[:rows]:
        speed = _rates(k.seconds, k.flops, k.nbytes, k.share)
        name = k.name if len(k.name) <= _WIDTH else f"{k.name[: _WIDTH - 3]}..."
        where = ", ".join(k.lines)
        lines.append(
            f"  {k.number:>4}  {name:<{_WIDTH}}{_time(k.seconds):>9}"
            f"{100 * k.seconds / whole:>6.1f}{speed}  {where}"
        )
    rest = ordered[rows:]
    if rest:
        seconds = sum(k.seconds for k in rest)
        name = f"{len(rest)} more"
        lines.append(f"        {name:<{_WIDTH}}{_time(seconds):>9}{100 * seconds / whole:>6.1f}")
    return lines


def _rates(seconds: float, flops: float, nbytes: int, share: float) -> str:
    if not seconds:
        return f"{'-':>9}{'-':>7}{'-':>10}"
    return f"{flops / seconds / 1e9:>9.1f}{nbytes / seconds / 1e9:>7.1f}{100 * share:>8.0f} %"


# --- what is new ----------------------------------------------------------------------------------


def difference(old: Evaluation, new: Evaluation) -> Difference | None:
    """The first thing in which an evaluation differs from another one; None where there is none."""
    where = f"{who(new.forced)} evaluated something new: "
    (sigs, kept), (old_sigs, old_kept) = new.structure(), old.structure()
    for i, (a, b) in enumerate(zip(old_sigs, sigs, strict=False)):
        if a is not b:
            site = new.sites[i]
            return Difference(site, where + _changed(a, b, old.sites[i], site))
    if len(old_sigs) != len(sigs):
        more = len(sigs) > len(old_sigs)
        site = (new if more else old).sites[min(len(old_sigs), len(sigs))]
        count = abs(len(sigs) - len(old_sigs))
        word = "more" if more else "fewer"
        text = f"{_plural(count, 'operation')} {word} at the end, from {describe_site(site)} on"
        return Difference(site, where + text)
    for i, (was, held) in enumerate(zip(old_kept, kept, strict=True)):
        if was != held:
            name, site = sigs[i].op.name, new.sites[i]
            text = "is held now, and was not before" if held else "is no longer held"
            return Difference(site, f"{where}the result of {name} at {describe_site(site)} {text}")
    if old.reason != new.reason or new.reason != watch.NEW:
        return None
    text = "the same operations on values that lie differently in memory or come from elsewhere"
    return Difference(new.forced.site, where + text)


def _changed(a: Signature, b: Signature, before: Site | None, now: Site | None) -> str:
    here = describe_site(now)
    if a.op is not b.op:
        there = describe_site(before)
        other = "" if there == here else f" at {there}"
        return f"{here} did {b.op.name} where there was {a.op.name}{other}"
    if a.inputs != b.inputs:
        return f"{b.op.name} at {here} got {_types(b.inputs)}, before that {_types(a.inputs)}"
    keys = [key for key in b.attrs if b.attrs[key] != a.attrs.get(key)]
    got = ", ".join(f"{key}={b.attrs[key]!r}" for key in keys)
    was = ", ".join(f"{key}={a.attrs.get(key)!r}" for key in keys)
    return f"{b.op.name} at {here} has {got}, before that {was}"


def _types(types: Iterable[Any]) -> str:
    return " and ".join(map(repr, types)) or "nothing"


# --- numbers --------------------------------------------------------------------------------------


def _machine(device: Device, limits: Limits) -> str:
    slow, fast = limits.bandwidth(1 << 40) / 1e9, limits.bandwidth(0) / 1e9
    return (
        f"the machine: {_plural(device.threads(), 'thread')}, {limits.flops / 1e9:.0f} Gflop/s, "
        f"{slow:.0f} GB/s from memory and {fast:.0f} from caches, as measured"
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _time(seconds: float) -> str:
    """``310 us``."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.2f} {name}"
    return f"{seconds * 1e6:.1f} us"


def _bytes(nbytes: float) -> str:
    """``1.5 MiB``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes:.0f} bytes"


__all__ = ["Difference", "Explanation", "difference", "explain", "table", "tell", "who"]
