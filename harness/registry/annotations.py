"""What people say of attempts afterwards: `invalid` (a broken machine, a wrong setting) or `expected` (a known failure).

One file an act, named by its content, never changed: an annotation is lifted by another act, `withdrawn`. So who said what and
when stays known, and two registries merge by a union of names. Of the acts on one attempt the newest is in force.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, get_args

from harness.registry.files import Layout, content_name, ensure_folder, publish

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["expected", "invalid", "withdrawn"]
COLUMNS = ("attempt_id", "annotation", "annotation_reason", "annotated_by", "annotated_at")
MAX_REASON_CHARACTERS = 2000


@dataclass(frozen=True)
class Annotation:
    """One act. attempts: whole ids, sorted. made_at: UTC, ISO 8601 with microseconds, so that text sorts as time."""

    attempts: tuple[str, ...]
    kind: Kind
    reason: str
    author: str
    made_at: str


@dataclass(frozen=True)
class InForce:
    """What holds for one attempt now."""

    attempt_id: str
    annotation: str
    annotation_reason: str
    annotated_by: str
    annotated_at: str


def encode(made: Annotation) -> bytes:
    return json.dumps({"format": 1, **asdict(made)}, sort_keys=True).encode()


def decode(content: bytes) -> Annotation:
    """Raises ValueError for what is no annotation."""
    told = json.loads(content)
    try:
        attempts, kind, reason, author = (told[name] for name in ("attempts", "kind", "reason", "author"))
        made_at = datetime.fromisoformat(told["made_at"])
    except (KeyError, TypeError) as exc:
        raise ValueError(f"no annotation: {exc}") from exc
    if not isinstance(attempts, list) or not all(isinstance(text, str) for text in (*attempts, reason, author)):
        raise ValueError("no annotation: attempts, reason and author must be text")
    if kind not in get_args(Kind) or made_at.tzinfo is None:
        raise ValueError(f"no annotation: kind {kind!r} at {told['made_at']!r}")
    return Annotation(tuple(attempts), kind, reason, author, as_text(made_at))


def as_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def in_force(made: Iterable[tuple[str, Annotation]]) -> list[InForce]:
    """What holds of these (file name, annotation) pairs, by attempt id: the newest act on each, unless it withdraws."""
    newest: dict[str, tuple[str, str, Annotation]] = {}
    for name, annotation in made:
        for attempt in annotation.attempts:
            newest[attempt] = max(newest.get(attempt, ("", "", annotation)), (annotation.made_at, name, annotation), key=by_age)
    return [
        InForce(attempt, act.kind, act.reason, act.author, act.made_at)
        for attempt, (_, _, act) in sorted(newest.items())
        if act.kind != "withdrawn"
    ]


def by_age(act: tuple[str, str, Annotation]) -> tuple[str, str]:
    return act[:2]


def to_table(holding: Sequence[InForce]) -> pa.Table:
    """COLUMNS, all text."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    return pa.Table.from_pydict({name: [getattr(one, name) for one in holding] for name in COLUMNS}, schema=schema)


def publish_annotation(
    layout: Layout, before: Iterable[Annotation], attempts: Iterable[str], kind: Kind, reason: str, author: str
) -> Annotation:
    """Say it of these attempts, from now on; on the disk when this returns. before: all acts that are known. Raises OSError.

    An act is always newer than those it answers, whatever the clock says: one that goes backwards must not leave a withdrawn
    annotation in force.
    """
    named = tuple(sorted(set(attempts)))
    made_at = as_text(datetime.now(UTC))
    answered = [act.made_at for act in before if not set(named).isdisjoint(act.attempts)]
    if answered and max(answered) >= made_at:
        made_at = as_text(datetime.fromisoformat(max(answered)) + timedelta(microseconds=1))
    made = Annotation(named, kind, reason, author, made_at)
    content = encode(made)
    ensure_folder(layout / "annotations")  # a registry from before there were any has no such folder
    publish(layout, content, layout / "annotations" / content_name(content, ".json"))
    return made
