"""From a slower kernel to the page that says so: 30 commits of real code, run, recorded, exported, published, looked at.

The kernel of one plugin does 15 % more work from one commit on; that of its twin never does. Nothing here is made up but the
code: every time is measured.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from asv_tools import git, graph_values, run_asv
from browser.chromium import dump_page, lacking
from invoking import ended, harness, started

COMMITS = 30
STEP = 18  # the commit, counted from 0, from which on the work is more
ROUNDS = (100, 115)  # of an iteration that has converged long before: the result is the same
KINDS = ("stepped", "steady")

DECLARED = '''
"""A kernel: the reciprocal, by Newton's iteration."""
import harness
from harness.specs import Implementation, Kernel

def work(case, itemsize):
    return {"forward": case.elements * itemsize * 2}

@harness.hookimpl
def harness_kernels():
    ours = Implementation("ours", "ours", "stepper_code:ours", devices=("cpu",))
    return [Kernel("reciprocal", "stepper_code:inputs", (ours,), "stepper_code:reference", work, work, backward=False)]
'''

CODE = '''
"""y <- y (2 - x y) converges to 1 / x; how often it is done is what the commits change."""
import ctypes
import torch
from harness.lab import native

SOURCE = """
void reciprocal(long n, const float *x, float *y) {
    for (long i = 0; i < n; i++) {
        float a = x[i], b = 0.6f;
        for (int k = 0; k < ROUNDS; k++) b = b * (2.0f - a * b);
        y[i] = b;
    }
}
"""

def inputs(case, generator, device, dtype):
    return {"x": 1 + torch.rand(case.elements, generator=generator).to(device, dtype)}

def reference(inputs, case):
    return inputs["x"].reciprocal()

def ours(inputs, case):
    x = inputs["x"].contiguous()
    y = torch.empty_like(x)
    native.load(SOURCE).reciprocal(ctypes.c_long(x.numel()), native.pointer(x), native.pointer(y))
    return y
'''

SUITE = """
schema: harness/suite/1
name: NAME
kernels: [{use: reciprocal, params: {elements: 20000}}]
"""


@dataclass(frozen=True)
class Story:
    """What 30 nights left behind. registries: by kind of twin."""

    work: Path
    repository: Path
    commits: list[str]
    registries: dict[str, Path]


def write_plugin(site: Path, rounds: int) -> None:
    info = site / "stepper-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (site / "stepper.py").write_text(DECLARED)
    (site / "stepper_code.py").write_text(CODE.replace("ROUNDS", str(rounds)))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stepper\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness]\nstepper = stepper\n")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Each twin is a repository's history of its own: they share all commits but what the step changes."""
    work = tmp_path_factory.mktemp("story")
    repository, registries = work / "repository", {kind: work / f"registry-{kind}" for kind in KINDS}
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    (repository / ".gitignore").write_text("__pycache__/\n")
    for kind in KINDS:
        (repository / f"{kind}.yaml").write_text(SUITE.replace("NAME", kind))
    for number in range(COMMITS):
        for kind in KINDS:
            write_plugin(repository / kind, ROUNDS[kind == "stepped" and number >= STEP])
        (repository / "day.txt").write_text(f"{number}\n")
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", f"day {number}", "--date", f"2026-03-{number % 28 + 1:02d}T0{number // 28}:00:00")
        for kind in KINDS:
            path = os.pathsep.join(filter(None, [str(repository / kind), os.environ.get("PYTHONPATH", "")]))
            settings = {"PYTHONPATH": path, "HARNESS_MACHINE": "scratch", "PYTHONDONTWRITEBYTECODE": "1"}
            ran = ended(started("run", f"{kind}.yaml", "--force", "--registry", registries[kind], cwd=repository, **settings))
            assert ran.code == 0, ran.err
    return Story(work, repository, git(repository, "rev-list", "--reverse", "main").splitlines(), registries)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_every_night_left_its_attempts_with_its_commit(story):
    for path in story.registries.values():
        told = harness("query", "SELECT git_commit, count(*) AS n FROM attempts GROUP BY 1", "--json", "--registry", path)
        assert {row["git_commit"]: row["n"] for row in told.json} == dict.fromkeys(story.commits, 3)


def test_regress_closes_the_gate_on_the_step_and_leaves_the_twin_alone(story):
    """Exit 3 with the commit named, and 0."""
    arguments = {kind: ("regress", "--machine", "scratch", "--registry", path) for kind, path in story.registries.items()}

    stepped, steady = (harness(*arguments[kind]) for kind in KINDS)

    assert stepped.code == 3, stepped.out
    assert story.commits[STEP][:7] in stepped.out
    assert steady.code == 0, steady.out


@pytest.fixture(scope="module")
def published(story: Story) -> tuple[Path, int]:
    """The stepped registry as asv's pages, and how many points the export says it wrote."""
    done = harness(
        "export", "asv", "-o", story.work / "results", "--repository", story.repository, "--machine", "scratch",
        "--registry", story.registries["stepped"],
    )  # fmt: skip
    assert done.code == 0, done.err
    conf = {
        "version": 1, "project": "scratch", "repo": str(story.repository), "branches": ["main"],
        "environment_type": "existing", "results_dir": "results", "html_dir": "html", "regressions_thresholds": {".*": 0.03},
    }  # fmt: skip
    (story.work / "asv.conf.json").write_text(json.dumps(conf))
    run_asv(story.work, "publish")
    (points,) = re.findall(r"(\d+) points, 0 failed", done.out)
    return story.work / "html", int(points)


def test_asv_draws_a_point_a_night_and_finds_the_step_at_its_commit(story, published):
    """Its own step detection, on real noise. What was exported is what is drawn."""
    html, points = published
    (found,) = [r for r in json.loads((html / "regressions.json").read_text())["regressions"] if ".forward.time" in r[0]]
    order = json.loads((html / "index.json").read_text())["revision_to_hash"]
    (_, revision, before, after), *_ = found[6]

    assert points == sum(1 for _ in graph_values(html))
    assert points % COMMITS == 0
    assert order[str(revision)] == story.commits[STEP]
    assert after / before == pytest.approx(ROUNDS[1] / ROUNDS[0], abs=0.08)  # reading and writing is not slower


@pytest.mark.skipif(bool(lacking()), reason=lacking() or "all is here")
def test_the_step_stands_on_the_page_that_people_open(story, published, tmp_path):
    html, _ = published
    page = dump_page(html, "index.html#regressions", tmp_path / "profile")

    assert "reciprocal.forward.time" in page
    assert story.commits[STEP][:8] in page
