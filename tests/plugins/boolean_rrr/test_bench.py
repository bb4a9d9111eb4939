"""The benchmark command: a table with a figure for each implementation, and files that the authors' program would read."""

from __future__ import annotations

import re

from harness_papers.boolean_rrr import MultiplierParams, bench
from harness_papers.boolean_rrr.tasks import load_multiplier

MULTIPLIER = load_multiplier(MultiplierParams(), None).problem


def test_the_command_prints_a_figure_for_each_implementation(monkeypatch, capsys):
    """Without the authors' sources their column is empty, and nothing else changes."""
    monkeypatch.setattr(bench, "cases", lambda: {"multiplier 2": MULTIPLIER, "multiplier 3": MULTIPLIER})

    assert bench.main(["--seconds", "0.01"]) == 0

    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("multiplier")]
    assert len(rows) == 2
    for row in rows:
        items, edges, *figures = re.findall(r"[\d.]+", row[len("multiplier 2") :])
        assert (items, edges) == ("16", "60")
        assert len(figures) == (1 if bench.why_not() else 3)
        assert all(float(figure) > 0 for figure in figures)


def test_the_authors_program_gets_every_edge_and_every_item():
    """The format of its README: nodes, inputs, outputs and edges in the head, then receiver, sender, weight."""
    head, *edges = bench.net_file(MULTIPLIER).strip().splitlines()
    lines = bench.data_file(MULTIPLIER).strip().splitlines()

    assert head == "17 5 4 60"
    assert edges[:6] == ["5 0 0.0", "5 1 0.0", "5 2 0.0", "5 3 0.0", "5 4 0.0", "6 0 0.0"]
    assert edges[-1] == "16 12 0.0"
    assert len(edges) == 60
    assert lines[:3] == ["16", "2 4", "2 4"]
    assert "1 0 0 1 0 0 1 0" in lines  # 2 x 1 = 2
    assert len(lines) == 3 + 16
