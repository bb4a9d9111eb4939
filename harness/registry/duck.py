"""DuckDB behind one door: what differs between its versions (1.4 to 2.0), and how a connection is locked down.

Queries run in memory over Arrow tables that were handed in, on a connection that can reach nothing else: no file, no network,
no extension, no Python variable, no setting.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY = "1GiB"
MAX_RESULT_BYTES = 512 << 20
MAX_SQL_CHARACTERS = 100_000
BATCH_ROWS = 100_000
LOCKS = (
    "SET TimeZone = 'UTC'",
    "SET enable_progress_bar = false",  # in a notebook it would be on, and draw into the output
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    f"SET memory_limit = '{MEMORY}'",
    "SET temp_directory = ''",  # what does not fit is refused, not spilled into the user's folder
    f"SET threads = {min(4, os.cpu_count() or 1)}",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class BrokenIndex(Exception):
    """An attached database file is damaged, gone, or of another version of DuckDB."""


class Unfit(Exception):
    """An attached database file and the tables beside it do not go together."""


class Unbound(HarnessError):
    """A query names a column or a function that is not there."""


@contextlib.contextmanager
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A fresh one, in memory: 15 ms, so a query uses one for both of its steps."""
    import duckdb

    with duckdb.connect(":memory:") as con:
        yield con


def parse_select(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """The syntax tree of exactly one SELECT (DESCRIBE, SHOW and SUMMARIZE are such), as DuckDB serialises it.

    Raises HarnessError for anything else.
    """
    import duckdb

    if len(sql) > MAX_SQL_CHARACTERS:
        raise HarnessError(f"query: {len(sql)} characters; at most {MAX_SQL_CHARACTERS}: pass long lists as parameters")
    if not sql.isascii() and any("\ud800" <= c <= "\udfff" for c in sql):
        raise HarnessError("query: it holds half a character; write it as UTF-8")
    try:
        statements = con.extract_statements(sql)
        kinds = [statement.type for statement in statements]
    except (duckdb.Error, ValueError) as exc:  # ValueError: a kind of statement that DuckDB's own Python side does not know
        raise HarnessError(f"query: {first_lines(exc)}; write exactly one SELECT") from exc
    if len(statements) != 1:
        raise HarnessError(f"query: {len(statements)} statements; write exactly one SELECT")
    if kinds[0] != duckdb.StatementType.SELECT:
        kind = str(kinds[0]).rpartition(".")[2]
        raise HarnessError(f"query: {kind} is refused: a query may only read; write one SELECT")
    # All rows, though there is one: duckdb 2 keeps a connection busy until a fetch finds nothing more.
    ((serialised,),) = con.execute("SELECT CAST(json_serialize_sql(CAST(? AS VARCHAR)) AS VARCHAR)", [sql]).fetchall()
    try:
        tree: dict[str, Any] = json.loads(serialised)
    except RecursionError as exc:
        raise HarnessError("query: nested too deeply; name its parts with WITH") from exc
    if tree.get("error"):
        raise HarnessError(f"query: {tree.get('error_message', 'cannot be read')}; write it as one plain SELECT")
    return tree


def select(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Sequence[object] | Mapping[str, object],
    tables: Mapping[str, pa.Table],
    views: Mapping[str, str],
    timeout_s: float,
    attached: Mapping[str, Path] | None = None,
    unless: str = "",
) -> pa.Table:
    """Lock the connection, then run a SELECT over these tables and views; it is good for nothing else afterwards.

    attached: database files of ours that views stand on, by the name of their catalog. unless: a SELECT that must find nothing.
    Raises HarnessError, Unbound of it for an unknown name; BrokenIndex for such a file that cannot be read; Unfit.
    """
    import duckdb

    with interrupted_after(con, timeout_s):
        try:
            attach(con, attached or {})
            # Before anything of an attached file is looked at: who made it may have put views into it that read other files.
            for lock in LOCKS:
                con.execute(lock)
            for name, table in tables.items():
                con.register(name, table)
            for name, definition in views.items():
                con.execute(f"CREATE VIEW {name} AS {definition}")
            if unless and con.execute(unless).fetchall():
                raise Unfit
        except duckdb.InterruptException as exc:
            raise too_slow(timeout_s) from exc
        except duckdb.Error as exc:
            if attached:
                raise BrokenIndex from exc
            raise
        try:
            return fetch(con, sql, parameters)
        except duckdb.InterruptException as exc:
            raise too_slow(timeout_s) from exc
        except duckdb.OutOfMemoryException as exc:
            raise HarnessError(f"query: needs more than {MEMORY}; filter or aggregate before it sorts and joins") from exc
        except OSError as exc:  # Arrow's name for what goes wrong once rows are flowing
            if "Interrupted" in str(exc):
                raise too_slow(timeout_s) from exc
            if attached:
                raise BrokenIndex from exc
            raise HarnessError(f"query: {first_lines(exc)}") from exc
        except (duckdb.IOException, duckdb.InternalException, duckdb.SerializationException, duckdb.FatalException) as exc:
            if attached:
                raise BrokenIndex from exc
            raise HarnessError(f"query: {first_lines(exc)}") from exc
        except duckdb.BinderException as exc:
            raise Unbound(f"query: {first_lines(exc)}") from exc
        except duckdb.Error as exc:
            if attached and type(exc) is duckdb.Error:  # no kind of its own: duckdb 2 tells so of a checksum that is wrong
                raise BrokenIndex from exc
            raise HarnessError(f"query: {first_lines(exc)}") from exc


def attach(con: duckdb.DuckDBPyConnection, files: Mapping[str, Path]) -> None:
    for catalog, path in files.items():
        quoted = str(path.absolute()).replace("'", "''")
        con.execute(f"ATTACH '{quoted}' AS {catalog} (READ_ONLY)")


def too_slow(timeout_s: float) -> HarnessError:
    return HarnessError(f"query: stopped after {timeout_s:g} s; filter earlier, or raise the limit with --timeout")


def fetch(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] | Mapping[str, object]) -> pa.Table:
    """The whole result, as long as it is no larger than MAX_RESULT_BYTES."""
    import pyarrow as pa

    given = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
    relation = con.sql(sql, params=given) if given else con.sql(sql)
    # duckdb < 1.5 has no to_arrow_reader, 2 will lose fetch_record_batch.
    open_reader = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    reader = open_reader(BATCH_ROWS)
    batches, size = [], 0
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > MAX_RESULT_BYTES:
            raise HarnessError(f"query: the result is larger than {MAX_RESULT_BYTES >> 20} MiB; add LIMIT or aggregate")
    return pa.Table.from_batches(batches, schema=reader.schema)


@contextlib.contextmanager
def interrupted_after(con: duckdb.DuckDBPyConnection, timeout_s: float) -> Iterator[None]:
    """Interrupt what runs on the connection after timeout_s."""
    done = threading.Event()

    def watch() -> None:
        wait_s = timeout_s
        while not done.wait(wait_s):
            con.interrupt()
            wait_s = 0.1  # again: an interrupt between two steps of a query is forgotten

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def first_lines(exc: BaseException) -> str:
    """DuckDB's message without the stack that some errors carry."""
    return str(exc).strip().partition("\n\nStack")[0]
