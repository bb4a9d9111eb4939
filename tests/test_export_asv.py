"""`harness.exporting.asv`: the registry as asv reads it."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asv.step_detect import detect_steps
from asv_tools import git, graph_values, run_asv
from browser.chromium import dump_page, lacking
from registry_samples import WHERE, make_trial, name_of

from harness.errors import HarnessError
from harness.exporting import points as pt
from harness.exporting.asv import PREFIX, export_asv
from harness.records import Attempt, Measurement, Outcome, Resources, Timing
from harness.registry import Registry

COMMITS = 30
STEP = 18  # the commit, counted from 0, from which the kernel is 15 % slower
SLOWER = 1.15
KERNEL = "paper-harness-papers/swish"


def make_repository(folder: Path, count: int) -> list[str]:
    """So many commits on main, a day apart; their names, oldest first."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for day in range(count):
        env_date = f"2026-03-{day % 28 + 1:02d}T0{day // 28}:00:00+00:00"
        (folder / "code.txt").write_text(f"{day}\n")
        git(folder, "add", "code.txt")
        git(folder, "commit", "-q", "-m", f"commit {day}", "--date", env_date)
    return git(folder, "rev-list", "--reverse", "main").splitlines()


class Filler:
    """Fills a registry with attempts; ids and start times follow the order of the calls."""

    def __init__(self, path: Path) -> None:
        self.registry = Registry.open(path)
        self._count = 0

    def add(self, commit: str, trial: Any, *, dirty: bool = False, **outcome: Any) -> None:
        self._count += 1
        second, minute, hour = self._count % 60, self._count // 60 % 60, self._count // 3600
        started = f"2026-04-01T{hour:02d}:{minute:02d}:{second:02d}.000000+00:00"
        given = {"status": "ok", "started_at": started, "resources": Resources(wall_s=2.0), **outcome}
        where = replace(WHERE, git_commit=commit, git_dirty=dirty, environment_facts={"python": "3.11.7"})
        self.registry.append(Attempt(f"{self._count:032x}", trial, Outcome(**given), where))


def kernel_trial(implementation: str, elements: int, process: int = 0, **changes: Any) -> Any:
    parts = (implementation, elements, process, sorted(changes.items()))
    given = {
        "kind": "kernel", "track": "paper-harness/kernels", "task": KERNEL,
        "task_params": {"elements": elements, "layout": "contiguous"}, "net": None, "train": None, "budget": {},
        "measure": ("forward",), "series_key": name_of("s", parts), "trial_id": name_of("t", parts),
    }  # fmt: skip
    return replace(make_trial(seed=process, **(given | changes)), method=f"{KERNEL}/{implementation}")


def forward(seconds: Sequence[float]) -> dict[str, Any]:
    """The outcome of a kernel trial that timed its forward region."""
    timing = Timing("forward", tuple(seconds), tuple(seconds), 3, "precise")
    return {"timings": (timing,), "measurements": (Measurement("time", "forward", "s", "lower", seconds[0]),)}


def noisy(around: float, draws: random.Random, count: int = 24) -> list[float]:
    return [around * draws.gauss(1.0, 0.01) for _ in range(count)]


def results_in(out: Path) -> dict[str, Any]:
    """The content of the one result file."""
    (path,) = out.glob("*/*-harness-*.json")
    return json.loads(path.read_text())


def row_of(out: Path, name: str) -> dict[str, Any]:
    content = results_in(out)
    return dict(zip(content["result_columns"], content["results"][name], strict=True))


def names_in(out: Path) -> dict[str, Any]:
    return {name: of for name, of in json.loads((out / "benchmarks.json").read_text()).items() if name.startswith(PREFIX)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("asv") / "repository"
    return folder, make_repository(folder, COMMITS)


@pytest.fixture
def filler(tmp_path: Path) -> Filler:
    return Filler(tmp_path / "registry")


def quality_trial(method: str = "relu", seed: int = 0, **changes: Any) -> Any:
    return make_trial(method, seed, **changes)


def accuracy(value: float, name: str = "accuracy", unit: str = "1", better: str = "higher") -> dict[str, Any]:
    return {"measurements": (Measurement(name, "test", unit, better, value, 0.0),)}


# One number ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "better", "value", "name", "exported_unit", "exported"),
    [
        ("1", "higher", 0.9, "one_minus_q", "1 - q", 0.1),
        ("share", "higher", 1.0, "one_minus_q", "1 - q", 0.0),
        ("s", "lower", 3.0, "q", "seconds", 3.0),
        ("nat", "lower", 0.25, "q", "nat", 0.25),
        ("B/s", "higher", 4e9, "inverse_q", "s/B", 2.5e-10),
        ("dB", "higher", 30.0, "minus_q", "-1 * dB", -30.0),
        ("B/s", "higher", 0.0, "inverse_q", "s/B", None),
        ("1", "higher", math.nan, "one_minus_q", "1 - q", None),
        ("s", "lower", math.inf, "q", "seconds", None),
    ],
)
def test_every_number_is_turned_so_that_less_is_better_and_its_name_and_unit_say_so(
    unit, better, value, name, exported_unit, exported
):
    """asv knows one direction: an accuracy that rises would be its regression."""
    quantity = pt.Quantity("test", "q", unit, better)

    assert (quantity.lower_name, quantity.lower_unit) == (name, exported_unit)
    assert quantity.lower(value) == (exported if exported is None else pytest.approx(exported, rel=1e-12))


def test_the_interval_of_the_median_covers_99_of_100():
    """The rank comes from the binomial distribution: below 8 values there is none, at 8 it is the whole range."""
    ranks = {n: pt.interval_rank(n) for n in (0, 1, 7, 8, 50, 1000)}

    assert ranks[0] == ranks[1] == ranks[7] == 0
    for n in (8, 50, 1000):
        covered = 1 - 2 * sum(math.comb(n, k) for k in range(ranks[n])) / 2**n
        one_less = 1 - 2 * sum(math.comb(n, k) for k in range(ranks[n] + 1)) / 2**n
        assert covered >= 0.99 > one_less


# Thirty measured nights of one kernel, 15 % more work from the 19th on: the time and half its 99 % interval, in us.
NIGHTS = [
    (2423, 79.1), (2355, 15.6), (2379, 34.4), (2366, 16.4), (2436, 24.0), (2434, 24.2), (2370, 29.8), (2303, 28.1),
    (2331, 27.5), (2339, 30.3), (2328, 23.6), (2406, 56.7), (2436, 42.9), (2463, 18.4), (2465, 41.7), (2495, 35.4),
    (2467, 41.2), (2486, 23.7), (2980, 25.1), (2927, 61.9), (2893, 103.3), (2934, 36.9), (2996, 29.1), (2959, 55.2),
    (2946, 37.2), (2848, 40.3), (2901, 64.7), (2942, 19.7), (2854, 26.7), (2883, 30.8),
]  # fmt: skip


def test_intervals_of_times_hold_the_noise_of_nights_and_hide_no_step_from_asv():
    """asv weighs points by them: as wide as the samples of one night say, it found no step in these thirty."""
    quantity, cell = pt.Quantity("forward", "time", "s", "lower"), ("ours",)
    readings = [
        reading(0, night, at * 1e-6, interval=((at - half) * 1e-6, (at + half) * 1e-6))
        for night, (at, half) in enumerate(NIGHTS)
    ]
    found = {pt.Where("m", f"{night}", "3.11", "2"): {cell: pt.combine([r])} for night, r in enumerate(readings)}

    made = [by_cell[cell] for by_cell in pt.with_nights(found, quantity).values()]

    night = 2.5758 * 0.01 * 2423e-6
    for point, (at, half) in zip(made, NIGHTS, strict=True):
        assert point.value == at * 1e-6
        assert point.interval == pytest.approx(
            [at * 1e-6 - math.hypot(half * 1e-6, night), at * 1e-6 + math.hypot(half * 1e-6, night)]
        )
    steps = detect_steps([p.value for p in made], [2 / (p.interval[1] - p.interval[0]) for p in made])
    assert [step[:2] for step in steps] == [(0, STEP), (STEP, COMMITS)]


def test_intervals_over_seeds_stay_as_they_are():
    """Seeds differ already by all that a night can change."""
    found = {pt.Where("m", "c", "3.11", "2"): {("ours",): pt.Point(0.9, (0.8, 1.0))}}

    assert pt.with_nights(found, pt.Quantity("test", "error", "1", "lower")) == found


def reading(seed: int, order: float, value: float | None, **more: Any) -> pt.Reading:
    return pt.Reading((order, f"{order}"), seed, value, (value,) if value is not None else (), **more)


def test_several_nights_of_a_commit_count_once_a_seed():
    """A seed that ran three times must not outvote one that ran once."""
    readings = [reading(0, night, 1.0) for night in range(3)] + [reading(1, 3, 5.0)]

    assert pt.combine(readings).value == 3.0


def test_a_failed_seed_counts_as_worst_and_a_seed_without_worst_is_left_out():
    """As on the leaderboard: a median of survivors looks better than the method is."""
    good = [reading(0, 0, 0.1), reading(1, 1, 0.2)]

    assert pt.combine([*good, reading(2, 2, None, worst=1.0)]).value == 0.2
    assert pt.combine([*good, reading(2, 2, None)]).value == pytest.approx(0.15)
    assert pt.combine([reading(2, 2, None, worst=1.0)]).value is None


def test_the_last_attempt_says_whether_a_seed_failed():
    """A retry that went well mends a failure; a later failure is not hidden by an old success."""
    assert pt.combine([reading(0, 0, None), reading(0, 1, 0.1)]).value == 0.1
    assert pt.combine([reading(0, 0, 0.1), reading(0, 1, None)]).value is None


# Files -----------------------------------------------------------------------------------------------------------------


def test_a_kernel_is_one_benchmark_a_region_with_its_cases_as_parameters(tmp_path, filler, repository):
    """Implementations stand side by side; what was never measured or is unsupported is NaN, what failed is null."""
    folder, commits = repository
    filler.add(commits[0], kernel_trial("ours", 1000), **forward([2e-3] * 20))
    filler.add(commits[0], kernel_trial("eager", 1000), **forward([4e-3] * 20))
    filler.add(commits[0], kernel_trial("eager", 0), status="failed", error="forward: 3e-2 off")
    filler.add(commits[0], kernel_trial("ours", 0), status="unsupported")
    done = export_asv(filler.registry, tmp_path / "out", folder)

    name = "registry.kernels.swish.forward.time"
    row = row_of(tmp_path / "out", name)
    assert list(names_in(tmp_path / "out")) == [name]
    assert names_in(tmp_path / "out")[name]["param_names"] == [
        "implementation", "elements", "layout", "device", "dtype", "threads",
    ]  # fmt: skip
    assert row["params"][:2] == [["'eager'", "'ours'"], ["0", "1000"]]
    assert row["result"][0] is None
    assert row["result"][1] == 4e-3
    assert math.isnan(row["result"][2])
    assert row["result"][3] == 2e-3
    assert row["stats_repeat"] == [None, 20, None, 20]
    assert (done.points, done.failed, done.loaded, done.skipped) == (2, 1, 2, {"unsupported": 1})


def test_a_kernel_on_one_cpu_thread_is_read_by_process_time(tmp_path, filler, repository):
    """As it is measured and ranked: a neighbour's load stretches the wall clock, and is no regression."""
    folder, commits = repository
    timing = Timing("forward", (9e-3,) * 20, (2e-3,) * 20, 3, "precise")
    filler.add(commits[0], kernel_trial("ours", 1000), timings=(timing,))
    filler.add(commits[0], kernel_trial("ours", 1000, threads=2), timings=(timing,))
    export_asv(filler.registry, tmp_path / "out", folder)

    row = row_of(tmp_path / "out", "registry.kernels.swish.forward.time")
    assert row["params"][-1] == ["1", "2"]
    assert row["result"] == [2e-3, 9e-3]


def test_of_a_kernel_only_what_the_code_decides_is_followed(tmp_path, filler, repository):
    """Rates repeat the seconds; ceilings are the machine's; a first call from a warm cache is no faster compiler."""
    folder, commits = repository
    figures = [
        Measurement("time", "forward", "s", "lower", 2e-3), Measurement("bytes_rate", "forward", "B/s", "higher", 1e9),
        Measurement("roofline_share", "forward", "1", "higher", 0.75), Measurement("contended", "forward", "1", "neither", 0.0),
        Measurement("copy_rate", "ceiling", "B/s", "higher", 1e10), Measurement("floor_multiple", "copy", "1", "lower", 1.0),
        Measurement("faults", "forward", "1", "lower", 0.0), Measurement("first_call", "compile", "s", "lower", 9.0),
    ]  # fmt: skip
    given = forward([2e-3] * 20) | {"measurements": tuple(figures), "diagnostics": {"compile_cache": "cold"}}
    filler.add(commits[0], kernel_trial("compiled", 1000), **given)
    export_asv(filler.registry, tmp_path / "out", folder)

    assert sorted(name.removeprefix("registry.kernels.swish.") for name in names_in(tmp_path / "out")) == [
        "compile.first_call_cold", "forward.one_minus_roofline_share", "forward.time",
    ]  # fmt: skip


def test_eager_code_in_the_place_of_ours_is_another_line(tmp_path, filler, repository):
    """A night without a compiler must not look like a kernel that became slower."""
    folder, commits = repository
    filler.add(commits[0], kernel_trial("ours", 1000), **forward([2e-3] * 20))
    filler.add(commits[1], kernel_trial("ours", 1000), **forward([9e-3] * 20), diagnostics={"fallback": "no gcc"})
    export_asv(filler.registry, tmp_path / "out", folder)

    assert names_in(tmp_path / "out")["registry.kernels.swish.forward.time"]["params"][0] == ["'ours'", "'ours (fallback)'"]


def test_quality_is_exported_as_error_over_its_seeds(tmp_path, filler, repository):
    """One point a commit: the median over seeds, with every seed among the samples."""
    folder, commits = repository
    for seed, value in enumerate((0.90, 0.91, 0.95)):
        filler.add(commits[0], quality_trial(seed=seed), **accuracy(value))
    export_asv(filler.registry, tmp_path / "out", folder)

    ((name, benchmark),) = names_in(tmp_path / "out").items()
    row = row_of(tmp_path / "out", name)
    assert name.startswith("registry.quality.digits.mlp_")
    assert name.endswith(".test.one_minus_accuracy")
    assert benchmark["unit"] == "1 - accuracy"
    assert row["result"] == [0.09]
    assert row["samples"] == [[0.1, 0.09, 0.05]]


def test_another_budget_is_another_history(tmp_path, filler, repository):
    """Twice the samples seen is no improvement of the code."""
    folder, commits = repository
    filler.add(commits[0], quality_trial(), **accuracy(0.9))
    filler.add(commits[0], quality_trial(budget={"samples_seen": 60000}), **accuracy(0.95))
    export_asv(filler.registry, tmp_path / "out", folder)

    assert len(names_in(tmp_path / "out")) == 2


def test_methods_matched_to_a_baseline_share_its_benchmark(tmp_path, filler, repository):
    """`match` gives each method a width of its own; on one chart they are compared all the same."""
    folder, commits = repository
    baseline = {"net": {"arch": "mlp", "width": 64}, "train": {"lr": 0.001}}
    matched = {"where": "net.width", "value": 61, **baseline}
    filler.add(commits[0], quality_trial(), **accuracy(0.9))
    filler.add(commits[0], quality_trial("crrelu", net={"arch": "mlp", "width": 61}, matched=matched), **accuracy(0.92))
    export_asv(filler.registry, tmp_path / "out", folder)

    ((_, benchmark),) = names_in(tmp_path / "out").items()
    assert benchmark["params"][0] == ["'crrelu [net.width=61]'", "'relu'"]


def test_what_asv_cannot_place_is_left_out_counted_and_mended(tmp_path, filler, repository):
    """A dirty tree's number under its commit would accuse the commit; an unknown commit makes no graph."""
    folder, commits = repository
    filler.add(commits[0], kernel_trial("ours", 1000), **forward([2e-3] * 20))
    filler.add(commits[0], kernel_trial("ours", 1000), dirty=True, **forward([9e-3] * 20))
    filler.add("f" * 40, kernel_trial("ours", 1000), **forward([9e-3] * 20))
    filler.add("", kernel_trial("ours", 1000), **forward([9e-3] * 20))
    filler.add(commits[0], kernel_trial("ours", 1000), **forward([9e-3] * 20))
    filler.registry.annotate([f"{5:032x}"], "invalid", "the machine was hot", "t")
    done = export_asv(filler.registry, tmp_path / "out", folder)

    assert done.points == 1
    assert done.skipped == {"dirty tree": 1, "unknown commit": 1, "no commit recorded": 1, "annotated as invalid": 1}
    assert any("unknown commit" in line and "git fetch" in line for line in done.lines())


def test_no_infinity_is_ever_written(tmp_path, filler, repository):
    """One makes `asv publish` take all memory."""
    folder, commits = repository
    filler.add(commits[0], quality_trial(), **accuracy(math.inf, "nll", "nat", "lower"))
    filler.add(commits[1], quality_trial(), **accuracy(1e-310, "rate", "B/s", "higher"))
    filler.add(commits[2], quality_trial(), **accuracy(0.5, "nll", "nat", "lower"))
    filler.add(commits[3], kernel_trial("ours", 10), **forward([math.inf, 1e-3, 1e-3, 1e-3]))
    export_asv(filler.registry, tmp_path / "out", folder)

    written = [path.read_text() for path in (tmp_path / "out").rglob("*.json")]
    assert len(written) > 3
    assert not [text for text in written if "Infinity" in text]


def test_a_hostile_name_is_no_path_and_no_markup(tmp_path, filler, repository):
    """Registries are merged from strangers."""
    folder, commits = repository
    evil = "../../<img src=x onerror=alert(1)>"
    trial = quality_trial(evil, task=f"dist/{evil}", device="../x", torch_version="../../../1.0")
    attempt = Outcome("ok", started_at="2026-04-01T00:00:00+00:00", **accuracy(0.5))
    where = replace(WHERE, machine="../../../tmp/evil", git_commit=commits[0], git_dirty=False)
    filler.registry.append(Attempt("0" * 32, trial, attempt, where))
    done = export_asv(filler.registry, tmp_path / "deep" / "er" / "out", folder)

    assert done.loaded == 1
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.") for name in names_in(done.out))
    written = [path for path in tmp_path.rglob("*.json") if "registry" not in path.relative_to(tmp_path).parts]
    assert all(done.out in path.parents for path in written)


def test_an_export_replaces_the_one_before_and_leaves_what_asv_wrote(tmp_path, filler, repository):
    """A folder that `asv run` uses too: its benchmarks and results stay; ours hold nothing that the registry lost."""
    folder, commits = repository
    out = tmp_path / "out"
    filler.add(commits[0], kernel_trial("ours", 1000), **forward([2e-3] * 20))
    filler.add(commits[1], kernel_trial("ours", 1000), **forward([2e-3] * 20))
    first = export_asv(filler.registry, out, folder)
    asvs, theirs = "benchmarks.Overhead.time_it", out / WHERE.machine / f"{commits[0][:8]}-existing-py_usr_bin_python3.json"
    content = json.loads(first.files[0].read_text())
    theirs.write_text(json.dumps({**content, "results": {asvs: [[1.0], [], "1"]}}))
    known = json.loads((out / "benchmarks.json").read_text())
    of_asv = {"name": asvs, "unit": "seconds", "params": [], "param_names": [], "version": "1"}
    (out / "benchmarks.json").write_text(json.dumps({**known, asvs: of_asv}))
    filler.registry.annotate([f"{2:032x}"], "invalid", "wrong machine", "t")
    second = export_asv(filler.registry, out, folder)

    assert (len(first.files), len(second.files), second.loaded) == (2, 1, 1)
    assert sorted(out.glob("*/*-*.json")) == sorted([theirs, *second.files])
    assert json.loads((out / "benchmarks.json").read_text())[asvs] == of_asv


def test_asv_reading_other_points_than_were_written_is_an_error(tmp_path, filler, repository):
    """Two files with one line of numbers: asv would draw their mean."""
    folder, commits = repository
    filler.add(commits[0], kernel_trial("ours", 1000), **forward([2e-3] * 20))
    done = export_asv(filler.registry, tmp_path / "out", folder)
    shutil.copy(done.files[0], done.files[0].with_name(f"{commits[0][:8]}-copied.json"))

    with pytest.raises(HarnessError, match="1 points were written and asv reads 2"):
        export_asv(filler.registry, tmp_path / "out", folder)


def test_a_sparse_product_of_parameters_is_split(tmp_path):
    """asv's files and pages hold the full product: 20 sizes that each ran in one layout of 20 would be 400 lines."""
    names = ("implementation", "elements", "layout", *pt.PLACE)
    cells = {("ours", n, f"layout{n}", "cpu", "float32", 1) for n in range(20)}
    blocks = list(pt.split_sparse(cells, names, {}))

    assert sum(len(of) for _, of in blocks) == 20
    assert set.union(*(of for _, of in blocks)) == cells
    assert all(set(fixed) == {"layout"} for fixed, _ in blocks)


def test_a_folder_that_is_no_repository_is_refused_with_the_mend(tmp_path, filler):
    """asv needs the commits: their order and their dates."""
    with pytest.raises(HarnessError, match="name the checkout whose commits were measured"):
        export_asv(filler.registry, tmp_path / "out", tmp_path)


# asv -------------------------------------------------------------------------------------------------------------------


def fill_with_a_step(filler: Filler, commits: Sequence[str]) -> None:
    """A kernel in two implementations and two sizes; ours becomes slower at 1M elements, and nothing else does."""
    draws = random.Random(4)
    base: Mapping[tuple[str, int], float] = {
        ("ours", 10**4): 5e-6,
        ("ours", 10**6): 4e-4,
        ("eager", 10**4): 2e-5,
        ("eager", 10**6): 3e-3,
    }
    for number, commit in enumerate(commits):
        for (implementation, elements), seconds in base.items():
            slow = SLOWER if (implementation, elements) == ("ours", 10**6) and number >= STEP else 1.0
            for process in range(3):
                filler.add(commit, kernel_trial(implementation, elements, process), **forward(noisy(seconds * slow, draws)))
        for seed in range(3):
            filler.add(commit, quality_trial(seed=seed), **accuracy(0.9 + draws.gauss(0, 0.001)))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, repository: tuple[Path, list[str]]) -> tuple[Path, Any]:
    """The step, filled, exported and published: the folder with asv.conf.json, and what the export said."""
    folder, commits = repository
    work = tmp_path_factory.mktemp("published")
    filler = Filler(work / "registry")
    fill_with_a_step(filler, commits)
    done = export_asv(filler.registry, work / "results", folder)
    conf = {
        "version": 1, "project": "scratch", "repo": str(folder), "branches": ["main"], "environment_type": "existing",
        "results_dir": "results", "html_dir": "html", "regressions_thresholds": {".*": 0.03},
    }  # fmt: skip
    (work / "asv.conf.json").write_text(json.dumps(conf))
    told = run_asv(work, "publish")
    assert "Couldn't find" not in told
    return work, done


def test_every_point_is_in_a_graph_that_asv_publishes(published):
    """asv drops what it does not understand without a word: counted on both sides."""
    work, done = published

    assert done.points == COMMITS * 5
    assert done.drawn == done.loaded == done.points == sum(1 for _ in graph_values(work / "html"))


def test_the_planted_step_is_the_one_regression_that_asv_lists(published, repository):
    """15 % slower from one commit on, under 1 % noise; the other three lines and the error stay."""
    work, _ = published
    _, commits = repository
    found = json.loads((work / "html" / "regressions.json").read_text())["regressions"]

    (only,) = found
    name, _, _, _, latest, best, ((before, revision, _, _),) = only
    order = json.loads((work / "html" / "index.json").read_text())["revision_to_hash"]
    assert name.startswith("registry.kernels.swish.forward.time('ours', 1000000,")
    assert before is None  # between neighbours: asv names the commit itself
    assert order[str(revision)] == commits[STEP]
    assert latest / best == pytest.approx(SLOWER, rel=0.01)  # medians of 36 samples with 1 % noise, over a dozen commits


def test_asv_show_and_compare_work_on_an_export(published, repository):
    """Without running anything again."""
    work, _ = published
    _, commits = repository

    assert "registry.kernels.swish.forward.time" in run_asv(work, "show", commits[-1], "--machine", WHERE.machine)
    told = run_asv(work, "compare", commits[STEP - 1], commits[STEP], "--machine", WHERE.machine)
    slower = [line for line in told.splitlines() if "'ours', 1000000" in line or "ours, 1000000" in line]
    assert len(slower) == 1
    assert "1.1" in slower[0]
    assert slower[0].lstrip("| ").startswith("+")


@pytest.mark.skipif(bool(lacking()), reason=lacking() or "all is here")
def test_the_page_of_regressions_shows_the_step_in_a_browser(published, repository, tmp_path):
    """What people look at is drawn by scripts: only a browser can say whether it is there."""
    work, _ = published
    _, commits = repository
    page = dump_page(work / "html", "index.html#regressions", tmp_path / "profile")

    assert page.count("registry.kernels.swish.forward.time(") == 1
    assert commits[STEP][:8] in page
