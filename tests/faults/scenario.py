"""What a registry is asked to do while its disk fails, and the list of what it acknowledged, against which it is judged.

The list is kept in memory by the campaign, entry by entry as calls return; nothing in it is ever read back from the registry.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from harness.errors import RegistryError
from harness.records import Attempt, Blob, Provenance, Trial
from harness.registry import Registry, markers, schema
from harness.registry.annotations import Kind
from harness.registry.files import Layout, Owner, content_name, publish, this_process
from harness.registry.reading import Reader
from tests.registry_samples import ACCURACY, WHERE, make_attempt, make_trial

NOBODYS = b"an artefact that no attempt names"
MAX_REPORTED = 20
MAX_REPORTED_CHARACTERS = 600


@dataclass
class Ledger:
    """What a registry was asked to keep, and what it acknowledged by returning.

    offered: attempts that may be there, by id.   running: attempts that were begun, which may be there as `interrupted`.
    marked: those of them whose start marker was acknowledged.
    acknowledged, interrupted: ids that must be there, as offered or as `interrupted`.
    blobs: SHA-256 -> content of each artefact of an acknowledged attempt.   facts: (kind, name, content) of those.
    said: what must hold of an attempt, None: nothing.   asked: all annotations that were asked for; each may hold.
    """

    offered: dict[str, Attempt] = field(default_factory=dict)
    running: dict[str, tuple[Trial, Provenance]] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    interrupted: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    facts: set[tuple[str, str, str]] = field(default_factory=set)
    said: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    asked: set[tuple[str, str, str]] = field(default_factory=set)

    def copy(self) -> Ledger:
        return Ledger(**{name: value.copy() for name, value in vars(self).items()})

    def begin(self, attempt: Attempt) -> None:
        self.running[attempt.attempt_id] = (attempt.trial, attempt.provenance)

    def acknowledge(self, attempt: Attempt, blob: bytes) -> None:
        self.acknowledged.add(attempt.attempt_id)
        if blob:
            self.blobs[hashlib.sha256(blob).hexdigest()] = blob
        where = attempt.provenance
        facts = [("machine", where.machine, where.machine_facts), ("environment", where.environment, where.environment_facts)]
        facts += [("data", digest, covered) for digest, covered in where.data_facts.items()]
        self.facts |= {(kind, name, json.dumps(content, sort_keys=True)) for kind, name, content in facts}

    def take_over(self, other: Ledger) -> None:
        """All that another registry acknowledged was acknowledged by this one."""
        self.acknowledged |= other.acknowledged
        self.blobs |= other.blobs
        self.facts |= other.facts
        self.said |= other.said


@dataclass
class Bench:
    """A folder with a registry to break, another one to merge from, and their ledgers.

    outbox: where artefacts come from; outside, as a trial's scratch folder is.   moved: called after each change of `ledger`.
    """

    folder: Path
    outbox: Path
    ledger: Ledger = field(default_factory=Ledger)
    other: Ledger = field(default_factory=Ledger)
    moved: Callable[[], None] = lambda: None
    alive: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        return self.folder / "registry"

    @property
    def other_path(self) -> Path:
        return self.folder / "other"

    def open(self) -> Registry:
        """As each command does; when it returns, the attempts of dead processes are recorded as `interrupted`."""
        registry = Registry.open(self.path)
        self.ledger.interrupted |= self.ledger.marked - self.ledger.acknowledged - self.alive
        self.moved()
        return registry

    def append(self, registry: Registry, number: int, invocation: str, blob: bytes = b"") -> None:
        """One attempt from its start marker to its end."""
        attempt, expected, sources = make_sample(number, invocation, self.outbox, blob)
        self.alive.add(attempt.attempt_id)
        self.ledger.begin(attempt)
        self.moved()
        marker = registry.begin(attempt.trial, attempt.provenance, attempt.attempt_id)
        self.ledger.marked.add(attempt.attempt_id)
        self.ledger.offered[attempt.attempt_id] = expected
        self.moved()
        registry.append(attempt, sources)
        self.ledger.acknowledge(attempt, blob)
        self.moved()
        registry.end(marker)

    def begin_and_die(self, registry: Registry, number: int) -> None:
        """A start marker whose process is gone."""
        attempt, _, _ = make_sample(number, "inv-dead", self.outbox)
        self.ledger.begin(attempt)
        self.moved()
        dead = Owner(this_process().host, "the boot before", 1, 1)
        with mock.patch.object(markers, "this_process", return_value=dead):
            registry.begin(attempt.trial, attempt.provenance, attempt.attempt_id)
        self.ledger.marked.add(attempt.attempt_id)

    def annotate(self, registry: Registry, number: int, kind: Kind, reason: str) -> None:
        attempt_id = f"{number:032x}"
        self.ledger.asked.add((attempt_id, kind, reason))
        self.ledger.said.pop(attempt_id, None)  # until the call returns, what was said before holds, or this
        self.moved()
        registry.annotate([attempt_id], kind, reason, "a tester")
        self.ledger.said[attempt_id] = None if kind == "withdrawn" else (kind, reason)
        self.moved()

    def merge(self, registry: Registry) -> None:
        self.ledger.offered |= self.other.offered
        self.ledger.asked |= self.other.asked
        self.moved()
        told = registry.merge(self.other_path)
        if not told.damaged:  # what could not be read there is named in what it returns: it acknowledges the rest
            self.ledger.take_over(self.other)
        self.moved()


def make_sample(number: int, invocation: str, outbox: Path, blob: bytes = b"") -> tuple[Attempt, Attempt, dict[str, Path]]:
    """An attempt to append, what must come back for it, and the file of its artefact. All of it follows from the arguments."""
    where = replace(
        WHERE, invocation=invocation, machine=f"m-{invocation}", machine_facts={"cpu": f"CPU of {invocation}"},
        environment=f"env-{invocation}", environment_facts={"packages": {"torch": f"2 of {invocation}"}},
        data_facts={"da7a": {"digits": {"licence": "CC0", "seen by": invocation}}},
    )  # fmt: skip
    measured = (replace(ACCURACY, value=number / 4096),)  # exact in binary
    log = f"attempt {number} of {invocation}\n"
    expected = without_facts(make_attempt(number, make_trial(seed=number), where, measurements=measured, log=log))
    if not blob:
        return replace(expected, provenance=where), expected, {}
    path = outbox / f"blob-{number}"
    path.write_bytes(blob)
    named = {"name": "b.bin", "media_type": "application/octet-stream"}
    saved = replace(expected.outcome, blobs=({**named, "path": str(path)},))
    kept = Blob(**named, sha256=hashlib.sha256(blob).hexdigest(), size_bytes=len(blob))
    return replace(expected, provenance=where, outcome=saved), replace(expected, blobs=(kept,)), {"b.bin": path}


def without_facts(attempt: Attempt) -> Attempt:
    """As a row holds it: facts are kept apart."""
    return replace(attempt, provenance=replace(attempt.provenance, machine_facts={}, environment_facts={}, data_facts={}))


# The script: each scene is what one command does ---------------------------------------------------------------------------


def first_attempts(bench: Bench) -> None:
    registry = bench.open()
    for number in (1, 2, 3):
        bench.append(registry, number, "inv-1", blob=b"circuit" * number)
    registry.fold("inv-1")


def a_death(bench: Bench) -> None:
    registry = bench.open()
    bench.append(registry, 4, "inv-2")
    bench.begin_and_die(registry, 5)


def more_attempts(bench: Bench) -> None:
    """Sweeps what died; one attempt comes twice, as after an unclear error; one artefact is known already."""
    registry = bench.open()
    for number in (6, 7, 6):
        bench.append(registry, number, "inv-3", blob=b"circuit")
    registry.fold("inv-3")


def annotations(bench: Bench) -> None:
    registry = bench.open()
    bench.annotate(registry, 1, "invalid", "a broken fan")
    bench.annotate(registry, 2, "expected", "known to fail")
    bench.annotate(registry, 1, "withdrawn", "the fan was whole")


def a_merge(bench: Bench) -> None:
    """From a registry with loose, folded and annotated attempts, of which one is here already."""
    bench.merge(bench.open())


def a_compaction(bench: Bench) -> None:
    bench.open().compact(everything=True)


def a_query(bench: Bench) -> None:
    """May build an index."""
    bench.open().query("SELECT attempt_id FROM attempts")


def a_collection(bench: Bench) -> None:
    """Deletes all that folds replaced, with no grace time."""
    bench.open().remove_replaced(grace_s=-1)


def a_gc(bench: Bench) -> None:
    """What `harness gc --yes --grace 0s` does, after one more fold; also to an artefact and facts that no attempt names."""
    registry, layout = bench.open(), Layout(bench.path)
    for number in (21, 22):
        bench.append(registry, number, "inv-4", blob=b"circuit")
    registry.fold("inv-4")
    registry.keep_facts("machine", "m-nobody", {"cpu": "CPU of nobody"})
    try:
        publish(layout, NOBODYS, layout / "blobs" / content_name(NOBODYS))
    except OSError as exc:
        raise RegistryError("as the registry says it where it publishes") from exc
    registry.collect(grace_s=-1)


Scene = Callable[[Bench], None]
SCENES: tuple[Scene, ...] = (
    first_attempts, a_death, more_attempts, annotations, a_merge, a_compaction, a_query, a_collection, a_gc,
)  # fmt: skip


def prepare(folder: Path) -> Bench:
    """An empty place for a registry, beside another one to merge from."""
    outbox = folder / "outbox"
    outbox.mkdir(parents=True)
    bench = Bench(folder / "live", outbox)
    source = Bench(folder / "live", outbox, bench.other)
    registry = Registry.open(bench.other_path)
    source.append(registry, 7, "inv-3", blob=b"circuit")
    for number in (11, 12):
        source.append(registry, number, "inv-other", blob=b"circuit")
    registry.fold("inv-other")
    source.append(registry, 13, "inv-later", blob=b"weights")
    source.annotate(registry, 11, "invalid", "the wrong data")
    return bench


@dataclass(frozen=True)
class Stage:
    """A scene, and the folder and the ledger as they were before it. To be played on a copy."""

    scene: Scene
    before: Bench

    def set_up(self, folder: Path) -> Bench:
        shutil.copytree(self.before.folder, folder)
        ledger, other = self.before.ledger.copy(), self.before.other.copy()
        return Bench(folder, self.before.outbox, ledger, other, alive=set(self.before.alive))


def play(folder: Path) -> list[Stage]:
    """Every scene once, nothing failing: the stages to fail on."""
    bench = prepare(folder)
    stages = []
    for number, scene in enumerate(SCENES):
        kept = folder / f"before-{number}"
        shutil.copytree(bench.folder, kept)
        before = Bench(kept, bench.outbox, bench.ledger.copy(), bench.other.copy(), alive=set(bench.alive))
        stages.append(Stage(scene, before))
        scene(bench)
    return stages


# The judge -----------------------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """lost: acknowledged and not there.   wrong: there and not as it was written, doubled, never made; or an error."""

    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __iadd__(self, other: Verdict) -> Verdict:
        self.lost += other.lost
        self.wrong += other.wrong
        return self


def report(verdict: Verdict) -> None:
    """Say on stderr what a count cannot: the first of what was found."""
    for text in (verdict.lost + verdict.wrong)[:MAX_REPORTED]:
        print(text[:MAX_REPORTED_CHARACTERS], file=sys.stderr)


def judge(registry: Registry, ledger: Ledger) -> Verdict:
    """What this registry holds, against what it acknowledged."""
    try:
        verdict = judge_rows(registry.table().to_pylist(), ledger)
        verdict += judge_blobs(registry, ledger)
        there = {(fact["kind"], fact["name"], json.dumps(fact["facts"], sort_keys=True)) for fact in registry.facts()}
        verdict.lost += [f"facts {fact}" for fact in sorted(ledger.facts - there)]
        verdict += judge_annotations(Reader(Layout(registry.path)), ledger)
    except Exception as exc:  # whatever a reader raises is a reader that failed
        return Verdict(wrong=[f"{type(exc).__name__}: {exc}"])
    return verdict


def judge_rows(rows: list[dict[str, Any]], ledger: Ledger) -> Verdict:
    count = Counter(row["attempt_id"] for row in rows)
    verdict = Verdict(wrong=[f"{name} stands {n} times" for name, n in count.items() if n > 1])
    verdict.lost += [f"attempt {name}" for name in sorted((ledger.acknowledged | ledger.interrupted) - count.keys())]
    for row in rows:
        got, name = schema.from_row(row), row["attempt_id"]
        as_offered = name in ledger.offered and repr(got) == repr(ledger.offered[name])  # repr: NaN is not equal to itself
        if not (as_offered or (name not in ledger.acknowledged and is_interrupted(got, ledger))):
            verdict.wrong.append(f"{name} is {got!r}, which nobody wrote")
    return verdict


def is_interrupted(got: Attempt, ledger: Ledger) -> bool:
    begun = ledger.running.get(got.attempt_id)
    if begun is None or got.outcome.status != "interrupted" or got.outcome.measurements:
        return False
    trial, where = begun
    return repr(got) == repr(without_facts(Attempt(got.attempt_id, trial, got.outcome, where)))


def judge_blobs(registry: Registry, ledger: Ledger) -> Verdict:
    verdict = Verdict()
    for sha256, content in ledger.blobs.items():
        try:
            if registry.read_blob(sha256) != content:
                verdict.wrong.append(f"blob {sha256} has other content")
        except RegistryError as exc:
            verdict.lost.append(f"blob {sha256}: {exc}")
    return verdict


def judge_annotations(reader: Reader, ledger: Ledger) -> Verdict:
    verdict = Verdict()
    there = {row["attempt_id"]: (row["annotation"], row["annotation_reason"]) for row in reader.annotations().to_pylist()}
    for name, said in ledger.said.items():
        if there.get(name) != said:
            verdict.lost.append(f"of {name} was said {said}, and {there.get(name)} holds")
    never = [(name, *said) for name, said in there.items() if (name, *said) not in ledger.asked]
    verdict.wrong += [f"{said} was never said" for said in never]
    return verdict


def live_on(bench: Bench, number: int = 99) -> Verdict:
    """Read what is there, then as the next command: open for writing, append, fold; each time everything must be there."""
    before = copy_of(bench)
    verdict = Verdict()
    if bench.path.is_dir() and bench.ledger.acknowledged:
        # Without an acknowledged attempt the folder may be no registry yet, and may say so.
        verdict += attempt_to(lambda: judge(Registry.open(bench.path, create=False), before.ledger))
    verdict += attempt_to(lambda: judge(Registry.open(bench.path), before.ledger))

    def write_more() -> Verdict:
        registry = before.open()
        before.append(registry, number, "inv-after", blob=b"later")
        before.append(registry, number + 1, "inv-after")
        registry.fold("inv-after")
        return judge(Registry.open(before.path, create=False), before.ledger)

    verdict += attempt_to(write_more)
    return verdict


def copy_of(bench: Bench) -> Bench:
    """With a ledger of its own, in which what happens from now on is noted. Nobody is known to live."""
    return Bench(bench.folder, bench.outbox, bench.ledger.copy(), bench.other, alive=set(bench.ledger.running))


def attempt_to(act: Callable[[], Verdict]) -> Verdict:
    try:
        return act()
    except Exception as exc:  # a registry that cannot be opened or written after the fault is a violation, whatever it raises
        return Verdict(wrong=[f"{type(exc).__name__}: {exc}"])
