"""The text of a suite: YAML 1.2 in, a raw tree out that knows where each value was written.

Only what a suite needs: mappings with names as keys, lists, scalars of YAML's core schema (`1e-3` and `.5` are numbers,
`no` and `on` are strings). Aliases, anchors, tags, repeated keys, second documents, numbers that are not finite: mistakes,
each with its line and its mend. Any bytes give a `Document`; what cannot be read is in its `mistakes`.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 256 << 10
MAX_DEPTH = 50
MAX_EVENTS = 22_000  # names, values and brackets: 10,000 seeds written out, and twice as much again; each costs 25 us
MAX_MISTAKES = 200  # of the YAML itself: a text with more is no suite, and reading on costs time
MAX_SHOWN = 60  # characters of a wrong value in a message
MAX_OPTION = 200  # characters of an option in a message: each of its mistakes says it anew

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]
Loc = tuple[str | int, ...]  # the way to a value: ("methods", 2, "params", "eps")
Origin = int | str  # a line of the file, or the `--set` option that gave the value

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NEWLINES = re.compile(r"\s*\n\s*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Mistake:
    """Something the user can mend. origin: line or option; path: as the user writes it, "" for the whole file.

    Shown on one line of printable text, whatever an option, a file or a plugin's message brings along.
    """

    origin: Origin
    path: str
    text: str

    def show(self, file: str) -> str:
        option = "" if isinstance(self.origin, int) else shlex.quote(cut(self.origin, MAX_OPTION))
        place = f"--set {option}" if option else f"{file}:{self.origin}"
        line = f"{place}: {self.path}: {self.text}" if self.path else f"{place}: {self.text}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in _NEWLINES.sub(" ", line))


@dataclass
class Document:
    """The raw tree. origins: where the value at each location was written (a mapping's value: the line of its key).

    unread: locations whose value could not be read and stands as None; nothing more should be said about them.
    """

    data: Value = None
    origins: dict[Loc, Origin] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    unread: set[Loc] = field(default_factory=set)

    def origin(self, loc: Loc) -> Origin:
        """Where a location was written; for one that is absent, where its closest ancestor was."""
        while loc and loc not in self.origins:
            loc = loc[:-1]
        return self.origins.get(loc, 1)


def dotted(loc: Loc) -> str:
    """How people write a location: methods[2].params.eps."""
    text = ""
    for step in loc:
        if isinstance(step, int):
            text += f"[{step}]"
        elif len(step) <= MAX_SHOWN and _NAME.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{shown(step)}]"
    return text


def shown(value: Any) -> str:
    """A value for a message: its repr, cut where it is long; null is `nothing`."""
    return cut("nothing" if value is None else repr(value))


def cut(text: str, most: int = MAX_SHOWN) -> str:
    """A text for a message, cut where it is long."""
    return text if len(text) <= most else text[: most - 3] + "..."


# Reading ----------------------------------------------------------------------------------------------------------------


def read_document(content: bytes) -> Document:
    """Read a suite file. Where the file as a whole cannot be read, data is None and mistakes says why."""
    document = Document()
    try:
        document.data = _compose(_decode(content), document)
        if not isinstance(document.data, dict) and not document.mistakes:
            what = "the file is empty" if document.data is None else f"got {shown(document.data)} instead of keys"
            raise _Refused(document.origin(()), f"{what}; a suite is a mapping with schema, name, tasks and methods")
    except _Refused as refused:
        document.data = None
        document.mistakes.append(Mistake(refused.line, "", refused.text))
    return document


def read_value(text: str) -> Document:
    """Read one value, such as that of an option; the empty text is null."""
    document = Document()
    try:
        document.data = _compose(_decode(text.encode("utf-8", "surrogatepass")), document)
    except _Refused as refused:
        document.mistakes.append(Mistake(refused.line, "", refused.text))
    return document


class _Refused(Exception):
    """The rest of the text cannot be read."""

    def __init__(self, line: Origin, text: str) -> None:
        super().__init__(text)
        self.line, self.text = line, text


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _Refused(1, f"the file has {len(content)} bytes; a suite has at most {MAX_BYTES}: split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise _Refused(line, f"byte {content[exc.start]:#04x} is no UTF-8; save the file as UTF-8") from exc
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise _Refused(line, f"YAML has no character {found.group()!r}; remove it")
    return text


def _compose(text: str, document: Document) -> Value:
    """The one document of the text; None where it is empty. Fills the document's origins, mistakes and unread."""
    events = _events(text)
    composer = _Composer(events, document)
    next(events)  # the start of the stream
    if type(start := next(events)).__name__ == "StreamEndEvent":
        return None
    if start.version not in (None, (1, 2)) or start.tags:
        raise _Refused(1, "YAML directives are not read; remove the lines that start with %")
    value = composer.node(next(events), ())
    next(events)  # the end of the document
    after = next(events)
    if type(after).__name__ != "StreamEndEvent":
        raise _Refused(after.start_mark.line + 1, "a second document starts here; write each suite in a file of its own")
    return value


def _events(text: str) -> Iterator[Any]:
    """ruamel's events. Raises _Refused where the text is no YAML."""
    # Imported here: `harness --help` reads no suite, and the import costs 30 ms.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        for number, event in enumerate(YAML(typ="safe", pure=True).parse(text)):
            if number > MAX_EVENTS:
                line = event.start_mark.line + 1
                raise _Refused(line, f"more than {MAX_EVENTS} names and values stand before this line; split the suite")
            yield event
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        what = " ".join(f"{exc.context or ''} {exc.problem or ''}".split()).expandtabs(1)
        mend = "indent with spaces" if "'\\t'" in what else "look at the indentation, brackets, colons and quotes here"
        raise _Refused(mark.line + 1 if mark else 1, f"this is no YAML ({what}); {mend}") from exc
    except YAMLError as exc:
        raise _Refused(1, f"this is no YAML ({' '.join(str(exc).split())}); look at its characters") from exc
    except (ValueError, OverflowError) as exc:  # ruamel hands chr() and int() what stands after a backslash or a %
        raise _Refused(1, f"this is no YAML ({exc}); look at its escapes and directives") from exc


@dataclass
class _Composer:
    """Turns events into values. Our own, so that nothing is resolved, constructed or shared that a suite may not use."""

    events: Iterator[Any]
    document: Document

    def node(self, event: Any, loc: Loc) -> Value:
        """The value that starts with the event, at loc; takes all its events."""
        line = event.start_mark.line + 1
        self.document.origins.setdefault(loc, line)
        if len(loc) > MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels; a suite needs five")
        kind = type(event).__name__
        if kind == "AliasEvent":
            self.refuse(line, loc, f"aliases are not read; write the value out instead of *{cut(event.anchor)}")
            return None
        if event.anchor is not None:
            self.mistake(line, loc, f"anchors are not read; remove &{cut(event.anchor)}")
        if event.tag is not None:
            self.refuse(line, loc, f"tags are not read; remove {_written_tag(event.tag)}")
        if kind == "ScalarEvent":
            return self.scalar(event, line, loc)
        return self.sequence(loc) if kind == "SequenceStartEvent" else self.mapping(loc)

    def sequence(self, loc: Loc) -> list[Value]:
        items: list[Value] = []
        while type(event := next(self.events)).__name__ != "SequenceEndEvent":
            items.append(self.node(event, (*loc, len(items))))
        return items

    def mapping(self, loc: Loc) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while type(event := next(self.events)).__name__ != "MappingEndEvent":
            line = event.start_mark.line + 1
            key = self.key(event, line, loc)
            if key is None or key in found:
                self.skip(loc)
                if key is not None:
                    first = self.document.origin((*loc, key))
                    self.mistake(line, (*loc, key), f"the key stands here a second time (first on line {first}); remove one")
                continue
            self.document.origins[(*loc, key)] = line
            found[key] = self.node(next(self.events), (*loc, key))
        return found

    def key(self, event: Any, line: int, loc: Loc) -> str | None:
        """A key's name; None, with a mistake, for anything else."""
        if type(event).__name__ != "ScalarEvent":
            _Composer(self.events, Document()).node(event, (*loc, ""))  # one deeper: keys in keys are bounded too
            self.mistake(line, loc, "a key is a name, not a list, a mapping or an alias")
            return None
        if event.anchor is not None or event.tag is not None:
            self.mistake(line, loc, f"anchors and tags are not read; remove the one before the key {shown(event.value)}")
        if event.implicit[0] and event.value == "<<":
            self.mistake(line, loc, "merge keys are not read; write the keys out")
            return None
        value = self.scalar(event, line, loc)
        if not isinstance(value, str):
            self.mistake(line, loc, f"a key is a name; got {shown(value)}")
            return None
        return value

    def skip(self, loc: Loc) -> None:
        """Read a value whose key is not used, for the mistakes in it."""
        aside = Document()
        _Composer(self.events, aside).node(next(self.events), (*loc, ""))
        self.document.mistakes += aside.mistakes

    def scalar(self, event: Any, line: int, loc: Loc) -> Value:
        text: str = event.value
        if not event.implicit[0]:  # quoted, or a block
            if not _SURROGATE.search(text):
                return text
            wrong = f"{shown(text)} holds half a character; remove the escape"
        elif text in _CONSTANTS:
            return _CONSTANTS[text]
        elif _INT.fullmatch(text):
            number = _read_int(text)
            if number is not None:
                return number
            wrong = f"{shown(text)} has more than 64 bits; write a smaller number, or put it in quotes"
        elif _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        elif _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            wrong = f"{shown(text)} is not a finite number; write one, or put it in quotes"
        else:
            return text
        self.refuse(line, loc, wrong)
        return None

    def refuse(self, line: int, loc: Loc, text: str) -> None:
        self.mistake(line, loc, text)
        self.document.unread.add(loc)

    def mistake(self, line: int, loc: Loc, text: str) -> None:
        if len(self.document.mistakes) >= MAX_MISTAKES:
            raise _Refused(line, f"{MAX_MISTAKES} mistakes stand above, and this is one more; mend those first")
        self.document.mistakes.append(Mistake(line, dotted(loc), text))


def _written_tag(tag: str) -> str:
    """!!int for YAML's own tags, whose long form few have seen."""
    return cut(tag.replace("tag:yaml.org,2002:", "!!"))


def _read_int(text: str) -> int | None:
    """A whole number in decimal, octal (0o) or hexadecimal (0x); None where it needs more than 64 bits."""
    if len(text) > 32:  # int() is quadratic in the digits
        return None
    number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return number if -(1 << 63) <= number < 1 << 63 else None
