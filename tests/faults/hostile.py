"""What strangers may hand over: texts, records, registry files, data files, SQL, names. Nothing is judged here."""

from __future__ import annotations

import gzip
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.registry import schema
from harness.registry.files import content_name
from tests.kernel_samples import kernel_attempt, kernel_trial
from tests.registry_samples import make_attempt, make_trial

LONG = "x" * 1_000_000
TEXTS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "javascript:alert(1)",
    "</text><foreignObject><body onload='x'/></foreignObject>", "]]><script>x</script>", "<a xlink:href='http://x'>y</a>",
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred", "\x1b[8mhidden\x1b[0m", "\x9b31m\x85\x90x\x9c", "a\x08\x08b\x7f", "\rok 10/0",
    "[bold red]x[/bold red]", "[/]", "[link=http://x]y[/link]", ":smile:", "\u202egnp.exe", "\u2066\u200b\ufeff\u2028\u2029",
    "a\nb\r\nwarning: forged\rX", LONG, "dist/../../x", "../../../etc/passwd", "../../etc", "/etc/passwd", "a/b/c", "nul\0nul",
    "=cmd|'/c calc'!A1", "@SUM(1)", "+1", "-1+1", "", " ", "{}", "${jndi:x}", "%s%n{0}", "'; DROP TABLE attempts; --", "\ud7ff",
    "\U0001f600", "\U000e0041", "\ufffe\uffff", "-", "--help", "NaN", "null", "0", "True",
)  # fmt: skip
JSONS = (
    "not json", "[]", "1", "null", '"x"', "{}", "[1,2]", '{"arch": 1}', '{"arch": "\\u001b[31m<script>"}', '{"net": 1}',
    '{"where": 1, "to": 2}', '{"where": "net.width", "to": "x", "mismatch": 0.1, "net": {"arch": 1}, "train": null}', "NaN",
    '{"a": NaN}', '{"x": 1e999}', "[" * 100_000, '{"lr": {"a": [1]}}', '{"samples_seen": "many"}', '{"x":' + "9" * 5000 + "}",
    '{"\\ud800": 1}', "", None,
)  # fmt: skip
STRANGE_JSON = (  # as facts, manifests and annotations
    "[]", "1", "null", "{}", '"x"', "[" * 100_000, '{"folded": 1, "replaces": 2}', '{"kind": 1, "name": [], "facts": 3}',
    '{"kind": "\\u001b[2J", "name": "<script>", "facts": {"a": NaN}}', '{"folded": "../../x", "replaces": ["../y"]}',
    '{"kind": "invalid", "attempts": [1], "reason": "\\u001b[31m", "author": 1, "made_at": "never"}',
)  # fmt: skip
REALS = (float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324, -0.0, None)
WHOLES = (-1, 0, 2**63 - 1, -(2**63), None)


# Records ----------------------------------------------------------------------------------------------------------------


def plain_row(number: int, method: str = "healthy", seed: int = 0) -> dict[str, Any]:
    """A record as the harness writes it, by column."""
    row: dict[str, Any] = schema.to_table(make_attempt(number, make_trial(method, seed))).to_pylist()[0]
    return row | {"declared": [{"quantity": "accuracy", "part": "test", "unit": "1", "better": "higher", "worst": 0.0}]}


def kernel_row(number: int, implementation: str) -> dict[str, Any]:
    """A healthy kernel trial's."""
    attempt = kernel_attempt(number, kernel_trial(implementation=implementation), {"forward": 1e-6})
    found: dict[str, Any] = schema.conform(schema.to_table(attempt)).to_pylist()[0]
    return found


def value_of(kind: pa.DataType, name: str, rng: random.Random) -> Any:
    """Anything that the type can hold."""
    if pa.types.is_string(kind):
        return rng.choice(JSONS if name in schema.JSON_COLUMNS else (*TEXTS, None))
    if pa.types.is_floating(kind):
        return rng.choice(REALS)
    if pa.types.is_integer(kind):
        return rng.choice(WHOLES)
    if pa.types.is_boolean(kind):
        return rng.choice((True, False, None))
    if pa.types.is_list(kind):
        return None if rng.random() < 0.1 else [value_of(kind.value_type, name, rng) for _ in range(rng.randrange(3))]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: value_of(kind.field(i).type, "", rng) for i in range(kind.num_fields)}
    return None  # a time


def hostile_row(number: int, rng: random.Random) -> dict[str, Any]:
    """A record in which some columns, or all, hold what no harness writes. Its status lets it reach the boards."""
    row = plain_row(number, f"m{number}", rng.randrange(3))
    fields = list(schema.attempt_schema())
    for field in rng.sample(fields, rng.choice((1, 1, 2, 5, len(fields)))):
        row[field.name] = value_of(field.type, field.name, rng)
    text, real = rng.choice(TEXTS), rng.choice(REALS)
    if rng.random() < 0.5:  # one that is ranked, under a name and a metric of its own making
        row |= {
            "method": f"d/{text}",
            "task": rng.choice((row["task"], text)),
            "kind": "quality",
            "status": "ok",
            "machine": "m-1",
        }
        metric = {"quantity": text, "part": "test", "unit": text, "better": rng.choice(("higher", "lower", "sideways"))}
        row |= {"declared": [metric | {"worst": real}], "measurements": [metric | {"value": real, "worst": real}]}
    elif rng.random() < 0.4:  # a kernel's, timed
        time = {"quantity": "time", "part": rng.choice(("forward", text, None)), "unit": "s", "better": "lower"}
        more = {"quantity": text, "part": rng.choice(("check", "forward")), "unit": text, "better": text}
        told = [time | {"value": real, "worst": None}, more | {"value": real, "worst": real}]
        row |= {"kind": "kernel", "status": "ok", "machine": "m-1", "method": f"d/k/{text}", "measurements": told}
    if rng.random() < 0.9:
        row["attempt_id"] = f"{number:032x}"
    return row


def parquet(rows: list[dict[str, Any]]) -> bytes:
    return schema.encode_one(pa.Table.from_pylist(rows, schema=schema.attempt_schema()))


def put(registry: Path, folder: str, content: bytes, suffix: str) -> Path:
    """A file as a merge would bring it: the name is right, whatever it holds."""
    path = registry / folder / content_name(content, suffix)
    path.write_bytes(content)
    return path


def parquet_bomb(rows: int = 30_000_000) -> bytes:
    """A few kilobytes of Parquet that say that they hold so many rows, and do: runs of nothing cost nothing."""
    sink, column = pa.BufferOutputStream(), pa.nulls(1_000_000, pa.string())
    with pq.ParquetWriter(sink, pa.schema([("attempt_id", pa.string())]), compression="zstd", store_schema=False) as writer:
        for _ in range(rows // len(column)):
            writer.write_table(pa.table({"attempt_id": column}))
        writer.add_key_value_metadata({schema.VERSION_KEY: str(schema.SCHEMA_VERSION)})
    content: bytes = sink.getvalue().to_pybytes()
    return content


def strange_files(registry: Path) -> None:
    """Files of every folder that are named by their content and are something else than they should be; and other things."""
    for text in STRANGE_JSON:
        for folder in ("facts", "manifests", "annotations"):
            put(registry, folder, text.encode(), ".json")
    for content in (b"", b"PAR1", b"PAR1" * 50, b"\0" * 1000, parquet_bomb()):
        put(registry, "attempts", content, ".parquet")
    for name in ("\x1b[2J.parquet", "a\nwarning: forged", "..parquet", "x" * 200):
        (registry / "attempts" / name).write_bytes(b"x")
    (registry / "attempts" / os.fsdecode(b"\xff\xfe.parquet")).write_bytes(b"x")
    os.mkfifo(registry / "attempts" / ("f" * 64 + ".parquet"))
    (registry / "attempts" / ("e" * 64 + ".parquet")).symlink_to("/dev/zero")
    (registry / "attempts" / ("d" * 64 + ".parquet")).mkdir()
    os.mkfifo(registry / "facts" / ("f" * 64 + ".json"))


# Data files ---------------------------------------------------------------------------------------------------------------


def jpeg(width: int, height: int) -> bytes:
    """The head of a JPEG that claims this size, and nothing below it."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9"


DATA_CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "pickle": b"cos\nsystem\n(S'touch owned'\ntR.",
    "numpy object": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".ljust(128)
    + b"cos\nsystem\n.",
    "gzip bomb": gzip.compress(bytes(64 << 20), 9),
    "gzip, cut": gzip.compress(b"x" * 10_000)[:-9],
    "gzip of gzip": gzip.compress(gzip.compress(bytes(1 << 20))),
    "gzip, trailing rubbish": gzip.compress(b"x") + b"\0\1\2",
    "tar": b"../../etc/passwd".ljust(257, b"\0") + b"ustar\0",
    "zip": b"PK\x03\x04" + b"\0" * 26 + b"../../x",
    "idx that lies": b"\0\0\x08\x03" + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1),
    "jpeg that lies": jpeg(65_535, 65_535),
    "html": b"<html>404</html>",
}


# SQL ----------------------------------------------------------------------------------------------------------------------

REFUSED = (
    "WITH x AS (COPY attempts TO '{out}/x.csv') SELECT * FROM x",
    "WITH x AS MATERIALIZED (UPDATE attempts SET status = 'ok' RETURNING *) SELECT * FROM x",
    "PRAGMA enable_profiling",
    "PRAGMA temp_directory='{out}'",
    "PREPARE p AS SELECT 1",
    "EXECUTE p(1)",
    "DEALLOCATE p",
    "SELECT (SET threads = 8)",
    "SET VARIABLE x = 1",
    "SELECT getvariable('x')",
    "CREATE OR REPLACE TEMP MACRO m() AS TABLE SELECT * FROM read_text('/etc/passwd')",
    "CREATE PERSISTENT SECRET s (TYPE S3, KEY_ID 'a', SECRET 'b')",
    "CREATE TEMP TABLE t AS FROM attempts",
    "CREATE TYPE e AS ENUM (SELECT method FROM attempts)",
    "CREATE SEQUENCE s",
    "SELECT nextval('s')",
    "SELECT * FROM query('SELECT 1')",
    "FROM query_table(['attempts'])",
    "SELECT * FROM (VALUES ('/etc/passwd')) t(f), LATERAL (SELECT * FROM read_text(t.f))",
    "SELECT * FROM read_csv_auto($path)",
    "SELECT * FROM read_text(?)",
    "SELECT * FROM identifier('/etc/passwd')",
    "SELECT * FROM IDENTIFIER($path)",
    "SELECT COLUMNS('.*') FROM '/etc/passwd'",
    "SELECT * FROM \"{out}/x.parquet\"",
    "FROM 'file:///etc/passwd'",
    "FROM 's3://bucket/x.parquet'",
    "FROM 'https://example.org/x.csv'",
    "SELECT * FROM read_duckdb('{out}/x.db')",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM seq_scan('attempts')",
    "SELECT * FROM duckdb_functions()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM pragma_table_info('attempts')",
    "SELECT * FROM test_all_types()",
    "SELECT * FROM repeat_row(1, num_rows=1)",
    "SELECT * FROM summary('attempts')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "PIVOT attempts ON status USING count(*); COPY (SELECT 1) TO '{out}/x.csv'",
    "DESCRIBE '/etc/passwd'",
    "EXPLAIN SELECT 1",
    "VACUUM",
    "USE memory",
    "DETACH memory",
    "IMPORT DATABASE '{out}'",
    "COMMENT ON VIEW attempts IS 'x'",
    "ALTER VIEW attempts RENAME TO a",
    "MERGE INTO attempts USING attempts b ON true WHEN MATCHED THEN DELETE",
    "UPDATE EXTENSIONS",
    "TRUNCATE attempts",
    "SELECT * FROM attempts; DROP VIEW attempts; --",
    "\0SELECT 1",
    "SELECT '\ud800'",
    "SELECT " + "+".join(["1"] * 60_000),
    "SELECT " + "NOT " * 50_000 + "true",
    "WITH " + ", ".join(f"a{i} AS (SELECT 1)" for i in range(20_000)) + " SELECT 1",
)  # fmt: skip
# Allowed words that would take for ever or all memory: refused by a limit, which has to hold.
BOUNDED = (
    "SELECT repeat('x', 10000000000)",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)",
    "SELECT list(i) FROM range(1000000000) t(i)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "WITH RECURSIVE n(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM n) SELECT max(length(s)) FROM n",
    "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
    "SELECT * FROM range(10000000000)",
    "SELECT range(10000000000)",
    "SELECT lpad('x', 2000000000, 'y') FROM range(1000)",
    "SELECT rpad('x', 2147483647, 'y')",
    "SELECT i, count(*) FROM range(1000000000) t(i) GROUP BY i ORDER BY 2",
    "SELECT list_sort(list_transform(range(200000000), x -> hash(x)))",
)  # fmt: skip


# Names of plugins' offers -------------------------------------------------------------------------------------------------

NAMES: tuple[Any, ...] = (
    "a/b", "..", ".", "../x", "a/../b", "/etc/passwd", "a\\b", "a b", "a\tb", "a\nb", "nul\0", "\x1b[31m", "x" * 300, "",
    "__init__",
    "__class__", ".hidden", "-rf", "a:b", "a..b", "x.", "method.py", "suite.yaml", "x.json", "x.parquet", "caf\xe9", "\u202eab",
    "<b>", "a*", "a?", "[a]", "a,b", "a=b", "a;b", "$(x)", "`x`", "%s", "{x}", None, 1, ["a"], ("a",), b"a",
)  # fmt: skip
PATHS = (
    "../x", "/etc/passwd", "a/../../x", "", ".", "..", "a//b", "a/", "nul\0", "a\nb", "\\\\server\\x", "a\\..\\b", "./x",
    "~/../x/../..",
)  # fmt: skip


# Suites -------------------------------------------------------------------------------------------------------------------

PIECES = (
    "&a ", "*a", "!!int ", "!!python/object/apply:os.system [x]", "{", "}", "[", "]", ": ", ", ", "- ", "? ", "'",
    '"', "|\n", ">-\n", "#",
    "\n", "\t", "  ", "<<: ", "1e999", "-1e999", ".nan", ".inf", "-1", "null", "true", "0x" + "f" * 40, "0o777", "1_000",
    "12:30", "~",
    "99999999999999999999", "1000000000000", "1e-400", "seeds: ", "use: ", "grid: {eps: [1, 1]}", "zip: {eps: []}",
    "\\ud800", "\0",
    "...\n---\n", "%YAML 1.1\n", "\ufeff", "\u2028", "\x85", "\x1b[31m", "params: {eps: 1e999}",
    "exclude: [{method: '*a*a*a*a*b'}]",
    "exclude: [{seed: '[[[[[['}]", "net: {arch: mlp, width: 99999999}", "name: ../../x", "- {use: a/b/c}",
    "budget: {match: {to: x}}",
)  # fmt: skip
BOMBS: tuple[Callable[[random.Random], str], ...] = (
    lambda r: "[" * r.randrange(40, 200_000),
    lambda r: "{a: " * r.randrange(40, 60_000),
    lambda r: "- " * r.randrange(40, 100_000),
    lambda r: "a: " + "x" * r.randrange(1_000_000) + "\n",
    lambda r: "".join(f"k{i}: 1\n" for i in range(r.randrange(100_000))),
    lambda r: "seeds: [" + ",".join(map(str, range(r.randrange(40_000)))) + "]\n",
    lambda r: "tasks: [" + ",".join(["digits"] * r.randrange(40_000)) + "]\n",
    lambda r: "methods: [" + ",".join(f"relu{i}" for i in range(r.randrange(2_000))) + "]\n",
    lambda r: "methods: [{use: crrelu, grid: {eps: [" + ",".join(f"{i}.5" for i in range(r.randrange(5_000))) + "]}}]\n",
    lambda r: "methods: [{use: crrelu, grid: {" + ",".join(f"p{i}: [1,2,3,4,5]" for i in range(r.randrange(1_600))) + "}}]\n",
    lambda r: "exclude: [{method: '" + r.choice("*[?a") * r.randrange(200_000) + "'}]\n",
    lambda r: "exclude:\n" + "".join(f"- {{method: '*{i}*'}}\n" for i in range(r.randrange(1_000))),
    lambda r: "net: [" + ",".join(f"{{arch: mlp, width: {i + 1}}}" for i in range(r.randrange(1_001))) + "]\nseeds: 10000\n",
    lambda r: "a: [" + ",".join(f"&a{i} x" for i in range(r.randrange(20_000))) + "]\n",
    lambda r: "root_seed: " + r.choice("19af") * r.randrange(200_000) + "\n",
    lambda r: "title: |\n" + " x\n" * r.randrange(80_000),
    lambda r: "title: \"" + "\\u0041" * r.randrange(40_000) + "\"\n",
    lambda r: "? " + "k" * r.randrange(200_000) + "\n: 1\n",
    lambda r: "x: &" + "a" * r.randrange(200_000) + " 1\n",
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-7")


def hostile_suite(shipped: list[str], rng: random.Random) -> bytes:
    """A shipped suite, edited; or with something enormous in it; or no YAML at all."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(2_000))
    text = rng.choice(shipped)
    for _ in range(rng.randrange(1, 6)):
        text = edited(text, rng)
    if kind > 0.93:
        text = bombed(text, rng)
    content = text.encode(rng.choice(ENCODINGS), "replace")
    return content if rng.random() < 0.97 else content[: rng.randrange(len(content) + 1)]


def bombed(text: str, rng: random.Random) -> str:
    """Something enormous in place of its key, or behind all."""
    bomb = rng.choice(BOMBS)(rng)
    key = bomb.partition(":")[0]
    kept = [] if rng.random() < 0.2 else [block for block in blocks(text) if not block.startswith(f"{key}:")]
    return "".join(kept) + bomb


def blocks(text: str) -> list[str]:
    """The top keys with what stands below them."""
    made: list[str] = []
    for line in text.splitlines(keepends=True):
        if made and line[:1] in " -\t#\n":
            made[-1] += line
        else:
            made.append(line)
    return made


def edited(text: str, rng: random.Random) -> str:
    at, kind = rng.randrange(len(text) + 1), rng.randrange(5)
    if kind == 0:
        return text[:at] + text[at + rng.randrange(20) :]
    if kind == 1:
        lines = text.splitlines(keepends=True) or [""]
        rng.shuffle(lines)
        return "".join(lines)
    if kind == 2:
        there = rng.randrange(len(text) + 1)
        return text[:at] + text[there : there + rng.randrange(60)] + text[at:]
    piece = rng.choice(PIECES) if rng.random() < 0.8 else rng.choice(TEXTS)[:100]
    return text[:at] + piece + text[at + rng.randrange(12) :]


PATH_PIECES = ("methods", "tasks", "net", "train", "budget", "match", "params", "grid", "eps", "seeds", "limits", "exclude",
"name",
               "[0]", "[1]", "[999999]", "[-1]", ".", "..", "", "use", "x" * 300, "\x1b", "[")  # fmt: skip


def hostile_override(rng: random.Random) -> str:
    path = ".".join(rng.choice(PATH_PIECES) for _ in range(rng.randrange(1, 5))).replace(".[", "[")
    bomb = rng.choice(BOMBS)(rng).partition(": ")[2] if rng.random() < 0.05 else ""
    return (
        path
        + rng.choice(("=", "=", "=", "", "=="))
        + (bomb or edited(rng.choice(PIECES), rng) + rng.choice(("", *TEXTS))[:200])
    )
