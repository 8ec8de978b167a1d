"""A step as a drawing: a box for each kernel with what was fused into it, an arrow to its readers.

Kernels stand in rows: each below all that it reads, wide rows being broken. The bar under a box is
its share of the step's time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from textwrap import wrap
from typing import Protocol, TypeVar

from treadle.base.record import Record
from treadle.compiler.kernels import KernelUse
from treadle.compiler.watch import Evaluation
from treadle.ir.node import describe_site
from treadle.ir.op import Contraction

_MOST = 600  # kernels that are drawn of one evaluation
_ACROSS = 7  # boxes in a row
_WIDTH, _GAP, _ROW_GAP = 236, 18, 34
_LINE = 13  # pixels of a line of text
_MARGIN = 20
_CHARACTERS = 37  # that fit into a box
_SHOWN = 7  # lines of text in a box
_SWEEPS = 4
_FILLS = {
    "contraction": "#ffe0b3", "map": "#cfe3ff", "batch": "#dccff5", "rows": "#cdeccd",
    "sum": "#bfe8e4", "other": "#e6e6e6",
}  # fmt: skip

_STYLE = (
    "text{font:10px ui-monospace,Menlo,Consolas,monospace;fill:#222}"
    ".head{font-weight:bold}.title{font-size:13px;font-weight:bold}.line{fill:#555}"
    ".edge{fill:none;stroke:#999;stroke-width:1}.box{stroke:#666;stroke-width:1}"
    ".bar{fill:#d04a3a}"
)
_SCRIPT = """
const svg = document.querySelector("svg"), box = svg.viewBox.baseVal;
let from = null;
const scale = () => box.width / svg.clientWidth;
svg.addEventListener("wheel", e => {
  e.preventDefault();
  const f = e.deltaY < 0 ? 0.9 : 1 / 0.9, r = svg.getBoundingClientRect();
  const x = box.x + (e.clientX - r.left) * scale(), y = box.y + (e.clientY - r.top) * scale();
  box.x = x - (x - box.x) * f; box.y = y - (y - box.y) * f; box.width *= f; box.height *= f;
}, {passive: false});
svg.addEventListener("mousedown", e => { from = [e.clientX, e.clientY]; });
window.addEventListener("mouseup", () => { from = null; });
window.addEventListener("mousemove", e => {
  if (!from) return;
  box.x -= (e.clientX - from[0]) * scale(); box.y -= (e.clientY - from[1]) * scale();
  from = [e.clientX, e.clientY];
});
"""


class Box(Record):
    """Where a kernel is drawn."""

    kernel: KernelUse
    x: float
    y: float
    height: float


def draw(
    parts: Sequence[tuple[Evaluation, Sequence[KernelUse]]], html: bool, title: str = ""
) -> str:
    """The evaluations one below the other as SVG, or (``html``) as a page that moves and scales."""
    body: list[str] = []
    top, width = float(_MARGIN), 0.0
    for e, kernels in parts:
        top += _LINE
        text = f"{e.size} operations in {len(kernels)} kernels"
        if len(kernels) > _MOST:
            text += f"; the first {_MOST} are drawn"
        if e.program is None:
            text += f"; operation by operation: {e.reason}"
        body.append(_text(_MARGIN, top, text, "title"))
        top += _LINE
        boxes, bottom = place(kernels[:_MOST], top)
        body += _edges(boxes)
        whole = sum(k.seconds for k in kernels)
        body += [_box(b, whole) for b in boxes]
        width = max([width, *(b.x + _WIDTH for b in boxes)])
        top = bottom + _ROW_GAP
    width = max(width + _MARGIN, 500.0)
    legend, height = _legend(top)
    content = "\n".join([*body, *legend])
    size = "" if html else f' width="{width:.0f}" height="{height:.0f}"'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg"{size} viewBox="0 0 {width:.0f} {height:.0f}">\n'
        f"<style>{_STYLE}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="#999"/></marker></defs>\n'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>\n{content}\n</svg>\n'
    )
    if not html:
        return svg
    return (
        "<!doctype html>\n<html><head><meta charset='utf-8'>"
        f"<title>{escape(title or 'a step of Treadle')}</title>"
        "<style>body{margin:0}svg{width:100vw;height:100vh;display:block;cursor:move}</style>"
        f"</head><body>\n{svg}<script>{_SCRIPT}</script></body></html>\n"
    )


def place(kernels: Sequence[KernelUse], top: float) -> tuple[list[Box], float]:
    """A box for each kernel, and where the last row ends."""
    boxes: list[Box] = []
    middle: dict[int, float] = {}
    for row in rows(kernels):
        height = max(_height(k) for k in row)
        for column, kernel in enumerate(row):
            x = _MARGIN + column * (_WIDTH + _GAP)
            middle[kernel.number] = x + _WIDTH / 2
            boxes.append(Box(kernel, x, top, _height(kernel)))
        top += height + _ROW_GAP
    return boxes, top


class Numbered(Protocol):
    """What stands in rows: it has a number, and reads others by theirs."""

    @property
    def number(self) -> int:
        """Its own, rising in the order in which they are given."""

    @property
    def reads(self) -> Collection[int]:
        """Of those it reads."""


Item = TypeVar("Item", bound=Numbered)


def rows(kernels: Sequence[Item], across: int = _ACROSS) -> list[list[Item]]:
    """Kernels (or the like) by rows of at most ``across``, ordered so that arrows cross little."""
    readers: dict[int, list[int]] = {}
    for k in kernels:
        for r in k.reads:
            readers.setdefault(r, []).append(k.number)
    ranks = _ranks(kernels, readers, across)
    layers: list[list[Item]] = [[] for _ in range(1 + max(ranks.values(), default=-1))]
    for k in kernels:
        layers[ranks[k.number]].append(k)
    at = {k.number: float(i) for layer in layers for i, k in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            towards = {
                k.number: [at[n] for n in (k.reads if sweep % 2 == 0 else readers.get(k.number, ()))
                           if n in at]
                for k in layer
            }  # fmt: skip
            layer.sort(key=lambda k: _mean(towards[k.number], at[k.number]))
            for i, k in enumerate(layer):
                at[k.number] = float(i)
    return [
        layer[start : start + across]
        for layer in layers
        for start in range(0, len(layer), across)
    ]


def _ranks(
    kernels: Sequence[Item], readers: dict[int, list[int]], across: int
) -> dict[int, int]:
    """Each kernel below all that it reads, and as close to its first reader as that allows."""
    if not readers:  # nothing is known of who reads what: in the order in which they ran
        return {k.number: position // across for position, k in enumerate(kernels)}
    ranks: dict[int, int] = {}
    for k in kernels:
        ranks[k.number] = 1 + max((ranks[r] for r in k.reads if r in ranks), default=-1)
    for k in reversed(kernels):
        if k.number in readers:
            ranks[k.number] = min(ranks[n] for n in readers[k.number]) - 1
    return ranks


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _told(kernel: KernelUse) -> list[str]:
    """The lines of a box below its heading."""
    layers = ", ".join(dict.fromkeys(use.layer for use in kernel.uses if use.layer))
    lines = []
    for part in (layers, *kernel.by_line().split("; ")):
        lines += wrap(part, _CHARACTERS, subsequent_indent="  ")
    return lines if len(lines) <= _SHOWN else [*lines[: _SHOWN - 1], "..."]


def _height(kernel: KernelUse) -> float:
    return _LINE * (2 + len(_told(kernel))) + 12


def _box(box: Box, whole: float) -> str:
    kernel, x, y, height = box
    speed = "not timed"
    if kernel.seconds:
        speed = f"{kernel.seconds * 1e6:.1f} us, {100 * kernel.share:.0f} % of limit"
    parts = [f"<g><title>{escape(_details(kernel, speed))}</title>"]
    fill = _FILLS[_colour(kernel)]
    parts.append(
        f'<rect class="box" x="{x:.0f}" y="{y:.0f}" width="{_WIDTH}" height="{height:.0f}" '
        f'rx="5" fill="{fill}"/>'
    )
    at = y + _LINE
    parts.append(_text(x + 6, at, _cut(f"{kernel.number} {kernel.name}"), "head"))
    for line in _told(kernel):
        at += _LINE
        parts.append(_text(x + 6, at, line, "line"))
    parts.append(_text(x + 6, at + _LINE, _cut(speed), ""))
    if whole:
        share = (_WIDTH - 12) * kernel.seconds / whole
        parts.append(
            f'<rect class="bar" x="{x + 6:.0f}" y="{y + height - 6:.0f}" width="{share:.1f}" '
            'height="3"/>'
        )
    return "".join(parts) + "</g>"


def _details(kernel: KernelUse, speed: str) -> str:
    """What a pointer over a box brings up."""
    operations = "\n".join(
        f"{use.sig.op.name} {use.sig.types[0]!r}  {describe_site(use.site)}" for use in kernel.uses
    )
    return (
        f"{kernel.number} {kernel.name}\n{speed}, {kernel.flops} operations on numbers, "
        f"{kernel.nbytes} bytes\n{operations}"
    )


def _edges(boxes: Sequence[Box]) -> list[str]:
    known = {box.kernel.number: box for box in boxes}
    found = []
    for box in boxes:
        for number in sorted(box.kernel.reads & known.keys()):
            source = known[number]
            x1, y1 = source.x + _WIDTH / 2, source.y + source.height
            x2, y2 = box.x + _WIDTH / 2, box.y
            bend = max((y2 - y1) / 2, 12)
            found.append(
                f'<path class="edge" marker-end="url(#tip)" d="M{x1:.0f} {y1:.0f}C{x1:.0f} '
                f'{y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"/>'
            )
    return found


def _legend(top: float) -> tuple[list[str], float]:
    found = []
    x = float(_MARGIN)
    for name, fill in _FILLS.items():
        found.append(
            f'<rect class="box" x="{x:.0f}" y="{top:.0f}" width="12" height="12" fill="{fill}"/>'
        )
        found.append(_text(x + 17, top + 10, name, ""))
        x += 34 + 6.5 * len(name)
    return found, top + _LINE + _MARGIN


def _colour(kernel: KernelUse) -> str:
    if any(isinstance(use.sig.op.lower, Contraction) for use in kernel.uses):
        return "contraction"
    return kernel.kind if kernel.kind in _FILLS else "other"


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 3]}..."


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


__all__ = ["Box", "draw", "place", "rows"]
