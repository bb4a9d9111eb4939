"""The command line: examples that work, exit codes, mistakes that are said before anything runs, where options come from."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from helpers import PluginSite, plugin_site
from invoking import COMMAND, environment_of, harness, harness_process
from kernel_samples import kernel_attempt, kernel_trial
from registry_samples import ACCURACY, MACHINE, WHERE, make_attempt, make_trial

from harness.catalogue import load_catalogue
from harness.cli.look import describe
from harness.cli.main import cli
from harness.records import Timing
from harness.registry import Registry
from harness.suite import SCHEMA_COMMENT, load_suite, shipped_suites

__all__ = ["plugin_site"]

ROOT = Path(__file__).parents[1]
VALID = """schema: harness/suite/1
name: small
tasks: [digits]
methods: [{use: relu, role: baseline}, gelu]
net: {arch: mlp, width: 8, depth: 1}
seeds: 2
budget: {steps: 3}
"""


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())
EXAMPLES = {path: str(command.epilog).splitlines()[-1].strip() for path, command in COMMANDS.items()}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without pyproject.toml above it, and no variable of the user's."""
    for name in list(os.environ):
        if name.startswith("HARNESS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_MACHINE", MACHINE)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(VALID)
    return tmp_path / "small.yaml"


ATTEMPT = "0193a7b2" + "0" * 24


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Three attempts, one of them failed."""
    path = tmp_path / "filled"
    opened = Registry.open(path)
    opened.append(make_attempt(1, make_trial("crrelu", 0)))
    opened.append(make_attempt(2, make_trial("crrelu", 1), log="step 1\n"))
    failed = make_attempt(
        3, make_trial("relu", 0), status="failed", error="ValueError: boom", log="said\n", log_dropped_bytes=7
    )
    opened.append(replace(failed, attempt_id=ATTEMPT))
    return path


# Help ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_ends_with_an_example_of_its_own_command(path):
    """People copy the example; it must be of this command, and its options must exist."""
    shown = harness(*path, "--help")
    words = shlex.split(EXAMPLES[path].partition(" > ")[0])

    assert shown.code == 0
    assert [line.strip() for line in shown.out.splitlines() if line.strip()][-2:] == ["Example:", EXAMPLES[path]]
    assert tuple(words[: len(path) + 1]) == ("harness", *path)
    assert harness(*words[1:], "--help").code == 0


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in COMMANDS
        if p[0] not in ("run", "plan", "leaderboard", "nightly")
        and p != ("machine", "check")  # start workers
        and p != ("plugin", "new")  # writes where it stands; tests/test_scaffold.py runs it elsewhere
    ],
    ids=" ".join,
)
def test_examples_work(path, registry, monkeypatch):
    """As they stand, in a checkout, with a registry that has something in it."""
    timed = Timing("train_step", (0.002, 0.001, 0.003), (0.001, 0.001, 0.002), 3, "precise")
    opened = Registry.open(registry)
    opened.append(make_attempt(4, make_trial("relu", 0, kind="timing"), timings=(timed,), measurements=()))
    for number, name in enumerate(("eager", "ours")):
        opened.append(kernel_attempt(5 + number, kernel_trial(implementation=name), {"forward": 1e-6}))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HARNESS_REGISTRY", str(registry))

    answer = harness(*shlex.split(EXAMPLES[path].partition(" > ")[0])[1:])

    # `regress` times two commits: on a busy machine one may come out slower, and then 3 is the right answer.
    assert answer.code == (3 if answer.out.startswith("slower: ") else 0), answer.err
    assert answer.out


@pytest.mark.parametrize("path", [path for path in COMMANDS if path[0] in ("run", "plan")], ids=" ".join)
def test_examples_that_run_name_things_that_exist(path):
    """Their plan can be made; running them is what other tests do."""
    words = shlex.split(EXAMPLES[path])
    at = words.index("vision")

    answer = harness("plan", *words[at:], "--set", "budget={steps: 1}", "--json")

    assert answer.code == 0, answer.err
    assert answer.json["trials"]


def test_help_of_the_whole_names_the_exit_codes():
    """They are a contract with scripts."""
    shown = harness("--help").out

    for code in (
        "0 all trials ok",
        "1 some trials failed",
        "2 a mistake",
        "3 a gate",
        "4 nothing",
        "5 something",
        "70 a fault",
        "130",
    ):
        assert code in " ".join(shown.split())


# Exit codes ---------------------------------------------------------------------------------------------------------------


def test_nothing_selected_is_4(suite):
    """A typing mistake in a pattern is no success."""
    answer = harness("run", suite, "--dry-run", "-m", "nope*")

    assert (answer.code, answer.out) == (4, "")
    assert "nothing selected: the suite has 4 trials, and the filters leave none" in answer.err


def test_a_suite_whose_data_are_all_missing_is_5_and_says_the_mend(suite):
    """Not `nothing selected`: the user must learn which data, and where to put them."""
    suite.write_text(VALID.replace("digits", "mnist"))

    answer = harness("run", suite)

    assert answer.code == 5
    assert "small: 4 trials: data mnist not found; `harness data fetch mnist` brings it into the data folder" in answer.err


def test_a_device_that_is_not_there_is_skipped_with_a_note_and_the_rest_is_planned(suite, tmp_path):
    """One suite serves machines with and without a GPU."""
    (tmp_path / "folder").mkdir()
    suite.write_text(VALID.replace("[digits]", "[digits, mnist]"))

    answer = harness("plan", suite, "--json")

    assert answer.code == 0
    assert len(answer.json["trials"]) == 4
    assert [note["trials"] for note in answer.json["notes"]] == [4]


def test_torch_that_is_not_installed_is_5(suite, monkeypatch):
    """The mend is in the message."""
    import importlib.metadata

    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    answer = harness("plan", suite)

    assert answer.code == 5
    assert "pip install 'torch" in answer.err


MISTAKES = """run | nonsense | list nonsense | run no-such-suite | status --nope | describe relo | run small.yaml -j 0
    run small.yaml --limit -1 | run small.yaml --limit 2.5 | run small.yaml --limit few | run small.yaml --shard 3/2
    plan small.yaml --seeds x | plan small.yaml --device gpu | plan small.yaml --set net.widht=3
    run small.yaml --timeout 30 | run small.yaml --memory much"""


@pytest.mark.parametrize("line", [mistake.strip() for line in MISTAKES.splitlines() for mistake in line.split("|")])
def test_a_mistake_on_the_command_line_is_2_in_a_few_lines(line, suite):
    """One message that says what, without a traceback; nothing on stdout for a machine to trip over."""
    answer = harness(*line.split())

    assert answer.code == 2
    assert answer.out == ""
    assert 0 < len(answer.err.splitlines()) < 12
    assert "Traceback" not in answer.err


def test_a_fault_of_ours_is_70_with_its_traceback(monkeypatch):
    """Nobody should search in a suite file for what is our mistake."""

    def broken() -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("harness.cli.run.load_plugins", broken)
    answer = harness("list", "methods")

    assert answer.code == 70
    assert "ZeroDivisionError: oops" in answer.err
    assert "This is a fault of harness, not yours" in answer.err


def test_an_interrupt_is_130(monkeypatch):
    """The shell's own number for Ctrl-C."""

    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.run.load_plugins", stopped)

    assert harness("list", "methods").code == 130


def test_a_reader_that_goes_away_is_no_error(registry):
    """`harness query ... | head -1` ends well and in silence, by click's printing and by rich's."""
    for option in ("--csv", "--json", ""):
        command = shlex.join([*COMMAND, "query", "SELECT unnest(range(20000)) AS n", "--registry", str(registry)])
        script = f"set -o pipefail; {command} {option} | head -1"

        run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment_of({}), check=False)

        assert (run.returncode, run.stderr) == (0, ""), option
        assert run.stdout


# Bad input: said before anything runs ---------------------------------------------------------------------------------------


def test_six_mistakes_are_six_lines_and_nothing_runs(suite, tmp_path):
    """All at once, each with its line; no registry folder is made, no worker starts."""
    suite.write_text("""schema: harness/suite/1
name: broken
taskz: [digits]
tasks: [digits, digits]
methods: [{use: relu, role: baseline}, crrelo]
net: {arch: mlp, width: wide}
seeds: -3
limits: {timeout: 30 parsecs}
budget: {steps: 3}
""")

    answer = harness("run", suite, "--registry", "made")

    lines = [line.removeprefix(f"{suite}:") for line in answer.err.splitlines()]
    assert (answer.code, answer.out) == (2, "")
    assert [line.split(" ")[0:2] for line in lines] == [
        ["3:", "taskz:"], ["4:", "tasks[1]:"], ["5:", "methods[1]:"], ["6:", "net.width:"], ["7:", "seeds:"],
        ["8:", "limits.timeout:"],
    ]  # fmt: skip
    assert "did you mean 'crrelu'?" in lines[2]
    assert not (tmp_path / "made").exists()
    assert harness("validate", suite).err == answer.err


@pytest.mark.parametrize(
    ("text", "word"),
    [("tasks: &all [digits]\nclaims: *all", "alias"), ("tasks: !!python/object:os.system [digits]", "tag"),
     ("seeds: !!int 3", "tag")],
)  # fmt: skip
def test_aliases_and_tags_are_refused(text, word, suite):
    """An alias can make a small file huge; a tag can name code."""
    key = text.partition(":")[0]
    suite.write_text("\n".join(line for line in VALID.splitlines() if not line.startswith(key)) + f"\n{text}\n")

    answer = harness("validate", suite)

    assert answer.code == 2
    assert word in answer.err
    assert "small.yaml:" in answer.err


def test_validating_several_suites_shows_the_mistakes_of_all(suite, tmp_path):
    """The good ones are named, too."""
    (tmp_path / "bad.yaml").write_text(VALID.replace("digits", "digitz"))
    (tmp_path / "worse.yaml").write_text("- 1\n")

    answer = harness("validate", "bad.yaml", suite, "worse.yaml")

    assert answer.code == 2
    assert answer.out == f"{suite}: ok\n"
    assert {line.partition(":")[0] for line in answer.err.splitlines()} == {"bad.yaml", "worse.yaml"}


def test_a_registry_that_cannot_be_written_is_said_before_any_trial(suite, tmp_path):
    """Not after an hour, when the first result is to be kept."""
    (tmp_path / "file").write_text("")

    for path in ("file/registry", "file"):
        answer = harness("run", suite, "--registry", path)
        assert answer.code == 2
        assert path in answer.err
        assert "trials" not in answer.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_registry_without_permission_says_the_mend(suite, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)

    answer = harness("run", suite, "--registry", "locked/registry")

    assert answer.code == 2
    assert "make it writable or name another folder with --registry" in answer.err


def test_a_folder_of_other_things_is_no_registry(suite, tmp_path):
    """A mistyped --registry must not be filled."""
    answer = harness("run", suite, "--registry", tmp_path)

    assert answer.code == 2
    assert str(tmp_path) in answer.err


@pytest.fixture
def wrong_mnist(tmp_path: Path) -> Path:
    """A data folder whose MNIST is something else."""
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "data" / "mnist" / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"wrong"))
    return tmp_path / "data"


def test_a_wrong_digest_names_file_expected_and_found(wrong_mnist):
    """`data verify` is the check; exit 3 so that a script can stop."""
    answer = harness("data", "verify", "mnist", "--data-dir", wrong_mnist)

    assert answer.code == 3
    assert "mnist/train-images-idx3-ubyte.gz" in answer.out
    assert hashlib.sha256(b"wrong").hexdigest() in answer.out
    assert "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db" in answer.out


def test_a_trial_on_wrong_data_fails_and_says_so(wrong_mnist, suite, tmp_path):
    """No number is made from data that are not the declared ones; the record names file, expected and found."""
    suite.write_text(VALID.replace("digits", "mnist"))

    run = harness_process("run", suite, "--data-dir", wrong_mnist, "--limit", "1", "--registry", "made", cwd=tmp_path,
                          HARNESS_MACHINE=MACHINE, HARNESS_CACHE_DIR=str(tmp_path / "cache"))  # fmt: skip
    failed = harness("status", "--failed", "--registry", "made", "--json").json

    assert run.code == 1, run.err
    assert [row["status"] for row in failed] == ["failed"]
    for part in (
        "train-images-idx3-ubyte.gz",
        hashlib.sha256(b"wrong").hexdigest(),
        "expected ba891046e6505d7aadcbbe25680a0738",
    ):
        assert part in failed[0]["error"]


# Where options come from ----------------------------------------------------------------------------------------------------


def test_every_option_has_its_variable():
    """HARNESS_<OPTION>, as the help says: for containers and schedulers."""
    for path, command in COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option):
                long = next(name for name in option.opts if name.startswith("--"))
                if long == "--machine" or path == ("annotate",):
                    continue  # HARNESS_MACHINE is what this machine is called; what is said of an attempt is no setting
                assert option.envvar == "HARNESS_" + long.removeprefix("--").replace("-", "_").upper(), (path, long)


def test_an_option_comes_from_the_line_else_the_variable_else_the_project(registry, tmp_path, monkeypatch):
    """The nearer wins."""
    (tmp_path / "pyproject.toml").write_text('[tool.harness]\nregistry = "filled"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    Registry.open(tmp_path / "empty")

    assert "failed" in harness("status").out, "from pyproject.toml, relative to it"
    monkeypatch.setenv("HARNESS_REGISTRY", str(tmp_path / "empty"))
    assert harness("status").out == "no attempts yet\n"
    assert "failed" in harness("status", "--registry", tmp_path / "filled").out


def test_the_project_may_set_any_option_in_its_own_words(suite, tmp_path):
    """Names are those of the command line, dashes and all; lists are lists."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.harness]\nmethod = "g*"\nseeds = [4, 7]\ndry-run = true\njson = true\nregistry = "r"\n'
    )

    answer = harness("run", suite)

    assert answer.code == 0, answer.err
    assert sorted((t["method"], t["seed"]) for t in answer.json["trials"]) == [
        ("paper-harness/gelu", 4),
        ("paper-harness/gelu", 7),
    ]


def test_variables_narrow_a_run_like_options(suite, monkeypatch):
    """A scheduler's script sets them once."""
    for name, value in {"SEEDS": "3", "METHOD": "relu gel*", "LIMIT": "0.5", "DRY_RUN": "1", "JSON": "1"}.items():
        monkeypatch.setenv(f"HARNESS_{name}", value)

    assert len(harness("run", suite).json["trials"]) == 3


def test_the_project_reaches_commands_of_groups(tmp_path, wrong_mnist):
    """`harness data list` reads the same table."""
    (tmp_path / "pyproject.toml").write_text('[tool.harness]\ndata-dir = "data"\njson = true\n')

    rows = harness("data", "list").json
    present = {row["name"] for row in rows if row["where"] == "folder" and row["present"]}

    assert present == {"mnist"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("[tool.harness]\nregstry = 'x'\n", "tool.harness.regstry: no command has the option --regstry; did you mean 'registry'?"),
     ("[tool]\nharness = 3\n", "tool.harness: got 3; write a table"), ("[tool.harness\n", "cannot be read")],
)  # fmt: skip
def test_a_mistake_in_the_project_file_is_named(text, message, tmp_path):
    """A key that nobody reads would be a setting that silently does nothing."""
    (tmp_path / "pyproject.toml").write_text(text)

    answer = harness("list", "methods")

    assert answer.code == 2
    assert f"{tmp_path / 'pyproject.toml'}: {message}" in answer.err


# Looking --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["papers", "tracks", "tasks", "methods", "datasets", "suites", "claims", "plugins"])
def test_each_kind_is_listed_for_people_and_for_machines(kind):
    """One line each; the same names in both."""
    rows = harness("list", kind, "--json").json
    lines = harness("list", kind).out.splitlines()

    assert rows
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows]


def test_listing_methods_imports_no_torch():
    """Over all plugins: it must cost less than half a second."""
    script = "import sys; from harness.cli import main; main(['list', 'methods']); sys.exit(0)"
    script = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); {script}"

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment_of({}), check=True)

    assert run.stderr == "False\n"
    assert "crrelu" in run.stdout


def test_a_broken_plugin_is_named_and_the_others_work(plugin_site: PluginSite, suite):
    """One bad package must not cost the installation."""
    plugin_site.write("broken", "raise RuntimeError('bad day')", "")
    plugin_site.write_toy()

    listed = harness("list", "methods")

    assert listed.code == 0
    assert listed.err == "warning: plugin broken:broken 1.0 is left out: RuntimeError: bad day\n"
    assert {"relu", "crrelu", "good"} <= {line.split()[0] for line in listed.out.splitlines()}
    states = {row["name"]: row["state"] for row in harness("list", "plugins", "--json").json}
    assert states["broken:broken"] == "RuntimeError: bad day"
    assert states["toyplug:toyplug"] == "ok"
    assert harness("validate", suite).code == 0


def test_describe_says_parameters_paper_and_claims():
    """What one needs before writing a suite."""
    text = harness("describe", "crrelu").out

    assert "method paper-harness-papers/crrelu" in text
    assert "paper paper-harness-papers/crrelu" in text
    assert "params.eps" in text
    assert "arxiv" in text
    assert harness("describe", "paper-harness/digits", "--json").json["task paper-harness/digits"]["track"] == "classify"


def test_everything_that_is_listed_can_be_described():
    """As JSON, too: no declaration holds what cannot be said."""
    catalogue = load_catalogue()
    offers = (catalogue.methods, catalogue.tasks, catalogue.tracks, catalogue.papers, catalogue.datasets)
    names = {offer.name for known in offers for offer in known} | set(catalogue.claims)

    assert len(names) > 100
    for name in names:
        assert json.loads(json.dumps(describe(name, catalogue), default=str))


def test_an_unknown_name_has_a_hint():
    assert "nothing is called 'crrelo'; did you mean 'crrelu'?" in harness("describe", "crrelo").err


def test_status_counts_and_lists_failures(registry):
    """By suite and status; with --failed each with its id and last line."""
    counts = [line.split() for line in harness("status", "--registry", registry).out.splitlines()]
    failed = harness("status", "--failed", "--registry", registry).out

    assert counts == [["vision", "failed", "1"], ["vision", "ok", "2"]]
    assert failed == "0193a7b200000000  failed      relu on digits quality 0: ValueError: boom\n"


def test_logs_give_what_was_printed_and_the_error(registry):
    """By the beginning of an id; what was not kept is said."""
    answer = harness("logs", ATTEMPT[:8], "--registry", registry)

    assert answer.out == "said\nValueError: boom\n"
    assert "relu on digits quality 0: failed" in answer.err
    assert "7 bytes in the middle were not kept" in answer.err
    assert harness("logs", "feed", "--registry", registry).code == 2


def test_show_gives_an_attempt_or_a_methods_results(registry):
    """An id gives all of one record; a name gives means over seeds."""
    one = harness("show", ATTEMPT[:10], "--registry", registry).json
    method = harness("show", "crrelu", "--registry", registry, "--json").json

    assert (one["attempt_id"], one["status"], one["net"]) == (ATTEMPT, "failed", {"arch": "mlp", "width": 64})
    assert [(r["quantity"], r["mean"], r["n"]) for r in method["metrics"]] == [("accuracy", 0.5, 2)]
    assert "mean 0.5 1" in harness("show", "paper-harness/crrelu", "--registry", registry).out


def test_a_registry_that_is_not_there_is_said(tmp_path):
    """Reading makes nothing."""
    for command in (["status"], ["leaderboard"], ["logs", "0"], ["show", "relu"], ["query", "SELECT 1"]):
        answer = harness(*command, "--registry", "absent")
        assert answer.code == 2
        assert "absent: no registry there; run a suite first" in answer.err
    assert not (tmp_path / "absent").exists()


def test_a_suite_whose_trials_are_others_by_now_is_no_empty_picture(tmp_path):
    """Its code changed since: a picture of nothing would be drawn over a good one."""
    Registry.open(tmp_path / "r").append(make_attempt(1, where=WHERE))
    (tmp_path / "vision.svg").write_text("a good one")

    answer = harness("leaderboard", "--suite", "vision", "--registry", "r", "--svg", "vision.svg")

    assert answer.code == 2
    assert "the 1 attempts of vision here are of other code, settings or data" in answer.err
    assert "`harness run vision` runs it anew" in answer.err
    assert (tmp_path / "vision.svg").read_text() == "a good one"

    mine = tmp_path / "mine.yaml"  # records know a suite by its name, whatever its file is called
    mine.write_text((Path(__file__).parents[1] / "suites" / "vision.yaml").read_text())
    assert "the 1 attempts of vision here" in harness("leaderboard", "--suite", mine, "--registry", "r").err


def test_a_leaderboard_compares_with_whom_it_is_told_to(tmp_path):
    """The paper's method against all others, say; a name that no plugin offers is a mistake of the user's."""
    opened = Registry.open(tmp_path / "r")
    for number, ref in enumerate(("paper-harness/relu", "paper-harness-papers/crrelu"), 1):
        role = "baseline" if number == 1 else "method"
        made = make_attempt(number, replace(make_trial(ref, role=role), method=ref))
        opened.append(replace(made, declared=(ACCURACY,)))

    told = harness("leaderboard", "--registry", "r", "--baseline", "crrelu", "--json")
    wrong = harness("leaderboard", "--registry", "r", "--baseline", "crelu")

    assert [board["baseline"] for board in told.json["boards"]] == ["crrelu"]
    assert (wrong.code, "did you mean 'crrelu'" in wrong.err) == (2, True)


def test_records_of_other_machines_are_chosen_by_name(tmp_path):
    """One other machine is shown with a word; of several the user chooses."""
    opened = Registry.open(tmp_path / "merged")
    opened.append(make_attempt(1, where=replace(WHERE, machine="m-7")))

    alone = harness("leaderboard", "--registry", "merged")
    opened.append(make_attempt(2, where=replace(WHERE, machine="m-8")))
    several = harness("leaderboard", "--registry", "merged")
    chosen = harness("leaderboard", "--registry", "merged", "--machine", "m-8")

    assert alone.code == 0
    assert f"records of machine m-7; none of this one ({MACHINE})" in alone.err
    assert several.code == 2
    assert "choose one with --machine: m-7, m-8" in several.err
    assert chosen.code == 0


# Queries --------------------------------------------------------------------------------------------------------------------

BY_STATUS = "SELECT status, count(*) AS n FROM attempts GROUP BY status ORDER BY status"


def test_a_query_answers_as_a_table_json_or_csv(registry):
    """The same rows three times."""
    table, as_json, as_csv = (
        harness("query", BY_STATUS, *option, "--registry", registry) for option in ([], ["--json"], ["--csv"])
    )

    assert as_json.json == [{"status": "failed", "n": 1}, {"status": "ok", "n": 2}]
    assert as_csv.out.splitlines() == ["status,n", "failed,1", "ok,2"]
    assert [[cell.strip() for cell in line.split("│")[1:3]] for line in table.out.splitlines() if "│" in line] == [
        ["failed", "1"],
        ["ok", "2"],
    ]


WRITES = (
    "DELETE FROM attempts", "INSERT INTO attempts SELECT * FROM attempts", "COPY attempts TO 'out.csv'", "DROP VIEW attempts",
    "ATTACH 'x.db'", "SELECT * FROM read_csv('/etc/passwd')", "SELECT 1; SELECT 2",
)  # fmt: skip


def files_of(registry: Path) -> list[Path]:
    """Without the reader's own index."""
    return sorted(p for p in registry.rglob("*") if p.is_file() and p.parent.name != "index")


def test_a_query_may_not_write(registry):
    """Records are append-only; a typing mistake must not reach them, nor a file."""
    before = files_of(registry)

    for sql in WRITES:
        answer = harness("query", sql, "--registry", registry)
        assert (answer.code, answer.out) == (2, ""), sql
        assert "Traceback" not in answer.err
    assert files_of(registry) == before
    assert not Path("out.csv").exists()


def test_a_mistake_in_a_query_has_a_hint(registry):
    answer = harness("query", "SELECT * FROM atempts", "--registry", registry)

    assert answer.code == 2
    assert "did you mean 'attempts'?" in answer.err


def test_a_table_prints_names_and_values_as_they_are(registry):
    """They are data; rich would take them for markup."""
    out = harness("query", "SELECT '[red]value[/]' AS \"[/b]name\"", "--registry", registry)

    assert out.code == 0, out.err
    assert "[red]value[/]" in out.out
    assert "[/b]name" in out.out


# The schema and the shipped suites --------------------------------------------------------------------------------------------


def test_the_schema_file_is_in_step_with_the_models():
    """Editors complete suites by it. `harness schema > suites/suite.schema.json` mends this test."""
    assert (ROOT / "suites" / "suite.schema.json").read_text() == harness("schema").out


@pytest.mark.parametrize("path", shipped_suites(), ids=lambda path: path.stem)
def test_each_shipped_suite_names_the_schema_and_is_valid(path):
    """`harness run NAME` must work without a checkout; the first line makes an editor check it."""
    assert path.read_text().splitlines()[0] == SCHEMA_COMMENT
    assert load_suite(path, load_catalogue()).name == path.stem
    assert harness("validate", path.stem).out == f"{path}: ok\n"


def test_a_plan_is_the_same_for_people_and_machines(suite):
    """The table counts what the JSON lists."""
    told = harness("plan", suite, "--json").json
    drawn = harness("plan", suite).out

    assert [(t["method"].split("/")[1], t["seed"], t["state"]) for t in told["trials"]] == [
        (m, s, "missing") for s in (0, 1) for m in ("gelu", "relu")
    ]  # fmt: skip
    assert (told["to_run"], told["predicted_s"], told["notes"]) == (4, None, [])
    assert "small: 4 trials" in drawn
    assert "4 to run, 0 done; predicted time unknown" in drawn
    assert json.dumps(told)
