"""Folding what this process wrote from memory: the same file as from the disk, no file read, and nothing lost with a file."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from failing_disk import each_failure
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_samples import ACCURACY, WHERE, flip_a_bit, ids, make_attempt, make_trial

from harness.records import Attempt, CurvePoint, Measurement, Resources, SeriesValue, Timing
from harness.registry import Registry, io, schema, unfolded
from harness.registry.reading import Reader


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "registry")


def loose_files(registry: Registry) -> list[Path]:
    return sorted((registry.path / "attempts").glob("*.parquet"))


def in_folder(path: Path, folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / folder).iterdir()}


floats = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(max_size=8)
measurements = st.builds(
    Measurement, texts, texts, texts, st.sampled_from(["higher", "lower"]), st.none() | floats, st.none() | floats
)
points = st.builds(CurvePoint, texts, texts, texts, st.dictionaries(texts, floats, max_size=3), floats)
series = st.builds(SeriesValue, texts, texts, texts, texts, st.tuples(floats), st.tuples(floats, floats))
timings = st.builds(Timing, texts, st.tuples(floats), st.just(()), st.integers(0, 9), texts)
outcomes = st.fixed_dictionaries(
    {},
    optional={
        "measurements": st.lists(measurements, max_size=3).map(tuple),
        "curve": st.lists(points, max_size=3).map(tuple),
        "series": st.lists(series, max_size=2).map(tuple),
        "timings": st.lists(timings, max_size=2).map(tuple),
        "spent": st.dictionaries(texts, floats, max_size=2),
        "diagnostics": st.dictionaries(texts, floats | texts, max_size=2),
        "resources": st.builds(
            Resources, st.none() | floats, st.none() | floats, peak_rss_bytes=st.none() | st.integers(0, 2**40)
        ),
        "exit_code": st.none() | st.integers(-(2**40), 2**40),
        "log": texts,
    },
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(outcomes, min_size=2, max_size=12), at_once=st.integers(1, 5))
def test_a_fold_from_memory_is_byte_for_byte_the_fold_of_the_files(tmp_path_factory, found, at_once):
    """Who folds must not matter: rows that were packed, rows that were not, rows with other columns than their neighbours."""
    first, second = tmp_path_factory.mktemp("memory") / "r", tmp_path_factory.mktemp("files") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfolded, "AT_ONCE", at_once)
        for path in (first, second):
            registry = Registry.open(path)
            for number, outcome in enumerate(found):
                registry.append(make_attempt(number, **outcome))
            # A registry that is opened anew remembers nothing.
            (registry if path == first else Registry.open(path)).fold("inv-1")

    assert in_folder(first, "attempts") == in_folder(second, "attempts")
    assert len(in_folder(first, "folded")) == 1
    assert in_folder(first, "folded") == in_folder(second, "folded")
    assert in_folder(first, "manifests") == in_folder(second, "manifests")


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries of which rows are read from now on."""
    read: list[str] = []
    for name in ("read", "read_checked"):
        real = getattr(Reader, name)

        def counting(reader: Reader, entry: tuple[str, str], *rest: object, real: Callable[..., object] = real) -> object:
            read.append("/".join(entry))
            return real(reader, entry, *rest)

        monkeypatch.setattr(Reader, name, counting)
    return read


def test_a_process_that_folds_what_it_wrote_decodes_no_file(registry, monkeypatch):
    """A millisecond a trial at the end of each run."""
    for number in range(60):
        registry.append(make_attempt(number))
    read = count_reads(monkeypatch)

    assert registry.fold("inv-1") is not None

    assert read == []
    assert ids(registry) == [f"{n:032x}" for n in range(60)]


def delete(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    flip_a_bit(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [delete, damage, cut])
@pytest.mark.parametrize("number", [1, 2, 60])
def test_an_attempt_whose_file_was_lost_before_the_fold_is_there_after_it(registry, harm, number):
    """It was acknowledged. A plugin that writes into the registry by a mistaken path must not cost what was measured."""
    for n in range(number):
        registry.append(make_attempt(n))
    for path in loose_files(registry)[::40]:
        harm(path)

    registry.fold("inv-1")

    assert ids(registry) == [f"{n:032x}" for n in range(number)]
    assert len(registry.restored) == len(range(0, number, 40))
    assert set(registry.restored) <= set(ids(registry))
    assert Registry.open(registry.path, create=False).warnings == []


def test_what_is_folded_is_not_restored_a_second_time(registry):
    """Otherwise a second fold of one invocation would take the files that were replaced for files that were lost."""
    for n in range(3):
        registry.append(make_attempt(n))
    registry.fold("inv-1")
    folded = in_folder(registry.path, "folded")
    for path in loose_files(registry):
        path.unlink()

    assert registry.fold("inv-1") is None
    assert (registry.restored, in_folder(registry.path, "folded")) == ([], folded)


def test_what_another_process_has_folded_meanwhile_is_left_to_it(registry):
    """Its loose files are gone from the list because they are replaced, not because they are lost."""
    for n in range(3):
        registry.append(make_attempt(n))
    Registry.open(registry.path).fold("inv-1")
    registry.append(make_attempt(3))
    registry.append(make_attempt(4))

    registry.fold("inv-1")

    rows = [Reader(registry._layout).read(("folded", name), None).num_rows for name in in_folder(registry.path, "folded")]
    assert sorted(rows) == [2, 3]
    assert registry.restored == []
    assert ids(registry) == [f"{n:032x}" for n in range(5)]


def test_rows_above_the_bound_of_memory_are_read_from_their_files(registry, monkeypatch):
    """The parent of a run of a hundred thousand trials must not grow with them."""
    monkeypatch.setattr(unfolded, "MAX_BYTES", 1)
    for n in range(3 * unfolded.AT_ONCE):
        registry.append(make_attempt(n))
    read = count_reads(monkeypatch)

    registry.fold("inv-1")

    assert len(read) == 2 * unfolded.AT_ONCE  # the first batch was kept, which filled the memory
    assert ids(registry) == [f"{n:032x}" for n in range(3 * unfolded.AT_ONCE)]


def test_memory_is_given_back_when_an_invocation_is_folded(monkeypatch):
    """A process that runs suite after suite keeps the room for the next."""
    monkeypatch.setattr(unfolded, "MAX_BYTES", 1)
    kept, row = unfolded.Unfolded(), schema.to_table(make_attempt(1))
    for invocation in ("a", "b"):
        for n in range(2 * unfolded.AT_ONCE):
            kept.add(invocation, str(n), row)
        assert len(kept.of(invocation).names) == 2 * unfolded.AT_ONCE
        assert len(kept.of(invocation).kept) == unfolded.AT_ONCE
        kept.forget(invocation)
        assert kept.of(invocation) is None


def test_invocations_of_one_process_are_folded_apart(registry):
    """Each fold takes its own rows from memory and leaves the others there."""
    for n in range(4):
        registry.append(make_attempt(n, where=replace(WHERE, invocation=f"inv-{n % 2}")))
    for path in loose_files(registry):
        path.unlink()

    registry.fold("inv-0")
    assert ids(registry) == [f"{n:032x}" for n in (0, 2)]
    registry.fold("inv-1")
    assert ids(registry) == [f"{n:032x}" for n in range(4)]


def test_a_fold_that_failed_can_be_repeated_by_the_same_process(tmp_path):
    """The disk was full and is not any more: what is in memory is still there, whichever call failed."""

    def prepare(number: int) -> Registry:
        registry = Registry.open(tmp_path / str(number))
        for n in range(2):
            registry.append(make_attempt(n))
        loose_files(registry)[0].unlink()
        return registry

    for registry in each_failure(OSError(errno.ENOSPC, "no space"), prepare, lambda r: r.fold("inv-1")):
        registry.fold("inv-1")
        assert ids(registry) == [f"{n:032x}" for n in range(2)]


def test_a_loose_file_has_no_column_that_holds_nothing_and_readers_put_it_back(registry):
    """A third of what a small file costs; null stays null and an empty list stays an empty list."""
    attempt: Attempt = make_attempt(1, make_trial(tuning=None), measurements=(replace(ACCURACY, value=math.nan),))
    registry.append(attempt)
    (path,) = loose_files(registry)
    written = pq.read_schema(path).names
    (row,) = registry.table().to_pylist()

    assert {"tuning", "matched", "signal", "curve", "series", "timings", "blobs", "spent"}.isdisjoint(written)
    assert {"attempt_id", "measurements", "log", "net"} <= set(written)
    assert (row["tuning"], row["signal"], row["curve"], row["blobs"]) == (None, None, [], [])
    assert registry.table({"curve", "signal"}).to_pylist() == [
        {"attempt_id": f"{1:032x}", "signal": None, "curve": []}
    ]  # columns of which the file has none but the id


def test_a_folded_file_keeps_what_was_measured_byte_by_byte_and_the_rest_by_dictionary(registry):
    """Curves are most of a registry: so they take little more than half of what a dictionary of doubles makes of them."""
    for n in range(2):
        registry.append(make_attempt(n))
    name = registry.fold("inv-1")
    assert name is not None
    group = pq.read_metadata(registry.path / "folded" / name).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}

    split = {path for path, column in columns.items() if "BYTE_STREAM_SPLIT" in column.encodings}
    doubles = {path for path, column in columns.items() if column.physical_type == "DOUBLE"}

    assert doubles - split == {"declared.list.element.worst", "measurements.list.element.worst"}
    assert split <= doubles
    assert columns["net"].has_dictionary_page
    assert all(column.compression == "ZSTD" for column in columns.values())


def test_the_same_attempt_twice_is_kept_once(registry):
    """A retry after an unclear error is harmless in memory too."""
    registry.append(make_attempt(1))
    registry.append(make_attempt(1))

    assert registry.fold("inv-1") is None
    assert io.listdir(registry.path / "folded") == []
