"""Flipped bits and cut files, thousands of them, in every kind of file of a registry: found by `verify`, and never read.

Each round copies a healthy registry and damages many of its files, one bit or one cut each. The judge knows from outside
what each file held: the rows that the healthy files hold must be read, exactly as written, and no others.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import RegistryError
from harness.records import Attempt
from harness.registry import Registry, folding, schema
from tests.faults.scenario import Bench, Verdict, report
from tests.faults.tally import Tally

FOLDERS = ("attempts", "folded", "manifests", "facts", "blobs", "annotations")
FORMAT = "FORMAT"  # the one file of a registry that is not named by its content
SHARE_DAMAGED = {
    "attempts": 0.6, "folded": 0.6, "manifests": 0.5, "facts": 0.2, "blobs": 0.3, "annotations": 0.5, FORMAT: 0.5,
}  # fmt: skip
SHARE_CUT = 0.2
SHARE_TIME_KEPT = 0.5
COMPACTED, FOLDED, LOOSE, EACH = 4, 6, 12, 4
Damage: TypeAlias = dict[str, bytes]  # "folder/name" -> what it holds now


@dataclass
class Healthy:
    """A registry as it was written, and what its files hold, by "folder/name". rows: of Parquet files, the attempt ids."""

    folder: Path
    attempts: dict[str, Attempt]
    kinds: dict[str, str] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    rows: dict[str, frozenset[str]] = field(default_factory=dict)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)  # of JSON files

    def expected_ids(self, damage: Damage) -> set[str]:
        return set().union(*(ids for name, ids in self.rows.items() if name not in damage))

    def expected_json(self, folder: str, damage: Damage) -> list[dict[str, Any]]:
        return [told for name, told in self.said.items() if name.startswith(f"{folder}/") and name not in damage]


@dataclass
class Found:
    """What went wrong in all rounds, and how often things were tried."""

    tried: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    raw_flips: int = 0
    raw_silent: int = 0


def campaign(folder: Path, times: int, seed: int, pictures: Path | None = None) -> list[Tally]:
    """times: flips and cuts, at least."""
    healthy = build(folder / "healthy")
    dice = random.Random(seed)
    verified, fresh = Found(), Found()
    while verified.tried.total() < times:
        damage = draw(healthy, dice, times - verified.tried.total())
        for name, content in damage.items():
            verified.tried[healthy.kinds[name]] += 1
            read_raw(healthy, name, content, verified)
        check_verified(healthy, damage, dice, folder / "verified", verified)
        fresh.tried += Counter(healthy.kinds[name] for name in damage)
        check_fresh(healthy, damage, dice, folder / "fresh", fresh)
    return [
        to_tally("bits flipped and files cut, then `harness verify`, then read", verified, notes_of(verified)),
        to_tally("the same, read without `verify` by a reader with no index yet", fresh, ()),
    ]


def to_tally(fault: str, found: Found, notes: tuple[str, ...]) -> Tally:
    report(Verdict(found.lost, found.missed + found.wrong))
    wrong = len(found.missed) + len(found.wrong)
    return Tally(fault, found.tried.total(), "files damaged", len(found.lost), wrong, notes=notes)


def notes_of(found: Found) -> tuple[str, ...]:
    spread = ", ".join(f"{number:,} in {kind}" for kind, number in sorted(found.tried.items()))
    silent = (
        f"pyarrow alone read {found.raw_silent:,} of {found.raw_flips:,} flipped Parquet files as other rows, without an error"
    )
    return spread, silent


# A registry with everything in it ------------------------------------------------------------------------------------------


def build(folder: Path) -> Healthy:
    """Compacted files (some with what they replaced still there), folded ones (half with their loose ones), loose ones."""
    numbers = iter(range(1, 10_000))
    outbox = folder / "outbox"
    outbox.mkdir(parents=True)
    bench = Bench(folder, outbox)
    with mock.patch.object(folding, "FAN_OUT", 1000):  # nothing is compacted but what we compact
        registry = bench.open()
        write_compacted(bench, registry, numbers, "first")
        for part in range(COMPACTED - 1):
            other = Bench(folder / f"part-{part}", outbox, bench.ledger)
            source = other.open()
            write_compacted(other, source, numbers, f"part-{part}")
            registry.merge(other.path)
        compacted = {path.name for path in (bench.path / "folded").iterdir()}
        for fold in range(FOLDED):
            write_folded(bench, registry, numbers, f"fold-{fold}")
            if fold == FOLDED // 2:
                registry.remove_replaced(grace_s=-1)
        for number in range(LOOSE):
            bench.append(registry, next(numbers), f"loose-{number % 3}", blob=f"loose {number}".encode() * 20)
    for number in range(1, 9):
        bench.annotate(registry, number, "invalid" if number % 2 else "expected", f"reason {number}")
    Registry.open(bench.path, create=False).table()  # fills the index
    shutil.rmtree(outbox)
    return describe(bench, compacted)


def write_folded(bench: Bench, registry: Registry, numbers: Iterable[int], invocation: str) -> None:
    for _, number in zip(range(EACH), numbers, strict=False):
        bench.append(registry, number, invocation, blob=f"circuit of {invocation}".encode() * 20)
    registry.fold(invocation)


def write_compacted(bench: Bench, registry: Registry, numbers: Iterable[int], name: str) -> None:
    for half in ("a", "b"):
        write_folded(bench, registry, numbers, f"{name}-{half}")
    registry.compact(everything=True)


def describe(bench: Bench, compacted: set[str]) -> Healthy:
    """Read every file once, past the registry, while all is well."""
    healthy = Healthy(bench.path, dict(bench.ledger.offered))
    for folder in FOLDERS:
        for path in sorted((bench.path / folder).iterdir()):
            name, content = f"{folder}/{path.name}", path.read_bytes()
            healthy.content[name] = content
            healthy.kinds[name] = {"attempts": "loose files", "folded": "folded files"}.get(folder, folder)
            if folder in ("attempts", "folded"):
                healthy.rows[name] = frozenset(pq.read_table(pa.BufferReader(content))["attempt_id"].to_pylist())
            if path.name in compacted:
                healthy.kinds[name] = "compacted files"
            if path.suffix == ".json":
                healthy.said[name] = json.loads(content)
    healthy.content[FORMAT], healthy.kinds[FORMAT] = (bench.path / FORMAT).read_bytes(), FORMAT
    told = {row["attempts"][0]: (row["kind"], row["reason"]) for row in healthy.expected_json("annotations", {})}
    assert told == bench.ledger.said, "the campaign itself is wrong: these are not the annotations that were made"
    assert healthy.expected_ids({}) == bench.ledger.acknowledged, "the campaign itself is wrong: these are not the attempts"
    return healthy


# Damage --------------------------------------------------------------------------------------------------------------------


def draw(healthy: Healthy, dice: random.Random, limit: int) -> Damage:
    """Some of the files, each with one bit flipped or cut short; at most limit of them."""
    names = [name for name in healthy.content if dice.random() < SHARE_DAMAGED[name.partition("/")[0]]]
    dice.shuffle(names)
    return {name: damaged(healthy.content[name], dice) for name in names[:limit]}


def damaged(content: bytes, dice: random.Random) -> bytes:
    if dice.random() < SHARE_CUT:
        return content[: dice.randrange(len(content.rstrip()))]  # the line end of FORMAT tells nothing
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << dice.randrange(8))]) + content[at + 1 :]


def lay_out(healthy: Healthy, damage: Damage, folder: Path, dice: random.Random) -> None:
    """A copy with this damage; half of the damaged files keep their time, and with it what the index believes of them."""
    shutil.copytree(healthy.folder, folder)
    for name, content in damage.items():
        path = folder / name
        before = path.stat()
        path.write_bytes(content)
        if dice.random() < SHARE_TIME_KEPT:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def read_raw(healthy: Healthy, name: str, content: bytes, found: Found) -> None:
    """What a reader without checksums makes of it: that some of it is silently wrong is why there is something to find."""
    if name not in healthy.rows or len(content) != len(healthy.content[name]):
        return
    found.raw_flips += 1
    try:
        table = pq.read_table(pa.BufferReader(content), use_threads=False)
        found.raw_silent += not table.equals(pq.read_table(pa.BufferReader(healthy.content[name]), use_threads=False))
    except (pa.ArrowException, OSError, ValueError):
        pass  # it noticed


# Checks --------------------------------------------------------------------------------------------------------------------


def check_verified(healthy: Healthy, damage: Damage, dice: random.Random, folder: Path, found: Found) -> None:
    """With the index as it was, which believes half of the damaged files: what `verify` names, and what is read after it."""
    lay_out(healthy, damage, folder, dice)
    findings = Registry.open(folder, create=False).verify()
    named = {finding.path for finding in findings if finding.kind in ("damaged", "truncated")}
    found.missed += [f"{name} was damaged, and verify did not say so" for name in sorted(damage.keys() - named)]
    found.wrong += [f"{name} is healthy, and verify called it damaged" for name in sorted(named - damage.keys())]
    check_reads(healthy, damage, folder, found)
    shutil.rmtree(folder)


def check_fresh(healthy: Healthy, damage: Damage, dice: random.Random, folder: Path, found: Found) -> None:
    lay_out(healthy, damage, folder, dice)
    shutil.rmtree(folder / "index")
    check_reads(healthy, damage, folder, found)
    shutil.rmtree(folder)


def check_reads(healthy: Healthy, damage: Damage, folder: Path, found: Found) -> None:
    """Rows, facts, annotations and artefacts are those of the healthy files, and no others."""
    registry = Registry.open(folder, create=False)
    rows = {row["attempt_id"]: schema.from_row(row) for row in registry.table().to_pylist()}
    compare("attempts", rows, {name: healthy.attempts[name] for name in healthy.expected_ids(damage)}, found)
    values = registry.query("SELECT attempt_id, value FROM measurements WHERE quantity = 'accuracy'").to_pylist()
    measured = {name: a.outcome.measurements[0].value for name, a in healthy.attempts.items()}
    expected = {name: measured[name] for name in healthy.expected_ids(damage)}
    compare("values of a query", {row["attempt_id"]: row["value"] for row in values}, expected, found)
    if len(values) != len(expected):
        found.wrong.append(f"a query gave {len(values)} values for {len(expected)} attempts")
    facts = {f"{told['kind']} {told['name']}": told for told in registry.facts()}
    expected_facts = {f"{told['kind']} {told['name']}": told for told in healthy.expected_json("facts", damage)}
    compare("facts", facts, expected_facts, found)
    acts = {act["attempts"][0]: (act["kind"], act["reason"]) for act in healthy.expected_json("annotations", damage)}
    holds = registry.annotations().to_pylist()
    compare("annotations", {r["attempt_id"]: (r["annotation"], r["annotation_reason"]) for r in holds}, acts, found)
    for name, content in healthy.content.items():
        if name.startswith("blobs/"):
            check_blob(registry, name, content, name in damage, found)


def compare(what: str, got: dict[str, Any], expected: dict[str, Any], found: Found) -> None:
    """repr: NaN is not equal to itself."""
    found.lost += [f"{what}: {key} is healthy and was not read" for key in expected.keys() - got.keys()]
    found.wrong += [f"{what}: {key} stands in damaged files only, and was read" for key in got.keys() - expected.keys()]
    differ = [key for key in got.keys() & expected.keys() if repr(got[key]) != repr(expected[key])]
    found.wrong += [f"{what}: {key} was read as {got[key]!r}" for key in differ]


def check_blob(registry: Registry, name: str, content: bytes, is_damaged: bool, found: Found) -> None:
    try:
        got = registry.read_blob(name.partition("/")[2])
    except RegistryError:
        found.lost += [] if is_damaged else [f"{name} is healthy and was not read"]
    else:
        found.wrong += [f"{name} was read damaged"] if is_damaged or got != content else []
