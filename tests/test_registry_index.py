"""The index of large registries: whatever becomes of it, a query answers as the files themselves do."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from registry_samples import ACCURACY, WHERE, flip_a_bit, make_attempt, make_trial

from harness.errors import HarnessError
from harness.records import Attempt, Measurement, Resources, Timing
from harness.registry import Registry, duck, folding, index, io, query, schema
from harness.registry.files import Layout, content_name
from harness.registry.reading import Entry, Reader

ATTEMPT = ", ".join((*index.indexed_columns(), "annotation", "annotation_reason"))
# All that the index answers: explicit columns where `*` would ask for the log as well.
QUESTIONS = (
    f"SELECT {ATTEMPT} FROM attempts",
    f"SELECT {ATTEMPT} FROM v_latest",
    "SELECT * FROM measurements",
    "SELECT * FROM timings",
    "SELECT * FROM v_leaderboard",
    "SELECT * FROM v_kernels",
    "SELECT a.method, m.quantity, m.value FROM v_latest a JOIN measurements m USING (attempt_id) WHERE m.part = 'test'",
)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Empty, and every size is worth an index."""
    monkeypatch.setattr(index, "WORTH_BYTES", 0)
    return Registry.open(tmp_path / "registry")


@pytest.fixture
def reads_files(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A mark for each answer that came from the files alone."""
    marks: list[int] = []
    real = query.from_files

    def noting(*arguments: Any) -> Any:
        marks.append(1)
        return real(*arguments)

    monkeypatch.setattr(query, "from_files", noting)
    return marks


def ask(registry: Registry, sql: str) -> list[str]:
    """The rows as text, sorted, by a reader that knows nothing yet; sums in other order differ in the last digits."""
    return as_text(Registry.open(registry.path, create=False), sql)


def as_text(opened: Registry, sql: str) -> list[str]:
    rounded = "v_leaderboard" in sql
    return sorted(repr([rounding(v) if rounded else v for v in row.values()]) for row in opened.query(sql).to_pylist())


def rounding(value: Any) -> Any:
    """Sums and means in another order: other last digits, and of a zero the other sign."""
    return f"{value + 0.0:.11e}" if isinstance(value, float) else value


def by_files(registry: Registry, sql: str) -> list[str]:
    """The same without any index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "refresh", lambda *_: None)
        return ask(registry, sql)


def note_of(registry: Registry) -> index.Note | None:
    return index.read_note(Layout(registry.path))


def fill(registry: Registry, number: int = 30) -> None:
    for n in range(number):
        registry.append(make_attempt(n, make_trial(f"m{n % 3}", seed=n % 5)))
    registry.fold("inv-1")


# The same answer ----------------------------------------------------------------------------------------------------------


VALUES = (0.5, -0.0, 0.0, math.nan, math.inf, -math.inf, 1e300, None)
STATUSES = ("ok", "ok", "ok", "failed", "timeout", "unsupported", "interrupted", "diverged")


def random_attempt(rng: random.Random, number: int) -> Attempt:
    """Of a few series on two machines: quality or timing, whatever may be recorded of it."""
    kind = rng.choice(("quality", "quality", "timing"))
    trial = make_trial(rng.choice("abc"), seed=rng.randrange(3), kind=kind, code_digest=rng.choice(("c0de", "c1de")))
    if rng.random() < 0.2:
        trial = replace(trial, measure=(), task_params={})
    where = replace(WHERE, machine=rng.choice(("m-1", "m-2")), invocation=f"inv-{rng.randrange(3)}")
    status = rng.choice(STATUSES)
    measured = (
        replace(ACCURACY, value=rng.choice(VALUES)),
        Measurement("nll", rng.choice(("test", "validation")), "nat", "lower", rng.choice(VALUES), rng.choice((None, 9.0))),
    )
    timing = Timing("train_step", tuple(rng.random() for _ in range(rng.randrange(4))), (), 1, "time")
    outcome = {
        "measurements": measured if status == "ok" and kind == "quality" else (),
        "timings": (timing,) if kind == "timing" else (),
        "resources": Resources(wall_s=rng.choice((None, 1.5))),
        "log": "said\x00 <b>something</b> ü",
    }
    attempt = make_attempt(number, trial, where, status=status, **outcome)
    if rng.random() < 0.1:
        attempt = replace(attempt, outcome=replace(attempt.outcome, started_at=rng.choice(("", "2026-09-21T00:00:00Z"))))
    declared = (replace(ACCURACY, value=None, worst=rng.choice((0.1, None, math.inf))),)
    return replace(attempt, declared=declared if rng.random() < 0.5 else ())


class Life:
    """What may happen to a registry; one method a kind of event."""

    def __init__(self, path: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.path = path
        self.number = 0

    @property
    def opened(self) -> Registry:
        return Registry.open(self.path)

    def append(self) -> None:
        registry = self.opened
        for _ in range(self.rng.randrange(1, 9)):
            registry.append(random_attempt(self.rng, self.number))
            self.number += 1

    def fold(self) -> None:
        self.opened.fold(f"inv-{self.rng.randrange(3)}")

    def compact(self) -> None:
        self.opened.compact(everything=True)

    def delete_replaced(self) -> None:
        self.opened.remove_replaced(grace_s=-1)

    def annotate(self) -> None:
        kind = self.rng.choice(("invalid", "invalid", "expected", "withdrawn"))
        self.opened.annotate([f"{self.rng.randrange(self.number):032x}"], kind, "why", "somebody")

    def fold_twice(self) -> None:
        """As two registries do that are merged: some rows stand in one more file, and no manifest says so."""
        table = self.opened.table()
        if not table.num_rows:  # all of it has rotten
            return
        some = table.slice(self.rng.randrange(table.num_rows))
        content = schema.encode_many(some.sort_by("attempt_id"))
        (self.path / "folded" / content_name(content, ".parquet")).write_bytes(content)

    def contradict(self) -> None:
        """A second row with the id of another one."""
        self.opened.append(random_attempt(self.rng, self.rng.randrange(self.number)))

    def lose(self) -> None:
        """A file rots; what it held alone is gone."""
        entries = Reader(Layout(self.path)).entries()
        if not entries:
            return
        path = self.path / Path(*self.rng.choice(entries))
        flip_a_bit(path, self.rng.randrange(path.stat().st_size))
        os.utime(path, (1, self.rng.randrange(1, 10**9)))

    def lose_the_manifests(self) -> None:
        for path in (self.path / "manifests").iterdir():
            path.unlink()

    def keep_up(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index, "WORTH_BYTES", 0)  # the test's own choice may be that so little is not worth an index
            opened = self.opened
            assert (index.refresh(opened._reader, Layout(self.path)) is not None) == (opened.table().num_rows > 0)


EVENTS = ("append", "append", "append", "fold", "fold", "compact", "delete_replaced", "annotate", "fold_twice", "contradict",
          "lose", "lose_the_manifests", "keep_up")  # fmt: skip


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[] if n < 4 else pytest.mark.slow) for n in range(60)])
def test_whatever_happens_to_a_registry_the_index_answers_as_the_files_do(registry, monkeypatch, seed):
    """Row for row, through every view: appended, folded, merged, rotten, contradicted, annotated, in any order.

    Readers bear with an index that lacks a little, so that it is asked in all states: up to date, behind, and outlived.
    """
    life = Life(registry.path, seed)
    life.append()
    used = 0
    for _ in range(12):
        event = life.rng.choice(EVENTS)
        getattr(life, event)()
        monkeypatch.setattr(index, "WORTH_BYTES", life.rng.choice((0, 1 << 20)))
        for sql in QUESTIONS:
            assert ask(registry, sql) == by_files(registry, sql), (event, sql)
            used += note_of(registry) is not None

    assert used > 0


def test_the_index_is_what_answers(registry, reads_files):
    """Otherwise the test above would compare the files with themselves."""
    fill(registry)
    assert note_of(registry) is not None

    for sql in QUESTIONS:
        ask(registry, sql)
    assert reads_files == []
    assert ask(registry, "SELECT log FROM attempts")
    assert ask(registry, "SELECT * FROM v_latest")
    assert ask(registry, "SELECT table_name FROM information_schema.tables WHERE table_name = 'attempts'") == ["['attempts']"]
    assert len(reads_files) == 3


def test_conflicting_rows_are_chosen_in_the_index_as_in_the_files_and_named_on_every_read(registry, reads_files):
    """The one with the smallest digest is read, whichever came first, and nobody may miss that there are two."""
    fill(registry)
    registry.append(make_attempt(3, make_trial("m0", seed=3), measurements=(replace(ACCURACY, value=0.75),)))

    for sql in QUESTIONS:
        opened = Registry.open(registry.path, create=False)
        assert as_text(opened, sql) == by_files(registry, sql)
        assert any(f"attempt {3:032x}: different rows bear this id" in warning for warning in opened.warnings)
    assert len(reads_files) == len(QUESTIONS)  # by_files
    note = note_of(registry)
    assert note is not None
    assert len(note.conflicts) == 1


# When it is made ----------------------------------------------------------------------------------------------------------


def test_a_small_registry_has_no_index(tmp_path):
    """It would be one more file to write and to open, for nothing."""
    registry = Registry.open(tmp_path / "registry")
    fill(registry)
    ask(registry, "SELECT method FROM attempts")

    assert [name for name in io.listdir(registry.path / "index") if name.startswith("rows")] == []


def test_a_reader_makes_the_index_and_a_little_more_is_read_beside_it(registry, monkeypatch, reads_files):
    """Whoever asks first pays; until as much has come again that it would pay again, nothing is written."""
    for n in range(30):
        registry.append(make_attempt(n))
    assert note_of(registry) is None
    ask(registry, "SELECT method FROM attempts")
    first = note_of(registry)
    assert first is not None
    assert len(first.covers) == 30

    monkeypatch.setattr(index, "WORTH_BYTES", 1 << 20)
    registry.append(make_attempt(99))
    assert len(ask(registry, "SELECT method FROM attempts")) == 31
    assert note_of(registry) == first
    monkeypatch.setattr(index, "WORTH_BYTES", 0)
    assert len(ask(registry, "SELECT method FROM attempts")) == 31

    second = note_of(registry)
    assert second is not None
    assert len(second.covers) == 31
    assert reads_files == []
    assert [name for name in io.listdir(registry.path / "index") if name.endswith(".duckdb")] == [second.file]


def test_manifests_and_files_that_were_known_are_not_read_again(registry, monkeypatch):
    """A thousand invocations left a thousand manifests with all names of their attempts: a query has no time for these."""
    fill(registry)
    ask(registry, "SELECT method FROM attempts")
    read: list[str] = []
    real = io.read

    def noting(path: Path) -> bytes:
        read.append(path.parent.name)
        return real(path)

    monkeypatch.setattr(io, "read", noting)
    ask(registry, "SELECT method FROM attempts")

    assert set(read) <= {"index", "registry"}  # its notes, and FORMAT


# Never wrong --------------------------------------------------------------------------------------------------------------


def indexed_files(registry: Registry) -> tuple[Path, bytes, index.Note]:
    ask(registry, QUESTIONS[0])
    note = note_of(registry)
    assert note is not None
    path = registry.path / "index" / note.file
    return path, path.read_bytes(), note


def plant(registry: Registry, path: Path, content: bytes, note: index.Note) -> None:
    """Put this in the place of the index, with a note that vouches for it."""
    path.write_bytes(content)
    told = replace(note, state=io.size_and_time(path))
    (registry.path / "index" / index.NOTE).write_bytes(told.encode())


def test_a_fold_of_what_the_index_knows_is_not_read_again(registry, monkeypatch):
    """It holds the same rows as the files that it replaces: a compaction costs the index nothing."""
    for number in range(30):
        registry.append(make_attempt(number, make_trial(seed=number)))
    reader, layout = Reader(Layout(registry.path)), Layout(registry.path)
    made = index.refresh(reader, layout)
    folding.compact(registry._reader, layout, everything=True)

    found = index.find(Reader(layout), layout)

    assert made is not None
    assert found is not None
    assert (found.note.file, found.lacks) == (made.note.file, ())


@pytest.mark.parametrize("damage", ["bit", "truncation"])
def test_a_damaged_index_is_thrown_away_and_never_answers(registry, monkeypatch, damage):
    """The same size and time as before: only DuckDB's own checksums can tell, and they must be heard."""
    fill(registry, 100)
    path, content, note = indexed_files(registry)
    expected = {sql: by_files(registry, sql) for sql in QUESTIONS}
    rng = random.Random(7)
    thrown_away = 0

    for number in range(40):
        place = rng.randrange(len(content))
        if damage == "bit":
            broken = bytearray(content)
            broken[place] ^= 1 << rng.randrange(8)
        else:
            broken = bytearray(content[:place])
        plant(registry, path, bytes(broken), note)
        sql = QUESTIONS[number % len(QUESTIONS)]
        assert ask(registry, sql) == expected[sql], (number, place)
        thrown_away += note_of(registry) != replace(note, state=io.size_and_time(path)) if path.exists() else 1

    assert thrown_away > 5  # others hit what no query reads


@pytest.mark.parametrize("torn", [b"", b"{", b"\x00" * 100, b"0" * 64 + b"\n{}"], ids=["empty", "torn", "zeros", "forged"])
def test_a_torn_note_is_as_if_there_were_none(registry, torn):
    """A power cut may leave anything under the name."""
    fill(registry)
    (registry.path / "index" / index.NOTE).write_bytes(torn)

    assert len(ask(registry, "SELECT method FROM attempts")) == 30
    assert note_of(registry) is not None


def test_a_note_with_one_character_changed_is_not_believed(registry):
    """It says which rows are in the index: a wrong name in it could hide some."""
    fill(registry)
    path = registry.path / "index" / index.NOTE
    content = path.read_bytes()
    at = content.index(b"covers") + 30
    path.write_bytes(content[:at] + (b"0" if content[at : at + 1] != b"0" else b"1") + content[at + 1 :])

    assert note_of(registry) is None
    assert len(ask(registry, "SELECT method FROM attempts")) == 30


def test_an_index_of_another_version_is_not_opened(registry, monkeypatch, reads_files):
    """Its columns may mean something else, and DuckDB may not read its own files of tomorrow."""
    fill(registry)
    monkeypatch.setattr(index, "version", lambda: "of another day")

    assert note_of(registry) is None
    assert len(ask(registry, "SELECT method FROM attempts")) == 30
    assert reads_files == []  # made anew


def test_an_index_that_somebody_else_made_reads_no_other_file(registry, tmp_path):
    """A registry may come from a stranger, its index with it: a view in there runs with the query's rights, which are none."""
    fill(registry)
    path, _, note = indexed_files(registry)
    (tmp_path / "secret.csv").write_text("method\nstolen\n")
    path.unlink()
    with duckdb.connect(str(path)) as con:
        con.execute(f"CREATE VIEW rows AS SELECT 1 AS id, 'x' AS attempt_id, * FROM read_csv('{tmp_path}/secret.csv')")
        con.execute("CREATE TABLE measured (id INTEGER)")
    plant(registry, path, path.read_bytes(), note)

    assert set(ask(registry, "SELECT method FROM attempts")) == {f"['paper-harness/m{n}']" for n in range(3)}


def test_a_file_that_rotted_unseen_does_not_get_into_a_fresh_index(registry):
    """Its size and time are as they were when it was last checked; the index reads and checks the same bytes."""
    fill(registry)
    registry.remove_replaced(grace_s=-1)
    (folded,) = (registry.path / "folded").glob("*.parquet")
    registry.append(make_attempt(77))
    index.discard(Layout(registry.path), index.Index(folded, indexed_files(registry)[2], ()))
    state = folded.stat()
    flip_a_bit(folded, 500)
    os.utime(folded, ns=(state.st_atime_ns, state.st_mtime_ns))

    opened = Registry.open(registry.path, create=False)
    found = opened.query("SELECT attempt_id FROM attempts")["attempt_id"].to_pylist()

    assert found == [f"{77:032x}"]
    assert any("damaged" in warning for warning in opened.warnings)
    assert io.listdir(registry.path / "quarantine") == [folded.name]


def test_rows_of_a_file_that_is_lost_are_not_served_from_the_index(registry):
    """It is a cache of the registry as it is, not a second copy that nobody checks."""
    for number in range(4):
        registry.append(make_attempt(number))
    ask(registry, "SELECT method FROM attempts")
    lost = sorted((registry.path / "attempts").glob("*.parquet"))[0]
    name = schema.decode(lost.read_bytes())["attempt_id"].to_pylist()[0]
    lost.unlink()

    left = Registry.open(registry.path, create=False).query("SELECT attempt_id FROM attempts")["attempt_id"].to_pylist()

    assert len(left) == 3
    assert name not in left


def test_a_file_that_comes_back_is_seen_again(registry):
    """Quarantined, then fetched from a copy: an index that was made in between knows nothing of its rows."""
    for number in range(4):
        registry.append(make_attempt(number))
    lost = sorted((registry.path / "attempts").glob("*.parquet"))[0]
    content = lost.read_bytes()
    lost.unlink()
    assert len(ask(registry, "SELECT method FROM attempts")) == 3
    lost.write_bytes(content)

    assert len(ask(registry, "SELECT method FROM attempts")) == 4


def test_an_attempt_that_is_recorded_while_the_index_is_made_is_not_lost(registry, monkeypatch):
    """Writers never wait: what the listing did not show must not count as known."""
    fill(registry)
    real = Reader.entries

    def entries_then_one_more(reader: Reader) -> list[Entry]:
        found = real(reader)
        number = secrets.randbits(20) + 1000
        Registry(registry.path).append(make_attempt(number))
        return found

    index.discard(Layout(registry.path), index.Index(Path(), indexed_files(registry)[2], ()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "entries", entries_then_one_more)
        Registry.open(registry.path, create=False).query("SELECT method FROM attempts")
    assert note_of(registry) is not None
    monkeypatch.setattr(index, "WORTH_BYTES", 1 << 20)

    assert ask(registry, QUESTIONS[0]) == by_files(registry, QUESTIONS[0])
    assert len(ask(registry, QUESTIONS[0])) > 30


def test_an_index_that_is_replaced_between_note_and_opening_is_looked_for_again(registry, monkeypatch, reads_files):
    """Another process keeps it up to date meanwhile; the old file goes with the old note."""
    fill(registry)
    real, raced = duck.attach, []

    def lose_the_race(con: duckdb.DuckDBPyConnection, files: dict[str, Path]) -> None:
        if files and not raced:
            raced.append(1)
            registry.append(make_attempt(50))
            other = Registry.open(registry.path, create=False)
            assert index.refresh(other._reader, Layout(registry.path)) is not None
        real(con, files)

    monkeypatch.setattr(duck, "attach", lose_the_race)

    assert len(ask(registry, "SELECT method FROM attempts")) == 31
    assert raced
    assert reads_files == []


# Where it cannot be written -------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_has_no_index_and_every_answer(registry, monkeypatch, reads_files):
    """A registry on a read-only mount, of a colleague: nothing is worse than before."""
    for n in range(5):
        registry.append(make_attempt(n))
    real = io.create

    def refuse(path: Path) -> int:
        if path.parent.name == "index":
            raise OSError(errno.EROFS, "read-only")
        return real(path)

    monkeypatch.setattr(io, "create", refuse)

    assert len(ask(registry, "SELECT method FROM attempts")) == 5
    assert reads_files == [1]
    assert note_of(registry) is None


def failing_calls() -> Iterator[tuple[str, int]]:
    for name in ("create", "write", "close", "rename", "size_and_time", "read_chunks", "unlink"):
        for number in (1, 2, 3):
            yield name, number


@pytest.mark.parametrize(("name", "number"), list(failing_calls()))
def test_an_index_whose_making_fails_at_any_disk_call_is_left_behind_by_nobody(registry, monkeypatch, name, number):
    """A full disk in the middle of it: the answer is right, the old index stands or none, and no half of one is believed."""
    fill(registry, 8)
    registry.append(make_attempt(20))
    real, calls = getattr(io, name), []

    def fail(path: Any, *rest: Any) -> Any:
        inside = not isinstance(path, Path) or path.parent.name == "index"
        calls.append(inside)
        if inside and sum(calls) == number:
            raise OSError(errno.ENOSPC, "no space")
        return real(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, name, fail)
        assert len(ask(registry, "SELECT method FROM attempts")) == 9

    assert ask(registry, QUESTIONS[0]) == by_files(registry, QUESTIONS[0])
    note = note_of(registry)
    assert note is not None
    assert len(ask(registry, QUESTIONS[2])) == 9


def test_what_a_process_left_that_died_while_it_made_an_index_is_cleared_away(registry):
    """Half a gigabyte of nothing, once for each kill."""
    fill(registry)
    alive = json.loads((registry.path / "index" / index.NOTE).read_bytes().partition(b"\n")[2])["file"]
    host = alive.removeprefix("rows-").rsplit("-", 3)[0]
    dead = registry.path / "index" / f"rows-{host}-999999999-1-0123456789abcdef.duckdb"
    dead.write_bytes(b"half")
    registry.append(make_attempt(40))
    ask(registry, "SELECT method FROM attempts")

    assert not dead.exists()


# A query over an index only reads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM _index.rows",
        "SELECT * FROM _index.main.rows",
        'SELECT * FROM "_INDEX".main.measured',
        "SELECT * FROM _index.information_schema.tables",
        "SELECT * FROM _read",
        "SELECT * FROM _notes",
        "SELECT * FROM duckdb_databases()",
        "SELECT * FROM duckdb_tables()",
        "SELECT * FROM pragma_database_size()",
        "SELECT * FROM pragma_storage_info('rows')",
        "SELECT * FROM duckdb_constraints()",
        "DETACH _index",
        "USE _index",
        "ATTACH '{index}' AS again",
        "WITH x AS (DELETE FROM _index.rows RETURNING *) SELECT * FROM x",
        "SELECT * FROM read_blob('{index}')",
        "SELECT * FROM '{index}'",
        "SELECT * FROM query_table('_index.rows')",
    ],
)
def test_a_query_cannot_reach_past_the_views_into_the_index(registry, attack):
    """It lies attached on the same connection; by name it does not exist, and its path is nobody's business."""
    fill(registry)
    path, content, _ = indexed_files(registry)

    with pytest.raises(HarnessError, match=r"^query: "):
        ask(registry, attack.replace("{index}", str(path)))
    assert path.read_bytes() == content


@pytest.mark.parametrize("table", ["tables", "columns", "schemata"])
def test_what_a_query_learns_of_the_catalogue_holds_no_path(registry, table):
    """Where a registry lies may hold names of people and of machines."""
    fill(registry)
    ask(registry, QUESTIONS[0])

    shown = "".join(ask(registry, f"SELECT * FROM information_schema.{table}"))

    assert "attempts" in shown or table == "schemata"
    assert str(registry.path) not in shown
    assert ".duckdb" not in shown
    assert "_index" not in shown


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "ATTACH '{out}/x.db'",
        "INSERT INTO _index.rows SELECT * FROM _index.rows",
        "SET enable_external_access = true",
        "COPY (SELECT 1) TO '{out}/x.csv'",
    ],
)
def test_a_connection_with_an_index_is_locked_as_one_without(registry, tmp_path, attack):
    """The second wall, without the first."""
    fill(registry)
    path, content, _ = indexed_files(registry)
    out = tmp_path / "out"
    out.mkdir()

    with duck.connection() as con, pytest.raises((HarnessError, duck.BrokenIndex)):
        duck.select(con, attack.replace("{out}", str(out)), (), {}, {}, 10.0, {index.CATALOG: path})
    assert io.listdir(out) == []
    assert path.read_bytes() == content
