"""The plugin's benchmark runs; what it finds is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_quick_look_gives_every_figure():
    """A benchmark that broke unnoticed would leave the README's figures without a command."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_skan", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(figures) == 2
    assert all(figure["slow_s"] > 0 and figure["fast_s"] > 0 and len(figure["ratios"]) == 2 for figure in figures)
