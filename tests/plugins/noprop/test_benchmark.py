"""The benchmark of the plugin's three goals runs; what it finds is not tested here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_quick_look_gives_every_figure():
    """A benchmark that broke unnoticed would leave the README's figures without a command."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_noprop", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = [json.loads(line) for line in done.stdout.splitlines()]

    assert [figure.get("mode", "speed") for figure in figures] == ["speed", "speed", "one-by-one", "together", "backprop"]
    assert all(math.isfinite(f["slow_s"]) and f["fast_s"] > 0 for f in figures if "slow_s" in f)
    assert all(len(f["peak_bytes"]) == 2 and f["params_bytes"] > 0 for f in figures if "mode" in f)
