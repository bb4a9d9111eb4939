"""The registry: what is acknowledged stays, each attempt is seen once, damage is named, queries only read."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from failing_disk import Stop, each_failure, raising
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_samples import ACCURACY, MACHINE, WHERE, flip_a_bit, ids, make_attempt, make_trial

from harness.errors import DamagedError, HarnessError, RegistryError
from harness.records import (
    Attempt,
    CurvePoint,
    Measurement,
    Outcome,
    Provenance,
    Resources,
    SeriesValue,
    Timing,
    Trial,
)
from harness.registry import Registry, TrialState, duck, folding, io, query, reading, schema
from harness.registry.files import STALE_ELSEWHERE_S, STALE_S, this_process
from harness.registry.reading import Reader, checked_name
from harness.registry.views import VIEWS


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "registry")


def loose_files(registry: Registry) -> list[Path]:
    return sorted((registry.path / "attempts").glob("*.parquet"))


# Opening --------------------------------------------------------------------------------------------------------------


def test_importing_the_registry_loads_neither_pyarrow_nor_duckdb_nor_torch():
    """`harness list` and `--help` must not pay 260 ms for a registry that they do not open."""
    code = "import sys, harness.registry; print([m for m in ('pyarrow', 'duckdb', 'torch', 'pydantic') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"


def test_a_registry_that_cannot_be_made_is_refused_with_folder_reason_and_mend(tmp_path):
    """Said before any trial starts: hours of results must not end at a full or closed folder."""
    (tmp_path / "file").write_text("")

    with pytest.raises(RegistryError, match=r"file: is a file, not a folder; name a folder with --registry"):
        Registry.open(tmp_path / "file")
    with pytest.raises(RegistryError, match=r"/proc/harness-registry: cannot be written: .*; "):
        Registry.open(Path("/proc/harness-registry"))


@pytest.mark.parametrize(
    ("operation", "code", "mend"),
    [
        ("create", errno.EACCES, "make it writable or name another folder with --registry"),
        ("create", errno.EROFS, "it is mounted read-only: name another folder with --registry"),
        ("write", errno.ENOSPC, "free some space"),
        ("fsync", errno.EIO, "check the disk"),
        ("link", errno.EIO, "check the disk"),
    ],
)
def test_opening_does_all_that_an_append_does_so_that_no_trial_starts_in_vain(registry, monkeypatch, operation, code, mend):
    """The probe is real: a folder may be listed, and yet refuse a file, its bytes, its flush or its name."""
    monkeypatch.setattr(io, operation, raising(OSError(code, os.strerror(code))))

    with pytest.raises(RegistryError, match=f"registry: cannot be written: {os.strerror(code)}; {mend}"):
        Registry.open(registry.path)


def test_a_folder_full_of_other_things_does_not_become_a_registry(tmp_path):
    """A mistyped --registry must not scatter nine folders over somebody's home."""
    (tmp_path / "thesis.tex").write_text("")

    with pytest.raises(RegistryError, match=r"holds thesis.tex; name an empty or a new folder"):
        Registry.open(tmp_path)
    assert io.listdir(tmp_path) == ["thesis.tex"]


def test_a_registry_of_a_newer_format_is_refused_with_the_mend(registry):
    """Reading what one does not understand gives wrong numbers; an upgrade gives right ones."""
    (registry.path / "FORMAT").write_text('{"format": 3, "min_reader": 2}')

    for create in (True, False):
        with pytest.raises(
            RegistryError, match=r"needs a harness that reads format 2, this one reads 1; `pip install --upgrade"
        ):
            Registry.open(registry.path, create=create)


def test_a_newer_format_that_older_programs_may_read_is_read(registry):
    """min_reader is the promise, not format: an additive change locks nobody out."""
    registry.append(make_attempt(1))
    (registry.path / "FORMAT").write_text('{"format": 2, "min_reader": 1}')

    assert len(ids(registry)) == 1


def test_reading_where_there_is_no_registry_finds_nothing_makes_nothing_and_says_so(tmp_path):
    """`harness plan` on a fresh machine must work, and must not leave a folder behind."""
    registry = Registry.open(tmp_path / "none", create=False)

    assert registry.states(MACHINE) == {}
    assert registry.query("SELECT count(*) AS n FROM attempts").to_pylist() == [{"n": 0}]
    assert "there is none yet" in registry.warnings[0]
    assert not registry.path.exists()


# Rows -----------------------------------------------------------------------------------------------------------------


def test_every_field_of_the_records_has_a_column():
    """A field added to a record without a column would be lost in silence at the next append."""
    elsewhere = {"limit", "environment", "resources", "machine_facts", "environment_facts", "data_facts"}
    known = set(schema.attempt_schema().names) | elsewhere

    for record in (Trial, Outcome, Resources, Provenance):
        assert {f.name for f in fields(record)} <= known


def full_attempt() -> Attempt:
    attempt = make_attempt(
        7, make_trial(matched={"mismatch": 0.01, "value": 61, "where": "net.width"}, measure=("accuracy", "sparsity")),
        error="größer als erlaubt",
        exit_code=3, signal=9, limit="rlimit_data",
        measurements=(ACCURACY, Measurement("nll", "validation", "nat", "lower", math.inf), replace(ACCURACY, value=None)),
        series=(SeriesValue("sparsity", "test", "1", "layer", (0.0, 1.0), (-math.inf, -0.0)),),
        curve=(CurvePoint("accuracy", "validation", "1", {"samples_seen": 10.0, "wall_s": 0.5}, 0.25),),
        timings=(Timing("train_step", (0.1, 0.2), (0.3, 0.4), 2, "precise"),),
        spent={"samples_seen": 30.0}, diagnostics={"loss": 0.5, "why": "text", "none": math.nan},
        resources=Resources(1.0, 0.5, 0.75, 2**40, None, 3, 4), log="line\n", log_dropped_bytes=5, environment={"threads": 1},
    )  # fmt: skip
    return replace(attempt, declared=(replace(ACCURACY, value=None),))


def test_an_attempt_comes_back_as_it_was(registry):
    """The row is the attempt: nested lists, empty fields and JSON included."""
    attempt = full_attempt()
    bare = make_attempt(8, make_trial(net=None, train=None), measurements=())
    registry.append(attempt)
    registry.append(bare)

    rows = sorted(registry.table().to_pylist(), key=lambda row: row["attempt_id"])
    got = [schema.from_row(row) for row in rows]

    without_facts = replace(WHERE, machine_facts={}, environment_facts={}, data_facts={})
    expected = [replace(a, provenance=without_facts) for a in (attempt, bare)]
    assert repr(got) == repr(expected)  # repr: NaN is not equal to itself


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.none() | st.floats(allow_nan=True, allow_infinity=True))
def test_every_float_is_kept_as_such_and_none_is_not_measured(value):
    """NaN is a result, null is the absence of one; Parquet and pandas love to mix them up."""
    attempt = make_attempt(1, measurements=(replace(ACCURACY, value=value),))

    got = schema.decode(schema.encode_one(schema.to_table(attempt))).to_pylist()[0]["measurements"][0]["value"]

    assert repr(got) == repr(value)


def test_the_same_attempt_twice_is_one_file(registry):
    """A retry after an unclear error must be harmless."""
    registry.append(make_attempt(1))
    registry.append(make_attempt(1))

    assert len(loose_files(registry)) == 1


def test_a_file_is_named_by_what_it_holds(registry):
    """The name is the check."""
    registry.append(make_attempt(1))
    (path,) = loose_files(registry)

    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("bad", [{"diagnostics": {"x": "\ud800"}}, {"error": "\udcff"}, {"exit_code": 1 << 70}])
def test_a_result_that_no_row_can_hold_is_recorded_as_failed(registry, bad):
    """Every attempt leaves a record, and what a plugin returns must not stop the trials after it."""
    recorded = registry.append(make_attempt(1, **bad, log="seen \udcff"))

    assert recorded.outcome.status == "failed"
    assert "cannot be recorded" in recorded.outcome.error
    (row,) = registry.find(f"{1:032x}")
    assert (row["status"], row["log"]) == ("failed", "seen ?")


def test_a_file_of_schema_version_1_loads_for_ever(tmp_path, registry):
    """Results outlive programs. The file was made by tests/data/make_registry_v1.py and must not be made anew."""
    content = (Path(__file__).parent / "data" / "registry-v1.parquet").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert digest == GOLDEN_V1, "the golden file has changed: restore it from git"
    (registry.path / "folded" / f"{digest}.parquet").write_bytes(content)

    good, timed, bad = sorted(registry.attempts(), key=lambda row: row["attempt_id"])

    assert registry.warnings == []
    assert [m["value"] for m in good["measurements"]] == [0.9375, 0.25, None]
    assert good["task_params"] == {"fraction": 0.5}
    assert good["started_at"] == "2026-02-17T12:00:00.000001+00:00"
    assert math.isnan(good["series"][0]["y"][1])
    assert good["curve"][0]["at"] == [{"clock": "samples_seen", "amount": 1000.0}, {"clock": "wall_s", "amount": 0.5}]
    assert good["blobs"][0]["sha256"] == "ab" * 32
    assert (good["wall_s"], good["peak_rss_bytes"], good["peak_device_bytes"]) == (1.5, 1 << 28, None)
    assert timed["timings"][0]["cpu_s"] == [0.0011, 0.0019]
    assert (bad["status"], bad["measurements"][0]["value"], bad["declared"][0]["worst"]) == ("diverged", math.inf, 0.0)
    assert good["tuned"] is None


def test_a_file_of_schema_version_2_loads_for_ever(registry):
    """What it added: which point of a tuning a trial tried, and which one was chosen. Of tests/data/make_registry_v2.py."""
    content = (Path(__file__).parent / "data" / "registry-v2.parquet").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert digest == GOLDEN_V2, "the golden file has changed: restore it from git"
    (registry.path / "folded" / f"{digest}.parquet").write_bytes(content)

    tried, chosen = sorted(registry.attempts(), key=lambda row: row["attempt_id"])

    assert registry.warnings == []
    assert (tried["kind"], tried["tuning"]["point"], tried["tuned"]) == ("tuning", 5, TUNED)
    assert chosen["tuned"] == {**TUNED, "score": 0.9375, "trials": 8, "failed": 1, "cost_s": 12.5}


GOLDEN_V1 = "0a7ca7f8f99526d66f78480e14a815400c07e695daf3fccb5d2f2f73b5faa151"
GOLDEN_V2 = "09f53e33b49416633e395fa0a8378f7d7637c102d38d21f4a147756dab766c69"
TUNED = {"point": 5, "values": {"train.lr": 0.0316}}


def test_an_older_file_goes_through_each_up_cast_in_turn(monkeypatch):
    """A file of version 2 passes 2 -> 3 -> 4; no reader guesses."""
    content = schema.encode_one(schema.to_table(make_attempt(1)))
    passed = []

    def step(number: int) -> Callable[[pa.Table], pa.Table]:
        return lambda table: passed.append(number) or table

    monkeypatch.setattr(schema, "SCHEMA_VERSION", 4)
    monkeypatch.setattr(schema, "UPCASTS", {2: step(2), 3: step(3)})

    assert schema.decode(content, {"attempt_id"}).to_pylist() == [{"attempt_id": f"{1:032x}"}]
    assert passed == [2, 3]


def test_a_file_of_a_newer_schema_is_left_out_with_the_mend_and_stays(registry, monkeypatch):
    """Half-understood columns are worse than none; the file is healthy, so it is not moved."""
    registry.append(make_attempt(1))
    with monkeypatch.context() as later:
        later.setattr(schema, "SCHEMA_VERSION", 3)
        registry.append(make_attempt(2))
    reader = Registry.open(registry.path, create=False)

    assert len(reader.table()) == 1
    assert "schema 3, newer than this harness reads; upgrade paper-harness" in reader.warnings[0]
    assert len(loose_files(registry)) == 2


def test_many_files_of_a_newer_schema_stay_out_of_what_is_folded(registry, monkeypatch):
    """A newer harness shares the registry: the older one folds its own files, and says what to upgrade."""
    newer = 2 * reading.RELISTS
    with monkeypatch.context() as later:
        later.setattr(schema, "SCHEMA_VERSION", 3)
        for number in range(newer):
            registry.append(make_attempt(number))
    for number in range(newer, newer + folding.MAX_LOOSE + 1):
        registry.append(make_attempt(number))

    opened = Registry.open(registry.path, create=False)
    opened.compact()

    assert len(loose_files(registry)) >= newer
    assert len(opened.table()) == folding.MAX_LOOSE + 1
    assert len(opened.warnings) == newer
    assert all("upgrade paper-harness" in warning for warning in opened.warnings)


# Blobs and facts ------------------------------------------------------------------------------------------------------


def saved(name: str, path: Path) -> dict[str, str]:
    return {"name": name, "media_type": "text/plain", "path": str(path)}


def test_an_artefact_is_kept_under_its_digest_and_named_in_the_row(registry, tmp_path):
    """Two attempts that save the same circuit share its bytes."""
    (tmp_path / "blob-0").write_bytes(b"circuit")
    for number in (1, 2):
        recorded = registry.append(make_attempt(number, blobs=(saved("c.txt", tmp_path / "blob-0"),)))

    assert [(b.name, b.size_bytes) for b in recorded.blobs] == [("c.txt", 7)]
    assert registry.read_blob(recorded.blobs[0].sha256) == b"circuit"
    assert io.listdir(registry.path / "blobs") == [hashlib.sha256(b"circuit").hexdigest()]


def test_an_artefact_that_is_too_large_missing_or_no_plain_file_is_left_out_and_said_so(registry, tmp_path):
    """16 MiB is the cap; a link to somebody's key is not an artefact; the attempt itself is never lost for it."""
    (tmp_path / "large").write_bytes(bytes((16 << 20) + 1))
    (tmp_path / "secret").write_text("key")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    names = ("large", "link", "missing", "null")
    files = {name: tmp_path / name for name in names} | {"null": Path("/dev/null")}

    recorded = registry.append(make_attempt(1, blobs=tuple(saved(n, Path("/nowhere")) for n in names)), files)

    assert recorded.blobs == ()
    for name in names:
        assert f"harness: artefact '{name}' is left out: " in recorded.outcome.log
    assert len(ids(registry)) == 1


def test_a_damaged_or_forged_artefact_is_refused(registry, tmp_path):
    """A digest in a merged record may be any text; it must not become a path."""
    (tmp_path / "b").write_bytes(b"weights")
    sha256 = registry.append(make_attempt(1, blobs=(saved("w", tmp_path / "b"),))).blobs[0].sha256
    (registry.path / "blobs" / sha256).write_bytes(b"weightz")

    with pytest.raises(DamagedError, match="its SHA-256 is not its name"):
        registry.read_blob(sha256)
    for forged in ("../FORMAT", "0" * 64, "/etc/passwd"):
        with pytest.raises(RegistryError, match="there is no blob"):
            registry.read_blob(forged)


def test_what_attempts_share_is_kept_once(registry):
    """A hundred packages in each of a thousand rows would be most of the registry."""
    for number in range(5):
        Registry.open(registry.path).append(make_attempt(number))

    assert {(f["kind"], f["name"]) for f in registry.facts()} == {
        ("machine", MACHINE),
        ("environment", "env-1"),
        ("data", "da7a"),
    }
    rows = registry.query("SELECT facts ->> '$.packages.torch' AS torch FROM facts WHERE kind = 'environment'").to_pylist()
    assert rows == [{"torch": "2.13.0"}]


# What happens when the disk fails ---------------------------------------------------------------------------------------


def test_an_append_that_fails_at_any_disk_call_loses_nothing_and_can_be_repeated(tmp_path):
    """ENOSPC at call n for every n: the error is RegistryError, earlier records stay, and the retry succeeds."""
    (tmp_path / "blob").write_bytes(b"x")
    attempt = make_attempt(2, blobs=(saved("b", tmp_path / "blob"),))

    def prepare(number: int) -> Registry:
        registry = Registry.open(tmp_path / str(number))
        registry.append(make_attempt(1, where=replace(WHERE, machine_facts={}, environment_facts={}, data_facts={})))
        return Registry.open(tmp_path / str(number))

    points = 0
    for registry in each_failure(OSError(errno.ENOSPC, "no space"), prepare, lambda r: r.append(attempt)):
        points += 1
        assert set(ids(registry)) - {f"{2:032x}"} == {f"{1:032x}"}
        registry.append(attempt)
        assert ids(registry) == [f"{1:032x}", f"{2:032x}"]
        assert Registry.open(registry.path, create=False).warnings == []
    assert points > 20  # facts, blob and row: each created, written, flushed, closed, linked, its folder flushed


def test_a_process_that_dies_at_any_disk_call_of_an_append_leaves_no_half_file(tmp_path):
    """After the n-th call nothing more happens, not even tidying up: readers see the record or do not, never a torn one."""

    def prepare(number: int) -> Registry:
        registry = Registry.open(tmp_path / str(number))
        registry.append(make_attempt(1))
        return registry

    for registry in each_failure(Stop(), prepare, lambda r: r.append(make_attempt(2))):
        reader = Registry.open(registry.path, create=False)
        assert sorted(reader.table()["attempt_id"].to_pylist()) in ([f"{1:032x}"], [f"{1:032x}", f"{2:032x}"])
        assert reader.warnings == []


# Many writers -----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from harness.registry import Registry
from registry_samples import make_attempt
registry = Registry.open(Path(sys.argv[2]))
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    attempt = registry.append(make_attempt(number))
    print(attempt.attempt_id, flush=True)
"""


def start_writer(registry: Registry, first: int, last: int) -> subprocess.Popen[str]:
    arguments = [str(Path(__file__).parent), str(registry.path), str(first), str(last)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def test_eight_processes_append_at_once_and_one_is_killed_and_every_acknowledged_attempt_is_there_once(registry):
    """No lock to wait for, none to be left behind by the dead; what `append` returned is on the disk."""
    writers = [start_writer(registry, 1000 * n, 1000 * n + 25) for n in range(7)]
    victim = start_writer(registry, 7000, 9000)
    acknowledged = [victim.stdout.readline().strip() for _ in range(10)]
    victim.send_signal(signal.SIGKILL)
    # A line that the kill cut short was not read whole by anybody: it acknowledges nothing.
    acknowledged += [line.strip() for line in victim.stdout if line.endswith("\n")]
    victim.stdout.close()
    victim.wait()
    for writer in writers:
        acknowledged += writer.communicate()[0].split()
        assert writer.returncode == 0

    found = ids(registry)

    assert len(acknowledged) >= 7 * 25 + 10
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found)) <= len(acknowledged) + 1  # at most the attempt that was being acknowledged


# Start markers ----------------------------------------------------------------------------------------------------------


def leave_marker(registry: Registry, number: int, **process: Any) -> Path:
    """A marker as another process would have left it."""
    path = registry.begin(make_trial(seed=number), WHERE, attempt_id=f"{number:032x}")
    content = json.loads(path.read_text())
    content["process"].update(process)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_dead_process_left_running_becomes_an_interrupted_attempt_at_the_next_open(registry, dead_pid):
    """A killed run is visible, not absent."""
    leave_marker(registry, 1, pid=dead_pid)

    reopened = Registry.open(registry.path)

    (row,) = reopened.attempts()
    assert (row["status"], row["attempt_id"], row["trial_id"]) == ("interrupted", f"{1:032x}", make_trial(seed=1).trial_id)
    assert f"process {dead_pid} on {this_process().host} ended without recording a result" in row["error"]
    assert io.listdir(registry.path / "started") == []
    assert Registry.open(registry.path).sweep() == 0


@pytest.mark.parametrize(
    ("change", "swept"),
    [
        ({}, False),  # this process lives
        ({"started": 1}, True),  # the pid is used again: another process, started at another time
        ({"boot_id": "before"}, True),  # the machine was started anew
        ({"host": "elsewhere"}, False),  # cannot be looked up from here
    ],
)
def test_only_a_process_that_is_surely_gone_is_swept(registry, change, swept):
    """A pid says little: it is used again, and means nothing on another host."""
    leave_marker(registry, 1, **change)

    assert registry.sweep() == int(swept)
    assert len(ids(registry)) == int(swept)


def test_a_marker_of_another_host_is_swept_after_a_week(registry):
    """No trial runs that long, and somebody has to say that it is lost."""
    path = leave_marker(registry, 1, host="elsewhere")
    os.utime(path, (time.time() - STALE_ELSEWHERE_S - 60,) * 2)

    assert registry.sweep() == 1


@pytest.mark.parametrize("same_id", [True, False], ids=["id of the marker", "id of its own"])
def test_an_attempt_that_was_recorded_before_its_process_died_is_not_recorded_again(registry, dead_pid, same_id):
    """Between append and end lies a moment in which a process can die."""
    leave_marker(registry, 1, pid=dead_pid)
    registry.append(replace(make_attempt(1), attempt_id=f"{1 if same_id else 99:032x}"))

    assert registry.sweep() == 0
    assert [row["status"] for row in registry.attempts()] == ["ok"]
    assert io.listdir(registry.path / "started") == []


def test_an_attempt_that_ended_leaves_no_marker(registry):
    """begin, append, end: nothing remains to be swept."""
    marker = registry.begin(make_trial(), WHERE)
    registry.append(replace(make_attempt(1), attempt_id=marker.stem))
    registry.end(marker)
    registry.end(marker)

    assert io.listdir(registry.path / "started") == []
    assert len(marker.stem) == 32


def test_a_torn_marker_is_moved_to_quarantine_and_named(registry):
    """Markers are not flushed: after a power cut one may be empty."""
    (registry.path / "started" / "x.json").write_text("")

    reopened = Registry.open(registry.path)

    assert "x.json: no start marker" in reopened.warnings[0]
    assert io.listdir(registry.path / "quarantine") == ["x.json"]


def test_tmp_files_of_dead_writers_are_swept_after_a_day_and_no_others(registry, dead_pid):
    """A killed append leaves its file in tmp; a living one still needs it."""
    host, mine, start = this_process().host, os.getpid(), this_process().started
    old = {"dead-old": f"{host}-{dead_pid}-5-aa", "alive-old": f"{host}-{mine}-{start}-aa", "reused-old": f"{host}-{mine}-5-aa"}
    new = {"dead-new": f"{host}-{dead_pid}-5-bb"}
    for name in {**old, **new}.values():
        (registry.path / "tmp" / name).write_bytes(b"x")
    for name in old.values():
        os.utime(registry.path / "tmp" / name, (time.time() - STALE_S - 60,) * 2)

    registry.sweep()

    assert sorted(io.listdir(registry.path / "tmp")) == sorted([old["alive-old"], new["dead-new"]])


# Damage -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
def test_a_damaged_file_is_moved_to_quarantine_named_and_hides_no_healthy_one(registry, damage):
    """Two in three flipped bits in a Parquet file are read back as wrong numbers: only the name can tell."""
    for number in range(3):
        registry.append(make_attempt(number))
    path = loose_files(registry)[1]
    if damage == "bit":
        flip_a_bit(path, path.stat().st_size // 3)
    else:
        path.write_bytes(path.read_bytes()[: 300 if damage == "cut" else 0])
    reader = Registry.open(registry.path, create=False)

    assert len(reader.table()) == 2
    assert f"{path.name}: damaged" in reader.warnings[0]
    assert io.listdir(registry.path / "quarantine") == [path.name]
    assert Registry.open(registry.path, create=False).query("SELECT count(*) AS n FROM attempts").to_pylist() == [{"n": 2}]


def test_damage_where_nothing_can_be_moved_is_left_out_all_the_same(registry, monkeypatch):
    """A registry on a read-only disk is still read."""
    registry.append(make_attempt(1))
    registry.append(make_attempt(2))
    flip_a_bit(loose_files(registry)[0])
    monkeypatch.setattr(io, "rename", raising(OSError(errno.EROFS, "Read-only file system")))
    reader = Registry.open(registry.path, create=False)

    assert len(reader.table()) == 1
    assert "could not be moved to quarantine (Read-only file system)" in reader.warnings[0]


def test_a_damaged_file_is_written_again_by_the_same_append(registry):
    """A name that is taken by other content is damage, not success."""
    registry.append(make_attempt(1))
    flip_a_bit(loose_files(registry)[0])
    registry.append(make_attempt(1))

    assert len(ids(registry)) == 1
    assert len(io.listdir(registry.path / "quarantine")) == 1


def test_files_are_checked_once_and_the_index_is_disposable(registry, monkeypatch):
    """Ten thousand files are not hashed for each query; without the index they are, and nothing else changes."""
    registry.append(make_attempt(1))
    checked = []
    real = Reader.has_its_name
    monkeypatch.setattr(Reader, "has_its_name", lambda self, entry: checked.append(entry) or real(self, entry))
    index = registry.path / "index" / checked_name()

    ids(registry)
    ids(registry)
    assert len(checked) == 1
    index.write_text("{torn")
    ids(registry)
    assert len(checked) == 2
    os.utime(loose_files(registry)[0], (1, 1))
    ids(registry)
    assert len(checked) == 3


def test_after_a_boot_every_file_is_checked_anew(registry, monkeypatch):
    """A copying tool flushes nothing: after a power cut its files may be full of zeros, with the size and the time they had."""
    registry.append(make_attempt(1))
    ids(registry)
    path = loose_files(registry)[0]
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    monkeypatch.setattr(reading, "boot_id", lambda: "the boot after")
    rows = Registry.open(registry.path, create=False).table()

    assert len(rows) == 0
    assert io.listdir(registry.path / "quarantine") == [path.name]


def test_a_damaged_format_file_hides_no_record_and_nothing_is_added(registry):
    """One flipped bit in 33 bytes must not make years of results unreadable; a newer harness may have written it, though."""
    registry.append(make_attempt(1))
    path = registry.path / "FORMAT"

    for content in (b'{"format": 1, "min_reader": 3}\n', b'{"format": 1, "min', b"\xff" * 33, b""):
        path.write_bytes(content)
        reader = Registry.open(registry.path, create=False)
        assert len(reader.table()) == 1
        assert 'FORMAT file is damaged; write {"format": 1, "min_reader": 1} into it' in reader.warnings[0]
        with pytest.raises(RegistryError, match="its FORMAT file is damaged; write"):
            Registry.open(registry.path)

    path.unlink()
    reader = Registry.open(registry.path, create=False)
    assert len(reader.table()) == 1
    assert "its FORMAT file is gone" in reader.warnings[0]


def test_a_strange_file_is_named_and_not_read(registry):
    """A stray file broke whole queries that read by pattern."""
    (registry.path / "attempts" / "notes.parquet").write_text("x")

    registry.table()

    assert "notes.parquet: no file of a registry; it is not read" in registry.warnings[0]


# Reading back -------------------------------------------------------------------------------------------------------------


def test_states_say_the_latest_attempt_of_each_trial_and_what_was_measured(registry):
    """Resume rests on it: done is what holds every quantity that the suite asks for, on this machine."""
    trial, timing = make_trial(), make_trial(kind="timing")
    registry.append(make_attempt(1, trial))
    registry.append(make_attempt(2, trial, measurements=(replace(ACCURACY, quantity="nll"),), resources=Resources(wall_s=2.5)))
    registry.append(make_attempt(3, timing, measurements=(), timings=(Timing("train_step", (0.1,), (0.1,), 1, "time"),)))
    registry.append(make_attempt(4, make_trial(seed=5), status="timeout"))
    registry.append(make_attempt(5, trial, where=replace(WHERE, machine="m-2")))

    assert registry.states(MACHINE) == {
        trial.trial_id: TrialState("ok", frozenset({"accuracy", "nll"}), f"{2:032x}", 2.5),
        timing.trial_id: TrialState("ok", frozenset({"train_step"}), f"{3:032x}", None),
        make_trial(seed=5).trial_id: TrialState("timeout", frozenset(), f"{4:032x}", None),
    }


def test_an_interrupted_attempt_does_not_undo_a_finished_one(registry):
    """`--force` and Ctrl-C must not make done work missing."""
    registry.append(make_attempt(1, make_trial()))
    registry.append(make_attempt(2, make_trial(), status="interrupted"))
    registry.append(make_attempt(3, make_trial(seed=3), status="interrupted"))

    states = registry.states(MACHINE)

    assert states[make_trial().trial_id].status == "ok"
    assert states[make_trial(seed=3).trial_id].status == "interrupted"


def test_wall_times_are_medians_of_ok_attempts_of_the_series(registry):
    """A timeout says how long the limit was, not how long the trial takes."""
    for number, (wall_s, status) in enumerate([(1.0, "ok"), (2.0, "ok"), (9.0, "ok"), (600.0, "timeout")]):
        registry.append(make_attempt(number, make_trial(), status=status, resources=Resources(wall_s=wall_s)))

    assert registry.wall_times(MACHINE) == {make_trial().series_key: 2.0}


def test_an_attempt_is_found_by_the_start_of_its_id_or_of_its_trial(registry):
    """People copy the first eight characters."""
    registry.append(make_attempt(1, make_trial()))
    registry.append(make_attempt(2, make_trial()))

    assert [row["attempt_id"] for row in registry.find(make_trial().trial_id[:8])] == [f"{2:032x}", f"{1:032x}"]
    (row,) = registry.find(f"{1:032x}")
    assert row["net"] == {"arch": "mlp", "width": 64}
    assert registry.find("zz") == []
    assert [row["seed"] for row in registry.attempts(method="paper-harness/relu", tuning=None)] == [0, 0]
    with pytest.raises(KeyError, match="no_such_column"):
        registry.attempts(no_such_column=1)


# Views --------------------------------------------------------------------------------------------------------------------


def rows(registry: Registry, sql: str, *parameters: object) -> list[dict[str, Any]]:
    return registry.query(sql, parameters).to_pylist()


def test_every_view_answers_on_an_empty_and_on_a_full_registry(registry, tmp_path):
    """And what stands in the lists stands in the long tables, with the keys beside it."""
    for name in VIEWS:
        assert len(rows(registry, f"SELECT * FROM {name}")) == 0
    (tmp_path / "b").write_bytes(b"x")
    attempt = full_attempt()
    registry.append(replace(attempt, outcome=replace(attempt.outcome, blobs=(saved("b", tmp_path / "b"),))))

    counts = {name: len(rows(registry, f"SELECT * FROM {name}")) for name in VIEWS}
    assert counts == {
        "attempts": 1, "measurements": 3, "series": 2, "curves": 1, "timings": 2, "spent": 1, "diagnostics": 3, "blobs": 1,
        "facts": 3, "v_latest": 1, "v_leaderboard": 2, "v_kernels": 0, "v_claims": 0,
    }  # fmt: skip
    assert rows(registry, "SELECT x, y, method FROM series ORDER BY x")[0] == {
        "x": 0.0,
        "y": -math.inf,
        "method": "paper-harness/relu",
    }
    assert rows(registry, "SELECT clocks['samples_seen'] AS n, at_wall_s FROM curves") == [{"n": 10.0, "at_wall_s": 0.5}]
    assert rows(registry, "SELECT sample, sample_wall_s FROM timings WHERE sample = 2") == [{"sample": 2, "sample_wall_s": 0.2}]


def test_latest_is_the_last_attempt_that_says_something_for_each_series_and_machine(registry):
    """`interrupted` and `unsupported` say nothing of the method; a failure does, and replaces an older success."""
    trial = make_trial()
    for number, status in enumerate(["ok", "failed", "unsupported", "interrupted"]):
        registry.append(make_attempt(number, trial, status=status))
    registry.append(make_attempt(7, trial, where=replace(WHERE, machine="m-2")))

    latest = rows(registry, "SELECT machine, status, attempt_id FROM v_latest ORDER BY machine")

    assert latest == [
        {"machine": MACHINE, "status": "failed", "attempt_id": f"{1:032x}"},
        {"machine": "m-2", "status": "ok", "attempt_id": f"{7:032x}"},
    ]


def board(registry: Registry, where: str = "true") -> dict[str, dict[str, Any]]:
    return {r["method"].rpartition("/")[2]: r for r in rows(registry, f"SELECT * FROM v_leaderboard WHERE {where}")}


def test_a_failed_attempt_counts_as_the_worst_that_it_declared(registry):
    """A method that crashes on its bad seeds must not look better for it."""
    declared = (replace(ACCURACY, value=None, worst=0.1),)
    registry.append(make_attempt(1, make_trial(seed=1), measurements=(replace(ACCURACY, value=0.9),)))
    registry.append(replace(make_attempt(2, make_trial(seed=2), status="diverged"), declared=declared))

    row = board(registry)["relu"]

    assert (row["n_ok"], row["n_failed"], row["n_left_out"]) == (1, 1, 0)
    assert (row["mean"], row["min"], row["max"]) == (0.5, 0.1, 0.9)
    assert row["sd"] == pytest.approx(0.8 / math.sqrt(2), rel=1e-12)  # rounding only


def test_a_failed_attempt_that_declares_nothing_counts_as_what_others_of_its_task_declare(registry):
    """An interrupted record or one from elsewhere may hold no declaration; the task's metrics are known from its peers."""
    registry.append(make_attempt(1, make_trial("relu"), measurements=(ACCURACY, replace(ACCURACY, part="validation"))))
    registry.append(make_attempt(2, make_trial("selu"), status="oom"))
    registry.append(make_attempt(3, make_trial("gelu", measure=("nll",)), status="oom"))  # was not to measure accuracy

    assert {part: board(registry, f"part = '{part}'")["selu"]["mean"] for part in ("test", "validation")} == {
        "test": 0.0,
        "validation": 0.0,
    }
    assert "gelu" not in board(registry)


def test_a_failed_attempt_without_a_declared_worst_is_left_out_and_counted(registry):
    """The mean of what is left is a number with a warning, and the warning is in the row."""
    nll = Measurement("nll", "test", "nat", "lower", 2.0, None)
    registry.append(make_attempt(1, make_trial(seed=1, measure=("nll",)), measurements=(nll,)))
    registry.append(make_attempt(2, make_trial(seed=2, measure=("nll",)), status="timeout"))

    row = board(registry)["relu"]

    assert (row["mean"], row["n_ok"], row["n_failed"], row["n_left_out"]) == (2.0, 1, 1, 1)


def test_an_infinite_worst_makes_the_mean_infinite_and_the_sd_unknown(registry):
    """Older DuckDB versions end the whole query with an error on the deviation of an infinity."""
    nll = Measurement("nll", "test", "nat", "lower", 2.0, math.inf)
    for seed in (1, 3):  # two finite scores: a deviation of these alone would be a number, and a wrong one
        registry.append(make_attempt(seed, make_trial(seed=seed), measurements=(nll,)))
    registry.append(replace(make_attempt(2, make_trial(seed=2), status="failed"), declared=(replace(nll, value=None),)))

    row = board(registry)["relu"]

    assert (row["mean"], row["sd"]) == (math.inf, None)


def test_what_is_pooled_agrees_in_device_dtype_threads_torch_net_and_parameters(registry):
    """A mean over two torch versions is a number about neither."""
    changes = [
        {}, {"torch_version": "2.12.0"}, {"threads": 2}, {"dtype": "float64"}, {"device": "cuda"}, {"net": {"arch": "cnn"}},
        {"method_params": {"eps": 1}}, {"task_params": {"fraction": 0.1}}, {"budget": {"steps": 5}},
    ]  # fmt: skip
    for number, change in enumerate(changes):
        registry.append(make_attempt(number, replace(make_trial(seed=number), **change)))

    assert [r["n_ok"] for r in rows(registry, "SELECT n_ok FROM v_leaderboard")] == [1] * len(changes)


def test_timing_attempts_are_ranked_by_the_median_of_each_process_and_quality_seconds_are_not(registry):
    """Raw samples are skewed; the processes are the independent readings. Seconds beside other trials are indicative only."""
    for number in range(3):
        trial = make_trial(kind="timing", seed=number, measure=("train_step",))
        timing = Timing("train_step", (number + 1.0, number + 1.0, 90.0), (1.0, 1.0, 1.0), 2, "precise")
        registry.append(make_attempt(number, trial, measurements=(), timings=(timing,)))
    registry.append(make_attempt(8, make_trial(kind="timing", seed=8, measure=("train_step",)), status="oom"))
    registry.append(make_attempt(9, make_trial(seed=9), timings=(Timing("train_step", (7.0,), (7.0,), 0, "time"),)))

    row = board(registry, "quantity = 'train_step'")["relu"]

    assert (row["part"], row["unit"], row["better"]) == ("timing", "s", "lower")
    assert (row["n_ok"], row["n_failed"], row["n_left_out"], row["mean"]) == (3, 1, 1, 2.0)


def test_the_leaderboard_lists_the_best_first_whichever_way_is_better(registry):
    """`higher` and `lower` metrics stand in one table."""
    for number, (method, value) in enumerate([("a", 0.1), ("b", 0.9), ("c", 0.5)]):
        both = (replace(ACCURACY, value=value), Measurement("nll", "test", "nat", "lower", value))
        registry.append(make_attempt(number, make_trial(method), measurements=both))

    for quantity, order in (("accuracy", ["b", "c", "a"]), ("nll", ["a", "c", "b"])):
        found = rows(registry, "SELECT method FROM v_leaderboard WHERE quantity = ?", quantity)
        assert [r["method"].rpartition("/")[2] for r in found] == order


# Queries only read --------------------------------------------------------------------------------------------------------

ATTACKS = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet('/tmp/*.parquet')",
    "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM 'https://example.org/x.parquet'",
    "FROM attempts WHERE EXISTS (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x",
    "WITH read_text AS (SELECT 1) SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query_table('secret')",
    "SELECT * FROM secret",
    "SELECT * FROM _rows",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM sql_auto_complete('SEL')",
    "SELECT getenv('HOME')",
    "SELECT current_setting('home_directory')",
    "SELECT write_log('x')",
    "WITH x AS (INSERT INTO attempts VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM attempts RETURNING *) SELECT * FROM x",
    "COPY attempts TO '{out}/x.csv'",
    "COPY (SELECT 1) TO '{out}/x.parquet'",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}/x.db'",
    "ATTACH ':memory:' AS m",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "CALL pragma_version()",
    "CREATE TABLE t AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET (TYPE s3)",
    "DROP VIEW attempts",
    "INSERT INTO attempts VALUES (1)",
    "UPDATE attempts SET status = 'ok'",
    "EXPLAIN ANALYZE SELECT 1",
    "BEGIN",
    "CHECKPOINT",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{out}/x.csv'",
    "",
    "-- nothing",
    "SELECT FROM WHERE",
    "SELECT * FROM sqlite_scan('/tmp/x.db', 't')",
    "SELECT * FROM system.pg_catalog.pg_class",
    "SELECT * FROM other.main.attempts",
    "SUMMARIZE '/etc/passwd'",
    "DESCRIBE SELECT * FROM read_csv('/etc/passwd')",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda sql: sql[:60] or "empty")
def test_a_query_cannot_leave_the_views(registry, tmp_path, attack):
    """SQL comes from a web form or a colleague's note as well: it may neither write nor look at anything but the registry."""
    out = tmp_path / "out"
    out.mkdir()
    secret = pa.table({"x": [1]})  # a Python variable in scope: DuckDB reads those by default

    with pytest.raises(HarnessError, match=r"^query: .+"):
        registry.query(attack.replace("{out}", str(out)))
    assert io.listdir(out) == []
    assert secret.num_rows == 1


LOCKED = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "COPY (SELECT 1) TO '{out}/x.csv'",
    "ATTACH '{out}/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET threads = 64",
    "SELECT * FROM hidden",
]


@pytest.mark.parametrize("attack", LOCKED)
def test_the_connection_itself_is_locked_even_if_the_check_of_the_text_were_passed(tmp_path, monkeypatch, attack):
    """Two walls: each is tested without the other."""
    # Where DuckDB looks for Python variables: among the globals of the function that calls it.
    monkeypatch.setattr(duck, "hidden", pa.table({"x": [1]}), raising=False)

    with duck.connection() as con, pytest.raises(HarnessError, match=r"^query: "):
        duck.select(con, attack.replace("{out}", str(tmp_path)), (), {}, {}, 10.0)
    assert io.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("attack", "refusal"),
    [
        ("WITH x AS (INSERT INTO attempts VALUES (1) RETURNING *) SELECT * FROM x", "INSERT is refused: a query"),
        ("WITH x AS (DELETE FROM attempts RETURNING *) SELECT * FROM x", "DELETE is refused: a query"),
        ("COPY (SELECT 1) TO 'x.csv'", "COPY is refused: a query may only read"),
        ("SELECT 1; SELECT 2", "2 statements; write exactly one SELECT"),
        (
            "SELECT * FROM arrow_scan(1, 2, 3)",
            r"arrow_scan\(\) is refused: a query reads the registry's views and nothing else",
        ),
        ("SELECT write_log('x')", r"write_log\(\) is refused"),
    ],
)
def test_what_the_text_asks_for_is_refused_before_it_reaches_the_engine(registry, attack, refusal):
    """The first wall: DuckDB calls an INSERT inside WITH a SELECT, and arrow_scan reads memory by address."""
    with pytest.raises(HarnessError, match=f"query: {refusal}"):
        registry.query(attack)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM attempts",
        "WITH x AS (SELECT * FROM measurements), y AS (SELECT * FROM x) SELECT count(*) FROM y",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n",
        "SELECT unnest(range(3)) UNION ALL SELECT i FROM generate_series(1, 3) t(i)",
        "SELECT a.method, m.value FROM attempts a JOIN measurements m USING (attempt_id)",
        "DESCRIBE attempts",
        "SUMMARIZE measurements",
        "SHOW TABLES",
        "SELECT table_name FROM information_schema.tables",
        "SELECT method, avg(value) OVER (PARTITION BY task) FROM measurements QUALIFY row_number() OVER () = 1",
        "SELECT * FROM ATTEMPTS; ",
        "SELECT list_sum([1, 2])",
        "VALUES (1), (2)",
    ],
)
def test_ordinary_sql_passes(registry, sql):
    """Locked down is not shut: what an analyst writes works."""
    registry.append(make_attempt(1))

    assert registry.query(sql).num_columns >= 1


def test_parameters_are_bound_and_never_read_as_sql(registry):
    """By position or by name; a list too."""
    registry.append(make_attempt(1, make_trial("relu")))
    evil = "paper-harness/relu' OR '1'='1"

    assert rows(registry, "SELECT seed FROM attempts WHERE method = ?", evil) == []
    named = registry.query("SELECT seed FROM attempts WHERE method IN (SELECT unnest($m))", {"m": ["paper-harness/relu"]})
    assert named.num_rows == 1


def test_a_mistake_in_a_query_names_the_views_or_the_column(registry):
    """The mend is in the message."""
    with pytest.raises(
        HarnessError, match=r"there is no view 'measurement'; did you mean 'measurements'\? the views are attempts, "
    ):
        registry.query("SELECT * FROM measurement")
    with pytest.raises(HarnessError, match=r"(?s)query: .*acuracy"):
        registry.query("SELECT acuracy FROM attempts")

    # Of a column that is almost there the message names it, though the query itself would not have read it.
    with pytest.raises(HarnessError, match=r"(?s)query: .*worker_environment"):
        registry.query("SELECT worker_enviroment FROM attempts")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM attempts AS a",
        "SELECT attempts FROM attempts",
        "SELECT v_latest FROM v_latest",
        "SELECT a FROM (SELECT * FROM attempts) AS a",
        "SELECT a FROM (FROM v_latest SELECT method, seed) AS a",
        "WITH a AS (FROM attempts) SELECT a FROM a",
        "WITH attempts AS (SELECT 1 AS log) SELECT * FROM attempts",
        "SELECT a.* EXCLUDE (log) FROM attempts AS a",
        "SELECT COLUMNS('.*_s') FROM attempts",
        "SELECT COLUMNS(c -> c LIKE 'm%') FROM attempts",
        "SELECT count(COLUMNS(*)) FROM attempts",
        "SELECT METHOD, \"Seed\" FROM ATTEMPTS AS A WHERE a.STATUS = 'ok'",
        "SELECT #1, #3 FROM attempts",
        "SELECT machine, method FROM attempts ORDER BY 1, 2",
        "SELECT memory.main.attempts.method, main.attempts.seed FROM attempts",
        "SELECT method FROM attempts NATURAL JOIN measurements",
        "SELECT method FROM attempts JOIN v_latest USING (attempt_id, method)",
        "SELECT (SELECT count(*) FROM measurements m WHERE m.attempt_id = a.attempt_id AND a.log = '') AS n FROM attempts a",
        "SELECT 1 WHERE EXISTS (FROM attempts WHERE log = '')",
        "SELECT measurements[1].value, measurements[1]['unit'], len(measure) FROM attempts",
        "SELECT m.value FROM (SELECT unnest(measurements) AS m FROM attempts)",
        "SELECT list_transform(measurements, m -> m.value) FROM v_latest",
        "SELECT t.u.quantity FROM attempts, unnest(measurements) AS t(u)",
        "SELECT method, log FROM attempts UNION BY NAME SELECT method, error FROM attempts",
        "FROM attempts SELECT DISTINCT ON (method) method, curve",
        "PIVOT (SELECT method, seed, wall_s FROM attempts) ON method USING max(wall_s)",
        "SELECT * FROM (PIVOT attempts ON status USING count(*) GROUP BY method)",
        "SELECT * FROM (UNPIVOT (SELECT wall_s, cpu_s FROM attempts) ON wall_s, cpu_s)",
        "SELECT sum(wall_s) OVER w FROM attempts WINDOW w AS (PARTITION BY method ORDER BY started_at)",
        "SELECT annotation, annotation_reason FROM v_latest",
        "SELECT struct_pack(a := attempts).a.method FROM attempts",
        "DESCRIBE attempts",
        "DESCRIBE SELECT method FROM attempts",
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'attempts' ORDER BY ordinal_position",
    ],
)
def test_a_query_that_reads_only_the_columns_it_names_answers_as_if_it_read_all(registry, monkeypatch, sql):
    """SQL has many ways to ask for a column without a word; a column too few must be an error inside, never another answer."""
    for number in range(3):
        registry.append(make_attempt(number, make_trial("relu", seed=number)))

    def told() -> Any:
        try:
            answer = Registry.open(registry.path, create=False).query(sql)
        except HarnessError as exc:
            return str(exc)
        return answer.column_names, sorted(map(repr, answer.to_pylist()))

    pruned = told()
    monkeypatch.setattr(query, "columns_of", lambda *_: set(schema.attempt_schema().names))
    assert pruned == told()


def test_few_columns_are_read_where_few_are_named(registry, monkeypatch):
    """Otherwise the test above compares all columns with all columns."""
    registry.append(make_attempt(1))
    asked: list[set[str]] = []
    real = Reader.table
    monkeypatch.setattr(Reader, "table", lambda reader, columns=None: asked.append(columns) or real(reader, columns))

    rows(registry, "SELECT a.method AS log FROM attempts AS a WHERE Seed = 1 ORDER BY 1")
    rows(registry, "SELECT count(*) FROM v_latest")

    assert asked == [{"attempt_id", "method", "seed"}, {"attempt_id", "series_key", "machine", "status", "started_at"}]


def test_a_query_that_takes_too_long_is_stopped_with_the_mend(registry):
    """A cross join by accident must not hold a terminal or a web page for ever."""
    start = time.monotonic()

    with pytest.raises(HarnessError, match=r"stopped after 0.5 s; filter earlier"):
        registry.query("SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)", timeout_s=0.5)
    assert time.monotonic() - start < 10


def test_a_result_or_a_sort_that_is_too_large_is_refused_with_the_mend(registry):
    """Memory belongs to the trials that may be running."""
    with pytest.raises(HarnessError, match=r"query: .*(LIMIT|aggregate)"):
        registry.query("SELECT i, i AS j, i AS k FROM range(10000000000) t(i)")


# Benchmarks: `pytest --benchmark-only`, in docs/performance.md -----------------------------------------------------------


def test_bench_append(benchmark, registry):
    """One attempt recorded, CPU and flush; the goal is 2.5 ms CPU."""
    numbers = iter(range(10**9))

    benchmark.pedantic(registry.append, setup=lambda: ((make_attempt(next(numbers)),), {}), rounds=200)


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "loose"])
@pytest.mark.parametrize("number", [100, 1000])
def test_bench_leaderboard(benchmark, registry, number, folded):
    """The whole way from files to the table; the goal is well below a second at 1,000 attempts."""
    for n in range(number):
        registry.append(make_attempt(n))
    if folded:
        registry.fold("inv-1")

    result = benchmark(lambda: Registry.open(registry.path, create=False).query("SELECT * FROM v_leaderboard"))

    assert result.to_pylist()[0]["n_ok"] == number
