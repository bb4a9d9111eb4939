"""One SELECT from a user over the views: its syntax tree is checked, then it runs on a locked connection.

Two walls. DuckDB's own locks keep it from files, network and settings. The syntax tree is checked before, because a statement
of type SELECT can hold an INSERT (in WITH), a table function that runs SQL from text, or one that reads memory by address;
and because a refusal that names the mend is better than an error from inside.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.registry import duck, index, schema
from harness.registry.files import Layout
from harness.registry.reading import RELISTS, Changed, Reader
from harness.registry.views import (
    FACTS,
    KNOWN,
    NOTES,
    READ,
    ROWS,
    VIEWS,
    Indexed,
    columns_of,
    over_index,
    repeated_sql,
    rows_sql,
    with_uses,
)  # fmt: skip

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
# These look out of the query: at the process's environment, at settings, into a log.
CLOSED_FUNCTIONS = {"getenv", "getvariable", "current_setting", "write_log", "nextval", "currval", "txid_current"}
OWN_CATALOGS = {"", "memory"}
# An index that proves broken or behind is made anew once; then the answer comes from the files.
INDEX_TRIES = 2


@dataclass
class Named:
    """What a query names: tables as (catalog, schema, name), functions in FROM, other functions, WITH names, columns.

    all_columns: whether it may ask for columns without naming them (`*`, a row as one value, NATURAL JOIN).
    """

    tables: set[tuple[str, str, str]] = field(default_factory=set)
    table_functions: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    with_names: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)
    all_columns: bool = False
    shows_tables: bool = False


@dataclass(frozen=True)
class Wanted:
    """What a query needs. views: those that it names. columns: of the attempts; whole: whether that is all of them."""

    views: set[str]
    columns: set[str]
    whole: bool
    of_index: tuple[str, ...] | None  # the columns that an index would have to give; None: they are not all in it


@dataclass(frozen=True)
class Sources:
    """Where a query's rows come from. read: those that were read from their files. attached: the index, if it is used."""

    read: pa.Table
    indexed: Indexed | None = None
    attached: index.Index | None = None


def run_query(
    reader: Reader, layout: Layout, sql: str, parameters: Sequence[object] | Mapping[str, object], timeout_s: float
) -> pa.Table:
    """The result as Arrow. Raises HarnessError with the mend."""
    for attempt in range(INDEX_TRIES + 1):
        with duck.connection() as con:
            wanted = understand(duck.parse_select(con, sql))
            found = from_index(reader, layout, wanted) if attempt < INDEX_TRIES else None
            try:
                return answer(con, reader, sql, parameters, timeout_s, wanted.views, found or from_files(reader, wanted))
            except duck.BrokenIndex:
                if found is not None and found.attached is not None:
                    index.discard(layout, found.attached)
            except duck.Unfit:
                index.refresh(reader, layout)
            except duck.Unbound:
                if wanted.whole:
                    raise
                break
    # A mistake, or a column that the query did not seem to name: with all columns the message offers those that are near.
    nothing = Sources(schema.attempt_schema().empty_table())
    with duck.connection() as con:
        answer(con, reader, sql, parameters, timeout_s, wanted.views, nothing)
    with duck.connection() as con:
        return answer(con, reader, sql, parameters, timeout_s, wanted.views, Sources(reader.table()))


def understand(tree: Mapping[str, Any]) -> Wanted:
    """Raises HarnessError for what a query may not do."""
    named = names_in(tree)
    views = check(named)
    columns = columns_of(views, None if named.all_columns else named.columns)
    # The index has the measurements as a table of their own, which does for whoever does not want the list.
    listed = named.all_columns or "measurements" in named.columns
    of_index = columns if listed else columns - {"measurements"}
    known = index.indexed_columns()
    in_index = tuple(name for name in known if name in of_index) if of_index <= set(known) else None
    return Wanted(views, columns, columns >= set(schema.attempt_schema().names), in_index)


def from_files(reader: Reader, wanted: Wanted) -> Sources:
    return Sources(reader.table(wanted.columns))


def from_index(reader: Reader, layout: Layout, wanted: Wanted) -> Sources | None:
    """The index and what it lacks; None where it cannot give these columns, or there is none."""
    if wanted.of_index is None:
        return None
    for _ in range(RELISTS):
        try:
            found = index.refresh(reader, layout, index.WORTH_BYTES)
            if found is None:
                return None
            read = reader.once_each(list(found.lacks), wanted.columns)[0]
        except Changed:
            continue
        except OSError:
            return None
        for conflict in found.note.conflicts:
            reader.warn(conflict)
        return Sources(read, Indexed(index.CATALOG, wanted.of_index, lacking=read.num_rows > 0), found)
    return None


def answer(
    con: duckdb.DuckDBPyConnection, reader: Reader, sql: str, parameters: Sequence[object] | Mapping[str, object],
    timeout_s: float, views: set[str], sources: Sources,
) -> pa.Table:  # fmt: skip
    """Raises as `duck.select` does."""
    said = reader.annotations()
    read = numbered(sources.read)
    tables = {READ: read, NOTES: said}
    used = with_uses(views)
    if "facts" in used:
        tables[FACTS] = facts_table(reader)
    definitions = {ROWS: rows_sql(sources.indexed, read.column_names, said.num_rows > 0)} if views - {"facts", "v_claims"} else {}
    definitions |= {name: KNOWN[name].sql for name in used}
    if sources.indexed is None or sources.attached is None:
        return duck.select(con, sql, parameters, tables, definitions, timeout_s)
    definitions |= {name: sql for name, sql in over_index(sources.indexed).items() if name in definitions}
    unless = repeated_sql(sources.indexed) if sources.indexed.lacking else ""
    files = {index.CATALOG: sources.attached.path}
    return duck.select(con, sql, parameters, tables, definitions, timeout_s, files, unless)


def numbered(read: pa.Table) -> pa.Table:
    """With an `id` for each row, below 0: the index counts from 1."""
    import numpy as np
    import pyarrow as pa

    return read.append_column("id", pa.array(-1 - np.arange(read.num_rows, dtype=np.int32)))


def facts_table(reader: Reader) -> pa.Table:
    import pyarrow as pa

    rows = [{"kind": f["kind"], "name": f["name"], "facts": json.dumps(f["facts"], sort_keys=True)} for f in reader.facts()]
    return pa.Table.from_pylist(rows, schema=pa.schema([("kind", pa.string()), ("name", pa.string()), ("facts", pa.string())]))


def check(named: Named) -> set[str]:
    """The views that the query reads. Raises HarnessError if it names anything else."""
    for node in sorted(named.nodes - QUERY_NODES):
        raise HarnessError(f"query: {node.partition('_')[0]} is refused: a query may only read; write one SELECT")
    for name in sorted(named.table_functions - TABLE_FUNCTIONS):
        raise HarnessError(
            f"query: {name}() is refused: a query reads the registry's views and nothing else; {listing()}; "
            f"in FROM these functions work: {', '.join(sorted(TABLE_FUNCTIONS))}"
        )
    for name in sorted(named.functions & CLOSED_FUNCTIONS):
        raise HarnessError(f"query: {name}() is refused: a query reads the registry's views and nothing else; leave it out")
    views: set[str] = set()
    for catalog, folder, name in sorted(named.tables):
        if folder == "information_schema" and catalog in OWN_CATALOGS | {"system"}:
            views |= set(VIEWS)
            named.all_columns = True
        elif catalog in OWN_CATALOGS and folder in ("", "main") and name in KNOWN:
            views.add(name)
        elif not (catalog == "" and folder == "" and name in named.with_names):
            near = difflib.get_close_matches(name, VIEWS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise HarnessError(f"query: there is no view {name!r}; {hint}{listing()}")
    return set(VIEWS) if named.shows_tables else views


def listing() -> str:
    return f"the views are {', '.join(VIEWS)} (`DESCRIBE attempts` lists columns)"


def names_in(tree: Mapping[str, Any]) -> Named:
    """All that the syntax tree names, wherever it stands."""
    named = Named()
    for node in dicts(tree):
        kind = node.get("type")
        note_columns(named, node)
        if isinstance(kind, str) and kind.endswith("_NODE"):
            named.nodes.add(kind)
        if kind == "BASE_TABLE":
            catalog, schema, name = (str(node.get(k) or "").lower() for k in ("catalog_name", "schema_name", "table_name"))
            named.tables.add((catalog, schema, name))
        elif kind == "TABLE_FUNCTION":
            named.table_functions.add(str((node.get("function") or {}).get("function_name")).lower())
        elif kind == "SHOW_REF":
            named.shows_tables = named.shows_tables or node.get("query") is None
        elif "function_name" in node:
            named.functions.add(str(node["function_name"]).lower())
        for entry in (node.get("cte_map") or {}).get("map", ()):
            named.with_names.add(str(entry["key"]).lower())
    # The function of a FROM clause is a node of its own in the tree, below TABLE_FUNCTION.
    named.functions -= named.table_functions
    return named


def note_columns(named: Named, node: Mapping[str, Any]) -> None:
    """The columns that this node names, or that it may ask for without naming them."""
    kind = node.get("type")
    if node.get("class") == "COLUMN_REF":
        named.columns |= {str(name).lower() for name in node.get("column_names", ())}
    named.columns |= {str(name).lower() for name in node.get("using_columns") or ()}
    if kind in ("SHOW_REF", "PIVOT", "POSITIONAL_REFERENCE") or node.get("ref_type") == "NATURAL":
        named.all_columns = True
    if kind == "SELECT_NODE":
        wholes = {str(alias).lower() for table in tables_of(node.get("from_table")) for alias in whole_names(table)}
        for below in dicts(node) if wholes else ():
            names = below.get("column_names", ())
            if below.get("class") == "STAR" or (below.get("class") == "COLUMN_REF" and str(names[0]).lower() in wholes
                                                and len(names) == 1):  # fmt: skip
                named.all_columns = True


def tables_of(tree: Any) -> Iterator[Mapping[str, Any]]:
    """The tables of a FROM clause itself, not of the queries in it."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("type") == "BASE_TABLE":
                yield value
            elif value.get("type") != "SUBQUERY":
                waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def whole_names(table: Mapping[str, Any]) -> list[str]:
    """By what a table's whole row may be called, if it is a view that passes on all columns."""
    name = str(table.get("table_name") or "").lower()
    if name not in KNOWN or not KNOWN[name].whole:
        return []
    return [name, str(table.get("alias") or name)]


def dicts(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON tree; without recursion, for it may be deep."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
