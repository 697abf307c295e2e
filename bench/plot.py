"""A plot of measured times: ``python -m bench.plot OUT.svg RESULT.json [RESULT.json ...]``.

One line for each measurement, a bar from the median to the 99th percentile for each file, on a logarithmic
scale; files are told apart by their number of memories.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from math import ceil, floor, log10
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench._harness import Spread

_LEFT, _WIDTH, _LINE, _TOP = 330, 520, 15, 44
_BAR = 18
_COLOURS = ("#6b8fb5", "#c8553d", "#5b8c5a", "#8a6fb0", "#b08a3e", "#5f9ea0")


def plot(results: Sequence[dict[str, Any]]) -> str | None:
    """SVG of the rows with ``p50`` and ``p99`` in ms of each result (as ``script/bench`` writes them).

    None when there are no such rows.
    """
    series = [(f"{r['options']['rows']:,} memories", _times(r)) for r in results]
    names = list(dict.fromkeys(name for _, times in series for name in times))
    if not names:
        return None
    values = [v for _, times in series for pair in times.values() for v in pair]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))

    def x(ms: float) -> float:
        return _LEFT + _WIDTH * (log10(ms) - low) / (high - low)

    step = _LINE * len(series) + 9
    height = _TOP + step * len(names) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (label, _) in enumerate(series):
        at: float = _LEFT + 150 * number
        out.append(f'<rect x="{at}" y="12" width="12" height="9" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        out.append(f'<text x="{at + 17}" y="21">{escape(label)}</text>')
    for power in range(low, high + 1):
        for factor in range(1, 10 if power < high else 2):
            at = x(factor * 10.0**power)
            out.append(
                f'<path d="M{at:.1f} {_TOP - 6}V{height - 22}" stroke="{"#bbb" if factor == 1 else "#eee"}"/>'
            )
        out.append(
            f'<text x="{x(10.0**power):.1f}" y="{height - 8}" text-anchor="middle">{10.0**power:g} ms</text>'
        )
    for place, name in enumerate(names):
        y = _TOP + step * place
        out.append(f'<text x="{_LEFT - 8}" y="{y + step / 2:.0f}" text-anchor="end">{escape(name)}</text>')
        for number, (_, times) in enumerate(series):
            if name in times:
                p50, p99 = times[name]
                line, colour = y + _LINE * number, _COLOURS[number % len(_COLOURS)]
                box = f'x="{x(p50):.1f}" y="{line}" width="{max(2.0, x(p99) - x(p50)):.1f}" height="9"'
                out.append(f'<rect {box} fill="{colour}"/>')
                out.append(
                    f'<text x="{x(p99) + 4:.1f}" y="{line + 9}" font-size="10">{p50:.2f} / {p99:.2f}</text>'
                )
    return "\n".join([*out, "</svg>"]) + "\n"


def _times(result: dict[str, Any]) -> dict[str, tuple[float, float]]:
    out = {}
    for part in result["results"]:
        for row in part["rows"]:
            if row["data"].get("unit") == "ms":
                name = re.sub(r",? [\d,]+ memories", "", row["name"])
                out[name] = (float(row["data"]["p50"][1]), float(row["data"]["p99"][1]))
    return out


def bars(panels: Sequence[tuple[str, str, Sequence[tuple[str, Spread, str]]]]) -> str:
    """SVG of panels, each (title, unit, [(label, median with its spread, what is said beside it)]).

    Each panel has a logarithmic axis of its own; a bar ends at the median, a line spans least to greatest.
    The bars of one label have one colour.
    """
    height = 10 + sum(44 + _BAR * len(lines) for _, _, lines in panels)
    labels = list(dict.fromkeys(label for _, _, lines in panels for label, _, _ in lines))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    top = 10
    for title, unit, lines in panels:
        low = floor(2 * log10(min(s.low for _, s, _ in lines)) - 0.5) / 2
        high = max(low + 1, log10(max(s.high for _, s, _ in lines)))

        def x(value: float, low: float = low, high: float = high) -> float:
            return _LEFT + 0.62 * _WIDTH * (log10(value) - low) / (high - low)

        out.append(f'<text x="{_LEFT}" y="{top + 18}" font-weight="bold">{escape(title)}</text>')
        for number, (label, spread, beside) in enumerate(lines):
            y = top + 26 + _BAR * number
            colour = _COLOURS[labels.index(label) % len(_COLOURS)]
            out.append(f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(label)}</text>')
            width = max(1.0, x(spread.median) - _LEFT)
            out.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="13" fill="{colour}"/>')
            ends = f"M{x(spread.low):.1f} {y + 6.5}H{x(spread.high):.1f}"
            out.append(f'<path d="{ends}" stroke="#222" stroke-width="1.5"/>')
            said = f"{spread.show(1, 2)} {unit}" + (f", {beside}" if beside else "")
            out.append(f'<text x="{x(spread.high) + 6:.1f}" y="{y + 11}">{escape(said)}</text>')
        top += 44 + _BAR * len(lines)
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    drawn = plot([json.loads(Path(p).read_text("utf-8")) for p in sys.argv[2:]])
    if drawn is None:
        sys.exit("error: there is nothing to plot")
    Path(sys.argv[1]).write_text(drawn, "utf-8")
