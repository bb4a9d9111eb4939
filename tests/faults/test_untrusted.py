"""What strangers hand over is answered, refused or shown as text; it is never obeyed, and hides nothing else."""

from __future__ import annotations

import ast
import html
import importlib.util
import json
import os
import random
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.faults`

from harness.catalogue import load_catalogue  # noqa: E402
from harness.data import read_bytes  # noqa: E402
from harness.errors import DataError, HarnessError, SuiteError  # noqa: E402
from harness.plan import Here, make_plan  # noqa: E402
from harness.registry import Registry  # noqa: E402
from harness.showing import Visible, cell, finite, one_line, short_label, visible  # noqa: E402
from harness.specs import Dataset  # noqa: E402
from harness.strangers import read_json, strangeness  # noqa: E402
from harness.suite import load_suite, load_suite_text, shipped_suites  # noqa: E402
from harness.suite.load import MAX_TRIALS, count_trials  # noqa: E402
from tests.faults import hostile, untrusted  # noqa: E402


@cache
def installed():
    return load_catalogue()


@pytest.fixture
def catalogue():
    return installed()


# The campaign -------------------------------------------------------------------------------------------------------------


def test_hostile_suites_and_options_give_a_suite_or_a_message_with_its_place(tmp_path):
    """In a process that may map 200 MB more than an idle one, each within a second."""
    suites = untrusted.limited("suites", 1, 150, tmp_path)
    options = untrusted.limited("options", 1, 60, tmp_path)

    assert (suites.wrong, options.wrong) == ([], [])
    assert (suites.tried, options.tried) == (150, 60)


@pytest.mark.parametrize("number", range(len(hostile.BOMBS)))
def test_an_enormous_suite_is_answered_within_the_limits(number, catalogue):
    """Each of the bombs at several sizes, one of them the largest: random ones are mostly small."""
    shipped = [path.read_text() for path in shipped_suites()]

    class Largest(random.Random):
        def randrange(self, start, stop=None, step=1):
            return (start if stop is None else stop) - 1

    for rng in (Largest(0), random.Random(number)):
        text = "".join([shipped[0], "\n", hostile.BOMBS[number](rng)])
        assert untrusted.load_once(catalogue, text.encode(), []) == ""


def test_hostile_records_are_read_by_every_command_and_hide_no_healthy_one(tmp_path):
    """Names with scripts and escapes, JSON of any shape, NaN, pipes and bombs in place of files; exit 0, text only."""
    found, commands = untrusted.read_hostile_records(tmp_path, 1, seed=3)

    assert found.wrong == []
    assert commands >= 28
    assert found.tried > commands


def test_hostile_data_files_are_refused(tmp_path, monkeypatch):
    """By the digest, by the declared size, by being no plain file; nothing is unpickled and nothing waits for ever."""
    monkeypatch.chdir(tmp_path)  # where a pickle would leave its trace

    found = untrusted.read_hostile_data(tmp_path / "place")

    assert found.wrong == []
    assert found.tried >= 140


def test_sql_that_writes_looks_out_or_takes_everything_is_refused(tmp_path):
    """In a process of its own: what passed the limits would take the machine with it."""
    found = untrusted.limited("queries", 0, 100, tmp_path)

    assert found.wrong == []
    assert found.tried >= len(hostile.REFUSED) + 3


def test_plugins_with_hostile_names_are_named_and_stop_nobody(tmp_path):
    """Slashes, dots, escapes, 300 characters, no text at all; paths that leave the folder; imports that leave the process."""
    found = untrusted.load_hostile_names(tmp_path / "plugins")

    assert found.wrong == []
    assert found.tried > 250


@pytest.mark.slow
def test_the_campaign_at_length_is_clean(tmp_path):
    tallies = untrusted.campaign(tmp_path, 2_000, 1, None)

    assert [t.fault for t in tallies if not t.clean] == []
    assert sum(t.tried for t in tallies) > 2_000


@pytest.mark.slow
def test_atheris_finds_nothing_in_the_loader_in_two_minutes(tmp_path):
    """Guided by coverage it gets where random edits do not."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris: pip install 'paper-harness[fuzz]' on CPython 3.11")
    ended = untrusted.fuzz_guided(tmp_path, "-max_total_time=120")

    assert ended.returncode == 0, ended.stderr[-2000:]


# The judges can find something: a test that cannot fail shows nothing -----------------------------------------------------


@pytest.mark.parametrize("text", ["a\x1b[31m", "a\x9bm", "a\rb", "\u202eab", "a\u200bb", "\x00", "a\u2028b"])
def test_the_judge_of_terminals_sees_what_a_terminal_obeys(text):
    assert untrusted.first_control(text)
    assert not untrusted.first_control(visible(text))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<script>x</script>", "<script>"), ("<text onclick='x'>a</text>", "onclick"), ("<foreignObject/>", "foreignObject"),
        ("<text xmlns:l='http://www.w3.org/1999/xlink' l:href='http://x'>a</text>", "href"), ("<image/>", "image"),
        ("<g", "no SVG"),
    ],
)  # fmt: skip
def test_the_judge_of_pictures_sees_what_acts(tmp_path, body, said):
    file = tmp_path / "x.svg"
    file.write_text(f"<svg xmlns='http://www.w3.org/2000/svg'>{body}</svg>")

    assert said in untrusted.judged_svg(file)


@pytest.mark.parametrize(
    "inner",
    ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", '<a href="javascript:alert(1)">x</a>', "<b onclick=1>x</b>",
     '<script src="https://elsewhere/x.js"></script>', "\u202ex", "<iframe></iframe>"],
)  # fmt: skip
def test_the_judge_of_pages_sees_what_strangers_made_of_them(tmp_path, inner):
    page = tmp_path / "page.html"
    page.write_text(f'<html><body><p>healthy</p>{inner}<script src="report.js"></script></body></html>')

    assert untrusted.judged_page(page)
    page.write_text(page.read_text().replace(inner, html.escape(inner.replace("\u202e", ""))))
    assert not untrusted.judged_page(page)


def test_the_judge_of_loads_sees_tracebacks_and_messages_without_a_place(monkeypatch, catalogue):
    def raises(error):
        def load(*_, **__):
            raise error

        return load

    for error in (ValueError("x"), RecursionError(), MemoryError(), HarnessError("no place"), HarnessError("f.yaml:1: \x1b")):
        monkeypatch.setattr("harness.suite.load_suite_text", raises(error))
        assert untrusted.load_once(catalogue, b"", [])


def test_a_part_that_meets_its_limit_is_counted_as_wrong(tmp_path):
    """A process that the system killed must not look like one with nothing to say."""
    assert untrusted.limited("no such part", 0, 1, tmp_path).wrong


# Suites: any tree ---------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    ["schema", "name", "title", "tasks", "methods", "net", "train", "seeds", "root_seed", "devices", "dtype", "threads",
     "budget", "measure", "exclude", "claims", "limits", "use", "as", "role", "params", "grid", "zip", "eps", "arch", "width",
     "match", "to", "flops", "quality", "timing", "memory", "timeout", "samples_seen", "epochs", "method", "net.arch"]
)  # fmt: skip
WORDS = st.text(max_size=8) | st.sampled_from(
    ["harness/suite/1", "digits", "relu", "crrelu", "mlp", "cpu", "cuda", "accuracy", "train_step", "5%", "30m", "4GiB", "*",
     "[a", "a" * 300]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS
TREES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS | WORDS, below, max_size=5), max_leaves=30
)
RIGHT = {"schema": "harness/suite/1", "name": "v", "tasks": ["digits"], "methods": ["relu", "crrelu"],
         "net": {"arch": "mlp", "width": 8},
         "budget": {"samples_seen": 100}}  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, TREES, max_size=4), st.booleans())
def test_any_tree_under_any_key_is_a_suite_or_a_message_with_its_place(changes, ascii_only):
    """JSON is YAML: trees of the right words in the wrong places reach what edits of a text do not."""
    text = json.dumps({**RIGHT, **changes}, ensure_ascii=ascii_only)

    assert untrusted.load_once(installed(), text.encode("utf-8", "surrogatepass"), []) == ""


# Suites: sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", shipped_suites(), ids=lambda path: path.stem)
def test_trials_are_counted_as_the_plan_makes_them(path, catalogue):
    """The count refuses a suite before a plan is made of it, so it may not differ from what the plan would make."""
    suite = load_suite(path, catalogue, overrides=["budget.match=null", "devices=[cpu]"])
    plan = make_plan(suite, catalogue, Here("t", {"cpu": ""}), {}, {})

    planned = len(plan.planned) + len(plan.waiting)  # those wait for a tuning that has not run
    assert count_trials(suite, catalogue) >= planned > 0
    if not suite.exclude:
        assert count_trials(suite, catalogue) == planned


def test_a_suite_that_multiplies_to_a_thousand_million_trials_is_refused_with_the_mend(catalogue):
    """Each part of it is small; only the product would eat the memory of whoever plans it."""
    nets = ", ".join(f"{{arch: mlp, width: {i}}}" for i in range(1, 101))
    grid = ", ".join(f"{i}.5" for i in range(1000))
    text = (
        f"schema: harness/suite/1\nname: v\ntasks: [digits]\nmethods: [{{use: crrelu, grid: {{eps: [{grid}]}}}}]\n"
        f"net: [{nets}]\nbudget: {{samples_seen: 100}}\nseeds: 10000\n"
    )

    with pytest.raises(SuiteError, match=r"^f\.yaml:1: makes 1,000,000,000 trials; .* at most 100,000: give fewer seeds"):
        load_suite_text(text, "f.yaml", catalogue)
    with pytest.raises(SuiteError, match=r"makes 10,000,000 trials"):
        load_suite_text(text, "f.yaml", catalogue, overrides=["seeds=100"])
    assert count_trials(load_suite_text(text, "f.yaml", catalogue, overrides=["seeds=1"]), catalogue) == MAX_TRIALS


def test_a_grid_with_a_product_of_thousands_of_digits_is_refused(catalogue):
    """Python refuses to print such a number; the refusal of the grid must not stumble over it."""
    grid = ", ".join(f"p{i}: [1, 2, 3, 4]" for i in range(3_000))
    text = f"schema: harness/suite/1\nname: v\ntasks: [digits]\nmethods: [{{use: crrelu, grid: {{{grid}}}}}]\n"

    with pytest.raises(SuiteError, match=r"grid\.p0: 'crrelu' has no parameter 'p0'"):
        load_suite_text(text, "f.yaml", catalogue)


def test_a_pattern_of_brackets_is_refused(catalogue):
    """Translating it into a regular expression takes time with the square of its length: minutes, for a file of 100 kB."""
    text = "schema: harness/suite/1\nname: v\ntasks: [digits]\nmethods: [relu]\nexclude: [{method: '%s'}]\n" % ("[" * 100_000)

    with pytest.raises(SuiteError, match=r"exclude\[0\]\.method: got .*, 100000 characters; write a pattern of at most 200"):
        load_suite_text(text, "f.yaml", catalogue)


# What is shown ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", hostile.TEXTS, ids=lambda text: ascii(text)[:30])
def test_what_is_shown_is_text_and_says_the_same_again(text):
    """Visible text stays as it is when it is shown again; plain text is not touched at all."""
    shown = visible(text)

    assert untrusted.first_control(shown) == ""
    assert visible(shown) == shown
    assert "\n" not in one_line(text)
    assert len(short_label(text, 3)) <= 70
    assert visible("größer ± 3 µs, 95 %\n\tnext") == "größer ± 3 µs, 95 %\n\tnext"


def test_a_stream_that_cannot_say_a_character_shows_its_escape():
    """A terminal in ASCII is no reason for a traceback."""
    import io

    raw = io.BytesIO()
    stream = Visible(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("├─┤ \x1b[2J\ud800\r\n")
    stream.flush()

    assert raw.getvalue() == rb"\u251c\u2500\u2524 \x1b[2J\ud800" + b"\r\n"
    assert not hasattr(stream, "buffer")


def test_cells_that_a_spreadsheet_would_compute_are_text():
    assert [cell(v) for v in ("=cmd|x", "@SUM(1)", "+1", "-1", "\t=1", "relu", -1.5, None)] == [
        "'=cmd|x", "'@SUM(1)", "'+1", "'-1", "'\t=1", "relu", -1.5, None
    ]  # fmt: skip


def test_json_output_is_json_whatever_was_measured():
    """NaN and Infinity are words of JavaScript, not of JSON: strict readers refuse the whole answer."""
    told = finite([{"a": float("nan"), "b": [float("inf"), 1.5, {"c": -float("inf")}], "d": (1, None)}])

    assert json.dumps(told, allow_nan=False) == '[{"a": null, "b": [null, 1.5, {"c": null}], "d": [1, null]}]'


def test_logs_show_the_escapes_that_a_trial_printed(tmp_path):
    """`harness logs` prints what a plugin printed: a terminal must not obey it, and nothing of it may get lost."""
    row = hostile.plain_row(1) | {
        "log": "epoch 1\r\nepoch 2\rdone\x1b[2J\x1b]0;owned\x07\n",
        "status": "failed",
        "error": "\x9bboom",
    }
    registry = untrusted.fill_registry(tmp_path / "registry", [row], False)

    answer = untrusted.answer_of("logs", row["attempt_id"], "--registry", registry)

    assert answer.code == 0
    assert answer.out == "epoch 1\r\nepoch 2\\rdone\\x1b[2J\\x1b]0;owned\\x07\n\\x9bboom\n"


def test_a_newline_in_a_name_makes_no_line_of_ours(tmp_path):
    """ "warning: ..." on a line of its own would pass for a word of the harness."""
    row = hostile.plain_row(1) | {"method": "d/x\nwarning: all is well", "suite": "s\nwarning: all is well", "status": "failed"}
    registry = untrusted.fill_registry(tmp_path / "registry", [row], False)

    for command in (("status",), ("status", "--failed"), ("logs", row["attempt_id"])):
        answer = untrusted.answer_of(*command, "--registry", registry)
        assert answer.code == 0
        assert not any(line.startswith("warning") for line in (answer.out + answer.err).splitlines())


def test_records_without_a_machine_are_no_reason_not_to_say_which_there_are(tmp_path):
    """The list of machines to choose from is made of what records hold, or do not hold."""
    rows = [hostile.plain_row(1) | {"machine": None}, hostile.plain_row(2) | {"machine": "../../etc\nwarning: x"}]
    registry = untrusted.fill_registry(tmp_path / "registry", rows, False)

    answer = untrusted.answer_of("leaderboard", "--registry", registry)

    assert answer.code == 2
    assert "choose one with --machine" in answer.err
    assert "../../etc\\nwarning: x" in answer.err


def test_a_picture_with_a_character_that_xml_has_not_does_not_end_the_process(tmp_path):
    """The library that draws aborts the whole interpreter at an escape in a name: no exception could be caught."""
    row = hostile.plain_row(1, "x\x1b[31m\x00\ufffe<script>")
    registry = untrusted.fill_registry(tmp_path / "registry", [row], False)

    answer = untrusted.answer_of("leaderboard", "--machine", "m-1", "--svg", str(tmp_path / "x.svg"), "--registry", registry)

    assert answer.code == 0
    assert untrusted.judged_svg(tmp_path / "x.svg") == ""
    assert "\\x1b[31m" in (tmp_path / "x.svg").read_text()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("net", "[1]", "net is no JSON object"),
        ("net", '{"width": 1}', "net names no arch"),
        ("budget", '{"steps": "many"}', "budget holds an amount"),
        ("budget", '{"steps": NaN}', "budget is no JSON object"),
        ("matched", '{"to": 1}', "matched lacks where"),
        ("train", "[" * 100_000, "train is no JSON object"),
        ("threads", None, "threads is None"),
        ("task", None, "task is None"),
        ("device", None, "device is None"),
    ],
)
def test_a_record_that_no_harness_writes_is_left_out_of_boards_with_a_warning(tmp_path, column, value, said):
    """It must neither end the command nor hide the record beside it, and nothing is left out in silence."""
    registry = untrusted.fill_registry(tmp_path / "registry", [hostile.plain_row(1, "strange") | {column: value}], False)

    answer = untrusted.answer_of("leaderboard", "--machine", "m-1", "--json", "--registry", registry)

    assert answer.code == 0
    assert {row["method"] for board in json.loads(answer.out)["boards"] for row in board["rows"]} == {"healthy"}
    assert "1 attempts of method" in answer.err
    assert said in answer.err


def test_a_time_that_is_none_hides_no_board(tmp_path):
    """A list of samples may hold nothing, infinity, or a region without a name."""
    samples = {"wall_s": [None, float("inf")], "cpu_s": [None], "warmup": 1, "stop_reason": "precise"}
    strange = hostile.plain_row(1, "strange") | {"timings": [samples | {"region": name} for name in ("step", None)]}
    registry = untrusted.fill_registry(tmp_path / "registry", [strange | {"kind": "timing"}], False)

    for form in ((), ("--json",)):
        answer = untrusted.answer_of("leaderboard", "--machine", "m-1", *form, "--registry", registry)
        assert (answer.code, "healthy" in answer.out) == (0, True), answer.err


def test_a_clock_without_a_name_or_with_another_ones_hides_no_curve(tmp_path):
    """DuckDB refuses such a map, and would refuse the whole query."""
    amounts = ([{"clock": None, "amount": 1.0}], [{"clock": "a", "amount": 1.0}] * 2, [{"clock": "wall_s", "amount": 3.0}])
    point = {"quantity": "q", "part": "test", "unit": "1", "value": 1.0}
    rows = [hostile.plain_row(n) | {"curve": [point | {"at": at}]} for n, at in enumerate(amounts)]
    registry = untrusted.fill_registry(tmp_path / "registry", rows, False)

    found = Registry.open(registry).query("SELECT at_wall_s FROM curves WHERE quantity = 'q'").to_pylist()

    assert sorted(str(row["at_wall_s"]) for row in found) == ["3.0", "None", "None"]


def test_what_the_harness_writes_is_not_strange(tmp_path):
    """The guard must not cost a single honest record: all those of the reference registry are ranked."""
    registry = Registry.open(ROOT / "registry" / "reference", create=False)
    table = registry.table()

    for row in table.to_pylist():
        for name in ("method_params", "task_params", "net", "train", "budget", "matched"):
            row[name] = read_json(row[name]) if row[name] else None
        assert strangeness(row) == ""
    assert table.num_rows > 100


# Data: what changes under the reader ---------------------------------------------------------------------------------------


def test_a_data_file_that_changes_while_it_is_read_is_the_declared_one_or_an_error(tmp_path):
    """What is handed on are the very bytes whose digest was taken, never those of a second look."""
    import hashlib

    good, bad, path = b"g" * 200_000, b"b" * 200_000, tmp_path / "set.bin"
    declared = Dataset("s", "folder", hashlib.sha256(good).hexdigest(), "s", "l", "https://example.org", "set.bin", len(good))
    path.write_bytes(good)
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            for content in (bad, good):
                with path.open("r+b") as file:
                    file.write(content)

    writer = threading.Thread(target=flip)
    writer.start()
    answers = []
    try:
        for _ in range(300):
            try:
                answers.append(read_bytes(declared, tmp_path) == [good])
            except DataError:
                answers.append(None)
    finally:
        done.set()
        writer.join()

    assert False not in answers
    assert answers.count(None) > 0, "the file never changed under the reader: this showed nothing"


def test_a_pipe_in_a_registry_is_left_out_at_once(tmp_path):
    """A reader that waited for its other end would hang for ever; the healthy files beside it are read."""
    registry = untrusted.fill_registry(tmp_path / "registry", [], with_strange_files=False)
    os.mkfifo(registry / "attempts" / ("f" * 64 + ".parquet"))
    (registry / "attempts" / ("e" * 64 + ".parquet")).symlink_to("/dev/zero")

    with untrusted.must_end(60):
        opened = Registry.open(registry, create=False)
        rows = opened.table({"method"}).num_rows

    assert rows == 3
    assert sum("not a plain file" in warning for warning in opened.warnings) == 2


def test_a_parquet_bomb_in_a_registry_is_left_out_unread(tmp_path):
    """30 million rows in some kilobytes: to find out that they are empty one would have to hold them."""
    registry = untrusted.fill_registry(tmp_path / "registry", [], with_strange_files=False)
    bomb = hostile.put(registry, "attempts", hostile.parquet_bomb(), ".parquet")

    opened = Registry.open(registry, create=False)

    assert bomb.stat().st_size < 200_000
    assert opened.table({"method"}).num_rows == 3
    assert any("30000000 rows in" in warning for warning in opened.warnings)


@pytest.mark.parametrize("isatty", [True, False])
def test_a_log_reads_the_same_on_a_terminal_and_in_a_file(tmp_path, monkeypatch, isatty):
    """A file is looked at on a terminal later; and what was printed should not depend on where it is read."""
    registry = untrusted.fill_registry(tmp_path / "registry", [hostile.plain_row(1) | {"log": "a\x1b[31mb"}], False)
    monkeypatch.setattr(untrusted.Terminal, "isatty", lambda self: isatty)

    assert untrusted.answer_of("logs", f"{1:032x}", "--registry", registry).out == "a\\x1b[31mb\n"


# Words that open what a stranger could have filled ------------------------------------------------------------------------

MODULES = {
    "tarfile",
    "zipfile",
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "joblib",
    "yaml",
    "telnetlib",
    "ftplib",
}
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
METHODS = {"unpack_archive", "extractall", "loads_pickle", "read_pickle", "unsafe_load", "full_load", "system", "popen"}
ALLOWED = {
    # file, word: why
    ("harness/worker/sealing.py", "import pickle"): "bytes that this process wrote itself, kept in memory, encrypted meanwhile",
    ("harness/testing/methods.py", "import pickle"): "a solution that this process wrote itself a moment before",
    (
        "harness/fetching/archives.py",
        "import tarfile",
    ): "an archive of the declared SHA-256; members are read by name, not extracted",
}


def sources() -> Iterator[Path]:
    for folder in ("harness", "plugins"):
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if "build" not in path.parts)


def dangers(tree: ast.AST) -> Iterator[str]:
    """Each word of a module that opens an archive, runs what it reads, or starts a shell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"import {name}" for name in names if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from dangerous_call(node)


def dangerous_call(call: ast.Call) -> Iterator[str]:
    given = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
    if isinstance(call.func, ast.Name) and name in CALLS:
        yield f"{name}()"
    if name in METHODS:
        yield f"{owner}.{name}()"
    if (owner, name) == ("torch", "load") and given.get("weights_only") is not True:
        yield "torch.load() without weights_only=True"
    if (owner, name) in {("np", "load"), ("numpy", "load")} and given.get("allow_pickle") is not False:
        yield "np.load() without allow_pickle=False"
    if given.get("allow_pickle") is True or given.get("weights_only") is False:
        yield "allow_pickle or weights_only turned the wrong way"
    if given.get("shell") is True:
        yield "shell=True"


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_opens_archives_runs_what_it_reads_or_starts_a_shell(path):
    """No pickle, and no archive but those that `harness data fetch` downloads and knows by digest: the rest that is read from a
    disk is text, Parquet, IDX, CIFAR's records, JPEG, npy or safetensors."""
    name = path.relative_to(ROOT).as_posix()

    found = {word for word in dangers(ast.parse(path.read_text())) if (name, word) not in ALLOWED}

    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        "import tarfile", "from zipfile import ZipFile", "import pickle as p", "from shelve import open", "import marshal",
        "import yaml",
        "eval('1')", "exec(x)", "import torch\ntorch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)",
        "np.load(f, allow_pickle=True)", "shutil.unpack_archive(f)", "archive.extractall('.')", "subprocess.run(x, shell=True)",
        "os.system(x)", "pandas.read_pickle(f)", "__import__(x)",
    ],
)  # fmt: skip
def test_each_of_these_words_is_found(code):
    """The walk over the sources proves something only if it sees what it looks for."""
    assert list(dangers(ast.parse(code)))


def test_every_allowance_is_still_used():
    """An allowance that nobody needs any more is a hole."""
    used = {(path.relative_to(ROOT).as_posix(), word) for path in sources() for word in dangers(ast.parse(path.read_text()))}

    assert set(ALLOWED) <= used
