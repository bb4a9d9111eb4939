"""What a reader must know of how equal a comparison was: the matches and the tuning of a board's rows, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.leaderboard import Board, Row

MATCHES_SHOWN = 6


def match_lines(board: Board) -> list[str]:
    """To what, by what and how nearly methods were matched, the farthest first; of FLOPs, how much of the work was counted."""
    alike: dict[str, list[tuple[Row, Mapping[str, Any]]]] = {}
    for row in board.rows:
        if row.match:
            alike.setdefault(f"{str(row.match.get('to')).rpartition('/')[2]} by {row.match.get('unit')}", []).append(
                (row, row.match)
            )
    lines = []
    for what, found in alike.items():
        found.sort(key=lambda each: -abs(each[0].mismatch or 0.0))
        each = [f"{row.method} {row.mismatch:+.2%}" for row, _ in found if row.mismatch]
        exact = len(found) - len(each)
        each = [*each[:MATCHES_SHOWN], f"{len(each) - MATCHES_SHOWN} nearer"] if len(each) > MATCHES_SHOWN else each
        each += [f"{exact} exactly"] if exact else []
        shares = [match[name] for _, match in found for name in ("counted", "target_counted") if name in match]
        counted = f" ({min(shares):.1%} of the work counted by formulas)" if shares else ""
        lines.append(f"matched to {what}{counted}: {', '.join(each)}")
    return lines


def tuning_lines(board: Board) -> list[str]:
    """What tuning tried and cost, and where what it chose lies; what has nothing to tune is not named."""
    each = []
    for row in board.rows:
        if row.tuned:
            chosen = ", ".join(f"{name.partition('.')[2]} {span(values)}" for name, values in row.tuned["values"].items())
            failed = f", {row.tuned['failed']} failed" if row.tuned["failed"] else ""
            each.append(f"{row.method} {row.tuned['trials']} trials{failed}, {row.tuned['cost_s']:.3g} s ({chosen})")
    return [f"tuned seed by seed on the validation part: {'; '.join(each)}"] if each else []


def span(values: Sequence[Any]) -> str:
    """From the least to the greatest that was chosen, or the names."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return "/".join(dict.fromkeys(str(value) for value in values))
