"""Start markers: an attempt that runs leaves a small file, so that one whose process was killed is seen as `interrupted`.

A marker holds the trial and where it runs. It is deleted once the attempt is recorded; what outlives its process becomes an
`interrupted` attempt at the next sweep. Markers are not flushed: a power cut may lose one, and with it nothing but the note.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.records import Attempt, Outcome, Provenance, Trial
from harness.registry import io
from harness.registry.files import Layout, Owner, is_gone, owner, this_process, write_new

SHARED_FACTS = ("machine_facts", "environment_facts", "data_facts")  # kept under `facts`, not in every marker


@dataclass(frozen=True)
class Marker:
    """What a marker file says. attempt: what it becomes if its process is gone."""

    path: Path
    process: Owner
    attempt: Attempt

    def is_left_behind(self) -> bool:
        return is_gone(self.process, time.time() - io.size_and_time(self.path)[1] / 1e9)


def write_marker(layout: Layout, attempt_id: str, trial: Trial, provenance: Provenance) -> Path:
    """Say that an attempt starts now. Raises OSError."""
    process = this_process()
    content = {
        "process": process.__dict__,
        "started_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "trial": {f.name: plain(getattr(trial, f.name)) for f in fields(trial)},
        "provenance": {f.name: getattr(provenance, f.name) for f in fields(provenance) if f.name not in SHARED_FACTS},
    }
    aside = layout / "tmp" / f"{owner()}-{secrets.token_hex(8)}"
    path = layout / "started" / f"{attempt_id}.json"
    write_new(aside, json.dumps(content).encode())
    io.rename(aside, path)  # whole or not at all, for a sweep that looks at this moment
    return path


def plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool | tuple) else dict(value)


def left_behind(layout: Layout, unreadable: list[Path]) -> Iterator[Marker]:
    """The markers whose process is gone. Files that are no markers (a power cut tears them) are added to `unreadable`."""
    for name in io.listdir(layout / "started"):
        path = layout / "started" / name
        with contextlib.suppress(FileNotFoundError):  # ended, or swept by another process, while we look
            try:
                marker = read_marker(path)
            except (ValueError, TypeError, KeyError, RecursionError):
                unreadable.append(path)
                continue
            if marker.is_left_behind():
                yield marker


def read_marker(path: Path) -> Marker:
    """Raises ValueError, TypeError or KeyError for what is no marker."""
    content = json.loads(io.read(path))
    process = Owner(**content["process"])
    trial = Trial(**{**content["trial"], "measure": tuple(content["trial"]["measure"])})
    provenance = Provenance(**content["provenance"], machine_facts={}, environment_facts={}, data_facts={})
    # All of it is read from the marker: two processes that sweep at once write the same bytes, so one file.
    outcome = Outcome(
        status="interrupted",
        error=f"process {process.pid} on {process.host} ended without recording a result (killed, or the machine went down)",
        started_at=content["started_at"],
    )
    return Marker(path, process, Attempt(path.stem, trial, outcome, provenance))


def remove(path: Path) -> None:
    """Delete a marker; gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        io.unlink(path)
