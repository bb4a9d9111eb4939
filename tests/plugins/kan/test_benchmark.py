"""The benchmark of the fused layer runs; what it finds is not tested here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from harness_papers.kan import c_kernels

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.benchmarks`

from tests.benchmarks.bench_kan import write_page  # noqa: E402


@pytest.mark.slow
@pytest.mark.skipif(bool(c_kernels.why_not(3)), reason="no C compiler: the fused code cannot run")
def test_a_quick_look_gives_every_figure():
    """A benchmark that broke unnoticed would leave the page's figures without a command."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_kan", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = [json.loads(line) for line in done.stdout.splitlines()]

    ratios, memory = ([f for f in figures if key in f] for key in ("ratios", "own_bytes"))
    assert {(f["part"], *f["shape"]) for f in ratios} == {(p, n, 64) for p in ("time", "input") for n in (784, 64)}
    assert all(math.isfinite(r) and r > 0 for f in ratios for r in f["ratios"])
    assert {(f["layer"], *f["shape"]) for f in memory} >= {("fused (ours)", n, 64) for n in (784, 64)}
    assert all(f["own_bytes"] > 0 and f["mlp_bytes"] > 0 for f in memory)


def test_tables_are_replaced_and_the_rest_of_the_page_is_kept(tmp_path):
    """The command that made them stands above them."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")

    for table in ("one", "two"):
        write_page(page, "the command", 0.5, [table, "memory"])

    assert page.read_text().startswith("before\n<!-- figures: begin -->\n\nBy `the command`; torch ")
    assert page.read_text().endswith(" load average 0.5 at the start.\n\ntwo\n\nmemory\n\n<!-- figures: end -->\nafter\n")
    assert "old" not in page.read_text()


def test_the_page_has_the_tables_that_the_command_writes():
    """Every layer of both shapes has its row, and the goals are judged by the command."""
    page = (ROOT / "plugins/harness_papers/kan/SPEED.md").read_text()
    figures = page.partition("<!-- figures: begin -->")[2].partition("<!-- figures: end -->")[0]

    for shape in ("784x64", "64x64"):
        for layer in ("fused (ours)", "fused (ours), with scaler", "closed form", "efficient-kan's formula", "FastKAN"):
            assert f"| time | {shape} | {layer} |" in figures
        assert f"| {shape} | fused (ours) |" in figures
    assert "By `python -m tests.benchmarks.bench_kan " in figures
    assert figures.count("<= 0.8: ") == 4
    assert figures.count("<= 1.5: ") == 4
