"""`check_plugin`, what `harness plugin check` runs: an installed plugin, everything that it declares, and its folder's suites.

Declarations are imported in a fresh process of their own; methods, tasks and kernels are examined in another, one after the
other, so that one that crashes or hangs costs its own report and no other. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from harness.catalogue import Catalogue, Offer, did_you_mean, load_catalogue
from harness.errors import HarnessError, SuiteError
from harness.rules import Cell, cells
from harness.specs import Paper
from harness.testing.findings import Report
from harness.worker.environment import worker_environment

PLUGIN_CHECKS = ("loads", "import_cheap", "import_pure")
IMPORT_S = 1.0  # CPU seconds
TIMEOUT_S = 600.0  # of one method, task or kernel
ONCE = ("method", "task", "kernel")
GIVEN = ("method", "task", "net", "train", "budget")
PLAIN = ("dtype", "threads", "device", "role", "track")


def check_plugin(plugin: str) -> list[Report]:
    """Check all that an installed distribution's plugins declare. Raises NonConformant with all findings.

    plugin: a distribution, one of its entry points, "dist:name", or the folder of its pyproject.toml.
    Raises HarnessError where no such plugin is installed.
    """
    from harness.testing.findings import NonConformant

    reports = list(examine_plugin(plugin))
    findings = [finding for report in reports for finding in report.findings]
    if findings:
        raise NonConformant(findings)
    return reports


def examine_plugin(
    plugin: str,
    *,
    only: Sequence[str] | None = None,
    timeout_s: float = TIMEOUT_S,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Report]:
    """A report for the declarations of each plugin, then one for each thing declared, as they are done.

    only: names of things to examine, besides the declarations. say: gets a line before each.
    """
    folder = Path(plugin) if is_folder(plugin) else None
    catalogue = load_catalogue()
    ids = find_plugins(catalogue, plugin if folder is None else distribution_of(folder))
    items: list[tuple[str, str]] = []
    for id_ in ids:
        dist, _, name = id_.partition(":")
        say(f"declarations of {id_}")
        yield examine_declarations(catalogue, dist, name, folder)
        items += declared_by(catalogue, id_)
    chosen = [item for item in items if only is None or item[1].rpartition("/")[2] in only]
    yield from examine_items(chosen, timeout_s, say)


def is_folder(plugin: str) -> bool:
    return os.sep in plugin or plugin in (".", "..") or (Path(plugin) / "pyproject.toml").is_file()


def distribution_of(folder: Path) -> str:
    """The project's name. Raises HarnessError for a folder without pyproject.toml."""
    file = folder / "pyproject.toml"
    try:
        name = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise HarnessError(f"{file}: no project is named there ({exc!r}); name an installed plugin, or its folder") from exc
    return str(name)


def find_plugins(catalogue: Catalogue, plugin: str) -> list[str]:
    """The ids of a distribution's plugins, broken ones too; or the one of that name."""
    ids = [p.id for p in catalogue.plugins] + [b.id for b in catalogue.broken]
    same = [i for i in ids if plugin == i or plain(i.partition(":")[0]) == plain(plugin)] or [
        i for i in ids if i.partition(":")[2] == plugin
    ]
    if not same:
        known = sorted({i.partition(":")[0] for i in ids} | {i.partition(":")[2] for i in ids})
        raise HarnessError(
            f"no plugin {plugin!r} is installed here{did_you_mean(plugin, known)}; `pip install -e {plugin}` first, "
            "and see `harness list plugins`"
        )
    return same


def plain(name: str) -> str:
    """Distribution names are equal but for case, dashes, dots and underscores."""
    return name.lower().replace("_", "-").replace(".", "-")


def declared_by(catalogue: Catalogue, id_: str) -> list[tuple[str, str]]:
    offers: dict[str, Sequence[Offer[Any]]] = {
        "method": catalogue.methods,
        "task": catalogue.tasks,
        "kernel": catalogue.kernels,
    }
    return [(kind, o.ref) for kind in ONCE for o in offers[kind] if o.plugin.id == id_]


# Declarations -----------------------------------------------------------------------------------------------------------


def examine_declarations(catalogue: Catalogue, dist: str, name: str, folder: Path | None) -> Report:
    """Import, API, claims and suites of one plugin."""
    report = Report(f"{dist}:{name}")
    ended = subprocess.run(
        [sys.executable, "-m", "harness.testing.importing", dist, name],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    try:
        told = json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        text = f"its import ends the process with {ended.returncode}: {' '.join(ended.stderr.split())[-300:]}"
        report.add("import_pure", text, "declare only; let code run when it is called")
        return report
    if told["error"]:
        report.add("loads", told["error"], "mend the declarations; the rest was not looked at")
    if told["heavy"]:
        text = f"importing the declarations imports {', '.join(told['heavy'])}"
        report.add("import_cheap", text, "name code by string, and import these where it is (method.py)")
    elif told["cost_s"] > IMPORT_S:
        report.add("import_cheap", f"importing takes {told['cost_s']:.1f} s of CPU time", "declare only; work in method.py")
    for what in told["touched"]:
        report.add("import_pure", f"importing {what}", "do it where code runs, never where it is declared")
    for what in told["changed"]:
        report.add("import_pure", f"importing changes {what}", "leave it alone; plugins share this process")
    if told["printed"].strip():
        report.add("import_pure", f"importing prints {told['printed'].strip()[:80]!r}", "print nothing; use warnings")
    report.notes += told["warnings"]
    checks = list(PLUGIN_CHECKS)
    papers = [o for o in catalogue.papers if o.plugin.id == report.about]
    if papers:
        checks.append("claims")
        for offer in papers:
            examine_claims(catalogue, offer, report)
    if brought := [o.ref for o in catalogue.commands if o.plugin.id == report.about]:
        checks.append("commands")
        for ref in brought:
            examine_command(ref, report)
    if folder is not None and (folder / "suites").is_dir():
        checks.append("suites")
        examine_suites(catalogue, folder / "suites", report)
    report.close(checks)
    return report


def examine_claims(catalogue: Catalogue, offer: Offer[Paper], report: Report) -> None:
    """Every cell of every rule: its method, task, metric, part and parameters exist."""
    for claim in offer.spec.claims:
        for cell in dict.fromkeys(cells(claim.rule)) if claim.rule else ():
            for what, mend in wrong_in_cell(catalogue, cell):
                report.add("claims", f"claim {claim.name!r} names {what}", mend)
        if claim.because and not known(catalogue.method, claim.because):
            report.add(
                "claims", f"claim {claim.name!r} gives {claim.because!r} as its ablation", "name a method that is offered"
            )


def wrong_in_cell(catalogue: Catalogue, cell: Cell) -> Iterator[tuple[str, str]]:
    method, task = known(catalogue.method, cell.method), known(catalogue.task, cell.task)
    names = {"method": [o.name for o in catalogue.methods], "task": [o.name for o in catalogue.tasks]}
    for kind, found, name in (("method", method, cell.method), ("task", task, cell.task)):
        if found is None:
            yield f"{kind} {name!r}, which no plugin offers", f"offer it{did_you_mean(name, names[kind])}"
    if task is None:
        return
    metrics = {m.name for m in task.spec.metrics}
    track = task.spec.track.rpartition("/")[2]
    metrics |= {m.name for o in catalogue.probes if o.spec.track.rpartition("/")[2] == track for m in o.spec.metrics}
    if cell.metric not in metrics:
        yield f"metric {cell.metric!r}, which {cell.task} does not give", f"use one of {', '.join(sorted(metrics))}"
    for name, _ in cell.given:
        owner, dot, setting = name.partition(".")
        if (dot and owner not in GIVEN) or (not dot and name not in PLAIN):
            yield f"parameter {name!r}", f"begin with one of {', '.join(f'{g}.' for g in GIVEN)}"
        elif owner in ("method", "task") and dot:
            spec = method if owner == "method" else task
            fields = list(spec.spec.params.model_fields) if spec is not None else [setting]
            if setting not in fields:
                yield (
                    f"parameter {name!r}, which {owner} {getattr(cell, owner)!r} lacks",
                    f"there are {', '.join(fields) or 'none'}",
                )


def known(find: Callable[[str], Any], name: str) -> Any:
    try:
        return find(name)
    except HarnessError:
        return None


def examine_command(ref: str, report: Report) -> None:
    """Its help, asked for in a fresh process: that imports its code."""
    asked = [sys.executable, "-c", "from harness.cli import main; main()", ref, "--help"]
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False)
    lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
    if ended.returncode:
        said = " ".join(ended.stderr.split())[-300:]
        report.add("commands", f"`harness {ref} --help` ends with {ended.returncode}: {said}", "name a click.Command")
    elif lines[-2:-1] != ["Example:"] or not lines[-1].startswith("harness "):
        mend = 'end it with an epilog: "\\b\\nExample:\\n  harness NAME ..."'
        report.add("commands", f"`harness {ref} --help` ends with no example", mend)


def examine_suites(catalogue: Catalogue, folder: Path, report: Report) -> None:
    from harness.suite import load_suite

    for file in sorted(folder.glob("*.yaml")):
        try:
            load_suite(file, catalogue)
        except SuiteError as exc:
            for line in str(exc).splitlines():
                report.add("suites", line, f"`harness validate {file}` shows them all")


# What they declare, each in a process that may crash --------------------------------------------------------------------------


def examine_items(items: Sequence[tuple[str, str]], timeout_s: float, say: Callable[[str], None]) -> Iterator[Report]:
    """Reports in order. A process examines one after the other; where it ends early, another goes on behind what ended it."""
    waiting = list(items)
    while waiting:
        with examiner(waiting) as lines:
            while waiting:
                say(" ".join(waiting[0]))
                line = lines(timeout_s)
                if line is None:
                    break
                yield Report.from_json(json.loads(line))
                waiting.pop(0)
            else:
                return
            why = lines.ended()
        kind, name = waiting.pop(0)
        report = Report(name.rpartition("/")[2])
        report.add("runs", f"examining this {kind} {why}", "let nothing end or block the process that it runs in")
        yield report


class Lines:
    """The lines of a process, each within a time."""

    def __init__(self, process: subprocess.Popen[bytes], file: IO[bytes]) -> None:
        self._process, self._file, self._buffer, self._why = process, file, b"", ""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._file, selectors.EVENT_READ)

    def __call__(self, timeout_s: float) -> bytes | None:
        until = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            if not self._selector.select(max(0.0, until - time.monotonic())):
                self._why = f"did not end within {timeout_s:.0f} s"
                return None
            piece = os.read(self._file.fileno(), 1 << 16)
            if not piece:
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def ended(self) -> str:
        if self._why:
            return self._why
        code = self._process.wait(timeout=10)
        return f"ended the process with signal {-code}" if code < 0 else f"ended the process with exit code {code}"


@contextlib.contextmanager
def examiner(items: Iterable[tuple[str, str]]) -> Iterator[Lines]:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "harness.testing", str(writer), *(f"{kind}={name}" for kind, name in items)]
    # What plugins print goes to our stderr's place: reports have a pipe of their own.
    process = subprocess.Popen(
        command, env=worker_environment(1), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=(writer,), process_group=0,
    )  # fmt: skip
    os.close(writer)
    try:
        with os.fdopen(reader, "rb", buffering=0) as file:
            yield Lines(process, file)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
