"""What strangers hand over, handed over: suites, options, registries, data files, SQL and names, each judged by what came back.

Wrong is: a traceback or exit 70, a control character on a terminal, an SVG that could act, a file somewhere else, a healthy
record that a hostile one hides, more than a second or 200 MB for a suite, anything that never ends.

`python -m tests.faults.untrusted PART SEED TIMES FOLDER` is one part in a process of its own with limits; JSON on stdout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

from tests.faults import hostile
from tests.faults.tally import Tally

ROOT = Path(__file__).parents[2]
SUITE_CPU_S = 1.0
SUITE_BYTES = 200 << 20
HANG_S = 20.0  # no input takes a tenth of it; one that reaches it would never end
QUERY_BYTES = 4 << 30  # of address space, on top: DuckDB may use 1 GiB of memory, and keeps an arena a thread
SHOWN = re.compile(r"(f\.yaml:[0-9]+: |--set |f\.yaml: and [0-9]+ more)")
REPEATS = 3


@dataclasses.dataclass
class Found:
    """What a part met. wrong: what was wrong with which input, for people."""

    tried: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)

    def judge(self, wrong: str, what: object) -> None:
        self.tried += 1
        if wrong:
            self.wrong.append(f"{wrong}: {what!r:.300}")


def campaign(folder: Path, times: int, seed: int, pictures: Path | None) -> list[Tally]:
    """times: inputs altogether, four fifths of them suites; the lists of SQL, data files and names are tried whole."""
    del pictures
    # One registry holds ten hostile records, and two dozen commands read each.
    suites, options, registries = times * 4 // 5, times // 8, max(1, times // 1_000)
    read, commands = read_hostile_records(folder / "records", registries, seed)
    limits = f"{SUITE_CPU_S:g} s, {SUITE_BYTES >> 20} MB"
    return [
        suite_tally(f"Suite file, fuzzed (at most {limits})", limited("suites", seed, suites, folder), "files"),
        guided_tally("Suite file and options, guided by coverage (atheris)", max(200, times // 4), seed, folder),
        suite_tally(f"`--set` option, fuzzed (at most {limits})", limited("options", seed, options, folder), "options"),
        tally_of(f"Hostile records and files in a registry, {commands} commands", read, "readings"),
        tally_of("Hostile data file (bombs, lies, pipes, links, pickles)", read_hostile_data(folder / "data"), "readings"),
        tally_of("SQL that would write, look out, or take everything", limited("queries", seed, times, folder), "queries"),
        tally_of("Plugin with a hostile name or path", load_hostile_names(folder / "plugins"), "plugins"),
    ]


def tally_of(fault: str, found: Found, of: str) -> Tally:
    told = [" ".join(text.split()) for text in found.wrong[:3]]  # a row of a table holds no line
    return Tally(fault, found.tried, of, lost=0, wrong=len(found.wrong), notes=(*found.notes, *told))


def suite_tally(fault: str, found: Found, of: str) -> Tally:
    found.notes.append(f"slowest {found.slowest_s:.2f} s CPU, at most {found.peak_bytes >> 20} MB more than an idle process")
    return tally_of(fault, found, of)


def guided_tally(fault: str, times: int, seed: int, folder: Path) -> Tally:
    """It stops at the first input that is answered wrongly; libFuzzer says on stderr which."""
    if importlib.util.find_spec("atheris") is None:
        return Tally(fault, 0, "inputs", 0, 0, skipped="needs atheris: pip install 'paper-harness[fuzz]' on CPython 3.11")
    ended = fuzz_guided(folder, f"-runs={times}", f"-seed={seed + 1}")  # of 0 libFuzzer makes one of its own
    ran = re.search(r"stat::number_of_executed_units: ([0-9]+)", ended.stderr)
    found = Found(int(ran[1]) if ran else 0)
    if ended.returncode or not ran:
        found.wrong.append(f"ended with {ended.returncode}: {ended.stderr[-400:]}")
    return tally_of(fault, found, "inputs")


def fuzz_guided(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.faults.fuzz_suite`, which leaves an input that was answered wrongly in this folder."""
    fixed = (f"-artifact_prefix={folder}/", "-timeout=30", "-rss_limit_mb=1000", "-print_final_stats=1")
    command = [sys.executable, "-m", "tests.faults.fuzz_suite", *fixed, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)


# A process of its own, with limits ----------------------------------------------------------------------------------------


def limited(part: str, seed: int, times: int, folder: Path) -> Found:
    """One of PARTS where the system holds the limits. A process that died has met one, or crashed."""
    command = [sys.executable, "-m", "tests.faults.untrusted", part, str(seed), str(times), str(folder)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120 + times, check=False)
    if ended.returncode:
        return Found(1, [f"{part}: the process ended with {ended.returncode}: {ended.stderr[-400:]}"])
    return Found(**json.loads(ended.stdout))


def limit_memory(more_bytes: int) -> None:
    """So much address space on top of what is mapped now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more_bytes, mapped + more_bytes))


def memory_bytes(field: str) -> int:
    """VmRSS, or VmHWM, its highest. (getrusage's would count what this process was forked from.)"""
    found = re.search(rf"^{field}:\s+([0-9]+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, "Linux tells it of every process"
    return int(found[1]) << 10


@contextlib.contextmanager
def must_end(seconds: float) -> Iterator[None]:
    """TimeoutError where the block takes longer: for what would wait or turn for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Suites and options -------------------------------------------------------------------------------------------------------


def fuzz_suites(seed: int, times: int, _: Path) -> Found:
    shipped = [path.read_text() for path in sorted((ROOT / "suites").glob("*.yaml"))]
    return fuzz_loader(lambda rng: (hostile.hostile_suite(shipped, rng), []), seed, times)


def fuzz_options(seed: int, times: int, _: Path) -> Found:
    text = (ROOT / "suites" / "smoke.yaml").read_bytes()
    return fuzz_loader(lambda rng: (text, [hostile.hostile_override(rng) for _ in range(rng.randrange(1, 4))]), seed, times)


def fuzz_loader(make: Callable[[random.Random], tuple[bytes, list[str]]], seed: int, times: int) -> Found:
    from harness.catalogue import load_catalogue

    catalogue, found = load_catalogue(), Found()
    load_once(
        catalogue, (ROOT / "suites" / "smoke.yaml").read_bytes(), []
    )  # what is imported on first use is no suite's memory
    limit_memory(SUITE_BYTES)
    idle = memory_bytes("VmRSS")
    for number in range(times):
        content, options = make(random.Random(f"{seed} {number}"))
        wrong, cpu_s = judged_load(catalogue, content, options)
        found.judge(wrong, (number, options or content))
        found.slowest_s = max(found.slowest_s, cpu_s)
    found.peak_bytes = memory_bytes("VmHWM") - idle
    return found


def judged_load(catalogue: Any, content: bytes, options: list[str]) -> tuple[str, float]:
    """What was wrong with how the loader took it, "" for nothing; and its CPU seconds, the least of a few where many."""
    cpu_s = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        wrong = load_once(catalogue, content, options)
        cpu_s = min(cpu_s, time.process_time() - start)
        if wrong or cpu_s <= SUITE_CPU_S:
            return wrong, cpu_s
    return f"took {cpu_s:.2f} s", cpu_s


def load_once(catalogue: Any, content: bytes, options: list[str]) -> str:
    """A suite, or an error whose every line has a place: else what came instead."""
    from harness.errors import HarnessError
    from harness.suite import load_suite_text
    from harness.suite.load import MAX_TRIALS, count_trials

    try:
        with must_end(HANG_S):
            suite = load_suite_text(content, "f.yaml", catalogue, overrides=options)
    except HarnessError as exc:
        lines = str(exc).split("\n")
        strange = next((line for line in lines if not SHOWN.match(line) or not line.isprintable()), "")
        return f"a message without a place, or that a terminal obeys: {strange!r:.100}" if strange else ""
    except Exception as exc:
        return f"raised {type(exc).__name__}: {exc!s:.100}"
    return "" if 0 <= count_trials(suite, catalogue) <= MAX_TRIALS else "more trials than a plan can hold"


# Records ------------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What a terminal would get."""

    def isatty(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class Answer:
    code: int | str
    out: str
    err: str


def answer_of(*arguments: str | Path) -> Answer:
    """`harness ARGUMENTS` in this process, on a terminal without colours: an escape is then nobody's but a record's."""
    from harness.cli import main

    out, err, code = Terminal(), Terminal(), 0
    colourless = mock.patch.dict(os.environ, {"TERM": "dumb", "COLUMNS": "118"})
    with colourless, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with must_end(HANG_S * 3):
                main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code or 0  # type: ignore[assignment]
        except BaseException as exc:
            return Answer(f"raised {exc!r}", out.getvalue(), err.getvalue())
    return Answer(code, out.getvalue(), err.getvalue())


READINGS: tuple[tuple[str, ...], ...] = (
    ("leaderboard",), ("leaderboard", "--json"), ("leaderboard", "--machine", "m-1", "--svg", "{folder}/board.svg"),
    ("leaderboard", "--machine", "m-1", "--csv"), ("leaderboard", "--machine", "m-1", "--markdown"),
    ("status",),
    ("leaderboard", "--machine", "m-1"), ("leaderboard", "--machine", "m-1", "--json"), ("status", "--failed"), ("status",
    "--json"),
    ("status", "--failed", "--json"), ("show", "{id}"), ("show", "{id}", "--json"), ("show", "healthy"), ("show", "{method}"),
    ("logs", "{id}"), ("query", "FROM attempts"), ("query", "FROM attempts", "--json"), ("query", "FROM attempts", "--csv"),
    ("query", "FROM v_leaderboard"), ("query", "FROM measurements", "--csv"), ("query", "FROM facts"), ("query", "FROM curves"),
    ("query", "FROM timings", "--json"), ("query", "FROM blobs"), ("query", "FROM diagnostics"), ("query", "DESCRIBE attempts"),
    ("plan", "smoke"), ("plan", "smoke", "--json"), ("list", "methods"), ("describe", "relu"), ("machine", "show"),
    ("query", "FROM v_kernels"), ("compare", "--kernels", "--machine", "m-1"), ("compare", "--kernels", "eager", "ours"),
    ("compare", "--kernels", "--machine", "m-1", "--json"), ("compare", "--kernels", "eager", "ours", "--json"),
    ("compare", "--kernels", "--machine", "m-1", "--markdown"), ("export", "csv", "-o", "{folder}/out.csv"),
    ("export", "parquet", "-o", "{folder}/out.parquet"), ("claims",), ("claims", "--json"), ("query", "FROM v_claims"),
    ("report", "-o", "{folder}/pages"), ("regress", "--machine", "m-1"), ("show", "healthy", "--json"),
)  # fmt: skip
MAY_BE_REFUSED = {"show", "logs"}  # by a name that no row has any more: exit 2, with the mend
TOO_FEW_NIGHTS = 4  # of `regress`: nothing to judge
WRITTEN = {"registry", "board.svg", "out.csv", "out.parquet", "pages"}
RANKED = "SELECT mean FROM v_leaderboard WHERE method LIKE '%healthy'"
READINGS += (("query", RANKED),)
SHOWS_HEALTHY = {("leaderboard", "--machine", "m-1", "--json"), ("show", "healthy", "--json"), ("query", RANKED)}


def read_hostile_records(folder: Path, registries: int, seed: int) -> tuple[Found, int]:
    from harness.registry import index

    found = Found()
    for number in range(registries):
        rng = random.Random(f"{seed} {number}")
        place = folder / str(number)
        rows = [hostile.hostile_row(100 * number + i, rng) for i in range(1, 11)]
        kernels = [hostile.kernel_row(9_100, "eager"), hostile.kernel_row(9_101, "ours")]
        registry = fill_registry(place / "registry", [*rows, *kernels], with_strange_files=number % 4 == 0)
        # Every other one is read through the index, which small registries do without.
        indexed = mock.patch.object(index, "WORTH_BYTES", 1 if number % 2 else index.WORTH_BYTES)
        for command in READINGS:
            for row in rng.sample(rows, 3) if {"{id}", "{method}"} & set(command) else rows[:1]:
                with indexed:
                    found.judge(judged_reading(command, place, registry, row), (command, number))
        wrong = [path for path in place.iterdir() if path.name not in WRITTEN]
        found.judge(f"wrote {wrong}" if wrong else "", number)
    found.notes.append(f"{registries} registries of 10 hostile records")
    return found, len(READINGS)


def fill_registry(path: Path, rows: list[dict[str, Any]], with_strange_files: bool) -> Path:
    from harness.registry import Registry

    Registry.open(path)
    healthy = [hostile.plain_row(9_000 + seed, "healthy", seed) for seed in range(3)]
    for row in [*rows, *healthy]:
        hostile.put(path, "attempts", hostile.parquet([row]), ".parquet")
    if with_strange_files:
        hostile.strange_files(path)
    return path


def judged_reading(command: tuple[str, ...], place: Path, registry: Path, row: dict[str, Any]) -> str:
    """What was wrong with how a command read a hostile registry; "" for nothing."""
    words = {"{id}": row["attempt_id"] or "0", "{method}": (row["method"] or "?").replace("\0", "")[:200] or "?"}
    arguments = [words.get(word, word.replace("{folder}", str(place))) for word in command]
    options = [] if command[0] in ("list", "describe") else ["--registry", str(registry)]
    if command[0] in MAY_BE_REFUSED:  # an id may look like an option
        arguments = [arguments[0], *arguments[2:], *options, "--", arguments[1]]
        options = []
    answer = answer_of(*arguments, *options)
    if (
        answer.code == 2
        and command[0] == "leaderboard"
        and "--machine" not in command
        and "choose one with --machine" in answer.err
    ):
        return ""  # it says which machines there are: nothing is hidden
    if answer.code == 2 and command[0] in MAY_BE_REFUSED and "no attempt, trial or method" in answer.err:
        return ""
    if answer.code == TOO_FEW_NIGHTS and command[0] == "regress":
        return first_control(answer.err)
    if answer.code != 0 or "Traceback" in answer.err:
        return f"ended with {answer.code}: {answer.err[-300:]}"
    if leak := first_control(answer.out + answer.err):
        return f"a terminal was sent {leak!r}"
    if "--json" in command and not is_strict_json(answer.out):
        return "what it printed is no JSON"
    if command in SHOWS_HEALTHY and "0.5" not in answer.out:
        return "a healthy record was hidden"
    if command[0] == "report":
        return next(filter(None, map(judged_page, sorted((place / "pages").glob("*.html")))), "")
    return judged_svg(place / "board.svg") if "--svg" in command else ""


def first_control(text: str) -> str:
    """The first character that a terminal would obey, or that turns the text round; newline, tab and CR LF are none."""
    plain = text.replace("\r\n", "\n")
    return next((c for c in plain if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")), "")


def is_strict_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return False
    return True


DRAWN = {"svg", "g", "path", "text", "rect", "line", "defs", "clipPath", "style", "title", "linearGradient", "stop", "circle"}
# What our pages are made of. A stranger's text that became an element would be another, or do what none of ours does.
PAGE = {
    "html", "head", "meta", "title", "link", "script", "body", "a", "nav", "main", "header", "footer", "section", "article",
    "h1", "h2", "h3", "h4", "p", "span", "div", "ul", "ol", "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody",
    "tfoot", "tr", "th", "td", "code", "pre", "b", "strong", "em", "small", "abbr", "details", "summary", "figure",
    "figcaption", "time", "form", "label", "input", "button", "select", "option", "br", "hr", "kbd", "sup", "sub", "output",
    "desc",
}  # fmt: skip


ELEMENTS = (PAGE | {name.lower() for name in DRAWN}) - {"style"}


class PageJudge(HTMLParser):
    """wrong: the elements that no page of ours has, and what would act or load."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        acts = [name for name in told if name.startswith("on") or name in ("style", "srcdoc", "action", "formaction")]
        leads = told.get("href", "") + told.get("src", "")
        if tag not in ELEMENTS or acts or (tag == "script" and not is_ours(told)) or re.match(r"\s*\w+:", leads):
            self.wrong.append(f"<{tag} {told}>")


def is_ours(told: dict[str, str]) -> bool:
    """A script element: the one of all pages, or data, which no browser runs."""
    return told.get("src") == "report.js" or (told.get("type") == "application/json" and "src" not in told)


def judged_page(file: Path) -> str:
    """A page may show what strangers wrote; it may not become what they wrote."""
    judge = PageJudge()
    text = file.read_text()
    judge.feed(text)
    if leak := first_control(text):
        return f"{file.name} holds {leak!r}"
    return f"{file.name} has {judge.wrong[0][:200]}" if judge.wrong else ""


def judged_svg(file: Path) -> str:
    """An SVG may draw; it may not act, embed or point anywhere."""
    try:
        elements = list(ElementTree.parse(file).iter())
    except (OSError, ElementTree.ParseError) as exc:
        return f"no SVG: {exc}"
    for element in elements:
        name = element.tag.rpartition("}")[2]
        if name not in DRAWN:
            return f"the SVG holds <{name}>"
        for key, value in element.attrib.items():
            bare = key.rpartition("}")[2].lower()
            if bare.startswith("on") or bare in ("href", "src") or ("javascript:" in value.lower() and bare != "aria-label"):
                return f"the SVG holds {key}={value!r:.60}"
    if file.read_bytes().find(b"\x1b") >= 0 or b"<!DOCTYPE" in file.read_bytes():
        return "the SVG holds an escape or a document type"
    return ""


# Data files ---------------------------------------------------------------------------------------------------------------


def read_hostile_data(folder: Path) -> Found:
    """Every hostile content under every suffix, and what is no file at all, in place of a declared data set."""
    from harness.data.formats import decode_jpegs, parse_idx, parse_parquet

    folder.mkdir(parents=True)
    (folder / "data").mkdir()
    found = Found()
    for name, content in hostile.DATA_CONTENTS.items():
        for suffix in (".bin", ".gz", ".npy", ".pt", ".pkl", ".tar.gz", ".zip", ".parquet"):
            path = folder / "data" / f"set{suffix}"
            path.write_bytes(content)
            found.judge(judged_data(lambda path=path: read_declared(folder / "data", path.name)), (name, suffix))
    for name, place in no_files(folder).items():
        found.judge(judged_data(lambda place=place: read_declared(folder / "data", place)), name)
    for path in hostile.PATHS:
        found.judge(judged_data(lambda path=path: read_declared(folder / "data", path)), path)
    readers: tuple[Callable[[bytes], object], ...] = (
        lambda content: parse_parquet(content, ["attempt_id"], "x"),
        lambda content: decode_jpegs([content], 32, 32, "x"),
        lambda content: parse_idx(content, "x"),
    )
    for reader in readers:
        for name, content in [*hostile.DATA_CONTENTS.items(), ("parquet bomb", hostile.parquet_bomb())]:
            found.judge(judged_data(lambda reader=reader, content=content: reader(content)), name)
    wrong = sorted(p.name for p in folder.iterdir() if p.name not in ("data", "outside"))
    found.judge(f"wrote {wrong}" if wrong or Path("owned").exists() else "", "files elsewhere")
    return found


def no_files(folder: Path) -> dict[str, str]:
    """Pipes, devices, folders and links where a file should be; the name of each."""
    data = folder / "data"
    (folder / "outside").write_bytes(b"secret")
    os.mkfifo(data / "pipe")
    os.mkfifo(data / "pipe.gz")
    (data / "zero").symlink_to("/dev/zero")
    (data / "zero.gz").symlink_to("/dev/zero")
    (data / "loop").symlink_to("loop")
    (data / "link").symlink_to(folder / "outside")
    (data / "folder").mkdir()
    return {what: what for what in ("pipe", "pipe.gz", "zero", "zero.gz", "loop", "link", "folder")}


def read_declared(folder: Path, path: str) -> object:
    from harness.data import read_bytes
    from harness.specs import Dataset

    return read_bytes(Dataset("hostile", "folder", "0" * 64, "s", "l", "https://example.org", path, 1000), folder)


def judged_data(read: Callable[[], object]) -> str:
    """Refused as a DataError that does not say what it read, in bounded memory: else what came instead."""
    from harness.errors import DataError

    before = memory_bytes("VmHWM")
    try:
        with must_end(HANG_S):
            got = read()
    except DataError as exc:
        grown = memory_bytes("VmHWM") - before
        if grown > SUITE_BYTES:
            return f"refused after {grown >> 20} MB"
        return "the message shows what was read" if "secret" in str(exc) else ""
    except BaseException as exc:
        return f"raised {exc!r:.100}"
    return f"was read as {got!r:.60}"


# SQL ----------------------------------------------------------------------------------------------------------------------


def attack_queries(seed: int, times: int, folder: Path) -> Found:
    """Each of the lists once; those that a limit has to stop get a second each, and fewer of them where `times` is small."""
    from harness.registry import Registry

    out = folder / "out"
    out.mkdir(parents=True)
    hostile.put(fill_registry(folder / "sql", [], False), "attempts", hostile.parquet([hostile.plain_row(1)]), ".parquet")
    registry, found = Registry.open(folder / "sql", create=False), Found()
    bounded = hostile.BOUNDED if times >= 1_000 else random.Random(seed).sample(hostile.BOUNDED, 3)
    registry.query("SELECT 1")
    limit_memory(QUERY_BYTES)
    idle = memory_bytes("VmRSS")
    parameters = {"path": "/etc/passwd"}
    for sql in (*hostile.REFUSED, *bounded):
        text = sql.replace("{out}", str(out))
        found.judge(
            judged_query(registry, text, parameters if "$path" in sql else ["/etc/passwd"] if "?" in sql else ()), sql[:80]
        )
    found.judge("wrote a file" if any(out.iterdir()) else "", "files")
    found.judge(judged_answer(registry), "a plain query afterwards")
    found.peak_bytes = memory_bytes("VmHWM") - idle
    found.notes.append(f"at most {found.peak_bytes >> 20} MB more than an idle process")
    return found


def judged_query(registry: Any, sql: str, parameters: Any) -> str:
    from harness.errors import HarnessError

    try:
        with must_end(HANG_S):
            got = registry.query(sql, parameters, timeout_s=1.0)
    except HarnessError as exc:
        return "" if str(exc).startswith("query: ") and "root:" not in str(exc) else f"said {exc!s:.100}"
    except BaseException as exc:
        return f"raised {exc!r:.200}"
    return f"was answered with {got.num_rows} rows"


def judged_answer(registry: Any) -> str:
    rows = registry.query("SELECT count(*) AS n FROM attempts").to_pylist()
    return "" if rows == [{"n": 4}] else f"got {rows}"


# Names of plugins ---------------------------------------------------------------------------------------------------------

PLUGIN = """
from harness import Component, Dataset, Metric, Paper, Probe, Task, Track, hookimpl

@hookimpl
def harness_{kind}():
    return [{spec}]
"""
SPECS = {
    "methods": "Component({name!r}, kind='activation', build='x:y')",
    "tasks": "Task({name!r}, 'toy', (), load='x:y', score='x:y')",
    "tracks": "Track({name!r}, '1', problem='x:y', solution='x:y', clocks=())",
    "papers": "Paper({name!r}, title='t', arxiv='0', year=2000)",
    "datasets": "Dataset({name!r}, 'folder', '0' * 64, 's', 'l', 'src', 'x.bin', 1)",
    "probes": "Probe('p', 'toy', (Metric({name!r}, '1', 'higher'),), measure='x:y')",
}
# A data set may have a folder in its name; a metric is nobody's file.
FINE = {"datasets": ("a/b",), "probes": ("method.py", "suite.yaml", "x.json", "x.parquet", "a..b", "x.")}
PATH_SPEC = "Dataset('set', 'folder', '0' * 64, 's', 'l', 'src', {path!r}, 1)"
LEAVING = ("raise SystemExit(7)", "import sys; sys.exit('bye')", "raise RuntimeError('\\x1b[2J\\nwarning: forged')")


def load_hostile_names(folder: Path) -> Found:
    """One distribution a name and kind, and a healthy one beside it; each broken one is named, and the healthy one offers."""
    from harness.catalogue import load_catalogue

    found, codes = Found(), list(hostile_plugins())
    sys.path.insert(0, str(folder))
    try:
        for number, (_, code) in enumerate(codes):
            write_plugin(folder, f"hostile_{number}", code)
        write_plugin(folder, "healthy_plugin", PLUGIN.format(kind="methods", spec=SPECS["methods"].format(name="swoosh")))
        points = [p for p in entry_points() if p.name == "healthy_plugin" or p.name.startswith("hostile_")]
        catalogue = load_catalogue(points)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.startswith("hostile_") or name == "healthy_plugin"]:
            del sys.modules[name]
    broken = {b.id.rpartition(":")[2]: b for b in catalogue.broken}
    for number, (what, _) in enumerate(codes):
        found.judge(judged_plugin(broken.get(f"hostile_{number}")), what)
    found.judge("" if [o.name for o in catalogue.methods] == ["swoosh"] else "the healthy plugin is gone", "healthy")
    return found


def hostile_plugins() -> Iterator[tuple[object, str]]:
    for kind, spec in SPECS.items():
        for name in hostile.NAMES:
            if name not in FINE.get(kind, ()):
                yield (kind, name), PLUGIN.format(kind=kind, spec=spec.format(name=name))
    for path in hostile.PATHS:
        yield ("path", path), PLUGIN.format(kind="datasets", spec=PATH_SPEC.format(path=path))
    for code in LEAVING:
        yield ("import", code), code


def entry_points() -> Any:
    import importlib.metadata

    return importlib.metadata.entry_points(group="harness")


def write_plugin(folder: Path, name: str, code: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{name}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[harness]\n{name} = {name}\n")


def judged_plugin(broken: Any) -> str:
    if broken is None:
        return "was taken"
    return "" if broken.error.isprintable() and len(broken.error) < 1_000 else f"said {broken.error!r:.100}"


PARTS = {"suites": fuzz_suites, "options": fuzz_options, "queries": attack_queries}

if __name__ == "__main__":
    part, seed, times, folder = sys.argv[1:]
    sys.stdout.write(json.dumps(dataclasses.asdict(PARTS[part](int(seed), int(times), Path(folder)))))
