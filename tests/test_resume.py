"""Stopping and going on: what is finished stays, the same command runs only what is missing, options choose among it."""

from __future__ import annotations

import io
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import PluginSite, marked_processes, plugin_site
from invoking import Ended, ended, harness, harness_process, query, started

__all__ = ["plugin_site"]

MARK = "HARNESS_TEST_MARK"

METHODS = '''
import os, pathlib, time

FOLDER = pathlib.Path(os.environ.get("TEST_FOLDER", "/nowhere"))

def waits(problem, ctx, params):
    """From seed 2 on it waits for a file: so a test knows what runs when it stops the harness."""
    if ctx._seed >= 2:
        (FOLDER / f"waiting-{ctx._seed}").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.02)
    return good(problem, ctx, params)

def flaky(problem, ctx, params):
    if ctx._seed == 1 and not (FOLDER / "mended").exists():
        raise ValueError("not mended yet")
    return good(problem, ctx, params)

def scaled(problem, ctx, params):
    return Threshold(params.scale - 1.0)
'''
SUITE = """schema: harness/suite/1
name: toys
tasks: [signs]
methods: [{use: good, role: baseline}, METHODS]
seeds: SEEDS
budget: {steps: 20}
limits: {timeout: 60s}
"""
SECOND_TASK = """
    import dataclasses
    SECOND = dataclasses.replace(TASK, name="signs-again")
    _first = harness_tasks

    @harness.hookimpl
    def harness_tasks():
        return [TASK, SECOND]
"""


@pytest.fixture
def folder(plugin_site: PluginSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the suites of a test lie and its commands run, with the toy plugins in place."""
    plugin_site.write_toy(METHODS, ("waits", "flaky", "scaled"), declared=SECOND_TASK)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_suite(folder: Path, methods: str, seeds: int) -> None:
    (folder / "suite.yaml").write_text(SUITE.replace("METHODS", methods).replace("SEEDS", str(seeds)))


def run(folder: Path, *options: str) -> Ended:
    """`harness run suite.yaml` in a process of its own."""
    command = ("run", "suite.yaml", "-j", "2", "--registry", "registry", *options)
    return harness_process(*command, cwd=folder, **settings(folder))


def settings(folder: Path) -> dict[str, str]:
    return {"TEST_FOLDER": str(folder), "HARNESS_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder)}


def attempts(folder: Path) -> list[dict[str, Any]]:
    """Method, seed, status and id of every attempt, oldest first."""
    return query(folder / "registry", """SELECT split_part(method, '/', 2) AS method, seed, status, attempt_id, invocation
                                         FROM attempts ORDER BY attempt_id""")  # fmt: skip


def planned(*options: str) -> list[tuple[str, str, int, str]]:
    """What `harness run --dry-run` would look at: method, task, seed and state."""
    plan = harness("run", "suite.yaml", "--dry-run", "--json", "--registry", "registry", *options)
    assert plan.code == 0, plan.err
    return [(t["method"].split("/")[1], t["task"].split("/")[1], t["seed"], t["state"]) for t in plan.json["trials"]]


def eventually(what: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    stop = time.monotonic() + timeout_s
    while not what() and time.monotonic() < stop:
        time.sleep(0.05)
    return what()


# Stopped in the middle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on_with_the_missing_only(folder, way):
    """kill -9 and Ctrl-C alike: finished trials are not run again, what was cut is recorded, no process is left."""
    write_suite(folder, "waits", seeds=4)
    mark = uuid.uuid4().hex
    command = ("run", "suite.yaml", "-j", "2", "--registry", "registry")
    process = started(*command, cwd=folder, **settings(folder), **{MARK: mark})
    assert eventually(lambda: (folder / "waiting-2").exists() and (folder / "waiting-3").exists())

    os.killpg(process.pid, way)  # a terminal sends Ctrl-C to the whole group; the fork server is not in it
    first = ended(process)

    assert first.code == (130 if way == signal.SIGINT else -way)
    assert eventually(lambda: not marked_processes(MARK, mark), timeout_s=5.0)
    if way == signal.SIGINT:
        assert "toys: 2 interrupted, 6 ok" in first.err
        assert Counter(a["status"] for a in attempts(folder)) == {"ok": 6, "interrupted": 2}
        assert "good*" in first.out, "what is finished is shown"

    (folder / "go").touch()
    second = run(folder)

    assert second.code == 0, second.err
    assert "toys: 2 ok; 6 done before" in second.err
    counts = Counter((a["method"], a["seed"], a["status"]) for a in attempts(folder))
    expected = {(method, seed, "ok"): 1 for method in ("good", "waits") for seed in range(4)}
    assert counts == expected | {("waits", seed, "interrupted"): 1 for seed in (2, 3)}
    assert {a["invocation"] for a in attempts(folder) if a["seed"] < 2} == {attempts(folder)[0]["invocation"]}


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3, 1.0])
def test_a_parent_that_is_killed_while_the_server_starts_leaves_nothing(folder, after_s):
    """The server imports for seconds and listens to nobody: it dies with its parent, and somebody must still tidy up."""
    write_suite(folder, "waits", seeds=1)
    mark = uuid.uuid4().hex
    process = started("run", "suite.yaml", "--registry", "registry", cwd=folder, **settings(folder), **{MARK: mark})
    assert eventually(lambda: any(folder.glob("harness-*/server.log")))

    time.sleep(after_s)
    process.kill()
    ended(process)

    assert eventually(lambda: not marked_processes(MARK, mark), timeout_s=5.0)
    assert eventually(lambda: not any(folder.glob("harness-*")), timeout_s=5.0)


def test_ctrl_c_between_two_suites_stops_both(folder):
    """One Ctrl-C means stop: the next suite on the command line must not start."""
    write_suite(folder, "waits", seeds=3)
    (folder / "other.yaml").write_text((folder / "suite.yaml").read_text().replace("toys", "others").replace(", waits", ""))
    process = started("run", "suite.yaml", "other.yaml", "--registry", "registry", cwd=folder, **settings(folder))
    assert eventually(lambda: (folder / "waiting-2").exists())

    os.killpg(process.pid, signal.SIGINT)
    end = ended(process)

    assert end.code == 130
    assert "others" not in end.err
    assert query(folder / "registry", "SELECT DISTINCT suite FROM attempts") == [{"suite": "toys"}]


# What runs again ----------------------------------------------------------------------------------------------------------


def test_failed_trials_run_again_only_when_asked(folder):
    """A failure is a result: it is shown, and stays, until someone mends it and says --retry-failed."""
    write_suite(folder, "flaky", seeds=2)

    first = run(folder)
    again = run(folder)
    (folder / "mended").touch()
    retried = run(folder, "--retry-failed")
    forced = run(folder, "--force", "-m", "good")

    assert (first.code, again.code, retried.code, forced.code) == (1, 1, 0, 0)
    assert "toys: nothing to run; 3 done before, 1 failed before" in again.err
    assert "harness status --failed" in again.err
    assert "toys: 1 ok; 3 done before" in retried.err
    assert "toys: 2 ok; 0 done before" in forced.err
    by_trial = {}
    for a in attempts(folder):
        by_trial.setdefault((a["method"], a["seed"]), []).append(a["status"])
    assert by_trial == {
        ("good", 0): ["ok", "ok"], ("good", 1): ["ok", "ok"], ("flaky", 0): ["ok"], ("flaky", 1): ["failed", "ok"],
    }  # fmt: skip
    assert harness("status", "--failed", "--registry", "registry").out == "no failed trials\n"


def test_code_that_changed_runs_anew_and_other_plugins_stay(folder, plugin_site):
    """A trial's identity holds the code that it ran: editing one plugin orphans its own results and no one else's."""
    plugin_site.write("other", """
        import harness

        @harness.hookimpl
        def harness_methods():
            return [harness.Learner("constant", "toy", solve="NAME_code:constant")]
        """, """
        class Never:
            def guess(self, x):
                return (x > 9).long()

        def constant(problem, ctx, params):
            return Never()
        """)  # fmt: skip
    write_suite(folder, "constant", seeds=1)
    assert run(folder).code == 0
    code = plugin_site.folder / "other.py"
    code.write_text(code.read_text() + "\n# edited\n")

    assert sorted(planned()) == [("constant", "signs", 0, "missing"), ("good", "signs", 0, "done")]


# What is chosen -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing(folder):
    """Neither a registry nor anything else: it may be asked anywhere."""
    write_suite(folder, "scaled", seeds=3)
    before = sorted(p for p in folder.rglob("*") if "__pycache__" not in p.parts)

    dry = harness("run", "suite.yaml", "--dry-run", "--registry", "registry")

    assert dry.code == 0, dry.err
    assert "6 to run, 0 done" in dry.out
    assert sorted(p for p in folder.rglob("*") if "__pycache__" not in p.parts) == before


def test_a_dry_run_counts_what_force_and_retry_would_run(folder):
    """The plan is of this command, not of the suite alone."""
    write_suite(folder, "flaky", seeds=2)
    assert run(folder).code == 1

    for options, to_run in (((), 0), (("--retry-failed",), 1), (("--force",), 4)):
        drawn = harness("run", "suite.yaml", "--dry-run", "--registry", "registry", *options)
        told = harness("run", "suite.yaml", "--dry-run", "--json", "--registry", "registry", *options).json
        assert f"{to_run} to run, 3 done" in drawn.out
        assert told["to_run"] == to_run
        assert (told["predicted_s"] > 0) == (to_run > 0)


def test_methods_and_tasks_are_chosen_by_patterns(folder):
    """-m and -t take globs, several of them; quoted names with a distribution too."""
    write_suite(folder, "scaled, flaky", seeds=1)
    both = ("--set", "tasks=[signs, signs-again]")

    assert {m for m, *_ in planned("-m", "s*", "-m", "good")} == {"scaled", "good"}
    assert {m for m, *_ in planned("-m", "toyplug/fl*")} == {"flaky"}
    assert {t for _, t, *_ in planned(*both, "-t", "*-again")} == {"signs-again"}
    assert {t for _, t, *_ in planned(*both, "-t", "signs")} == {"signs"}


def test_seeds_are_a_number_or_a_list(folder):
    """--seeds 2 is 0 and 1; --seeds 7,9 are those."""
    write_suite(folder, "scaled", seeds=10)

    assert {s for *_, s, _ in planned("--seeds", "2")} == {0, 1}
    assert {s for *_, s, _ in planned("--seeds", "7,9")} == {7, 9}


def test_a_limit_keeps_whole_pairs_first(folder):
    """A number of trials, or a share of them; either way all methods of the first seeds."""
    write_suite(folder, "scaled", seeds=10)

    assert sorted(planned("--limit", "4")) == sorted((m, "signs", s, "missing") for m in ("good", "scaled") for s in (0, 1))
    assert len(planned("--limit", "0.1")) == 2


def test_shards_part_the_suite(folder):
    """Three machines with --shard 1/3, 2/3, 3/3 do everything once, and no pair is split between two of them."""
    write_suite(folder, "scaled", seeds=10)

    shards = [planned("--shard", f"{i}/3") for i in (1, 2, 3)]

    assert sorted(t for shard in shards for t in shard) == sorted(planned())
    assert all({s for m, _, s, _ in shard if m == "good"} == {s for m, _, s, _ in shard if m == "scaled"} for shard in shards)


def test_a_set_value_is_run_and_recorded(folder):
    """--set reaches into the suite; what it changes is part of the trial, so it runs beside what was done."""
    write_suite(folder, "{use: scaled, params: {scale: 1.0}}", seeds=1)

    first = run(folder)
    second = run(folder, "--set", "methods[1].params.scale=3.0")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "toys: 1 ok; 1 done before" in second.err
    scales = query(folder / "registry", "SELECT method_params FROM attempts WHERE method LIKE '%scaled' ORDER BY attempt_id")
    assert [s["method_params"] for s in scales] == ['{"scale":1.0}', '{"scale":3.0}']
    values = query(folder / "registry", """SELECT value FROM measurements WHERE method LIKE '%scaled' AND part = 'test'
                                           AND quantity = 'accuracy' ORDER BY attempt_id""")  # fmt: skip
    assert values[0]["value"] == 1.0
    assert values[1]["value"] < 0.8


def test_a_long_run_asks_first(folder, monkeypatch):
    """Above an hour by earlier records nothing starts without a yes, or --yes; the hour is made short here."""
    write_suite(folder, "scaled", seeds=1)
    assert run(folder).code == 0
    monkeypatch.setattr("harness.cli.run.ASK_ABOVE_S", 0.0)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    asked = harness("run", "suite.yaml", "--force", "--registry", "registry")

    assert asked.code == 130
    assert "2 trials, about 0.0 min from earlier records" in asked.err
    assert "Run them?" in asked.err
    assert len(attempts(folder)) == 2
