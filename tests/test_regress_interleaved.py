"""Two versions measured in turn: the verdict on given rounds, and real processes from real worktrees."""

from __future__ import annotations

import json
import math
import subprocess
import textwrap
import time
from pathlib import Path

import pytest
from invoking import ended, harness, started

from harness.errors import HarnessError
from harness.regress.interleaved import Rounds, Subject, compare, log_ratio, two_versions, verdict

DECLARED = '''
    """A kernel that doubles its input."""
    import harness

    @harness.hookimpl
    def harness_kernels():
        work = lambda case, itemsize: {"forward": case.elements * itemsize}
        ours = harness.Implementation("ours", "ours", "slowkit_code:run")
        return [harness.Kernel("double", "slowkit_code:inputs", (ours,), "slowkit_code:reference", work, work, backward=False)]
'''
CODE = '''
    """The same arithmetic, and LOOPS turns of a loop."""
    import torch

    print("what a plugin prints is no answer")

    def inputs(case, generator, device, dtype):
        return {"x": torch.rand(case.elements, generator=generator, dtype=dtype, device=device)}

    def reference(inputs, case):
        return 2 * inputs["x"]

    def run(inputs, case):
        total = 0
        for turn in range(LOOPS):
            total += turn
        return FACTOR * inputs["x"]
'''
SUBJECT = Subject("double", "ours", {"elements": 100})


def write_version(folder: Path, loops: int = 20_000, factor: float = 2.0) -> Path:
    """A checkout of a small plugin: its modules and what importlib.metadata finds it by."""
    info = folder / "slowkit-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / "slowkit.py").write_text(textwrap.dedent(DECLARED))
    (folder / "slowkit_code.py").write_text(textwrap.dedent(CODE).replace("LOOPS", str(loops)).replace("FACTOR", str(factor)))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowkit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness]\nslowkit = slowkit\n")
    return folder


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *named, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Three commits: the second is slower by 15 %, the third four times as slow; the folder itself is as the first."""
    folder = write_version(tmp_path / "repository")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for loops in (20_000, 23_000, 80_000):
        write_version(folder, loops)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"{loops} turns")
    write_version(folder)
    return folder


# The verdict --------------------------------------------------------------------------------------------------------


def rounds(mean: float, spread: float, pairs: int = 2, n: int = 15) -> list[list[float]]:
    """Log ratios of this mean and about this spread, without chance."""
    steps = [spread * (2 * i / (n - 1) - 1) for i in range(n)]
    return [[mean + step for step in steps] for _ in range(pairs)]


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        (rounds(0.14, 0.02), "slower"),
        (rounds(-0.14, 0.02), "faster"),
        (rounds(0.0, 0.02), "same"),
        (rounds(0.01, 0.005), "same"),
        (rounds(0.0, 0.3), "ambiguous"),
        (rounds(0.03, 0.2), "ambiguous"),
        ([[0.14, 0.15, 0.13] * 5, [-0.005, 0.0, -0.001] * 5], "ambiguous"),
        ([[0.14]], "ambiguous"),
    ],
    ids=["slower", "faster", "same", "surely 1 % and no more", "noisy", "noisy and perhaps slower", "one pair only",
         "one round"],
)  # fmt: skip
def test_the_verdict_is_the_intervals(ratios, word):
    """No significance is no sameness: `same` demands the interval within 3 %; pairs that disagree say nothing."""
    assert verdict(ratios)[0] == word


def test_a_linear_drift_cancels_within_a_round():
    """A machine that slows down by 2 % a block: A B B A sees nothing, A then B would see 2 %."""
    drifting = [("A", 1.00), ("B", 1.02), ("B", 1.04), ("A", 1.06)]

    assert log_ratio(drifting) == pytest.approx(0.0, abs=1e-12)
    assert log_ratio([("A", 1.0), ("B", 1.15), ("B", 1.15), ("A", 1.0)]) == pytest.approx(math.log(1.15))


def test_what_moves_all_rounds_of_a_pair_is_no_evidence_of_many_rounds():
    """Processes that lie 10 % apart by luck: 15 rounds each repeat one number, and three numbers are what there is."""
    lucky = [[0.10 + 0.001 * i for i in range(15)], [0.0 + 0.001 * i for i in range(15)], [0.05 + 0.001 * i for i in range(15)]]

    word, interval = verdict(lucky)

    assert word == "ambiguous"
    assert interval.low == pytest.approx(0.057 - 4.303 * 0.05 / math.sqrt(3), abs=1e-3)  # t at 97.5 % with 2 degrees


# Real processes -----------------------------------------------------------------------------------------------------


def test_more_work_is_slower_and_closes_the_gate(repository, monkeypatch):
    """Two commits, from git to the exit code; the worktrees are gone afterwards, and the folder is as it was."""
    monkeypatch.chdir(repository)
    before = git(repository, "worktree", "list")

    told = harness("regress", "--interleaved", "HEAD~2..HEAD", "--kernel", "double", "--elements", "100",
                    "--pairs", "3", "--json")  # fmt: skip

    assert told.code == 3, ended.err
    found = json.loads(told.out)
    assert found["word"] == "slower"
    assert found["clock"] == "cpu"
    assert found["subject"]["region"] == "forward"
    assert found["ratio"] > 2  # four times the work: far beyond what others on this machine can do to it
    assert git(repository, "worktree", "list") == before


def test_a_comparison_that_is_stopped_leaves_no_worktree(repository):
    """A scheduler ends it by SIGTERM, in the middle: git must not go on listing folders that are of no use."""
    before = git(repository, "worktree", "list")
    process = started("regress", "--interleaved", "HEAD~2..HEAD", "--kernel", "double", "--elements", "100",
                      "--pairs", "500", cwd=repository)  # fmt: skip
    while process.poll() is None and git(repository, "worktree", "list") == before:
        time.sleep(0.05)

    process.terminate()

    assert ended(process).code == 143
    assert git(repository, "worktree", "list") == before


@pytest.mark.slow  # on a machine that others use, three pairs cannot tell 15 %
def test_fifteen_per_cent_more_work_is_told(repository, monkeypatch):
    monkeypatch.chdir(repository)

    told = harness("regress", "--interleaved", "HEAD~2..HEAD~1", "--kernel", "double", "--elements", "100",
                    "--pairs", "6", "--json")  # fmt: skip

    assert told.code == 3, ended.out
    # nearly all of the work is the loop
    assert json.loads(told.out)["ratio"] == pytest.approx(1.15, abs=0.08)


def test_the_same_code_twice_is_never_slower(tmp_path):
    """A/A: from two folders, so that nothing but the place differs."""
    a, b = write_version(tmp_path / "a"), write_version(tmp_path / "b")

    found = compare(a, b, SUBJECT, Rounds(pairs=3, rounds=5))

    assert found.word in ("same", "ambiguous")
    assert [len(pair) for pair in found.ratios] == [5, 5, 5]
    assert found.lines()[0].startswith(f"{found.word}: B takes x")


@pytest.mark.parametrize(
    ("b", "subject", "says"),
    [
        ({"factor": 2.1}, SUBJECT, r"B \(.*\): ArithmeticError: wrong result"),
        ({}, Subject("double", "theirs", {}), r"A \(.*\): LookupError: .*no implementation 'theirs'"),
        ({}, Subject("relu", "eager", {}), "which this folder does not hold"),
    ],
    ids=["a wrong result", "no such implementation", "the kernel is somebody else's"],
)
def test_what_cannot_be_compared_is_refused_by_name(tmp_path, b, subject, says):
    """A faster wrong kernel, and two measurements of one and the same installation, would both look like answers."""
    folders = write_version(tmp_path / "a"), write_version(tmp_path / "b", **b)

    with pytest.raises(HarnessError, match=says):
        compare(*folders, subject, Rounds(pairs=1, rounds=2))


def test_a_version_that_dies_is_named_with_its_last_words(tmp_path):
    """A segfault at B must not leave A's process behind, nor the user without a hint."""
    a, b = write_version(tmp_path / "a"), write_version(tmp_path / "b")
    code = b / "slowkit_code.py"
    code.write_text(code.read_text() + "\nimport os, sys\nsys.stderr.write('out of luck'); sys.stderr.flush(); os._exit(7)\n")

    with pytest.raises(HarnessError, match=r"(?s)B \(.*\): its process ended:.*out of luck"):
        compare(a, b, SUBJECT, Rounds(pairs=1, rounds=2))


def test_an_open_end_is_the_folder_as_it_stands(repository):
    """Before a commit, its change can be measured already."""
    with two_versions(repository, "HEAD..") as (a, b):
        assert "80000" in (a / "slowkit_code.py").read_text()
        assert b == repository
    assert not a.exists()
    assert repository.exists()


@pytest.mark.parametrize("between", ["HEAD", "..HEAD", "HEAD...HEAD", "nothing..HEAD", "--help..HEAD"])
def test_what_is_no_pair_of_commits_is_refused_with_the_mend(repository, between):
    """Nothing is checked out for it."""
    with pytest.raises(HarnessError, match=r"write two commits as A..B|is no commit of"), two_versions(repository, between):
        pytest.fail("entered")


def test_interleaved_needs_a_kernel():
    """A suite has many; the message names the option."""
    assert harness("regress", "--interleaved", "A..B").code == 2
    assert "--kernel" in harness("regress", "smoke", "--interleaved", "A..B", "--kernel", "crrelu").err
