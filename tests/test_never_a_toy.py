"""One real `harness run` over methods that are each wrong in one way, between healthy ones: what it leaves can be trusted."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import marked_processes, open_plugin_site
from invoking import Ended, harness, harness_process, query

MARK = "HARNESS_TEST_MARK"

DECLARED = """
    import harness

    @harness.hookimpl
    def harness_methods():
        return [harness.Learner(name, "classify", solve=f"NAME_code:{name}") for name in ROGUES]
"""

CODE = '''
    import ctypes, gc, os, pickle, signal, subprocess, sys, time
    import numpy as np
    import torch

    class Linear:
        """A predictor that is linear in the features."""

        def __init__(self, weight, bias):
            self.weight, self.bias = weight, bias

        def predict(self, x):
            return x.flatten(1) @ self.weight.T + self.bias

    def centroid(problem, ctx, params):
        """Healthy: the nearest class mean."""
        x = problem.x.flatten(1)
        means = torch.stack([x[problem.y == c].mean(0) for c in range(problem.classes)])
        return Linear(2 * means, -(means**2).sum(1))

    def raises(problem, ctx, params):
        raise ValueError("boom")

    def sleeps_for_ever(problem, ctx, params):
        while True:
            time.sleep(1000)

    def exits_with_7(problem, ctx, params):
        os._exit(7)

    def kills_itself(problem, ctx, params):
        os.kill(os.getpid(), signal.SIGKILL)

    def segfaults(problem, ctx, params):
        ctypes.string_at(0)

    def eats_memory(problem, ctx, params):
        return torch.ones(2 << 30)

    def leaves_a_grandchild(problem, ctx, params):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(1000)
            os._exit(0)
        return centroid(problem, ctx, params)

    def prints_100_MB(problem, ctx, params):
        print("the first word")
        for _ in range(1000):
            sys.stdout.write("x" * 100_000)
        print("the last word")
        return centroid(problem, ctx, params)

    def returns_nan(problem, ctx, params):
        healthy = centroid(problem, ctx, params)
        return Linear(healthy.weight * float("nan"), healthy.bias)

    def breaks_the_protocol(problem, ctx, params):
        return {"accuracy": 1.0}

    def cheats(problem, ctx, params):
        """Says that it is perfect; is a draw."""
        ctx.log(accuracy=1.0, error=0.0, nll=0.0)
        random = torch.randn(problem.classes, problem.x[0].numel(), generator=ctx.generator("weights"))
        solution = Linear(random, torch.zeros(problem.classes))
        solution.accuracy = 1.0
        return solution

    def tried(attempt):
        try:
            return f"got {type(attempt()).__name__}"
        except BaseException as exc:
            return f"{type(exc).__name__}: {exc}"

    def reachable():
        """Every object that the garbage collector, all frames and all modules lead to, three references deep."""
        frames = list(sys._current_frames().values())
        while frames[-1].f_back is not None:
            frames.append(frames[-1].f_back)
        layer = gc.get_objects() + [v for f in frames for v in f.f_locals.values()]
        layer += [v for m in list(sys.modules.values()) for v in list(vars(m).values())]
        seen = {}
        for _ in range(3):
            layer = [o for o in layer if id(o) not in seen]
            seen.update((id(o), o) for o in layer)
            layer = [o for o in gc.get_referents(*layer)]
        return list(seen.values())

    def steals(problem, ctx, params):
        """Looks for the held parts: more rows than it was given, whole or in pickles; then learns honestly."""
        from harness import data

        ctx.log(split=tried(lambda: ctx.rng("split")), held=tried(lambda: ctx.generator("held/test")),
                by_name=tried(lambda: data.load("digits")), by_file=tried(lambda: data.read_bytes("digits")),
                attributes=" ".join(sorted(set(vars(problem)) | {n for n in vars(ctx) if "held" in n or "test" in n})))
        train = {bytes(row.numpy().tobytes()) for row in problem.x.flatten(1)}
        features = problem.x[0].numel()
        given = others = labels = pickles = 0
        for found in reachable():
            if isinstance(found, np.ndarray) and found.dtype in (np.float32, np.float64, np.int64):
                found = torch.from_numpy(np.ascontiguousarray(found))
            if isinstance(found, (bytes, bytearray)) and len(found) > 10_000 and found[:1] == b"\\x80":
                pickles += tried(lambda: pickle.loads(found)).startswith("got")
            if not isinstance(found, torch.Tensor) or found.layout != torch.strided or not 100 <= found.numel():
                continue
            if found.numel() % features == 0 and found.is_floating_point() and found.dim() > 1 and found[0].numel() == features:
                rows = {bytes(row.numpy().tobytes()) for row in found.detach().flatten(1)}
                given += rows == train
                others += bool(rows - train)
            elif found.dim() == 1 and not found.is_floating_point() and 0 <= found.min() and found.max() < problem.classes:
                labels += len(found) != len(problem.y) or not torch.equal(found, problem.y)
        ctx.log(given=given, others=others, labels=labels, pickles=pickles)
        return centroid(problem, ctx, params)
'''


@dataclass(frozen=True)
class Wrong:
    """How one wrong method ends. text: in the record's error."""

    status: str
    text: str = ""
    exit_code: int | None = 0
    signal: int | None = None
    limit: str = ""


WRONG = {
    "raises": Wrong("failed", "ValueError: boom (rogue_code.py:"),
    "sleeps_for_ever": Wrong("timeout", "no result after", exit_code=None, signal=9, limit="timeout"),
    "exits_with_7": Wrong("failed", "exit code 7", exit_code=7),
    "kills_itself": Wrong("failed", "SIGKILL", exit_code=None, signal=9),
    "segfaults": Wrong("failed", "segfault", exit_code=None, signal=11),
    "eats_memory": Wrong("oom", limit="rlimit_data"),
    "leaves_a_grandchild": Wrong("ok"),
    "prints_100_MB": Wrong("ok"),
    "returns_nan": Wrong("diverged", "accuracy on test"),
    "breaks_the_protocol": Wrong("failed", "which is no Predictor: it lacks predict"),
}
HEALTHY = ("relu", "gelu", "elu", "centroid", "cheats", "steals")
ROGUES = (*WRONG, "centroid", "cheats", "steals")
SEEDS = 3
# The wrong ones have two seeds, the one that waits for its timeout has one.
LEFT_OUT = [{"method": name, "seed": 2} for name in WRONG] + [{"method": "sleeps_for_ever", "seed": 1}]
TRIALS = {
    (name, seed)
    for name, seed in itertools.product((*WRONG, *HEALTHY), range(SEEDS))
    if {"method": name, "seed": seed} not in LEFT_OUT
}
SUITE = f"""schema: harness/suite/1
name: rogues
tasks: [digits]
methods: [{{use: relu, role: baseline}}, gelu, elu, {", ".join(ROGUES)}]
net: {{arch: mlp, width: 32, depth: 1}}
seeds: {SEEDS}
budget: {{epochs: 5}}
exclude: {json.dumps(LEFT_OUT)}
limits: {{timeout: 10s, memory: 500MiB}}
"""


@dataclass(frozen=True)
class Ran:
    """The one run of this file: how it ended, its registry, and the processes that it left."""

    ended: Ended
    registry: Path
    left: list[int]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """`harness run` over all of them, two at a time."""
    folder, mark = tmp_path_factory.mktemp("rogues"), uuid.uuid4().hex
    (folder / "suite.yaml").write_text(SUITE)
    with open_plugin_site(folder / "site") as site:
        site.write("rogue", DECLARED.replace("ROGUES", repr(ROGUES)), CODE)
        ended = harness_process("run", "suite.yaml", "-j", "2", "--registry", "registry", cwd=folder,
                                HARNESS_CACHE_DIR=str(folder / "cache"), **{MARK: mark})  # fmt: skip
        yield Ran(ended, folder / "registry", marked_processes(MARK, mark))


def attempts(ran: Ran, method: str) -> list[dict[str, Any]]:
    return query(ran.registry, f"SELECT * FROM attempts WHERE split_part(method, '/', 2) = '{method}' ORDER BY seed")


def board_rows(ran: Ran) -> dict[str, dict[str, Any]]:
    """The rows of both boards, in their order: components in a net, and learners, which bring their own."""
    boards = harness("leaderboard", "--json", "--registry", ran.registry).json["boards"]
    assert [board["task"] for board in boards] == ["digits", "digits"]
    return {row["method"]: row for board in boards for row in board["rows"]}


def test_every_trial_leaves_exactly_one_record(ran):
    """At least 30 trials, a third of them hostile: none is lost, none runs twice."""
    rows = query(ran.registry, "SELECT split_part(method, '/', 2) AS method, seed FROM attempts")

    assert len(TRIALS) >= 30
    assert sorted((r["method"], r["seed"]) for r in rows) == sorted(TRIALS)


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_method_is_recorded_as_what_it_did(ran, name):
    """Status, exit code, signal and limit tell the plugin's author where to look, years later."""
    rows, wrong = attempts(ran, name), WRONG[name]

    assert rows
    for row in rows:
        assert (row["status"], row["exit_code"], row["signal"], row["limit_fired"]) == (
            wrong.status, wrong.exit_code, wrong.signal, wrong.limit,
        ), row["error"]  # fmt: skip
        assert wrong.text in row["error"]


@pytest.mark.parametrize("name", HEALTHY)
def test_all_others_finish(ran, name):
    """Each healthy trial gives a finite accuracy, whatever ran beside it."""
    rows = query(ran.registry, f"""SELECT status, value FROM measurements WHERE split_part(method, '/', 2) = '{name}'
                                   AND quantity = 'accuracy' AND part = 'test'""")  # fmt: skip

    assert [r["status"] for r in rows] == ["ok"] * SEEDS
    assert all(0.0 <= r["value"] <= 1.0 for r in rows)


def test_the_run_ends_with_1_and_says_what_failed(ran):
    """Exit code 1: finished, some trials failed, their records are written."""
    assert ran.ended.code == 1, ran.ended.err
    n_wrong = sum(WRONG[name].status != "ok" for name, _ in TRIALS if name in WRONG)
    assert f"{len(TRIALS)}/{len(TRIALS)}: {len(TRIALS) - n_wrong} done, {n_wrong} failed" in ran.ended.err
    assert "failed: raises on digits cpu seed 0: ValueError: boom" in ran.ended.err


def test_no_process_is_left(ran):
    """Not the sleeper, not the grandchildren with sessions of their own, not the server."""
    assert ran.left == []


def test_of_a_flood_the_ends_are_kept(ran):
    """100 MB of output may neither fill the registry nor hide the last words."""
    row = attempts(ran, "prints_100_MB")[0]
    logs = harness("logs", row["attempt_id"], "--registry", ran.registry)

    assert logs.out.startswith("the first word")
    assert "the last word" in logs.out[-1000:]
    assert "bytes in the middle were not kept" in logs.err
    assert sum(f.stat().st_size for f in ran.registry.rglob("*") if f.is_file()) < 5 << 20


def test_the_leaderboard_counts_what_failed(ran):
    """A mean without the number of failures behind it would flatter the method that crashes on hard seeds."""
    counts = {name: (row["n_ok"], row["n_failed"]) for name, row in board_rows(ran).items()}

    for name in (*WRONG, *HEALTHY):
        n = sum(method == name for method, _ in TRIALS)
        assert counts[name] == ((n, 0) if name in HEALTHY or WRONG[name].status == "ok" else (0, n))
    lines = {line.split()[-1] for line in ran.ended.out.splitlines() if "raises" in line}
    assert lines == {"0/2"}


def test_a_method_that_failed_is_not_ranked_and_counts_as_the_worst(ran):
    """Accuracy declares 0 as its worst; a method without one finished trial has no rank."""
    rows = board_rows(ran)

    assert rows["returns_nan"]["interval"]["mean"] == 0.0
    assert not any(rows[name]["ranked"] for name, wrong in WRONG.items() if wrong.status != "ok")


def test_who_logs_a_perfect_accuracy_with_random_weights_ranks_last(ran):
    """No number that a method says of itself reaches a leaderboard."""
    ranked = [row for row in board_rows(ran).values() if row["ranked"] and row["method"] in ROGUES]

    assert ranked[-1]["method"] == "cheats"
    assert ranked[-1]["interval"]["mean"] < 0.3
    assert ranked[-2]["interval"]["mean"] > 0.5


def test_what_a_method_logs_is_kept_apart_from_what_is_measured(ran):
    """Its word is in the diagnostics, where it can be read; not one measurement holds it."""
    said = query(
        ran.registry, "SELECT name, value FROM diagnostics WHERE split_part(method, '/', 2) = 'cheats' AND name = 'accuracy'"
    )
    measured = query(ran.registry, """SELECT value FROM measurements WHERE split_part(method, '/', 2) = 'cheats'
                                      AND quantity IN ('accuracy', 'auc_accuracy')""")  # fmt: skip

    assert [row["value"] for row in said] == [1.0] * SEEDS
    assert len(measured) == SEEDS * 2 * 2
    assert all(row["value"] < 0.3 for row in measured)


def test_a_thief_finds_its_own_data_and_nothing_that_is_held(ran):
    """It looks by attributes, by the garbage collector, in frames and modules, by name and by the split's random stream.

    That it finds the training rows by the same search shows that the search would find the others.
    """
    rows = query(ran.registry, "SELECT seed, name, value, text FROM diagnostics WHERE split_part(method, '/', 2) = 'steals'")

    for seed in range(SEEDS):
        said = {r["name"]: r["value"] if r["text"] is None else r["text"] for r in rows if r["seed"] == seed}
        assert "belongs to the task's load and is closed in solve" in said["split"]
        assert "belongs to the task's load and is closed in solve" in said["held"]
        assert "is closed in solve" in said["by_name"]
        assert "is closed in solve" in said["by_file"]
        assert said["attributes"] == "classes inputs x y"
        assert said["given"] >= 1
        assert (said["others"], said["labels"], said["pickles"]) == (0, 0, 0)


def test_the_thiefs_score_is_that_of_its_honest_part(ran):
    """Having looked changes nothing: the same bits as the honest method gives."""
    values = {
        name: query(ran.registry, f"""SELECT seed, quantity, part, value FROM measurements
                                      WHERE split_part(method, '/', 2) = '{name}' AND part = 'test' ORDER BY ALL""")
        for name in ("steals", "centroid")
    }  # fmt: skip

    assert values["steals"] == values["centroid"]
