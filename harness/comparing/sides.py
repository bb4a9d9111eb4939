"""What A and B are: a method, a machine, an environment, a commit or a date, understood from what a registry holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.catalogue import did_you_mean
from harness.errors import HarnessError
from harness.registry import Registry
from harness.showing import one_line
from harness.strangers import read_json

Kind = Literal["method", "machine", "environment", "commit", "date"]
WORDS: Mapping[str, Kind] = {
    "method": "method", "machine": "machine", "environment": "environment", "torch": "environment", "commit": "commit",
    "date": "date",
}  # fmt: skip
LEAST_DIGITS = 4  # of a commit or a digest
LISTED = 8
USE = re.compile(r"([^()]+)\((.*)\)")

THERE = """
SELECT method, method_params, machine, torch_version, environment, git_commit,
       strftime(started_at AT TIME ZONE 'UTC', '%Y-%m-%d') AS day, count(*) AS n
FROM attempts WHERE kind = 'quality' AND status <> 'interrupted' AND annotation IS DISTINCT FROM 'invalid' GROUP BY ALL
"""


@dataclass(frozen=True)
class Side:
    """One side of a comparison. given: as it was written; column, values: the attempts that are meant; says: in words."""

    given: str
    kind: Kind
    column: str
    values: tuple[str, ...]
    says: str

    @property
    def sql(self) -> str:
        """A condition on attempts, with the values as parameter $values."""
        day = "strftime(started_at AT TIME ZONE 'UTC', '%Y-%m-%d')"
        uses = "method || coalesce(method_params, '')"
        named = {"day": day, "use": uses}.get(self.column, self.column)
        return f"{named} IN (SELECT unnest($values))"


@dataclass(frozen=True)
class Meaning:
    """One thing that a name can stand for. word: how to ask for it without doubt."""

    word: str
    value: str
    column: str
    values: tuple[str, ...]
    says: str


def read_sides(registry: Registry, a: str, b: str) -> tuple[Side, Side]:
    """Raises HarnessError for a name that means nothing here or several things, for two kinds, and for twice the same."""
    rows = registry.query(THERE).to_pylist()
    if not rows:
        raise HarnessError(
            f"registry {registry.path}: it holds no results of quality trials; run a suite first (`harness run smoke`)"
        )
    mistakes, found = [], []
    for name in (a, b):
        try:
            found.append(side_of(name, rows))
        except HarnessError as exc:
            mistakes.append(str(exc))
    if mistakes:
        raise HarnessError("\n".join(mistakes))
    one, other = found
    if one.kind != other.kind:
        raise HarnessError(f"{one.given!r} is {one.says}, {other.given!r} is {other.says}: compare two of one kind")
    if (one.column, set(one.values)) == (other.column, set(other.values)):
        raise HarnessError(f"{one.given!r} and {other.given!r} are the same: {one.says}")
    return one, other


def side_of(name: str, rows: Sequence[Mapping[str, Any]]) -> Side:
    word, _, value = name.partition(":")
    meanings = list(meanings_of(value, rows, word)) if word in WORDS and value else list(meanings_of(name, rows))
    if not meanings:
        near = did_you_mean(name, {str(row["method"]).rpartition("/")[2] for row in rows})
        raise HarnessError(f"{name!r} is no method, machine, environment, commit or date here{near}; {there_is(rows)}")
    if len(meanings) > 1:
        listed = "; ".join(f"{m.word}:{m.value} ({m.says})" for m in meanings[:LISTED])
        raise HarnessError(f"{name!r} may mean several things; write one of them: {listed}")
    (meant,) = meanings
    return Side(name, WORDS[meant.word], meant.column, meant.values, meant.says)


def meanings_of(name: str, rows: Sequence[Mapping[str, Any]], word: str = "") -> Iterator[Meaning]:
    """All that a name stands for among what is there; word: of one kind only."""
    readings = {
        "method": methods,
        "machine": machines,
        "torch": torches,
        "environment": environments,
        "commit": commits,
        "date": days,
    }
    for kind, reading in readings.items():
        if word in ("", kind):
            yield from reading(name, rows)


def methods(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Meaning]:
    """ "relu", "dist/relu", or with parameters that it must have: "elu(alpha=0.5)"."""
    use = USE.fullmatch(name)
    bare, wanted = (use[1], [part.strip() for part in use[2].split(",") if part.strip()]) if use else (name, [])
    by_ref: dict[str, set[str]] = {}
    for row in rows:
        ref = str(row["method"] or "")
        if bare not in (ref, ref.rpartition("/")[2]):
            continue
        given = read_json(row["method_params"] or "{}")
        held = {f"{k}={v}" for k, v in given.items()} if isinstance(given, Mapping) else set()
        if held.issuperset(wanted):
            by_ref.setdefault(ref, set()).add(ref + (row["method_params"] or ""))
    for ref, uses in sorted(by_ref.items()):
        says = f"the method {one_line(ref)}" + (f" with {', '.join(wanted)}" if wanted else "")
        yield Meaning("method", ref + (f"({', '.join(wanted)})" if wanted else ""), "use", tuple(sorted(uses)), says)


def machines(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Meaning]:
    for found in begun("machine", name, rows):
        yield Meaning("machine", found, "machine", (found,), f"the machine {one_line(found)}")


def torches(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Meaning]:
    """ "2.13.0", "2.13.0+cpu", "torch==2.13.0"."""
    wanted = name.removeprefix("torch").lstrip("=- ")
    versions = {str(row["torch_version"]) for row in rows if row["torch_version"]}
    for found in sorted(v for v in versions if wanted in (v, v.partition("+")[0])):
        yield Meaning("torch", found, "torch_version", (found,), f"environments with torch {one_line(found)}")


def environments(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Meaning]:
    for found in begun("environment", name, rows):
        yield Meaning("environment", found, "environment", (found,), f"the environment {one_line(found[:12])}")


def commits(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Meaning]:
    for found in begun("git_commit", name, rows):
        yield Meaning("commit", found, "git_commit", (found,), f"the commit {one_line(found[:12])}")


def days(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Meaning]:
    if any(row["day"] == name for row in rows):
        yield Meaning("date", name, "day", (name,), f"the day {name} (UTC)")


def begun(column: str, name: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The values that begin so; a whole one is what it says, also if another one begins with it."""
    values = {str(row[column]) for row in rows if row[column]}
    if name in values:
        return [name]
    return sorted(v for v in values if len(name) >= LEAST_DIGITS and v.startswith(name))


def there_is(rows: Iterable[Mapping[str, Any]]) -> str:
    """For who mistyped: what there is, the most frequent methods and the newest of the rest first."""
    columns = {
        "methods": "method",
        "machines": "machine",
        "torch versions": "torch_version",
        "commits": "git_commit",
        "dates": "day",
    }
    counts: dict[str, dict[str, int]] = {title: {} for title in columns}
    for row in rows:
        for title, column in columns.items():
            if row[column]:
                shown = str(row[column]).rpartition("/")[2][:40] if column == "method" else str(row[column])[:16]
                counts[title][shown] = counts[title].get(shown, 0) + row["n"]
    told = []
    for title, found in counts.items():
        names = sorted(found, key=lambda n: (-found[n], n)) if title != "dates" else sorted(found, reverse=True)
        told.append(f"{title} {', '.join(map(one_line, names[:LISTED]))}" + (", ..." if len(names) > LISTED else ""))
    return "there are " + "; ".join(told)
