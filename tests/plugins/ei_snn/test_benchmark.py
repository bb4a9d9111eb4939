"""The benchmark of the fused neuron runs; what it finds is not tested here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness_papers.ei_snn import c_kernels

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.benchmarks`

from tests.benchmarks.bench_lif import Row, render  # noqa: E402


@pytest.mark.slow
@pytest.mark.skipif(bool(c_kernels.why_not(torch.float32, False, True, "sigmoid")), reason="no C compiler")
def test_a_quick_look_gives_every_figure():
    """A benchmark that broke unnoticed would leave the page's figures without a command."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_lif", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    found = [json.loads(line) for line in done.stdout.splitlines()]
    rows, epilogues = [f for f in found if "steps" in f], [f for f in found if "layer" in f]

    assert {r["steps"] for r in rows} == {4, 16, 64}
    assert {(r["part"], r["subject"]) for r in rows} >= {
        ("step", "ours"),
        ("bare", "ours"),
        ("step", "eager"),
        ("step", "formula"),
    }
    assert sum((r["part"], r["subject"]) == ("step", "ours") for r in rows) == 3 * 7
    assert len(epilogues) == 4
    assert all(e[name] > 0 for e in epilogues for name in ("ours_s", "formula_s", "layer_s", "copy_s"))
    assert all(math.isfinite(r["multiple"]) and r["multiple"] > 0 for r in rows)


@pytest.mark.parametrize(("last", "said"), [(1.3, "<= 1.3: met"), (1.31, "<= 1.3: MISSED at T = 64")])
def test_the_goal_is_judged_at_each_number_of_steps(last, said):
    rows = [Row(t, "step", "ours", "sigmoid", 1e-6, 1e-6, m, 5) for t, m in ((4, 1.0), (16, 1.2), (64, last))]

    assert f"| step | ours | sigmoid | 1.00 | 1.20 | {last:.2f} | {said} |" in render(rows, dict.fromkeys((4, 16, 64), 1e-6))


def test_the_page_has_the_table_that_the_command_writes():
    """With its command, and every T judged."""
    page = (ROOT / "plugins/harness_papers/ei_snn/SPEED.md").read_text()
    figures = page.partition("<!-- figures: begin -->")[2].partition("<!-- figures: end -->")[0]

    assert "By `python -m tests.benchmarks.bench_lif " in figures
    assert figures.count("| step | ours |") == figures.count("<= 1.3: ") == 7
    assert figures.count(" % more |") == 4  # circuits
    for subject in ("eager", "formula", "snntorch", "spikingjelly", "norse", "relu"):
        assert f"| step | {subject} |" in figures
