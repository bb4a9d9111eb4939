"""What trials saved, made fit for a report: pictures and texts as files beside the pages, of one trial a board and method.

An artefact is a stranger's. An SVG is taken apart and put together again from what a picture is drawn with, and is refused
where it holds anything else; a PNG must begin as one. Both are shown by <img> only, where a browser runs nothing and asks for
nothing; opened by itself, too, a copy could do neither. A text is escaped like any other, and its copy ends in .txt. The name
of a copy is the content's digest. What is too large, or beyond what a report may weigh, is named with where it lies in the
registry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from harness.errors import DamagedError, HarnessError
from harness.leaderboard import Board
from harness.showing import visible

if TYPE_CHECKING:
    from harness.registry import Registry

SAVED = """
SELECT attempt_id, name, media_type, sha256, size_bytes FROM blobs
WHERE attempt_id IN (SELECT unnest($ids)) ORDER BY attempt_id, name, media_type, sha256
"""
MOST_BYTES = {"picture": 150_000, "text": 60_000}
WHOLE_BYTES, BOARD_BYTES = 150_000, 15_000  # of all copies together, and more a board: 20 charts stay below 2 MB
MOST_OF_A_TRIAL = 12
PREVIEW_LINES, PREVIEW_CHARACTERS = 40, 2_000
COPY = re.compile(r"artefact-[0-9a-f]{16}\.(svg|png|txt)")

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = frozenset(
    """
    svg g path rect line circle ellipse polyline polygon text tspan title desc defs clipPath linearGradient radialGradient stop
    """.split()  # noqa: SIM905  (a list of quoted names would be harder to read)
)
ATTRIBUTES = frozenset(
    """
    aria-label class clip-path clip-rule clipPathUnits cx cy d display dominant-baseline dx dy fill fill-opacity fill-rule
    font-family font-size font-style font-weight fx fy gradientTransform gradientUnits height id offset opacity
    pathLength points preserveAspectRatio r role rotate rx ry spreadMethod stop-color stop-opacity stroke stroke-dasharray
    stroke-dashoffset stroke-linecap stroke-linejoin stroke-miterlimit stroke-opacity stroke-width style text-anchor textLength
    transform vector-effect version viewBox visibility width x x1 x2 y y1 y2
    """.split()  # noqa: SIM905
)
DROPPED = frozenset({"{http://www.w3.org/XML/1998/namespace}space", "{http://www.w3.org/XML/1998/namespace}lang"})
OWN_PART = re.compile(r"url\(#[A-Za-z_][\w.-]*\)")  # a clip path or a gradient of the picture itself
LOADING = (
    "url(",
    "@",
    "image(",
    "image-set(",
    "element(",
    "paint(",
    "expression(",
    "var(",
    "//",
    "\\",
    "/*",
    "script:",
    "data:",
)
MAX_DEPTH = 40
PNG = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 4096  # of a side


@dataclass(frozen=True)
class Artefact:
    """An artefact as a page shows it. file: the name of its copy in the report, "" where there is none, and then why.

    picture: whether the copy is shown as one; else text is the beginning of a text, and whole says whether it is all of it.
    """

    name: str
    media_type: str
    sha256: str
    size_bytes: int
    file: str = ""
    content: bytes = b""
    picture: bool = False
    text: str = ""
    whole: bool = True
    why: str = ""


class Unfit(Exception):
    """What keeps an artefact out of a report, in words that go on after a colon."""


def read_artefacts(
    registry: Registry,
    boards: Sequence[Board],
    attempts: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
) -> dict[str, tuple[Artefact, ...]]:
    """By attempt id, of the trials that stand for a method on a board (`representative`). attempts, values: by attempt id."""
    ids = [id for board in boards for row in board.rows for id in row.attempts if is_shown(attempts.get(id))]
    saved: dict[str, list[Mapping[str, Any]]] = {}
    for row in registry.query(SAVED, {"ids": ids}).to_pylist() if ids else []:
        saved.setdefault(row["attempt_id"], []).append(row)
    found: dict[str, tuple[Artefact, ...]] = {}
    copied: dict[str, int] = {}
    room = WHOLE_BYTES + BOARD_BYTES * len(boards)
    for board in boards:
        for place in board.rows:
            id = representative([i for i in place.attempts if i in saved], board.metric.name, attempts, values)
            if id is not None and id not in found:
                rows = sorted(saved[id], key=lambda row: not str(row["media_type"]).startswith("image/"))
                found[id] = tuple(read_artefact(registry, row, copied, room) for row in rows[:MOST_OF_A_TRIAL])
    return found


def is_shown(attempt: Mapping[str, Any] | None) -> bool:
    return attempt is not None and attempt["kind"] == "quality" and attempt["status"] == "ok"


def representative(
    ids: Iterable[str],
    metric: str,
    attempts: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
) -> str | None:
    """The attempt in the middle by the board's metric, of an even number the lower one: a picture of the best would flatter."""

    def order(id: str) -> tuple[bool, float, int, str]:
        value = values.get(id, {}).get(metric)
        known = value is not None and not math.isnan(value)
        return (not known, value if known and value is not None else 0.0, attempts[id]["seed"] or 0, id)

    sorted_ids = sorted(ids, key=order)
    return sorted_ids[(len(sorted_ids) - 1) // 2] if sorted_ids else None


def read_artefact(registry: Registry, row: Mapping[str, Any], copied: dict[str, int], room: int) -> Artefact:
    """copied: sizes of the copies so far, by file; grows, up to room bytes."""
    told = {name: row[name] for name in ("name", "media_type", "sha256", "size_bytes")}
    try:
        kind, suffix = kind_of(str(row["media_type"]))
        if row["size_bytes"] > MOST_BYTES[kind]:
            raise Unfit(f"larger than {MOST_BYTES[kind] // 1000} kB")
        content = fit(suffix, read(registry, str(row["sha256"])))
    except Unfit as exc:
        return Artefact(**told, why=str(exc))
    file = f"artefact-{row['sha256'][:16]}.{suffix}"
    if file not in copied and sum(copied.values()) + len(content) > room:
        return Artefact(**told, why=f"the copies of this report have {room // 1000} kB")
    copied[file] = len(content)
    if kind == "picture":
        return Artefact(**told, file=file, content=content, picture=True)
    text = content.decode()
    start = "\n".join(text.splitlines()[:PREVIEW_LINES])[:PREVIEW_CHARACTERS]
    return Artefact(**told, file=file, content=content, text=start, whole=len(start) >= len(text.rstrip("\n")))


def kind_of(media_type: str) -> tuple[str, str]:
    """("picture" or "text", the suffix of a copy). Raises Unfit."""
    plain = media_type.partition(";")[0].strip().lower()
    if plain in ("image/svg+xml", "image/png"):
        return "picture", {"image/svg+xml": "svg", "image/png": "png"}[plain]
    if plain.startswith("text/") or plain == "application/json":
        return "text", "txt"
    raise Unfit("neither text nor a picture that is shown here (SVG, PNG)")


def read(registry: Registry, sha256: str) -> bytes:
    try:
        return registry.read_blob(sha256)
    except DamagedError as exc:
        raise Unfit("its file is damaged; `harness verify` names it") from exc
    except HarnessError as exc:
        raise Unfit("its file is not in this registry; merge the one where it was made") from exc


def fit(suffix: str, content: bytes) -> bytes:
    """What a report copies of it. Raises Unfit."""
    if suffix == "png":
        sides = [int.from_bytes(content[at : at + 4], "big") for at in (16, 20)]
        if not content.startswith(PNG) or content[12:16] != b"IHDR" or not all(0 < side <= MAX_PIXELS for side in sides):
            raise Unfit(f"no PNG of at most {MAX_PIXELS} pixels a side")
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        raise Unfit("not UTF-8") from exc
    return clean_svg(text).encode() if suffix == "svg" else visible(text).encode()


def clean_svg(text: str) -> str:
    """The same picture, put together again. Raises Unfit for what is none, or holds more than a picture is drawn with."""
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise Unfit("an SVG with a DOCTYPE, whose entities may grow without end")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as exc:
        raise Unfit("no well-formed SVG") from exc
    if root.tag != f"{SVG}svg":
        raise Unfit("no SVG")
    clean_element(root, 1)
    root.attrib["xmlns"] = SVG[1:-1]
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def clean_element(element: ElementTree.Element, depth: int) -> None:
    """Without namespaces, and with no text that turns its direction. Raises Unfit."""
    name = element.tag.removeprefix(SVG)
    if name not in ELEMENTS or not element.tag.startswith(SVG):
        raise Unfit(f"an SVG with <{short(element.tag.rpartition('}')[2])}>")
    if depth > MAX_DEPTH:
        raise Unfit(f"an SVG nested deeper than {MAX_DEPTH}")
    element.tag = name
    element.attrib = {key: visible(value) for key, value in element.attrib.items() if key not in DROPPED}
    for key, value in element.attrib.items():
        if key not in ATTRIBUTES:
            raise Unfit(f"an SVG with the attribute {short(key.rpartition('}')[2])}")
        if loads(value):
            raise Unfit(f"an SVG whose {key} refers to something else")
    element.text, element.tail = (None if part is None else visible(part) for part in (element.text, element.tail))
    for child in element:
        clean_element(child, depth + 1)


def loads(value: str) -> bool:
    """Whether a value could name something outside: CSS and attributes do so by url(), @import, image() or an address.

    A backslash or a comment could hide such a word.
    """
    rest = OWN_PART.sub("", value).lower()
    return any(word in rest for word in LOADING)


def short(name: str) -> str:
    return visible(name[:40])
