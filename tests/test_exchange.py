"""Export and import: files that other tools read as they are, and theirs as records that say no more than they know."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from invoking import harness
from registry_samples import MACHINE, WHERE, make_attempt, make_trial

from harness.errors import HarnessError, NothingSelected
from harness.exporting.pytest_benchmark import attempts_of, export_session, import_session, read_session
from harness.exporting.pytest_benchmark.outgoing import statistics_of
from harness.exporting.tables import csv_cell
from harness.exporting.writing import replacing
from harness.records import Measurement, Timing
from harness.registry import Registry
from harness.registry.views import VIEWS

SAMPLE = Path(__file__).parent / "data" / "pytest-benchmark.json"  # as pytest-benchmark 5.3.1 wrote it, its CPU flags cut
FORMULAS = ['=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]

BENCHMARKS = """
import pytest

@pytest.mark.benchmark(group="sums")
@pytest.mark.parametrize("n", [10, 1000])
def test_sum(benchmark, n):
    benchmark.extra_info["note"] = "=1+1"
    benchmark.pedantic(lambda: sum(range(n)), rounds=30, iterations=3)

def test_alone(benchmark):
    benchmark.pedantic(lambda: sorted(range(100)), rounds=7)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_MACHINE", MACHINE)
    monkeypatch.delenv("HARNESS_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)


def timed(number: int, method: str = "relu", seed: int = 0, *, commit: str = "abc", samples: int = 30, **trial: Any) -> Any:
    """An attempt of timing with two regions of samples around a millisecond."""
    source = random.Random(number)
    regions = [
        Timing(region, tuple(source.gauss(1e-3, 1e-5) for _ in range(samples)), (9e-4,) * samples, 5, "precise")
        for region in ("inference", "train_step")
    ]
    made = make_attempt(
        number, make_trial(method, seed, kind="timing", **trial), replace(WHERE, git_commit=commit), timings=tuple(regions)
    )
    return replace(made, outcome=replace(made.outcome, measurements=()))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two methods timed in two processes each, at one commit; one of them at an earlier commit, too."""
    opened = Registry.open(tmp_path / "registry")
    opened.append(timed(1, "relu", 0, commit="0ld"))
    for number, (method, seed) in enumerate([("relu", 0), ("relu", 1), ("silu", 0), ("silu", 1)], 2):
        opened.append(timed(number, method, seed))
    return opened


@pytest.fixture(scope="module")
def made_by_pytest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the installed pytest-benchmark writes, just now."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "test_made.py").write_text(BENCHMARKS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json=made.json", "test_made.py"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder / "made.json"


def samples_in(opened: Registry) -> list[list[float]]:
    return sorted(t["wall_s"] for row in opened.table({"timings"}).to_pylist() for t in row["timings"])


# Tables -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_exported_and_holds_what_a_query_gives(view, registry, tmp_path):
    """The file is the view: as many rows, and Parquet's values are those of the query."""
    rows = registry.query(f"SELECT * FROM {view}")
    for name in ("csv", "parquet"):
        answer = harness("export", name, "--view", view, "-o", f"out.{name}", "--registry", registry.path)
        assert (answer.code, answer.out) == (0, f"out.{name}: {rows.num_rows} rows of {view}\n"), answer.err

    with Path("out.csv").open(newline="") as file:
        read = list(csv.reader(file))
    parquet = pq.read_table("out.parquet")

    assert read[0] == rows.column_names == parquet.column_names
    assert len(read) - 1 == rows.num_rows == parquet.num_rows
    key = str
    assert sorted(map(key, parquet.to_pylist())) == sorted(map(key, rows.to_pylist()))


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_of_a_record_is_a_formula_in_csv(text, tmp_path):
    """A spreadsheet computes what begins so, and may call programs; an apostrophe makes it text, and a reader can undo it."""
    opened = Registry.open(tmp_path / "hostile")
    opened.append(make_attempt(1, make_trial(text, 0, task=text), error=text))

    answer = harness("export", "csv", "--view", "attempts", "-o", "out.csv", "--registry", opened.path)
    with Path("out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)

    assert answer.code == 0
    assert not [cell for cell in row.values() if cell and cell[0] in "=+-@\t\r"]
    assert {row["task"], row["error"]} <= {"'" + text, "'" + text.replace("\r", "\\r"), text.replace("\r", "\\r")}


def test_numbers_in_csv_are_whole_and_have_no_apostrophe():
    """-0.1 begins like a formula and is none; every digit is kept."""
    out = io.StringIO()
    csv.writer(out).writerow([csv_cell(v) for v in (-0.1, 1 / 3, -5, 1e-300, True, None, math.inf)])

    assert out.getvalue().strip() == "-0.1,0.3333333333333333,-5,1e-300,True,,inf"


def test_lists_times_and_control_characters_in_csv_are_text_that_can_be_read():
    """JSON that is strict, ISO 8601, escapes: nothing retitles a terminal that shows the file."""
    assert json.loads(csv_cell([{"value": math.nan, "at": 1.5}])) == [{"value": None, "at": 1.5}]
    assert csv_cell(datetime(2026, 9, 1, tzinfo=UTC)) == "2026-09-01T00:00:00+00:00"
    assert csv_cell("\x1b]0;owned\x07") == "\\x1b]0;owned\\x07"


def test_an_unknown_view_is_2_and_names_the_near_one(registry):
    """And no file appears, not even half of one."""
    answer = harness("export", "csv", "--view", "v_leaderbord", "-o", "out.csv", "--registry", registry.path)

    assert answer.code == 2
    assert "did you mean 'v_leaderboard'?" in answer.err
    assert list(Path().glob("*.csv")) == []


def test_a_view_is_a_name_and_no_sql(registry):
    """What is exported is chosen from a list; SQL belongs to `harness query`."""
    answer = harness("export", "csv", "--view", "attempts; DROP VIEW attempts", "-o", "-", "--registry", registry.path)

    assert (answer.code, answer.out) == (2, "")


def test_stdout_holds_the_table_and_nothing_else(registry):
    """`-o -` is for a pipe: how many rows there are is said on stderr."""
    answer = harness("export", "csv", "-o", "-", "--view", "timings", "--registry", registry.path)

    assert len(list(csv.DictReader(io.StringIO(answer.out)))) == 5 * 2 * 30
    assert "300 rows of timings" in answer.err


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    """A reader that watches the folder must not meet half a table, and the one before it stays until then."""
    file = tmp_path / "new" / "out.csv"
    with replacing(file) as aside:
        aside.write_text("first")
    with pytest.raises(UnicodeEncodeError), replacing(file) as aside:
        aside.write_text("half \ud800", encoding="utf-8")

    assert [path.name for path in file.parent.iterdir()] == ["out.csv"]
    assert file.read_text() == "first"


def test_a_folder_that_is_a_file_is_a_mistake_that_names_it(registry, tmp_path):
    (tmp_path / "file").write_text("")

    answer = harness("export", "csv", "-o", "file/out.csv", "--registry", registry.path)

    assert answer.code == 2
    assert "file/out.csv: cannot be written" in answer.err


# Out: pytest-benchmark ----------------------------------------------------------------------------------------------------


def test_pytest_benchmark_compares_what_is_exported(registry):
    """The installed package reads the file, groups methods by task and region, and shows our medians."""
    answer = harness("export", "pytest-benchmark", "-o", "out.json", "--registry", registry.path)
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "out.json", "--columns=median,rounds", "--csv=table.csv"]
    compared = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    with Path("table.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    first = json.loads(Path("out.json").read_text())["benchmarks"][0]

    assert answer.code == 0
    assert answer.out == "out.json: 8 benchmarks of commit abc on machine m-1\n"
    assert compared.returncode == 0, compared.stderr
    assert "benchmark 'digits inference cpu float32': 4 tests" in compared.stdout
    assert len(rows) == 8
    assert {row["rounds"] for row in rows.values()} == {"30"}
    assert float(rows[first["fullname"]]["median"]) == pytest.approx(first["stats"]["median"])


def test_a_file_is_of_one_commit_and_says_what_it_leaves_out(registry):
    """A file names one commit: numbers of another one in it would be a lie."""
    answer = harness("export", "pytest-benchmark", "-o", "out.json", "--registry", registry.path)
    old = harness("export", "pytest-benchmark", "-o", "old.json", "--commit", "0", "--registry", registry.path)
    wrong = harness("export", "pytest-benchmark", "-o", "no.json", "--commit", "f", "--registry", registry.path)

    assert "left out: 1 attempts of other commits (--commit chooses one)" in answer.err
    assert json.loads(Path("old.json").read_text())["commit_info"]["id"] == "0ld"
    assert len(json.loads(Path("old.json").read_text())["benchmarks"]) == 2
    assert old.code == 0
    assert wrong.code == 4
    assert "0 commits begin so; newest first there are abc (4), 0ld (1)" in wrong.err


def test_only_the_latest_ok_attempt_of_a_trial_is_exported(registry):
    """Failed and invalid ones are no benchmarks; the repeated one stands for itself, and the others are counted."""
    registry.append(timed(10, "relu", 0))
    registry.append(replace(timed(11, "relu", 1), outcome=replace(timed(11).outcome, status="failed")))
    registry.append(timed(12, "silu", 0))
    registry.annotate([f"{12:032x}"], "invalid", "throttled", "me")

    made = export_session(registry, MACHINE)

    attempts = {b["extra_info"]["harness_attempt"] for b in made.content["benchmarks"]}
    assert attempts == {f"{n:032x}" for n in (10, 3, 4, 5)}
    assert made.left_out["earlier of the same trial"] == 1


def test_kernels_are_grouped_by_case_and_region_so_that_implementations_stand_side_by_side(tmp_path):
    """As pytest-benchmark users expect; calls a sample become its iterations."""
    opened = Registry.open(tmp_path / "kernels")
    for number, implementation in enumerate(("eager", "ours"), 1):
        trial = make_trial(seed=0, kind="kernel", task="p/crrelu", net=None,
                           task_params={"elements": 10000, "layout": "strided"}, series_key=implementation)  # fmt: skip
        trial = replace(trial, method=f"p/crrelu/{implementation}")
        calls = Measurement("calls_per_sample", "forward", "1", "neither", 7.0)
        timing = Timing("forward", (1e-5, 2e-5), (1e-5, 1e-5), 3, "precise")
        opened.append(make_attempt(number, trial, timings=(timing,), measurements=(calls,)))

    made = export_session(opened, MACHINE).content["benchmarks"]

    assert {b["group"] for b in made} == {"crrelu 10k strided forward cpu float32"}
    assert [b["name"].partition("[")[0] for b in made] == ["eager", "ours"]
    assert {b["stats"]["iterations"] for b in made} == {7}
    assert made[0]["params"]["task.elements"] == 10000


def test_a_strangers_record_is_left_out_or_shown_and_hides_no_other(registry):
    """A registry may be merged from anybody: samples that are no seconds, names that are none, JSON that is none."""
    for number, wall in enumerate([(math.nan,), (math.inf, 1.0), (-1.0,), (1e308, 1e308), (None,), ()], 20):
        strange = timed(number, f"strange-{number}")
        timing = Timing("train_step", wall, (), 0, "")  # type: ignore[arg-type]
        registry.append(replace(strange, outcome=replace(strange.outcome, timings=(timing,))))
    odd = timed(30, "odd", task=None, net={"arch": "\x1b"}, task_params={"elements": "many"})
    calls = Measurement("calls_per_sample", "train_step", "1", "neither", math.nan)
    registry.append(replace(odd, outcome=replace(odd.outcome, measurements=(calls,))))

    made = export_session(registry, MACHINE)

    assert made.benchmarks == 8 + 2
    assert made.left_out["without samples"] == 6
    assert json.dumps(made.content, allow_nan=False)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 30, 31, 32, 33])
def test_statistics_are_those_of_pytest_benchmark(n):
    """Quartiles have nine definitions; a comparison with files of pytest's own must not compare two of them."""
    from pytest_benchmark.stats import Stats

    source = random.Random(n)
    data = [source.expovariate(1000.0) for _ in range(n)]
    theirs = Stats()
    for sample in data:
        theirs.update(sample)

    ours = statistics_of(data)

    expected = theirs.as_dict()
    assert ours.keys() == expected.keys()
    assert ours.pop("outliers") == expected.pop("outliers")
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)  # the order of sums differs


def test_the_file_has_the_fields_of_pytest_benchmarks_own(registry, made_by_pytest):
    """Tools read them by name: what theirs has, ours has, down to a benchmark's statistics."""
    theirs, ours = json.loads(made_by_pytest.read_text()), json.loads(json.dumps(export_session(registry, MACHINE).content))

    pairs = [(ours, theirs), *((ours[name], theirs[name]) for name in ("commit_info", "machine_info"))]
    pairs += [(ours["benchmarks"][0], theirs["benchmarks"][0])]
    pairs += [(ours["benchmarks"][0][name], theirs["benchmarks"][0][name]) for name in ("stats", "options")]
    for found, expected in pairs:
        assert expected.keys() <= found.keys()


def test_nothing_to_export_is_4_and_says_what_to_run(tmp_path):
    Registry.open(tmp_path / "empty")

    answer = harness("export", "pytest-benchmark", "-o", "out.json", "--machine", "m", "--registry", "empty")

    assert answer.code == 4
    assert "run a suite with kernels or `measure.timing`" in answer.err


# In: pytest-benchmark -----------------------------------------------------------------------------------------------------


def test_a_file_of_pytest_becomes_attempts_with_its_samples_commit_and_machine(made_by_pytest, tmp_path):
    """Every sample, and nothing that the file does not say."""
    theirs = json.loads(made_by_pytest.read_text())
    answer = harness("import", "pytest-benchmark", made_by_pytest, "--registry", "r", "--json")
    opened = Registry.open(tmp_path / "r", create=False)
    rows = {(row["method"], row["method_params"].get("n")): row for row in opened.attempts()}

    assert answer.json["new"] == 3
    assert samples_in(opened) == sorted(b["stats"]["data"] for b in theirs["benchmarks"])
    big = rows["pytest-benchmark/test_made.py::test_sum", 1000]
    assert (big["task"], big["kind"], big["status"]) == ("pytest-benchmark/sums", "timing", "ok")
    assert (big["torch_version"], big["dtype"], big["threads"]) == ("", "", 0)
    assert big["measurements"][0]["quantity"] == "calls_per_sample"
    assert big["measurements"][0]["value"] == 3.0
    assert rows["pytest-benchmark/test_made.py::test_alone", None]["task"] == "pytest-benchmark/test_made.py"
    machine = next(f["facts"] for f in opened.facts() if f["kind"] == "machine")
    assert (machine["source"], machine["node"]) == ("pytest-benchmark", theirs["machine_info"]["node"])
    assert harness("verify", "--registry", "r").code == 0


def test_the_same_file_twice_adds_nothing(tmp_path):
    """Also under another name, laid out anew, and after the registry has been compacted."""
    first = harness("import", "pytest-benchmark", SAMPLE, "--registry", "r", "--json").json
    Path("copy.json").write_text(json.dumps(json.loads(SAMPLE.read_text()), sort_keys=True))
    harness("compact", "--all", "--registry", "r")
    again = harness("import", "pytest-benchmark", "copy.json", "--registry", "r", "--json").json

    assert (first["new"], first["known"]) == (3, 0)
    assert (again["new"], again["known"]) == (0, 3)
    assert Registry.open(tmp_path / "r", create=False).table({"attempt_id"}).num_rows == 3


def test_two_registries_that_took_in_one_file_merge_without_conflict():
    """Ids and rows come from the file alone: not from who took it in, when, or under which name."""
    for name in ("a", "b"):
        assert harness("import", "pytest-benchmark", SAMPLE, "--registry", name).code == 0

    merged = harness("merge", "b", "--registry", "a", "--json").json["b"]

    assert (merged["attempts"], merged["conflicts"]) == (0, [])


def test_a_session_keeps_its_own_time_and_commit(tmp_path):
    """An old file stays old: nobody's latest result is what was taken in last."""
    harness("import", "pytest-benchmark", SAMPLE, "--registry", "r")
    (row, *_) = Registry.open(tmp_path / "r", create=False).attempts()

    assert row["started_at"] == "2026-09-01T12:00:00.250000+00:00"
    assert row["git_commit"] == "1f3870be274f6c49b3e31a0c6728957f4f2b1c9d"
    assert row["git_dirty"] is False
    assert row["host"] == "ci-1"


def test_a_machine_may_be_given_its_name(tmp_path):
    """CI machines have a new name each time; their owner knows that they are one."""
    harness("import", "pytest-benchmark", SAMPLE, "--registry", "r", "--machine", "ci")

    assert {row["machine"] for row in Registry.open(tmp_path / "r", create=False).attempts()} == {"ci"}


def test_what_is_exported_and_imported_again_keeps_every_sample(registry, tmp_path):
    """Both clocks, the warm-up and why it stopped: no digit is lost on the way."""
    harness("export", "pytest-benchmark", "-o", "out.json", "--registry", registry.path)
    answer = harness("import", "pytest-benchmark", "out.json", "--registry", "other", "--json")
    other = Registry.open(tmp_path / "other", create=False)

    latest = [row for row in registry.attempts() if row["git_commit"] == "abc"]
    timings = [t for row in other.attempts() for t in row["timings"]]
    assert answer.json["new"] == 8
    assert samples_in(other) == sorted(t["wall_s"] for row in latest for t in row["timings"])
    assert {(tuple(t["cpu_s"]), t["warmup"], t["stop_reason"]) for t in timings} == {((9e-4,) * 30, 5, "precise")}
    assert len({row["series_key"] for row in other.attempts()}) == 8


def test_an_export_of_attempts_that_are_here_is_not_taken_in_as_others(registry):
    """Their own records say more; the same figures under a second name would be counted twice."""
    harness("export", "pytest-benchmark", "-o", "out.json", "--registry", registry.path)

    answer = harness("import", "pytest-benchmark", "out.json", "--registry", registry.path)

    assert answer.code == 0
    assert "8 are exports of attempts that are here themselves" in answer.out
    assert registry.table({"attempt_id"}).num_rows == 5


def changed(**keys: Any) -> dict[str, Any]:
    """The sample with keys of its first benchmark changed; `stats.x` is one of its statistics, None takes it away."""
    tree = json.loads(SAMPLE.read_text())
    for path, value in keys.items():
        *above, last = path.split("__")
        holder = tree["benchmarks"][0]
        for name in above:
            holder = holder[name]
        if value is None:
            del holder[last]
        else:
            holder[last] = value
    return tree


def test_statistics_without_samples_become_measurements(tmp_path):
    """--benchmark-json leaves the samples out on demand: a median is then all that is known, and no samples are made up."""
    tree = changed()
    for benchmark in tree["benchmarks"]:
        del benchmark["stats"]["data"]
    Path("few.json").write_text(json.dumps(tree))
    harness("import", "pytest-benchmark", "few.json", "--registry", "r")
    opened = Registry.open(tmp_path / "r", create=False)

    (row,) = [r for r in opened.attempts() if r["method_params"] == {"n": 10}]
    found = {m["quantity"]: (m["value"], m["unit"], m["better"]) for m in row["measurements"]}
    assert row["timings"] == []
    assert found["time"] == (tree["benchmarks"][0]["stats"]["median"], "s", "lower")
    assert set(found) == {"time", "time_mean", "time_min", "time_max", "time_sd", "time_iqr", "calls_per_sample"}


def test_a_timer_of_process_time_is_recorded_as_such(tmp_path):
    """Seconds of a CPU are no seconds of a clock on the wall."""
    Path("cpu.json").write_text(json.dumps(changed(options={"timer": "process_time"})))

    attempt = attempts_of(read_session(Path("cpu.json")))[0]

    assert attempt.outcome.timings[0].wall_s == ()
    assert len(attempt.outcome.timings[0].cpu_s) == 8


def test_benchmarks_of_one_name_are_processes_of_one_series(tmp_path):
    """A plugin that repeats tests writes the same name twice: none may hide the other."""
    tree = changed()
    tree["benchmarks"] = [tree["benchmarks"][0]] * 3
    Path("thrice.json").write_text(json.dumps(tree))

    attempts = attempts_of(read_session(Path("thrice.json")))

    assert [a.trial.seed for a in attempts] == [0, 1, 2]
    assert len({a.attempt_id for a in attempts}) == 3


HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b]0;owned\x07",
    "'; DROP TABLE attempts; --",
    "a\ud800b",
    "../../etc/passwd",
    "\0",
    "=1+1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text, tmp_path):
    """A file comes from anybody: what it says is recorded, found again and shown, and nothing more happens."""
    tree = changed(name=text, fullname=text, group=text, params={text: text}, extra_info={text: text}, param=text)
    tree["machine_info"]["node"] = tree["commit_info"]["branch"] = text
    Path("hostile.json").write_text(json.dumps(tree))

    answer = harness("import", "pytest-benchmark", "hostile.json", "--registry", "r")
    taken_in = Registry.open(tmp_path / "r", create=False).attempts()
    (row,) = [r for r in taken_in if r["method_params"] and "n" not in r["method_params"]]

    assert answer.code == 0, answer.err
    assert row["status"] == "ok"
    assert row["task"] == "pytest-benchmark/" + text.replace("\ud800", "\\ud800")
    assert "\x1b" not in harness("export", "csv", "-o", "-", "--view", "attempts", "--registry", "r").out
    assert harness("leaderboard", "--registry", "r").code == 0


WRONG = {
    "no JSON at all": ("{", "no JSON"),
    "not UTF-8": (b"\xff\xfe", "no JSON"),
    "a list": ("[]", "the whole: got []; write a JSON object"),
    "nothing in it": ("{}", "benchmarks: got nothing; write a list of benchmarks"),
    "no time": (json.dumps({**changed(), "datetime": "soon"}), "datetime: got 'soon'; write the time of the session"),
    "a text as sample": (json.dumps(changed(stats__data=[1.0, "x"])), "benchmarks[0].stats.data[1]: got 'x'; write seconds"),
    "NaN as sample": (json.dumps(changed(stats__data=[math.nan])), "benchmarks[0].stats.data[0]: got 'nan'; write seconds"),
    "less than nothing": (json.dumps(changed(stats__data=[-1.0])), "benchmarks[0].stats.data[0]: got -1.0; write seconds"),
    "neither samples nor statistics": (json.dumps(changed(stats={})), "benchmarks[0].stats: got []; write `data`"),
    "a name that is none": (json.dumps(changed(name=3)), "benchmarks[0].name: got 3; write a text"),
    "params that are none": (json.dumps(changed(params=[1])), "benchmarks[0].params: got [1]; write an object, or null"),
    "no iterations": (json.dumps(changed(stats__iterations=0)), "benchmarks[0].stats.iterations: got 0; write a whole"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "a giant number": ('{"benchmarks": ' + "9" * 5000 + "}", "no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_bad_file_is_2_with_file_key_and_mend_and_records_nothing(what, tmp_path):
    """Before the first record, so that nobody has to find out which half of a file is in."""
    content, said = WRONG[what]
    Path("bad.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    answer = harness("import", "pytest-benchmark", "bad.json", "--registry", "r")

    assert answer.code == 2
    assert answer.err.startswith("bad.json: ")
    assert said in answer.err
    assert not (tmp_path / "r").exists()


def test_all_mistakes_are_said_at_once():
    """Who mends a file wants to do it once; a thousand of one kind are cut."""
    tree = changed()
    tree["benchmarks"] = [{"name": 1, "stats": {}}] * 500
    Path("bad.json").write_text(json.dumps(tree))

    with pytest.raises(HarnessError) as caught:
        read_session(Path("bad.json"))

    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "bad.json: and 980 more mistakes"


def test_a_file_without_benchmarks_is_4(tmp_path):
    """Every test failed, or was skipped: that is no success."""
    Path("empty.json").write_text(json.dumps({**changed(), "benchmarks": []}))

    with pytest.raises(NothingSelected):
        import_session(Registry.open(tmp_path / "r"), read_session(Path("empty.json")))


def test_an_old_file_without_a_zone_is_utc():
    """Versions before 3 wrote the time so."""
    Path("old.json").write_text(json.dumps({**changed(), "datetime": "2015-08-11T01:38:20.128834"}))

    assert read_session(Path("old.json")).began_at == datetime(2015, 8, 11, 1, 38, 20, 128834, UTC)


def test_a_dry_run_records_nothing(tmp_path):
    answer = harness("import", "pytest-benchmark", SAMPLE, "--dry-run", "--registry", "r", "--json")

    assert answer.json["benchmarks"] == 3
    assert not (tmp_path / "r").exists()
