"""Leaderboards as a picture: means with their intervals, one panel a board, as a static SVG without script.

altair describes it, vl-convert draws it; both come with the extra `report` and are imported here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import MissingError
from harness.leaderboard import Board, Row
from harness.showing import short_label
from harness.stats import Interval

# Two of Okabe and Ito's colours: told apart by colour-blind readers, and in print.
METHOD, BASELINE = "#0072B2", "#8A8A8A"
LARGEST = 1e300  # what diverged to more cannot be drawn, nor can infinities and NaN; the table beside it has them
PANEL_WIDTH, ROW_HEIGHT = 330, 21


def draw_svg(boards: Sequence[Board]) -> str:
    """The SVG's text. Raises MissingError without altair and vl-convert."""
    try:
        import altair
        import vl_convert
    except ImportError as exc:
        raise MissingError("drawing needs altair and vl-convert; pip install 'paper-harness[report]'") from exc
    panels = [panel(altair, board) for board in boards]
    chart = altair.concat(*panels, columns=2).configure_view(stroke=None).configure_axis(labelFontSize=12, titleFontSize=12)
    svg: str = vl_convert.vegalite_to_svg(chart.to_json())
    return svg


def panel(altair: Any, board: Board) -> Any:
    """One board: methods best first, dot and interval."""
    rows = [point(row, row.interval, rank) for rank, row in enumerate(board.rows, 1) if row.interval is not None]
    rows = [row for row in rows if all(abs(row[end]) < LARGEST for end in ("low", "mean", "high"))]
    colour = altair.Color(
        "role:N", scale=altair.Scale(domain=["method", "baseline"], range=[METHOD, BASELINE]), legend=altair.Legend(title=None)
    )
    base = altair.Chart(altair.Data(values=rows)).encode(y=altair.Y("method:N", sort=None, title=None), color=colour)
    axis = altair.Axis(title=f"{short_label(board.metric.name, 1)} (95 % interval over seeds)", tickCount=5)
    scale = altair.Scale(zero=False)
    lines = base.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q", scale=scale, axis=axis), x2="high:Q")
    dots = base.mark_point(filled=True, size=60).encode(x=altair.X("mean:Q", scale=scale, axis=axis))
    net = board.shared["net"]
    task = short_label(board.task, 1)
    title = f"{task}, {short_label(str(net['arch']), 1)}" if net else task
    return (lines + dots).properties(width=PANEL_WIDTH, height=ROW_HEIGHT * len(rows), title=title)


def point(row: Row, interval: Interval, rank: int) -> dict[str, Any]:
    """What is drawn of a row. vl-convert ends the whole process at a character that XML has not, so names are made visible."""
    low, high = interval.low, interval.high
    return {
        "method": short_label(row.method, rank),
        "role": "baseline" if row.role == "baseline" else "method",
        "mean": interval.mean,
        "low": interval.mean if low is None else low,
        "high": interval.mean if high is None else high,
    }
