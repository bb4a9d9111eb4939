"""A file of pytest-benchmark, read and checked: a `Session` of `Benchmark`s, or all mistakes at once. Records nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.showing import one_line

STATISTICS = ("median", "mean", "min", "max", "stddev", "iqr")  # those that are kept where there are no samples; seconds
MAX_MISTAKES = 20
MAX_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of a file. params: JSON values. data: seconds a call, () where the file has none; then statistics."""

    name: str
    fullname: str
    group: str
    param: str
    params: Mapping[str, Any]
    extra: Mapping[str, Any]
    timer: str
    data: tuple[float, ...]
    statistics: Mapping[str, float]
    iterations: int
    rounds: int


@dataclass(frozen=True)
class Session:
    """A file, checked: every text is printable, every number finite."""

    benchmarks: tuple[Benchmark, ...]
    machine_info: Mapping[str, Any]
    commit_info: Mapping[str, Any]
    began_at: datetime
    version: str


def read_session(file: Path) -> Session:
    """Raises HarnessError that names file, key and mend of each mistake."""
    try:
        text = file.read_bytes().decode("utf-8")
        tree = clean(json.loads(text))
    except OSError as exc:
        raise HarnessError(f"{file}: cannot be read ({exc.strerror})") from exc
    except RecursionError as exc:
        raise HarnessError(f"{file}: nested too deeply; write it with `pytest --benchmark-json`") from exc
    except ValueError as exc:  # no UTF-8, no JSON, a number with thousands of digits
        raise HarnessError(f"{file}: no JSON ({exc}); write it with `pytest --benchmark-json`") from exc
    reading = Reading(file)
    session = reading.session(tree)
    reading.raise_mistakes()
    return session


def clean(value: Any) -> Any:
    """Text that every file can hold (half characters as escapes) and finite numbers (others as text); all below too."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {clean(key): clean(below) for key, below in value.items()}
    return [clean(below) for below in value] if isinstance(value, list) else value


@dataclass
class Reading:
    """Takes a JSON tree apart, key by key, and notes what is not as pytest-benchmark writes it."""

    file: Path
    mistakes: list[str] = field(default_factory=list)

    def wrong(self, key: str, got: Any, mend: str) -> None:
        shown = "nothing" if got is None else repr(got)
        shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
        self.mistakes.append(one_line(f"{self.file}: {key}: got {shown}; {mend}"))

    def raise_mistakes(self) -> None:
        more = len(self.mistakes) - MAX_MISTAKES
        if self.mistakes:
            told = self.mistakes[:MAX_MISTAKES] + ([f"{self.file}: and {more} more mistakes"] if more > 0 else [])
            raise HarnessError("\n".join(told))

    def session(self, tree: Any) -> Session:
        if not isinstance(tree, dict):
            self.wrong("the whole", tree, "write a JSON object, as `pytest --benchmark-json` does")
            self.raise_mistakes()
        entries = tree.get("benchmarks")
        if not isinstance(entries, list):
            self.wrong("benchmarks", entries, "write a list of benchmarks, as `pytest --benchmark-json` does")
            entries = []
        return Session(
            tuple(self.benchmark(entry, f"benchmarks[{i}]") for i, entry in enumerate(entries)),
            self.mapping(tree, "machine_info", ""),
            self.mapping(tree, "commit_info", ""),
            self.time(tree.get("datetime"), "datetime"),
            str(tree.get("version", "")),
        )

    def benchmark(self, entry: Any, at: str) -> Benchmark:
        if not isinstance(entry, dict):
            self.wrong(at, entry, "write an object with name and stats")
            entry = {"name": "-", "stats": {"median": 0.0}}
        name = self.text(entry, "name", at)
        fullname = self.text(entry, "fullname", at, otherwise=name)
        stats = self.mapping(entry, "stats", at)
        param = self.text(entry, "param", at, otherwise="")
        params = self.mapping(entry, "params", at) or ({"param": param} if param else {})
        data = self.samples(stats.get("data"), f"{at}.stats.data")
        known = {key: stats[key] for key in STATISTICS if stats.get(key) is not None}
        for key, value in known.items():
            if not is_seconds(value):
                self.wrong(f"{at}.stats.{key}", value, "write seconds, a finite number from 0")
        if not data and "median" not in known and "mean" not in known:
            self.wrong(f"{at}.stats", list(stats), "write `data` (raw seconds a call), or at least `median` or `mean`")
        return Benchmark(
            name, fullname, self.text(entry, "group", at, otherwise=""),
            param, params, self.mapping(entry, "extra_info", at),
            str(self.mapping(entry, "options", at).get("timer", "")), data, known,
            self.count(stats.get("iterations"), f"{at}.stats.iterations"),
            self.count(stats.get("rounds"), f"{at}.stats.rounds"),
        )  # fmt: skip

    def text(self, entry: Mapping[str, Any], name: str, at: str, otherwise: str | None = None) -> str:
        value = entry.get(name)
        if value is None and otherwise is not None:
            return otherwise
        if not isinstance(value, str) or not value:
            self.wrong(f"{at}.{name}", value, "write a text")
            return otherwise or "-"
        return value

    def mapping(self, entry: Mapping[str, Any], name: str, at: str) -> Mapping[str, Any]:
        value = entry.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(f"{at}.{name}".lstrip("."), value, "write an object, or null")
            return {}
        return value

    def samples(self, value: Any, at: str) -> tuple[float, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong(at, value, "write a list of seconds, or leave it out")
            return ()
        bad = next((i for i, sample in enumerate(value) if not is_seconds(sample)), None)
        if bad is not None:
            self.wrong(f"{at}[{bad}]", value[bad], "write seconds, a finite number from 0")
            return ()
        return tuple(map(float, value))

    def count(self, value: Any, at: str) -> int:
        if value is None:
            return 1
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 53:
            self.wrong(at, value, "write a whole number from 1")
            return 1
        return value

    def time(self, value: Any, at: str) -> datetime:
        """UTC; a time without a zone is UTC already, as older versions wrote it."""
        try:
            time = datetime.fromisoformat(value)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            self.wrong(at, value, "write the time of the session as ISO 8601, 2026-09-01T12:00:00+00:00")
            return datetime.fromtimestamp(0, UTC)


def is_seconds(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < 1e12 and math.isfinite(value)
