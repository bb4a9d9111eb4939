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
from harness.registry import duck
from harness.registry.reading import Reader
from harness.registry.views import FACTS, ROWS, VIEWS, columns_of, with_uses

if TYPE_CHECKING:
    import pyarrow as pa

QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
# These look out of the query: at the process's environment, at settings, into a log.
CLOSED_FUNCTIONS = {"getenv", "getvariable", "current_setting", "write_log", "nextval", "currval", "txid_current"}
OWN_CATALOGS = {"", "memory"}


@dataclass
class Named:
    """What a query names: tables as (catalog, schema, name), functions in FROM, other functions, WITH names."""

    tables: set[tuple[str, str, str]] = field(default_factory=set)
    table_functions: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    with_names: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    shows_tables: bool = False


def run_query(reader: Reader, sql: str, parameters: Sequence[object] | Mapping[str, object], timeout_s: float) -> pa.Table:
    """The result as Arrow. Raises HarnessError with the mend."""
    with duck.connection() as con:
        views = check(names_in(duck.parse_select(con, sql)))
        tables = {ROWS: reader.table(columns_of(views))}
        if "facts" in views:
            tables[FACTS] = facts_table(reader)
        definitions = {name: VIEWS[name].sql for name in with_uses(views)}
        return duck.select(con, sql, parameters, tables, definitions, timeout_s)


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
    for catalog, schema, name in sorted(named.tables):
        if schema == "information_schema" and catalog in OWN_CATALOGS | {"system"}:
            views |= set(VIEWS)
        elif catalog in OWN_CATALOGS and schema in ("", "main") and name in VIEWS:
            views.add(name)
        elif not (catalog == "" and schema == "" and name in named.with_names):
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
