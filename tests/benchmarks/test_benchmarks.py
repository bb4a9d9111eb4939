"""The benchmarks run, and say what they found: missed goals and absent peers too. What they find is not tested here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from harness.exporting.pytest_benchmark import attempts_of, read_session

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.benchmarks`

from tests.benchmarks.figures import Figure, Readings, interleave  # noqa: E402
from tests.benchmarks.page import Conditions, render_page, render_table  # noqa: E402
from tests.benchmarks.usage import clean_environment, run_measured  # noqa: E402

SLOW = Figure("slow", Readings("slow", "ms", (9.0, 30.0, 40.0)), goal=20.0, missing=("no such peer",))
FAST = Figure("fast", Readings("fast", "s", (0.1, 0.2, 0.3)), goal=0.25, peers=(Readings("peer", "s", (1.0, 2.0, 3.0)),))


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


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
    done = run_module("tests.benchmarks", "--quick", "--write", str(tmp_path / "page.md"))

    assert done.returncode == 2
    assert "--write needs all figures at full size" in done.stderr
    assert not (tmp_path / "page.md").exists()


def test_a_small_registry_of_each_shape_gives_every_figure_of_size():
    """The registries of a thousand invocations are made by the same code; nobody waits for those in a test."""
    done = run_module("tests.benchmarks", "--quick", "--only", "size", "--json")
    assert done.returncode == 0, done.stderr

    figures = json.loads(done.stdout)

    assert len(figures) == 30
    assert all(value > 0 for f in figures for value in f["readings"]["values"] if "index" not in f["what"])
    assert sum(f["what"].startswith("Warm leaderboard over") for f in figures) == 6


def test_operations_leave_a_file_of_pytest_benchmark_that_can_be_taken_in(tmp_path):
    """`make bench` writes it; a kernel of each implementation, start-up and the registry are in it."""
    made = tmp_path / "operations.json"
    arguments = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "gelu or load_suite or append",
        "--benchmark-max-time=0.05",
        f"--benchmark-json={made}",
    ]
    done = run_module("pytest", "tests/benchmarks/bench_operations.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr

    session = read_session(made)

    assert sorted(a.trial.task for a in attempts_of(session, "m-1")) == [
        "pytest-benchmark/kernels, forward, 10000 elements", "pytest-benchmark/registry", "pytest-benchmark/start",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_look_gives_every_figure_as_finite_numbers():
    """Whatever the machine does today, the benchmarks themselves must not break."""
    done = run_module("tests.benchmarks", "--quick", "--json")
    assert done.returncode == 0, done.stderr

    figures = json.loads(done.stdout)

    assert len(figures) >= 46
    assert all(math.isfinite(f["value"]) and f["readings"]["values"] for f in figures)
    assert all(f["met"] in (True, False) for f in figures if f["goal"] is not None)
