"""The tree of keys as lines for a terminal, and as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from strongroom.model import EncryptionKey

LEAVES_MAX: Final = 12  # data keys of a namespace key that are drawn one by one
_ROW, _WIDTH, _HEIGHT, _GAP = 34, 300, 26, 90
_COLOURS: Final = {
    "active": ("#e6f4ea", "#1e7d34"),
    "decrypt-only": ("#fff4d6", "#8a6100"),
    "disabled": ("#ececec", "#555555"),
    "compromised": ("#fde3e1", "#b3261e"),
    "destroyed": ("#ffffff", "#9a9a9a"),
}


class _Node:
    def __init__(self, text: str, state: str) -> None:
        self.text = text
        self.state = state
        self.children: list[_Node] = []


def _label(k: EncryptionKey) -> str:
    words = [k.id]
    if k.namespace:
        words.append(k.namespace)
    words.append(k.state.value)
    if k.uses is not None:
        words.append(f"{k.uses} uses")
    words += [w for w in (k.role, "overdue" if k.overdue else "") if w]
    return "  ".join(words)


def _forest(keys: Sequence[EncryptionKey]) -> list[_Node]:
    """A key that several master keys wrap stands below the first; the others are named beside it."""
    nodes = {k.id: _Node(_label(k), k.state.value) for k in keys}
    roots: list[_Node] = []
    leaves: dict[str, list[EncryptionKey]] = {}
    for k in keys:
        first = next((p for p in k.parents if p in nodes), None)
        if len(k.parents) > 1:
            nodes[k.id].text += f"  (also wrapped by {len(k.parents) - 1} more)"
        if first is None:
            roots.append(nodes[k.id])
        elif k.kind.value == "data":
            leaves.setdefault(first, []).append(k)
        else:
            nodes[first].children.append(nodes[k.id])
    for parent, found in leaves.items():
        shown = sorted(found, key=lambda k: (not k.role, k.state.value != "compromised", k.id))[:LEAVES_MAX]
        nodes[parent].children += [nodes[k.id] for k in found if k in shown]
        rest = [k for k in found if k not in shown]
        for state in dict.fromkeys(k.state.value for k in rest):
            count = sum(k.state.value == state for k in rest)
            nodes[parent].children.append(_Node(f"{count} more data keys  {state}", state))
    return roots


def tree_lines(keys: Sequence[EncryptionKey]) -> list[str]:
    """The tree, a key a line."""
    lines: list[str] = []

    def draw(node: _Node, lead: str, last: bool, top: bool) -> None:
        lines.append(node.text if top else f"{lead}{'└── ' if last else '├── '}{node.text}")
        below = "" if top else lead + ("    " if last else "│   ")
        for n, child in enumerate(node.children):
            draw(child, below, n == len(node.children) - 1, False)

    for root in _forest(keys):
        draw(root, "", True, True)
    return lines


def svg(keys: Sequence[EncryptionKey]) -> str:
    """The tree as an SVG document: a column for each level, colours for states, names escaped."""
    boxes: list[str] = []
    edges: list[str] = []
    row = 0

    def draw(node: _Node, level: int) -> int:
        nonlocal row
        mine = row
        row += 1
        x, y = 20 + level * _GAP, 20 + mine * _ROW
        fill, stroke = _COLOURS.get(node.state, _COLOURS["disabled"])
        width = max(_WIDTH, 8 * len(node.text) + 16)
        boxes.append(
            f"<g><title>{escape(node.text)}</title>"
            f'<rect x="{x}" y="{y}" width="{width}" height="{_HEIGHT}" rx="5"'
            f" fill={quoteattr(fill)} stroke={quoteattr(stroke)}/>"
            f'<text x="{x + 8}" y="{y + 17}" fill={quoteattr(stroke)}>{escape(node.text)}</text></g>'
        )
        for child in node.children:
            at = draw(child, level + 1)
            top, end = y + _HEIGHT, 20 + at * _ROW + _HEIGHT // 2
            edges.append(
                f'<path d="M{x + 20} {top}V{end}H{20 + (level + 1) * _GAP}" fill="none" stroke="#888"/>'
            )
        return mine

    for root in _forest(keys):
        draw(root, 0)
    longest = max((len(_label(k)) for k in keys), default=20)
    width, height = 60 + 2 * _GAP + max(_WIDTH, 8 * (longest + 28)), 40 + row * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="13">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(edges)}{"".join(boxes)}</svg>\n'
    )
