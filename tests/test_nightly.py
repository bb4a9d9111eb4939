"""A night: parts that do not stop each other, one exit code, a summary that says what to look at, and a page that works."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from helpers import PluginSite, plugin_site
from invoking import ended, harness_process, query, started
from markdown_it import MarkdownIt
from registry_samples import WHERE, make_attempt, make_trial
from regress_samples import commit_of, kernel_night, night_of, registry_of
from ruamel.yaml import YAML

from harness.cli.main import cli
from harness.cli.nightly import export_to_asv, look_for_regressions
from harness.errors import DamagedError, HarnessError, MissingError
from harness.nightly import (
    MAX_FAILURES,
    MAX_SHOWN,
    WORST_FIRST,
    Ended,
    Failure,
    Night,
    Part,
    SuiteNight,
    code_span,
    fenced,
    read_suite,
    render,
    run_steps,
    worst,
)
from harness.registry import Registry

__all__ = ["plugin_site"]

PAGE = Path(__file__).parents[1] / "docs" / "nightly.md"
HOSTILE = [
    "`; @everyone",
    "a\n# heading\n",
    "[x](http://evil)",
    "<img src=x onerror=alert(1)>",
    "|a|b|",
    "\x1b[2J",
    "``` \n```",
    "http://x.y",
]


# Parts --------------------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[], Ended]:
    def step() -> Ended:
        raise error

    return step


ENDINGS = [
    (HarnessError("a mistake"), 2), (MissingError("no data"), 5), (DamagedError("a file"), 3), (SystemExit(3), 3),
    (SystemExit(None), 0), (SystemExit("text"), 1), (ZeroDivisionError("oops"), 70), (KeyboardInterrupt(), 130),
]  # fmt: skip


@pytest.mark.parametrize(("error", "code"), ENDINGS, ids=lambda value: str(value))
def test_what_a_part_raises_is_its_exit_code(error, code):
    """As if it had been the only command; a fault of ours keeps its traceback."""
    (part,) = run_steps([("part", raising(error))])

    assert part.ended is not None
    assert part.ended.code == code
    assert ("Traceback" in part.ended.trace) == (code == 70)


def test_a_part_that_fails_does_not_stop_the_others():
    """The trials of six hours must not lack their export because a page could not be drawn."""
    done = []
    steps = [
        ("first", raising(ZeroDivisionError())),
        ("second", raising(HarnessError("no"))),
        ("third", lambda: done.append(3) or Ended(0)),
    ]

    parts = run_steps(steps)

    assert done == [3]
    assert [part.ended.code for part in parts if part.ended] == [70, 2, 0]


@pytest.mark.parametrize("stop", [raising(KeyboardInterrupt()), lambda: Ended(130), lambda: Ended(143)])
def test_after_an_interrupt_nothing_more_starts(stop):
    """Who presses Ctrl-C means all of it."""
    done = []

    parts = run_steps([("run", stop), ("export", lambda: done.append(1) or Ended(0))])

    assert done == []
    assert parts[1].ended is None


def test_parts_are_timed_by_the_clock_that_is_given():
    ticks = iter([10.0, 12.5, 20.0, 21.0])

    parts = run_steps([("a", lambda: Ended(0)), ("b", raising(HarnessError("x")))], clock=lambda: next(ticks))

    assert [part.seconds for part in parts] == [2.5, 1.0]


def test_the_worst_code_wins_in_the_order_of_the_page():
    """A scheduler sees one number: 70, 130, 5, 3, 2, 4, 1, 0; a signal's is an interrupt, one that nobody declared a fault."""
    for i, code in enumerate(WORST_FIRST):
        assert worst(WORST_FIRST[i:]) == code
        assert worst(reversed(WORST_FIRST[i:])) == code
    assert worst([]) == 0
    assert worst([5, 143, 3]) == 143
    assert worst([130, 42]) == 42


# The summary --------------------------------------------------------------------------------------------------------------


def night(*parts: Part, suites: tuple[SuiteNight, ...] = (), **changes: Any) -> Night:
    command = ("harness", "nightly", "vision", "--registry", "registry/a b")
    made = Night(datetime(2026, 9, 1, 2, 17, tzinfo=UTC), 725.0, parts, suites, WHERE, command)
    return replace(made, **changes)


def suite_night(*failures: Failure, ok: int = 10) -> SuiteNight:
    counts = {"ok": ok, **({"failed": len(failures)} if failures else {})}
    return SuiteNight("vision", counts, failures, 60.0, "2.13.0")


def test_a_good_night_says_so_in_its_first_line():
    """A chat shows no more than that."""
    text = render(night(Part("run vision", Ended(0), 9.0), suites=(suite_night(),)))

    assert text.splitlines()[0] == "# Night of 2026-09-01: all well, 10 trials (exit 0)"
    assert "| `vision` | 10 | 0 | 0 | 0 | 60 |" in text
    assert "Machine `m-1`, host `host-1`, torch `2.13.0`, commit `abc`." in text
    assert "took 12.1 min" in text
    assert "git checkout abc\nharness nightly vision --registry 'registry/a b'" in text


def test_a_bad_night_names_what_failed_what_regressed_and_the_commands():
    """Whoever reads it in the morning has to open nothing else."""
    failure = Failure("crrelu on digits cpu seed 3", "timeout", "killed after 60 s", "0193a7b2" + "0" * 24)
    parts = (
        Part("run vision", Ended(1), 9.0),
        Part("regress", Ended(3, ("1 of 40 series regressed", "crrelu forward 1.15x at abc1234")), 2.0),
        Part("export", Ended(5, ("asv is not installed; pip install asv",)), 0.0),
    )

    text = render(night(*parts, suites=(suite_night(failure),)))

    assert text.splitlines()[0] == "# Night of 2026-09-01: regressed; 1 of 11 trials failed; `export` went wrong (exit 5)"
    assert "- `crrelu on digits cpu seed 3`: `timeout`: `killed after 60 s`" in text
    assert "`harness logs 0193a7b200000000 --registry 'registry/a b'`" in text
    assert "crrelu forward 1.15x at abc1234" in text
    assert "pip install asv" in text


def test_a_stopped_night_says_what_was_not_run():
    text = render(night(Part("run vision", Ended(130), 9.0), Part("export", None, 0.0), suites=(suite_night(),)))

    assert "stopped before its end (exit 130)" in text
    assert "## export\n\nNot run: the night was stopped before." in text


def test_a_night_in_which_no_suite_ran_is_a_summary_too():
    """A suite file that is broken at two in the morning: the mistake is what has to be read."""
    text = render(night(Part("run vision", Ended(2, ("vision.yaml:3: tasks: got 1",)), 0.1), where=None))

    assert "`run vision` went wrong (exit 2)" in text
    assert "No suite has run." in text
    assert "vision.yaml:3: tasks: got 1" in text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_record_becomes_markdown(text):
    """A plugin's name in an issue must not link, mention, format or hide: seen by a parser of Markdown, not by a search."""
    failure = Failure(text, text, text, text)
    suite = SuiteNight(text, {"ok": 1, "failed": 1}, (failure,), 1.0, text)
    where = replace(WHERE, machine=text, host=text, git_commit=text)
    tame = night(Part("regress", Ended(3, ("line",)), 1.0), suites=(suite_night(replace(failure, error="x")),))
    made = replace(tame, parts=(Part("regress", Ended(3, (text, text)), 1.0),), suites=(suite,), where=where)

    def shape(rendered: str) -> list[str]:
        tokens = MarkdownIt("commonmark").enable("table").parse(rendered)
        flat = [inner for token in tokens for inner in [token, *(token.children or ())]]
        return [f"{token.type} {token.tag}" for token in flat if token.type != "text"]

    assert not {"link_open", "html_block", "html_inline", "image"} & {line.split()[0] for line in shape(render(made))}
    assert shape(render(made)).count("heading_open h2") == shape(render(tame)).count("heading_open h2")
    assert shape(render(made)).count("td_open td") == shape(render(tame)).count("td_open td")
    assert "\x1b" not in render(made)


def test_a_night_of_a_thousand_failures_still_fits_into_an_issue():
    """GitHub takes 65 536 characters; the count is whole, the list is cut and says so."""
    failures = tuple(Failure("m" * 500, "failed", "e" * 5000, f"{n:032x}") for n in range(1000))

    text = render(night(Part("regress", Ended(3, ("l" * 100,) * 1000), 1.0), suites=(suite_night(*failures),)))

    assert len(text) < 30_000
    assert "1000 of 1010 trials failed" in text
    assert f"- and {1000 - MAX_FAILURES} more (`harness status --failed`)" in text
    assert len(code_span("x" * 999)) == MAX_SHOWN + 3


def test_a_fence_cannot_be_closed_by_what_is_in_it():
    assert fenced(["a ```` b"]).splitlines() == ["`````", "a ```` b", "`````"]


def test_a_suites_night_is_what_its_invocation_recorded(tmp_path):
    """Of an old registry with many nights: only this one's attempts, failures by name."""
    opened = Registry.open(tmp_path / "r")
    opened.append(make_attempt(1, where=replace(WHERE, invocation="before")))
    opened.append(make_attempt(2, make_trial("relu", 4)))
    opened.append(make_attempt(3, make_trial("crrelu", 5), status="oom", error="Traceback\n  line\nMemoryError: too much\n"))

    found = read_suite(opened, WHERE)

    assert found.counts == {"ok": 1, "oom": 1}
    assert found.failures == (Failure("crrelu on digits cpu seed 5", "oom", "MemoryError: too much", f"{3:032x}"),)
    assert found.torch_version == "2.13.0"


# Regress and export -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "code"), [(1.3, 3), (1.0, 0)])
def test_a_slower_kernel_closes_the_gate_and_is_named_with_ratio_and_commit(factor, code, tmp_path):
    """Ten nights at one speed, four at another: the real judge over a real registry; the twin that did not slow down passes."""
    attempts = [a for n in range(14) for a in kernel_night(n, 1e-3 * (1 + 0.004 * (n % 3)) * (factor if n >= 10 else 1.0))]
    opened = registry_of(tmp_path / "r", attempts)

    made = look_for_regressions(opened.path, [night_of(13)])

    told = "\n".join(made.lines)
    assert made.code == code
    assert ("nothing regressed" in told) == (code == 0)
    assert (commit_of(10)[:7] in told) == (code == 3)
    assert "harness regress kernels --machine m-1" in told


def test_without_a_suite_that_ran_nothing_is_judged(tmp_path):
    """The last night's regression is not this night's news."""
    assert look_for_regressions(tmp_path / "none", []).code == 0


def test_outside_of_a_git_repository_the_export_is_left_out_and_says_so(tmp_path):
    made = export_to_asv(tmp_path / "none", tmp_path / "results", tmp_path)

    assert made.code == 0
    assert "is in no git repository" in made.lines[0]
    assert not (tmp_path / "results").exists()


# The command --------------------------------------------------------------------------------------------------------------

METHODS = '''
import os, pathlib, time

FOLDER = pathlib.Path(os.environ.get("TEST_FOLDER", "/nowhere"))

def waits(problem, ctx, params):
    """From seed 1 on it waits for ever: so a test knows what runs when it stops the harness."""
    if ctx._seed >= 1:
        (FOLDER / "waiting").touch()
        time.sleep(300)
    return good(problem, ctx, params)

def broken(problem, ctx, params):
    raise ValueError("@everyone `broke`")
'''
SUITE = """schema: harness/suite/1
name: NAME
tasks: [signs]
methods: [{use: good, role: baseline}, METHOD]
seeds: 2
budget: {steps: 20}
limits: {timeout: 60s}
"""


@pytest.fixture
def folder(plugin_site: PluginSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plugin_site.write_toy(METHODS, ("waits", "broken"))
    for name, method in (("sound", "{use: good, params: {scale: 2.0}}"), ("sick", "broken"), ("slow", "waits")):
        (tmp_path / f"{name}.yaml").write_text(SUITE.replace("NAME", name).replace("METHOD", method))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(folder: Path) -> dict[str, str]:
    return {"TEST_FOLDER": str(folder), "HARNESS_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder)}


OPTIONS = ("--registry", "registry", "-o", "out", "-j", "2", "--summary", "deep/summary.md")


def test_a_night_runs_all_again_names_what_failed_and_goes_on_after_a_broken_suite(folder):
    """Twice, so that the second has nothing left to do by the rules of `run`: it runs all the same."""
    command = ("nightly", "missing.yaml", "sound.yaml", "sick.yaml", *OPTIONS)
    first = harness_process(*command, cwd=folder, **settings(folder))
    written = (folder / "deep" / "summary.md").read_text()
    second = harness_process(*command, "--json", cwd=folder, **settings(folder))

    told = json.loads(second.out)
    rows = query(folder / "registry", "SELECT suite, status, count(*) AS n FROM attempts GROUP BY ALL ORDER BY ALL")
    assert (first.code, second.code) == (2, 2), first.err
    assert first.out == written
    assert rows == [{"suite": "sick", "status": "failed", "n": 4}, {"suite": "sick", "status": "ok", "n": 4},
                    {"suite": "sound", "status": "ok", "n": 8}]  # fmt: skip
    assert "2 of 8 trials failed; `run missing.yaml` went wrong (exit 2)" in first.out.splitlines()[0]
    assert "- `broken on signs cpu seed 1`: `failed`: `ValueError: @everyone 'broke' (" in first.out
    assert "out/report/index.html" in first.out
    assert "broken" in (folder / "out" / "report" / "index.html").read_text()
    assert "is in no git repository" in first.out
    assert [s["suite"] for s in told["suites"]] == ["sound", "sick"]
    assert told["code"] == 2
    assert [part["name"] for part in told["parts"]][-1] == "read back"


def test_in_a_git_repository_a_night_leaves_result_files_of_asv_at_its_commit(folder):
    """What `asv publish` draws in the morning."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "sound.yaml"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()

    end = harness_process("nightly", "sound.yaml", *OPTIONS, cwd=folder, **settings(folder))

    results = [
        json.loads(file.read_text()) for file in (folder / "out" / "results").glob("*/*.json") if file.name != "machine.json"
    ]
    assert end.code == 0, end.err
    assert {result["commit_hash"] for result in results} == {commit}
    assert f"git checkout {commit}" in end.out


@pytest.mark.parametrize(("way", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_night_that_is_stopped_keeps_what_is_finished_and_writes_its_summary(way, code, folder):
    """A shutdown at four in the morning: the summary says that it was one."""
    process = started("nightly", "slow.yaml", "sound.yaml", *OPTIONS, cwd=folder, **settings(folder))
    stop = time.monotonic() + 120
    while not (folder / "waiting").exists() and time.monotonic() < stop and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(way)
    end = ended(process)

    statuses = [row["status"] for row in query(folder / "registry", "SELECT status FROM attempts")]
    assert end.code == code, end.err
    assert "ok" in statuses
    assert "stopped before its end (exit 130)" in end.out.splitlines()[0]
    assert "Not run: the night was stopped before." in end.out
    assert (folder / "deep" / "summary.md").read_text() == end.out


# The page -----------------------------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


WORKFLOW = YAML(typ="safe").load(blocks("yaml")[0])
TYPED = [line for block in blocks("(?:sh|cron|ini|yaml)") for line in block.splitlines()]
COMMANDS = [
    found.group(1) for line in TYPED if (found := re.search(r"(?:^|[/= ])(harness (?:nightly|export|import|merge) .*)", line))
]
COMMANDS += re.findall(r"`(harness [a-z]+ [^`]*--[^`]*)`", PAGE.read_text())


def test_the_page_has_a_cron_line_a_timer_and_a_workflow():
    assert len(blocks("cron")) == len(blocks("yaml")) == 1
    assert len(blocks("ini")) == 2
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_exists_with_its_options(line):
    """People copy them; a page that is wrong fails at two in the morning."""
    words = shlex.split(line.partition(" 2>")[0])[1:]
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]

    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    assert {word for word in words if word.startswith("-") and len(word) > 1} <= known


def test_the_workflow_has_what_github_wants():
    """Parsed as GitHub does: a trigger each night, a job, steps that either use an action or run a command."""
    steps = WORKFLOW["jobs"]["nightly"]["steps"]

    assert re.fullmatch(CRON, WORKFLOW["on"]["schedule"][0]["cron"])
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert steps[0]["with"]["fetch-depth"] == 0
    assert {step["if"] for step in steps if "if" in step} == {"always()", "failure()"}


@pytest.mark.parametrize("step", [s["run"] for s in WORKFLOW["jobs"]["nightly"]["steps"] if "run" in s])
def test_every_script_of_the_workflow_is_shell(step):
    """`bash -n` reads it without running it."""
    checked = subprocess.run(["bash", "-n", "-c", step], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr


CRON = r"([0-5]?\d) ([01]?\d|2[0-3]) \* \* \*"


def test_the_cron_line_has_five_fields_and_a_command():
    *settings, line = blocks("cron")[0].splitlines()

    assert re.match(CRON + " cd ", line)
    assert all(re.fullmatch(r"[A-Z]+=.*", setting) for setting in settings)
    assert "%" not in line  # cron ends a command there


def test_the_units_are_units(tmp_path):
    """systemd's own check where there is one; what it looks for is put where it looks."""
    service, timer = blocks("ini")
    read = configparser.ConfigParser(strict=True, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(service)
    assert read["Service"]["Type"] == "oneshot"
    assert set(read["Service"]["ExecStart"].split()) >= {"nightly", "--summary"}
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    service = service.replace("/srv/harness/.venv/bin/harness", sys.executable).replace("User=harness", "User=root")
    (tmp_path / "harness-nightly.service").write_text(service.replace("OnFailure=harness-nightly-tell.service\n", ""))
    (tmp_path / "harness-nightly.timer").write_text(timer)

    units = ["harness-nightly.service", "harness-nightly.timer"]
    checked = subprocess.run(["systemd-analyze", "verify", *units], cwd=tmp_path, capture_output=True, text=True, check=False)

    wrong = [line for line in checked.stderr.splitlines() if "harness-nightly" in line and "man " not in line]
    assert not wrong
