"""What `harness data list` and `harness data verify` show, and what a record says of its data. Facts in, rows out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.catalogue import Catalogue
from harness.data.declared import DATASETS, dataset, files_of
from harness.data.files import locate, place, read_bytes
from harness.errors import DataError
from harness.identity import digest
from harness.specs import Dataset

State = Literal["ok", "generated", "missing", "wrong"]


@dataclass(frozen=True)
class Verified:
    """ok: every file has its declared digest; generated: made by a rule, nothing to compare; else error: what, and the mend.

    expected: the declared digest; found: the digest of what is there, "" where it is missing or wrong (error has it).
    """

    name: str
    state: State
    expected: str
    found: str = ""
    error: str = ""


def verify(name: str | Dataset, data_dir: Path | str | None = None) -> Verified:
    """Read a set's files whole and compare their digests with the declared ones. Nothing is raised for bad data."""
    set_ = dataset(name) if isinstance(name, str) else name
    try:
        locate(set_, data_dir)
        found = current_digest(set_)
    except DataError as exc:
        return Verified(set_.name, "missing", set_.digest, error=str(exc))
    if set_.where == "generated":
        return Verified(set_.name, "generated", set_.digest, found)
    try:
        read_bytes(set_, data_dir)
    except DataError as exc:
        return Verified(set_.name, "wrong", set_.digest, error=str(exc))
    return Verified(set_.name, "ok", set_.digest, found)


def current_digest(set_: Dataset) -> str:
    """The digest that a trial's data goes by: the declared one, but for the standard library's text what is really there."""
    if set_.name != "stdlib-text":
        return set_.digest
    from harness.data.generated import stdlib_digest  # reads the sources: only where the text is used

    return stdlib_digest()


def data_digest(names: Iterable[str | Dataset]) -> str:
    """32 hex digits that name the data of a task; the order of the names does not matter."""
    sets = [dataset(name) if isinstance(name, str) else name for name in names]
    return digest({set_.name: current_digest(set_) for set_ in sets})


def facts(names: Iterable[str | Dataset]) -> list[dict[str, Any]]:
    """What the registry keeps of each set: name, digest, where, licence, source, size_bytes; sorted by name."""
    sets = [dataset(name) if isinstance(name, str) else name for name in names]
    return [
        {
            "name": s.name,
            "digest": current_digest(s),
            "where": s.where,
            "licence": s.licence,
            "source": s.source,
            "size_bytes": s.size_bytes,
        }
        for s in sorted(sets, key=lambda s: s.name)
    ]


def list_rows(catalogue: Catalogue, data_dir: Path | str | None = None) -> list[dict[str, Any]]:
    """One row a data set of any plugin: name, plugin, where, present, size_bytes, licence, source, summary. Reads no data."""
    return [
        {
            "name": offer.name,
            "plugin": offer.plugin.id,
            "where": offer.spec.where,
            "present": is_present(offer.spec, data_dir),
            "size_bytes": offer.spec.size_bytes,
            "licence": offer.spec.licence,
            "source": offer.spec.source,
            "summary": offer.spec.summary,
        }
        for offer in catalogue.datasets
    ]


def is_present(set_: Dataset, data_dir: Path | str | None = None) -> bool:
    """Whether every file of a set lies where it should; digests are `verify`'s."""
    try:
        return all(place(set_, file, data_dir).is_file() for file in files_of(set_))
    except DataError:
        return False


def missing(names: Iterable[str | Dataset], data_dir: Path | str | None = None) -> frozenset[str]:
    """The names of those sets that have a file which is not there. A name that the core does not know is not judged."""
    known = [
        DATASETS[name] if isinstance(name, str) else name for name in names if not isinstance(name, str) or name in DATASETS
    ]
    return frozenset(set_.name for set_ in known if not is_present(set_, data_dir))


def verify_rows(catalogue: Catalogue, data_dir: Path | str | None = None, names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """One row (the fields of `Verified`) for each named set; without names, for all that are present.

    Raises HarnessError for an unknown name.
    """
    named = list(names)
    sets = [catalogue.dataset(name).spec for name in named] if named else [offer.spec for offer in catalogue.datasets]
    return [asdict(verify(set_, data_dir)) for set_ in sets if named or is_present(set_, data_dir)]
