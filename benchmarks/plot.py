"""Draws the curves as SVG: cost over connections, sizes and open handles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from benchmarks.model import SUBJECT, Result

WIDTH: Final = 620
HEIGHT: Final = 360
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
#: Of the peers as they come; umbel comes first.
COLORS: Final = (
    *("#111111", "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e"),
    *("#9467bd", "#8c564b", "#17becf", "#bcbd22", "#e377c2"),
)

Points = list[tuple[float, float]]


def round_out(values: Iterable[float]) -> tuple[float, float]:
    """Widen the range of *values* to 1, 2 or 5 times powers of ten."""
    every = list(values)
    low, high = min(every), max(every)
    power = math.floor(math.log10(low))
    rounds = [step * 10.0 ** (power + up) for up in range(12) for step in (1, 2, 5)]
    below = max(value for value in rounds if value <= low)
    return below, min(value for value in rounds if value > high)


class Scale:
    """Maps logarithms of values to places on the page."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        logs = [math.log10(value) for value in values]
        self.low, self.high = min(logs), max(logs)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        part = (math.log10(value) - self.low) / span
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Give round values: powers of ten, or 1, 2 and 5 times them if few."""
        steps = (1, 2, 5) if self.high - self.low < 2 else (1,)
        exponents = range(math.floor(self.low), math.ceil(self.high) + 1)
        values = [step * 10.0**power for power in exponents for step in steps]
        edge = 1e-9
        return [
            value
            for value in values
            if self.low - edge <= math.log10(value) <= self.high + edge
        ]


def curves(results: Iterable[Result]) -> dict[str, dict[str, Points]]:
    """Collect the points of each peer, by the title of their curve."""
    found: dict[str, dict[str, Points]] = {}
    for result in results:
        case = result.case
        if case.curve:
            title = f"{case.workload}: {case.unit} over {case.curve}"
            for peer, samples in result.samples.items():
                if samples:
                    points = found.setdefault(title, {}).setdefault(peer, [])
                    points.append((case.place, result.cost(peer)))
    return found


def text(x: float, y: float, said: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def line(start: tuple[float, float], end: tuple[float, float], color: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}"/>'
    )


def chart(title: str, peers: dict[str, Points]) -> list[str]:
    """Draw one set of curves, both axes logarithmic."""
    every = [point for points in peers.values() for point in points]
    x = Scale((place for place, _ in every), LEFT, WIDTH - RIGHT)
    y = Scale(round_out(cost for _, cost in every), HEIGHT - BOTTOM, TOP)
    drawn = [text((LEFT + WIDTH - RIGHT) / 2, TOP - 18, title)]
    for value in x.ticks():
        place = x(value)
        drawn.append(line((place, TOP), (place, HEIGHT - BOTTOM), "#dddddd"))
        drawn.append(text(place, HEIGHT - BOTTOM + 18, f"{value:,.0f}"))
    for value in y.ticks():
        drawn.append(line((LEFT, y(value)), (WIDTH - RIGHT, y(value)), "#dddddd"))
        drawn.append(text(LEFT - 6, y(value) + 4, f"{value:,g}", "end"))
    for turn, (peer, points) in enumerate(peers.items()):
        color = COLORS[turn % len(COLORS)]
        places = [(x(place), y(cost)) for place, cost in sorted(points)]
        drawn.append(curve(places, color, 2.5 if peer == SUBJECT else 1))
        legend = TOP + 10 + 18 * turn
        edge = WIDTH - RIGHT + 10
        drawn.append(line((edge, legend - 4), (edge + 20, legend - 4), color))
        drawn.append(text(edge + 26, legend, peer, "start"))
    return drawn


def curve(points: Sequence[tuple[float, float]], color: str, width: float) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in points
    )
    return (
        f'<polyline points="{places}" fill="none" stroke="{color}" '
        f'stroke-width="{width}"/>{dots}'
    )


def svg(results: Iterable[Result]) -> str:
    """Draw all curves, one below the other."""
    charts = curves(results)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
        f'height="{HEIGHT * max(len(charts), 1)}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for turn, (title, peers) in enumerate(charts.items()):
        drawn = "\n".join(chart(title, peers))
        parts.append(f'<g transform="translate(0 {HEIGHT * turn})">\n{drawn}\n</g>')
    return "\n".join([*parts, "</svg>\n"])
