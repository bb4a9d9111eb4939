"""The benchmarks run, and say what they found: missed goals and absent peers too. What they find is not tested here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.benchmarks`

from tests.benchmarks.figures import Figure, Readings, interleave  # noqa: E402
from tests.benchmarks.page import Conditions, render_page, render_table  # noqa: E402
from tests.benchmarks.usage import clean_environment, run_measured  # noqa: E402

SLOW = Figure("slow", Readings("slow", "ms", (9.0, 30.0, 40.0)), goal=20.0, missing=("no such peer",))
FAST = Figure("fast", Readings("fast", "s", (0.1, 0.2, 0.3)), goal=0.25, peers=(Readings("peer", "s", (1.0, 2.0, 3.0)),))


def test_subjects_are_read_forwards_and_backwards_in_turn():
    """A machine that slows down during the run must not favour who comes first."""
    order: list[str] = []

    found = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)

    assert "".join(order) == "abbaab"
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3}


def test_a_missed_goal_is_said_to_be_missed_and_an_absent_peer_to_be_absent():
    """A page that shows only what went well is an advertisement."""
    table = render_table([SLOW, FAST])
    slow, fast = table.splitlines()[2:]

    assert "30.0 ms (9 to 40.0)" in slow
    assert "**no**" in slow
    assert "not measured: no such peer" in slow
    assert "| yes " in fast
    assert "peer: 2.000 s (1.000 to 3.000)" in fast


def test_the_page_names_what_missed_its_goal_and_the_command_that_made_it():
    """Whoever doubts a figure must be able to make it again."""
    page = render_page([SLOW, FAST], Conditions("the command", 3, 2, 10, 6, (0.5, 0.6)))

    assert "1 of 2 goals are met. Missed: slow." in page
    assert "`the command`" in page
    assert render_table([SLOW, FAST]) in page


def test_the_cpu_time_of_a_command_holds_that_of_its_children(tmp_path):
    """Workers do the work: a figure without them would flatter the harness."""
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}], check=True)"

    usage = run_measured([sys.executable, "-c", parent], tmp_path, clean_environment())

    assert usage.cpu_s >= 0.5


def test_a_command_that_fails_gives_no_figure_but_its_last_words(tmp_path):
    """A run that broke off early is fast."""
    with pytest.raises(RuntimeError, match=r"exit code 3:\n.*gone wrong"):
        run_measured([sys.executable, "-c", "print('gone wrong'); raise SystemExit(3)"], tmp_path, clean_environment())


def test_a_page_of_quick_figures_is_refused(tmp_path):
    """A few readings are for a look, not for publication."""
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--write", str(tmp_path / "page.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "--write needs all figures at full size" in done.stderr
    assert not (tmp_path / "page.md").exists()


def test_a_small_registry_of_each_shape_gives_every_figure_of_size():
    """The registries of a thousand invocations are made by the same code; nobody waits for those in a test."""
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "size", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = json.loads(done.stdout)

    assert len(figures) == 30
    assert all(value > 0 for f in figures for value in f["readings"]["values"] if "index" not in f["what"])
    assert sum(f["what"].startswith("Warm leaderboard over") for f in figures) == 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_look_gives_every_figure_as_finite_numbers():
    """Whatever the machine does today, the benchmarks themselves must not break."""
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = json.loads(done.stdout)

    assert len(figures) >= 46
    assert all(math.isfinite(f["value"]) and f["readings"]["values"] for f in figures)
    assert all(f["met"] in (True, False) for f in figures if f["goal"] is not None)
