"""All histories of a machine: what is called, what is said of it, and what the command exits with."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from invoking import harness
from registry_samples import MACHINE
from regress_samples import ACCURACY, TIME, attempt, commit_of, history, kernel_night, kernel_trial, nights, quality_night
from regress_samples import registry_of as registry_with

from harness.kernels.ceilings import KIND, Agreement, MachineCheck
from harness.registry import Registry
from harness.regress import judge
from harness.regress.judging import Rules, Verdicts, judge_histories, measured_floors
from harness.regress.points import Reading

MEMORY = Reading("memory", "peak_rss_bytes", "resource", "B", "lower")
ERROR = Reading("error", "error_forward", "check", "1", "lower")


def noisy(*levels: tuple[int, float]) -> list[float]:
    rng = np.random.default_rng(11)
    return [level * (1 + 0.01 * x) for n, level in levels for x in rng.standard_normal(n)]


def judged(*histories, **rules) -> Verdicts:
    return judge_histories(histories, MACHINE, Rules(**rules), "registry/local")


def test_a_step_that_lasts_is_confirmed_at_its_commit():
    """The commit, the levels on each side, and which instruments say so."""
    found = judged(history([v * 1e-3 for v in noisy((20, 1.0), (6, 1.15))]), history(noisy((26, 1.0)), device="cuda"))

    (one,) = found.regressions
    assert (one.state, one.at.commit, one.last_good.commit) == ("confirmed", commit_of(20), commit_of(19))
    assert "history" in one.instruments
    assert one.ratio == pytest.approx(1.15, abs=0.01)
    assert found.regressed
    assert found.lines()[0].startswith("1 of 2 series regressed (1 confirmed)")


def test_one_bad_night_is_suspected_and_says_what_would_settle_it():
    """The very command: the two commits, the kernel, its case."""
    found = judged(history([v * 1e-3 for v in [*noisy((25, 1.0)), 1.15]]))

    (one,) = found.regressions
    assert (one.state, one.instruments) == ("suspected", ("night",))
    assert one.p is not None
    assert one.p < 1e-3
    assert one.settle == (
        f"harness regress --interleaved {commit_of(24)[:12]}..{commit_of(25)[:12]} --kernel crrelu --implementation ours "
        "--elements 1000000 --layout contiguous --region forward"
    )
    assert f"to settle: {one.settle}" in found.lines()
    assert any(line.startswith("if it was meant: harness annotate ") for line in found.lines())


def test_a_method_is_settled_by_another_night():
    """Only kernels can be measured in turn."""
    (one,) = judged(history([*noisy((25, 100.0)), 150.0], MEMORY, kind="quality", method="d/relu")).regressions

    assert one.settle == "harness run kernels --force --method relu --registry registry/local"


@pytest.mark.parametrize("values", [noisy((30, 1.0)), [*noisy((29, 1.0)), 0.5], [*([1.0] * 29), 1.015]],
                         ids=["quiet", "faster", "1.5 % slower"])  # fmt: skip
def test_nothing_is_called_where_nobody_need_act(values):
    """Noise, an improvement, and what is too small to matter however sure it is."""
    found = judged(history(values))

    assert not found.regressed
    assert found.lines()[0].startswith("nothing regressed: 1 series judged")


def test_quality_is_watched_like_speed():
    """Two points of accuracy on each of ten seeds, for good."""
    rng = np.random.default_rng(0)
    seeds = 0.95 + 0.01 * rng.standard_normal(10)
    nightly = [(seeds - (0.02 if night >= 15 else 0.0)).tolist() for night in range(20)]

    (one,) = judged(history(nightly, ACCURACY)).regressions

    assert (one.state, one.at.commit) == ("confirmed", commit_of(15))
    assert one.before - one.after == pytest.approx(0.02)


def test_other_rounding_is_no_regression_of_quality():
    """The history is bit-equal night after night, so its own scale is 0; the seeds disagree, so it is chance."""
    rng = np.random.default_rng(0)
    seeds, other = 0.95 + 0.01 * rng.standard_normal((2, 10))
    other += seeds.mean() - other.mean() - 0.003  # the mean is worse, and by 6 % of the error
    nightly = [(seeds if night < 15 else other).tolist() for night in range(20)]

    assert not judged(history(nightly, ACCURACY)).regressed


def test_rounding_errors_may_double_before_anybody_is_woken():
    """1e-7 or 1.5e-7: both are float32."""
    assert not judged(history([1e-7] * 20 + [1.5e-7] * 5, ERROR)).regressed
    assert judged(history([1e-7] * 20 + [5e-7] * 5, ERROR)).regressed


def test_the_noise_floor_of_the_machine_is_the_one_measured_there():
    """What says something on a quiet machine is nothing on one that is known to 3 %."""
    values = [1 + 1e-3 * math.sin(i) for i in range(25)]

    assert judged(history([*values, 1.05])).regressed
    assert not judged(history([*values, 1.05]), floors={("cpu", 1): 0.03}).regressed


def test_the_noise_floor_is_that_of_the_machines_latest_check(tmp_path):
    """By device and threads; another machine's says nothing here."""
    opened = Registry.open(tmp_path / "r")
    for day, machine, spread in (("01", MACHINE, 0.04), ("02", MACHINE, 0.02), ("03", "m-2", 0.5)):
        quiet = Agreement(kernel="copy", block_s=0.1, wall=(0.0,), cpu=(spread, -spread), contention=1.0)
        check = MachineCheck(
            machine=machine, torch_version="2.13.0", device="cpu", device_name="a CPU", dtype="float32", threads=1,
            checked_at=f"2026-09-{day}T00:00:00+00:00", copies=(), matmuls=(), agreements=(quiet,), load=(0.0, 0.0),
        )  # fmt: skip
        opened.keep_facts(KIND, f"{machine}-{day}", check.model_dump(mode="json"))

    # Of two values that are 2 x 0.02 apart the standard deviation is 0.02 x root 2; of one median root 2 less.
    assert measured_floors(opened, MACHINE) == pytest.approx({("cpu", 1): 0.02})


def test_series_that_are_no_longer_measured_are_counted_and_not_judged():
    """A method that was removed while slow must not close the gate for ever."""
    gone = history(noisy((20, 1.0), (10, 1.3)))
    new = history(noisy((40, 1.0)), device="cuda")

    found = judged(gone, new)

    assert (found.judged, found.stopped, found.regressed) == (1, 1, False)
    assert "1 no longer measured" in found.lines()[0]


def test_young_series_are_counted_and_not_judged():
    """Five nights are needed before the sixth can be judged."""
    found = judged(history([1.0] * 4 + [9.0]))

    assert (found.judged, found.young, found.regressed) == (0, 1, False)


def test_what_a_stranger_wrote_stays_on_its_line():
    """A merged record may name its commit and its method as it likes; no command is made of it."""
    named = history([v * 1e-3 for v in [*noisy((25, 1.0)), 1.5]], method="d/k/\x1b[2J\nours; rm -rf ~")
    found = judged(named)

    assert all("\x1b" not in line and "\n" not in line for line in found.lines())
    assert "'\\x1b[2J\\nours; rm -rf ~'" in found.regressions[0].settle
    assert json.dumps(found.to_json(), allow_nan=False)


# From the registry to the exit code -----------------------------------------------------------------------------------


def regress(path, *arguments):
    return harness("regress", *arguments, "--registry", path, "--machine", MACHINE)


def test_the_gate_closes_on_a_slower_kernel_and_stays_open_on_its_twin(tmp_path):
    """15 % at night 7 of 10: exit 3 with the kernel named; without it exit 0."""
    rng = np.random.default_rng(1)
    jitter = 1 + 0.005 * rng.standard_normal(10)
    twin = registry_with(tmp_path / "twin", nights(10, lambda n: kernel_night(n, 1e-3 * jitter[n])))
    slow = registry_with(tmp_path / "slow", nights(10, lambda n: kernel_night(n, 1e-3 * jitter[n] * (1.15 if n > 6 else 1))))

    ended = regress(slow.path, "kernels", "--json")
    open_gate = regress(twin.path, "kernels")

    assert ended.code == 3, ended.err
    assert open_gate.code == 0, open_gate.err + open_gate.out
    (row,) = ended.json["regressions"]
    assert (row["state"], row["at"]["commit"], row["quantity"]) == ("confirmed", commit_of(7), "forward")
    assert row["ratio"] == pytest.approx(1.15, abs=0.02)
    assert open_gate.out.startswith("nothing regressed: 1 series judged")


def test_accepting_a_change_opens_the_gate(tmp_path):
    """With the command that the report names."""
    path = tmp_path / "r"
    registry_with(path, nights(10, lambda n: kernel_night(n, 1e-3 if n < 7 else 1.2e-3)))
    (command,) = {r.accept for r in judge(registry_with(path, []), machine=MACHINE).regressions}
    words = command.replace("WHY", "exact-now").split()

    assert harness(*words[1:]).code == 0
    assert regress(path).code == 4  # three nights since: not enough to judge


def test_a_kernel_that_fails_its_check_tonight_is_broken_once(tmp_path):
    """However many regions of it are watched; and nothing else is said of it."""
    path = tmp_path / "r"
    ok = nights(7, lambda n: kernel_night(n, 1e-3, ("forward", "backward")))
    failed = [attempt(7, kernel_trial(p), status="failed", error="WrongResult: output: error 0.3") for p in range(3)]
    registry_with(path, [*ok, *failed])

    ended = regress(path)

    assert ended.code == 3
    assert ended.out.count("WrongResult") == 1
    assert "broken" in ended.out


def test_without_history_the_exit_code_is_4_and_the_mend_is_named(tmp_path):
    """Nothing to judge is not the same as nothing wrong."""
    registry_with(tmp_path / "r", quality_night(0, [0.9]))

    ended = regress(tmp_path / "r", "vision")

    assert ended.code == 4
    assert "harness nightly vision" in ended.err
    assert regress(tmp_path / "r", "other").code == 4


def test_since_leaves_the_nights_before_out(tmp_path):
    """Who mends the machine starts anew from that day, without touching the records."""
    path = tmp_path / "r"
    registry_with(path, nights(20, lambda n: kernel_night(n, 1e-3 if n < 10 else 1.5e-3)))

    assert regress(path).code == 3
    assert regress(path, "--since", "2026-09-11").code == 0
    assert regress(path, "--since", "yesterday").code == 2


def test_time_is_the_reading_of_the_samples():
    """What the fixtures stand on."""
    assert history([1.0]).reading is TIME
