"""One trial in this process: the stages, the seal, the scores, what is measured and what is refused."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PluginSite, plugin_site, trial  # noqa: F401  (plugin_site is a fixture)

from harness.errors import HarnessError
from harness.records import Outcome
from harness.worker import WorkerOptions, deriving, run_trial
from harness.worker.deriving import code_digest
from harness.worker.sealing import PipeKeeper, decrypt, encrypt, flatten, own_storage, unflatten


@pytest.fixture
def play(plugin_site: PluginSite, tmp_path: Path):  # noqa: F811
    """play(code, name, declared="", **trial fields) -> Outcome of the toy method `name` that `code` defines."""

    def act(code: str = "", name: str = "good", declared: str = "", options: dict | None = None, **changes) -> Outcome:
        plugin_site.write_toy(code, () if name == "good" else (name,), declared=declared)
        settings = WorkerOptions(scratch=tmp_path, cache_dir=tmp_path / "cache", **(options or {}))
        return run_trial(trial(name, **changes), plugin_site.catalogue(), settings)

    return act


def values(outcome: Outcome, part: str = "test") -> dict[str, float | None]:
    return {m.quantity: m.value for m in outcome.measurements if m.part == part}


def curve_of(outcome: Outcome) -> list[float]:
    return [p.value for p in outcome.curve if (p.quantity, p.part) == ("accuracy", "test")]


# What a quality trial gives -------------------------------------------------------------------------------------------


def test_a_quality_trial_gives_every_metric_on_every_part_and_a_point_for_every_offer(play):
    """The toy walks to the right threshold in 20 steps and offers after each fifth."""
    outcome = play()

    assert outcome.status == "ok", outcome.error
    assert values(outcome)["accuracy"] == values(outcome, "validation")["accuracy"] == 1.0
    assert [p.at["steps"] for p in outcome.curve if (p.quantity, p.part) == ("accuracy", "test")] == [5, 10, 15, 20]
    assert outcome.spent["steps"] == 20
    assert next(m for m in outcome.measurements if m.quantity == "accuracy").worst == 0.0


def test_what_a_method_logs_is_no_measurement(play):
    """A method that logs accuracy 1.0 with a useless solution is measured as useless."""
    outcome = play(
        """
def liar(problem, ctx, params):
    ctx.log(accuracy=1.0, verdict="best")
    return Threshold(-100.0)
""",
        "liar",
    )

    assert outcome.diagnostics == {"accuracy": 1.0, "verdict": "best"}
    assert 0.3 < values(outcome)["accuracy"] < 0.7  # guesses 1 for all: the share of positive numbers


def test_only_what_the_trial_asks_for_is_measured(play):
    """A suite's `measure` narrows the record."""
    assert set(values(play(measure=("first",)))) == {"first"}


def test_a_probe_runs_where_it_is_named_or_always(play):
    """Probes cost time, so only those that are wanted run; what they give stands beside the task's metrics."""
    code = """
def far(held, solution, params_or_ctx):
    return {"far": abs(solution.at)}

def layers(held, solution, ctx):
    return {"layers": __import__("harness").Series("layer", (1, 2), (0.5, solution.at))}
"""
    declared = """
@harness.hookimpl
def harness_probes():
    return [harness.Probe("far", "toy", (harness.Metric("far", "1", "lower"),), "toyplug_code:far"),
            harness.Probe("layers", "toy", (harness.Metric("layers", "1", "neither"),), "toyplug_code:layers", always=True)]
"""
    plain = play(code, declared=declared, measure=("accuracy",))
    named = play(code, declared=declared, measure=("accuracy", "far"))

    assert set(values(plain)) == {"accuracy"}
    assert set(values(named)) == {"accuracy", "far"}
    assert [(s.quantity, s.axis, s.x, s.y[0]) for s in plain.series if s.part == "test"] == [
        ("layers", "layer", (1.0, 2.0), 0.5)
    ]


def test_what_the_curve_tells_becomes_a_measurement(play):
    """Forgetting, time to target, area: only all offers together tell."""
    code = """
def summarise(curve, params):
    return {"best": max(point["accuracy"] for point in curve), "offers": len(curve)}
"""
    declared = """
import dataclasses
METRICS += (harness.Metric("best", "share", "higher"), harness.Metric("offers", "1", "neither"))
TASK = dataclasses.replace(TASK, metrics=METRICS, summarise="toyplug_code:summarise")
"""
    outcome = play(code, declared=declared)

    assert outcome.status == "ok", outcome.error
    assert values(outcome) | {"first": 0} == {"accuracy": 1.0, "first": 0, "best": 1.0, "offers": 4.0}


def test_the_returned_solution_is_the_last_point_of_the_curve(play):
    """A method that never offers still has a curve of one point, at what it has spent."""
    outcome = play(
        """
def silent(problem, ctx, params):
    ctx.spend(steps=3)
    return Threshold(0.0)
""",
        "silent",
    )

    assert curve_of(outcome) == [1.0]
    assert outcome.curve[0].at["steps"] == 3


def test_the_same_trial_twice_gives_the_same_bits(play):
    """The toy draws from torch's global generator: the worker seeds it from the trial's streams."""
    first, again, other = play(seed=1), play(seed=1), play(seed=2)

    assert [asdict(m) for m in first.measurements] == [asdict(m) for m in again.measurements]
    assert first.diagnostics == again.diagnostics
    assert first.diagnostics != other.diagnostics


def test_parameters_come_validated_with_their_defaults(play):
    """The method sees its Params model, not a dict; a wrong one is the trial's failure, with the field's name."""
    code = """
def scaled(problem, ctx, params):
    ctx.log(scale=params.scale)
    return Threshold(0.0)
"""
    assert play(code, "scaled").diagnostics == {"scale": 1.0}
    assert play(code, "scaled", method_params={"scale": 2}).diagnostics == {"scale": 2.0}
    refused = play(code, "scaled", method_params={"scale": "wide"})
    assert refused.status == "failed"
    assert "scale" in refused.error


def test_a_component_is_handed_to_the_tracks_learner(play):
    """The track's learner gets the problem, the context with the suite's net, and the component with its build resolved."""
    code = """
def learn(problem, ctx, component):
    ctx.log(name=component.name, kind=component.kind, width=ctx.net["width"], built=component.build(None, component.params))
    return Threshold(0.0)

def build(place, params):
    return params.scale
"""
    declared = """
import dataclasses
TRACK = dataclasses.replace(TRACK, learner="toyplug_code:learn")

@harness.hookimpl
def harness_methods():
    return [harness.Component("part", "activation", build="toyplug_code:build", params=MethodParams)]
"""
    outcome = play(code, "part", declared=declared, net={"arch": "mlp", "width": 8}, train={})

    assert outcome.status == "ok", outcome.error
    assert outcome.diagnostics == {"name": "part", "kind": "activation", "width": 8.0, "built": 1.0}


# What an offer may not do ---------------------------------------------------------------------------------------------


NOISY_SCORE = """
import random
import numpy as np

def score(held, solution, params, ctx):
    x, y = held
    noise = float(torch.rand(())) + random.random() + np.random.rand()
    torch.set_grad_enabled(False)
    return {"accuracy": (solution.guess(x) == y).double().mean(), "first": noise}

def draws(problem, ctx, params):
    net = torch.nn.Dropout()
    solution = Threshold(0.0)
    solution.module = net
    seen = []
    for step in range(4):
        ctx.spend(steps=1)
        seen += [float(torch.rand(())), random.random(), np.random.rand()]
        if params.scale > 1:
            ctx.offer(solution)
            assert torch.is_grad_enabled() and net.training
    ctx.log(seen=repr(seen))
    return solution
"""


def test_offers_never_change_what_training_draws(play):
    """Scoring draws from all global generators and changes modes; a method that offers sees none of it."""
    silent, offering = play(NOISY_SCORE, "draws"), play(NOISY_SCORE, "draws", method_params={"scale": 2.0})

    assert silent.status == offering.status == "ok", (silent.error, offering.error)
    assert silent.diagnostics["seen"] == offering.diagnostics["seen"]


def test_scoring_draws_the_same_for_every_method(play):
    """A score that samples must sample alike for the methods of a pair: its seed is a stream, not the method's state."""
    code = NOISY_SCORE + "def greedy(problem, ctx, params):\n    torch.rand(1000)\n    return Threshold(0.0)\n"

    assert values(play(code, "draws"))["first"] == values(play(code, "greedy"))["first"]


def test_the_callers_own_state_is_as_before(play):
    """run_trial is also called inside other programs: threads, dtype and generators are theirs."""
    rude = "def rude(problem, ctx, params):\n    torch.set_default_dtype(torch.float64)\n    return Threshold(0.0)\n"
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002  (the global one is meant)

    play(rude, "rude")

    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # noqa: NPY002
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_clock_stands_while_an_offer_is_scored(play):
    """Evaluation time is the harness's, not the method's."""
    code = """
import time

def score(held, solution, params, ctx):
    time.sleep(0.2)
    x, y = held
    return {"accuracy": (solution.guess(x) == y).double().mean(), "first": 0.0}
"""
    outcome = play(code)

    assert outcome.resources.wall_s > 4 * 2 * 0.2
    assert outcome.resources.solve_s < 0.2


# How a trial may end --------------------------------------------------------------------------------------------------


ENDS = {
    "an exception": ("raise ValueError('boom')", "failed", "ValueError: boom"),
    "a divergence": ("import harness; raise harness.Diverged('loss is inf')", "diverged", "loss is inf"),
    "an unsupported case": ("import harness; raise harness.Unsupported('needs a GPU')", "unsupported", "needs a GPU"),
    "an exit": ("raise SystemExit(3)", "failed", "SystemExit: 3"),
    "no memory": ("raise MemoryError('none left')", "oom", "none left"),
    "torch without memory": ("return torch.empty(1 << 60)", "oom", ""),
    "a wrong solution": ("return 3", "failed", "it lacks guess"),
    "budget without offer": ("ctx.spend(steps=21)", "failed", "before any offer"),
    "a closed stream": ("ctx.rng('split')", "failed", "closed in solve"),
}


@pytest.mark.parametrize("case", ENDS)
def test_every_end_has_its_status_and_its_reason(play, case):
    """A status tells what to do about it: mend the code, lower the rate, find a GPU, give more memory."""
    line, status, text = ENDS[case]

    outcome = play(f"def ends(problem, ctx, params):\n    {line}\n", "ends")

    assert (outcome.status, outcome.measurements) == (status, ()), outcome.error
    assert text in outcome.error


SCORES = {
    "undeclared": ('{"accuracy": 1, "first": 0, "speed": 9}', "failed", "returned ['speed'], not declared"),
    "missing": ('{"accuracy": 1}', "failed", "did not return ['first']"),
    "no number": ('{"accuracy": "high", "first": 0}', "failed", "metric 'accuracy' is 'high'"),
    "no mapping": ("1.0", "failed", "returned float; return a mapping"),
    "nan": ('{"accuracy": float("nan"), "first": 0}', "diverged", "accuracy on test"),
    "infinite": ('{"accuracy": 1, "first": float("inf")}', "diverged", "first on test"),
}


@pytest.mark.parametrize("case", SCORES)
def test_a_score_keeps_to_its_declaration(play, case):
    """A metric that nobody declared has no unit and no direction; one that is missing would be a hole in the leaderboard."""
    told, status, text = SCORES[case]

    outcome = play(f"def score(held, solution, params, ctx):\n    return {told}\n")

    assert outcome.status == status
    assert text in outcome.error


def test_a_solution_that_is_proved_wrong_is_invalid(play):
    """An unsound certificate is not a bad score: it is none."""
    outcome = play(
        "def score(held, solution, params, ctx):\n    import harness\n    raise harness.Invalid('bound below the truth')\n"
    )

    assert (outcome.status, outcome.error) == ("invalid", "bound below the truth")


def test_a_metric_that_is_not_finite_is_kept_as_null_beside_the_finite_ones(play):
    """The rest of the record stays of use; nan must not reach a mean."""
    outcome = play('def score(held, solution, params, ctx):\n    return {"accuracy": float("nan"), "first": 2.0}\n')

    assert values(outcome) == {"accuracy": None, "first": 2.0}
    assert {p.quantity for p in outcome.curve} == {"first"}


def test_the_budget_ends_solve_with_the_scores_of_the_last_offer(play):
    """Training goes on after an offer, on the same object: the result is what was offered, at the moment it was."""
    outcome = play(
        """
def spoils(problem, ctx, params):
    solution = Threshold(0.0)
    ctx.spend(steps=20)
    ctx.offer(solution)
    solution.at = -100.0
    ctx.spend(steps=1)
""",
        "spoils",
    )

    assert outcome.status == "ok", outcome.error
    assert values(outcome)["accuracy"] == 1.0


def test_a_solution_that_comes_too_late_is_not_accepted(play):
    """A method that never spends must not gain time by it: what it returns past its wall_s does not count."""
    code = """
import time

def late(problem, ctx, params):
    ctx.offer(Threshold(-100.0))
    time.sleep(0.3)
    return Threshold(0.0)
"""
    outcome = play(code, "late", budget={"wall_s": 0.1})

    assert outcome.status == "ok", outcome.error
    assert values(outcome)["accuracy"] < 0.9


def test_artefacts_are_named_in_the_outcome_and_lie_in_the_scratch_folder(play):
    """The registry copies them from there."""
    outcome = play(
        """
def saves(problem, ctx, params):
    ctx.save("circuit.svg", b"<svg/>", "image/svg+xml")
    return Threshold(0.0)
""",
        "saves",
    )

    (blob,) = outcome.blobs
    assert Path(blob["path"]).read_bytes() == b"<svg/>"
    assert (blob["name"], blob["media_type"]) == ("circuit.svg", "image/svg+xml")


def test_parameters_of_a_net_are_counted_once_each(play):
    """The record's `params` is of what can be trained; a tied weight is one."""
    code = """
def netted(problem, ctx, params):
    solution = Threshold(0.0)
    inner = torch.nn.Linear(3, 3)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    solution.module = torch.nn.Sequential(inner, inner, frozen)
    return solution
"""
    assert play(code, "netted").resources.params == 12


def test_what_went_before_a_failure_is_kept(play):
    """The curve up to a divergence tells when it came."""
    outcome = play(
        """
def half(problem, ctx, params):
    ctx.spend(steps=5)
    ctx.offer(Threshold(0.0))
    ctx.log(reached=5)
    raise ValueError("then it broke")
""",
        "half",
    )

    assert (outcome.status, curve_of(outcome), outcome.diagnostics, outcome.spent["steps"]) == (
        "failed",
        [1.0],
        {"reached": 5},
        5,
    )


# The seal -------------------------------------------------------------------------------------------------------------


PRIES = '''
import gc, pathlib, sys, threading, types
import numpy as np

def looks_like(value, secret):
    """Whether a tensor, array or bytes holds the test part's numbers anywhere in its memory."""
    kind = type(value)  # not isinstance, which asks the objects: deprecated ones warn, lazy ones import
    if issubclass(kind, torch.Tensor) and value.layout == torch.strided:
        storage = value.untyped_storage()  # of fake tensors, which say that they are on the CPU, it is on "meta"
        raw = bytes(storage) if storage.device.type == "cpu" and storage.nbytes() < 1 << 22 else b""
    elif kind is np.ndarray:  # subclasses guard themselves: np.ma.masked cannot even be copied
        raw = value.tobytes() + (value.base.tobytes() if isinstance(value.base, np.ndarray) else b"")
    elif kind in (bytes, bytearray, memoryview):
        raw = bytes(value)
    else:
        return False
    return secret in raw

def everything():
    """All that the garbage collector, the stacks and the modules reach, three levels deep."""
    found = list(gc.get_objects())
    for frame in [*sys._current_frames().values(), *thread_frames()]:
        while frame is not None:
            found += [*frame.f_locals.values(), *frame.f_globals.values()]
            frame = frame.f_back
    seen, level = set(), found
    for _ in range(3):
        following = []
        for value in level:
            if id(value) in seen:
                continue
            seen.add(id(value))
            yield value
            following += gc.get_referents(value) if gc.is_tracked(value) else []
            if type(value) is types.FunctionType and value.__closure__:
                following += [c.cell_contents for c in value.__closure__ if c != types.CellType()]
        level = following

def thread_frames():
    return [f for t, f in sys._current_frames().items() if t != threading.get_ident()]

def pries(problem, ctx, params):
    # The method is told a piece of the secret by the test, outside of everything it may search: only to know it when seen.
    secret = bytes(b ^ 0x5A for b in bytes.fromhex(pathlib.Path("SECRET").read_text()))
    hits = [type(v).__name__ for v in everything() if v is not secret and looks_like(v, secret)]
    for stream in ("split", "held", "split/test"):
        for draw in (ctx.generator, ctx.rng, ctx.stream_seed):
            try:
                draw(stream)
                hits.append(f"{draw.__name__}({stream})")
            except Exception:
                pass
    import harness.data
    try:
        harness.data.load("iris")
        hits.append("harness.data.load")
    except Exception:
        pass
    ctx.log(hits=repr(hits), searched=len(list(gc.get_objects())))
    return Threshold(0.0)
'''


def test_solve_cannot_reach_the_test_part(play, tmp_path):
    """It tries attributes, closures, the garbage collector, all stacks, views' storages, closed streams and harness.data."""
    secret_file = tmp_path / "secret"
    code = PRIES.replace("SECRET", str(secret_file)) + (
        "\n_load = load\n"
        "def load(params, ctx):\n"
        "    made = _load(params, ctx)\n"
        "    piece = made.held['test'][0][:16].numpy().tobytes()\n"
        "    pathlib.Path(" + repr(str(secret_file)) + ").write_text(bytes(b ^ 0x5A for b in piece).hex())\n"
        "    return made\n"
    )
    outcome = play(code, "pries", seed=77)

    assert outcome.status == "ok", outcome.error
    assert outcome.diagnostics["hits"] == "[]"
    assert outcome.diagnostics["searched"] > 1000
    assert values(outcome)["accuracy"] == 1.0  # and the scorer does reach it


def test_the_search_does_find_what_is_not_sealed(play, tmp_path):
    """The test above must be able to fail: a load that leaves the test part in its module is found out."""
    secret_file = tmp_path / "secret"
    code = PRIES.replace("SECRET", str(secret_file)) + (
        "\n_load = load\nLEFT = []\n"
        "def load(params, ctx):\n"
        "    made = _load(params, ctx)\n"
        "    LEFT.append(made.held['test'][0])\n"
        "    piece = made.held['test'][0][:16].numpy().tobytes()\n"
        "    pathlib.Path(" + repr(str(secret_file)) + ").write_text(bytes(b ^ 0x5A for b in piece).hex())\n"
        "    return made\n"
    )

    assert "Tensor" in play(code, "pries", seed=78).diagnostics["hits"]


def test_a_problem_cut_from_the_whole_data_is_copied():
    """A view keeps all of its storage alive: x[:n] of the full data would carry the test part along."""
    whole = torch.arange(100.0)
    array = np.arange(100.0)

    made = own_storage({"x": whole[:10], "rest": [whole[10:20], (array[:5],)]})

    assert made["x"].untyped_storage().nbytes() == 40
    assert made["rest"][0].untyped_storage().nbytes() == 40
    assert made["rest"][1][0].base is None
    torch.testing.assert_close(made["x"], whole[:10], rtol=0, atol=0)


HELD = {
    "tensors": (torch.arange(5), torch.zeros(0, 3), torch.tensor(2.5, dtype=torch.bfloat16), torch.eye(3).t()[1:]),
    "arrays": {"a": np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::2], "text": "words", "none": None},
    "nested": [1, {"deep": (torch.ones(2, dtype=torch.complex64), b"bytes")}],
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_sealed_comes_back_equal_and_writable(name):
    """Scores get plain data: dtypes, shapes and nesting as load made them, in memory of their own."""
    key = os.urandom(32)

    sealed = encrypt(flatten(name, HELD[name]), key, name)
    back = unflatten(decrypt(sealed, key, name))

    torch.testing.assert_close(tensors_of(back), tensors_of(HELD[name]), rtol=0, atol=0)
    assert str(back) == str(HELD[name])


def tensors_of(value: object) -> list[torch.Tensor]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [t for item in value for t in tensors_of(item)]
    return [torch.as_tensor(value)] if isinstance(value, torch.Tensor | np.ndarray) else []


def test_sealed_bytes_hold_no_piece_of_the_plain_ones():
    """Encrypted, not merely packed; and with another key it is noise."""
    labels = torch.arange(4096)
    plain = labels.numpy().tobytes()

    sealed = encrypt(flatten("test", labels), b"k" * 32, "test")

    assert not any(plain[i : i + 16] in sealed for i in range(0, len(plain), 512))
    assert plain[512:1024] not in bytes(decrypt(sealed, b"l" * 32, "test"))
    assert plain[512:1024] in bytes(decrypt(sealed, b"k" * 32, "test"))


def test_a_held_part_that_cannot_be_sealed_is_refused_by_name(play):
    """It could not be hidden, so it may not be."""
    code = """
import threading
_load = load
def load(params, ctx):
    made = _load(params, ctx)
    return made._replace(held={"test": threading.Lock()})
"""
    outcome = play(code)

    assert outcome.status == "failed"
    assert "held part 'test' (lock) cannot be pickled" in outcome.error


def test_data_is_open_again_after_the_trial(play):
    """A worker serves one trial, but other programs call run_trial and go on."""
    from harness import data

    play()
    play("def ends(problem, ctx, params):\n    raise ValueError\n", "ends")

    assert len(data.load("iris").x) == 150


def test_a_keeper_gives_back_what_it_was_given_last():
    """The text waits in a pipe's buffer; asking does not take it away."""
    keeper = PipeKeeper()
    try:
        keeper.put("first")
        keeper.put("second")

        assert (keeper.get(), keeper.get()) == ("second", "second")
    finally:
        keeper.close()


# Deriving -------------------------------------------------------------------------------------------------------------


DERIVES = """
import time
MADE = []

def recipe(ctx, rows):
    MADE.append(1)
    ctx.spend(steps=4)
    time.sleep(0.2)
    return {"weights": torch.randn(rows, 2, generator=ctx.generator("init")), "view": torch.ones(4)[:2]}

def derives(problem, ctx, params):
    before = ctx.clocks.wall_s
    made = ctx.derive("toyplug_code:recipe", rows=3)
    again = ctx.derive("toyplug_code:recipe", rows=3)
    assert torch.equal(made["weights"], again["weights"])
    ctx.log(made=len(MADE), charged=ctx.clocks.wall_s - before, first=float(made["weights"][0, 0]))
    return Threshold(0.0)
"""


def test_what_is_derived_is_made_once_and_charged_each_time(play):
    """Who comes second must not be faster on the clock: the cost is that of making it, cache or not."""
    outcome, other_process = play(DERIVES, "derives"), play(DERIVES, "derives")

    assert outcome.status == "ok", outcome.error
    assert outcome.diagnostics["made"] == 1
    assert outcome.spent["steps"] == other_process.spent["steps"] == 8
    assert outcome.diagnostics["charged"] >= 2 * 0.2
    assert other_process.diagnostics["charged"] >= 2 * 0.2
    assert other_process.diagnostics["made"] <= 1  # the module was read anew, the cache was not made anew
    assert outcome.diagnostics["first"] == other_process.diagnostics["first"]
    assert play(DERIVES, "derives", seed=1).diagnostics["first"] != outcome.diagnostics["first"]


def test_deriving_in_load_is_free_and_kept_apart_from_solve(play):
    """Load sees all data, solve does not: a method must not fetch from the cache what it could not have made."""
    code = DERIVES + (
        "_load = load\ndef load(params, ctx):\n    ctx.derive('toyplug_code:recipe', rows=3)\n    return _load(params, ctx)\n"
    )

    outcome = play(code, "derives")

    assert outcome.status == "ok", outcome.error
    assert outcome.diagnostics["made"] == 2
    assert outcome.spent["steps"] == 8  # what load spent is not the method's


def test_editing_the_recipe_makes_it_anew(play):
    """The key holds the digest of the code: a stale value would answer for a recipe that no longer exists."""
    before = play(DERIVES, "derives")
    code_digest.cache_clear()  # a process reads its code once; here one stands for two
    after = play(DERIVES.replace("torch.randn(rows, 2, ", "2 + torch.randn(rows, 2, "), "derives")

    assert after.diagnostics["first"] == pytest.approx(before.diagnostics["first"] + 2)


@pytest.mark.parametrize("shared", ["lab", "data"])
def test_editing_what_recipes_build_on_makes_them_anew(play, tmp_path, monkeypatch, shared):
    """A net that was trained by the code of last week must not answer for that of today."""
    for folder in ("lab", "data"):
        shutil.copytree(deriving.CORE / folder, tmp_path / "core" / folder)
    monkeypatch.setattr(deriving, "CORE", tmp_path / "core")
    code_digest.cache_clear()
    play(DERIVES, "derives")
    code_digest.cache_clear()
    (edited := tmp_path / "core" / shared / "__init__.py").write_text(edited.read_text() + "\n# edited\n")
    play(DERIVES, "derives")
    code_digest.cache_clear()

    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2


def test_an_error_names_the_line_of_the_plugin_also_where_the_harness_raised_it(play):
    """Its author can mend that line, and not the one of ctx.log."""
    outcome = play("def logs(problem, ctx, params):\n    ctx.log(at=None)\n", "logs")

    assert re.search(r" \(toyplug_code\.py:\d+ in logs\)$", outcome.error), outcome.error


# Timing trials --------------------------------------------------------------------------------------------------------


TIMED = """
import time

def timed(problem, ctx, params):
    solution = Threshold(0.0)
    for step in range(int(params.scale)):
        ctx.spend(steps=1)
        with ctx.region("train_step"):
            time.sleep(0.011 if step else 0.1)
        if step == 2:
            ctx.offer(solution)
    return solution
"""


def timing(**changes):
    return {"kind": "timing", "measure": ("train_step", "inference"), "budget": {}, **changes}


def test_a_timing_trial_keeps_raw_readings_and_scores_nothing(play):
    """Summaries are computed when read; the first, slow step is warm-up."""
    outcome = play(TIMED, "timed", **timing(method_params={"scale": 1e6}))

    step, inference = outcome.timings
    assert outcome.status == "ok", outcome.error
    assert (step.region, inference.region) == ("train_step", "inference")
    assert step.warmup == 3
    assert len(step.wall_s) == len(step.cpu_s) >= 20
    assert all(s >= 0.011 for s in step.wall_s)
    assert max(step.cpu_s) < 0.011  # a sleep costs no processor time
    assert step.stop_reason in ("precise", "settled_noisy", "time_limit")
    assert (outcome.measurements, outcome.curve) == ((), ())


def test_a_short_solve_is_repeated_until_its_region_is_known(play):
    """A certificate is computed once a solve: one reading in three fresh processes would say nothing of its spread."""
    outcome = play(TIMED, "timed", **timing(method_params={"scale": 5}))

    assert len(outcome.timings[0].wall_s) >= 20


def test_the_time_limit_ends_a_timing_trial(play):
    """A step that never gets precise must not run for hours."""
    outcome = play(TIMED, "timed", options={"timing_limit_s": 0.3}, **timing(method_params={"scale": 1e6}))

    assert outcome.timings[0].stop_reason == "time_limit"
    assert outcome.resources.wall_s < 5


def test_a_region_that_never_occurs_fails_with_its_name(play):
    """A record without the reading that was asked for would be run again for ever."""
    outcome = play(TIMED, "timed", **timing(measure=("backward",), method_params={"scale": 5}))

    assert outcome.status == "failed"
    assert "['backward']" in outcome.error


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_gives_the_same_bits_as_the_call(plugin_site, tmp_path):  # noqa: F811
    """A scheduler that starts `python -m harness.worker` somewhere gets what the fork server gets."""
    plugin_site.write_toy()
    spec, out = tmp_path / "spec.json", tmp_path / "out.json"
    options = WorkerOptions(scratch=tmp_path, data_dir=tmp_path)
    spec.write_text(json.dumps({"trial": asdict(trial(seed=3)), "options": options.to_json()}))

    subprocess.run([sys.executable, "-m", "harness.worker", str(spec), str(out)], check=True, cwd=tmp_path)
    told = Outcome.from_json(json.loads(out.read_text()))
    here = run_trial(trial(seed=3), plugin_site.catalogue(), WorkerOptions(scratch=tmp_path))

    assert told.status == "ok", told.error
    assert told.measurements == here.measurements
    assert told.diagnostics == here.diagnostics
    assert told.environment["settings"]["MALLOC_TOP_PAD_"] == "268435456"  # it started itself again with its environment
    assert not list(tmp_path.glob(".out.json*"))


def test_a_spec_that_is_none_is_a_mistake_with_its_name(tmp_path):
    """Exit code 2 and the file's name; no half-written outcome."""
    spec = tmp_path / "spec.json"
    spec.write_text('{"options": {"memory": 3}}')

    ended = subprocess.run(
        [sys.executable, "-m", "harness.worker", str(spec), str(tmp_path / "out.json")], capture_output=True, text=True
    )

    assert ended.returncode == 2
    assert f"{spec}: no trial to run" in ended.stderr
    assert not (tmp_path / "out.json").exists()


def test_unknown_options_are_refused():
    """A limit with a typing mistake must not be no limit."""
    with pytest.raises(HarnessError, match="'memory_byte'"):
        WorkerOptions.from_json({"memory_byte": 1})


def test_options_survive_the_trip_through_json(tmp_path):
    """They cross a process border as text."""
    options = WorkerOptions(data_dir=tmp_path, scratch=tmp_path, threads=2, memory_bytes=1 << 30, device_memory_share=0.5)

    assert WorkerOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_resources_are_those_of_the_trial(play):
    """Memory is the growth over the start of the trial; a block of 64 MB shows, what the test process held before does not."""
    code = """
def heavy(problem, ctx, params):
    block = torch.ones(16 << 20)
    return Threshold(float(block[0]) - 1.0)
"""
    outcome = play(code, "heavy")

    assert 60 << 20 <= outcome.resources.peak_rss_bytes <= 200 << 20
    assert outcome.resources.solve_s <= outcome.resources.wall_s
    assert math.isfinite(outcome.resources.cpu_s)
    assert outcome.resources.minor_faults > 1000
