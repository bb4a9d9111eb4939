"""Regressions: what became slower, larger or worse, night by night (`judge`) or between two commits (`interleaved`)."""

from harness.regress.judging import Regression, Verdicts, judge
from harness.regress.points import History, Point, read_histories

__all__ = ["History", "Point", "Regression", "Verdicts", "judge", "read_histories"]
