"""What may reach a terminal, a picture, a spreadsheet or a JSON parser, whatever a record, a plugin or a file name holds.

A registry may be merged from strangers and a trial may print anything: an escape sequence retitles a terminal, moves its
cursor, or hides lines; a bidirectional override turns a name round. They are shown (`\\x1b`), never obeyed.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

# Control characters but tab and newline (a carriage return only where it ends a line), line and paragraph separators,
# what turns the direction of text or has no width, tags, halves of surrogate pairs.
HIDDEN = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
FORMULA = re.compile("[=+\\-@\t\r]")  # how a spreadsheet knows a cell that it computes, with commands of the system in it
MAX_LABEL = 60  # characters
LARGE = 1e6  # from here on a number is written with its exponent


def visible(text: str) -> str:
    """The text with what a terminal would obey, or not show, written as Python escapes."""
    return HIDDEN.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def one_line(value: object) -> str:
    """A name or a word for one line of output: a newline in it must not look like a line of ours; `-` for nothing."""
    if value is None:
        return "-"
    return visible(str(value)).replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")


def short_label(text: str, number: int) -> str:
    """A name for one line of a picture: visible, cut where it is long, with a number that keeps cut names apart."""
    shown = one_line(text[: 2 * MAX_LABEL])
    return shown if len(shown) <= MAX_LABEL else f"{shown[:MAX_LABEL]}… #{number}"


def interval_text(mean: float, low: float | None, high: float | None, *, signed: bool = False) -> str:
    """mean ± half-width, to the digits that the half-width leaves meaning."""
    sign = "+" if signed else ""
    if low is None or high is None or not math.isfinite(high - low):
        return f"{mean:{sign}.4g}"
    half = (high - low) / 2
    digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 4
    if digits > 8 or max(half, abs(mean)) >= LARGE:
        return f"{mean:{sign}.4g} ±{half:.2g}"
    return f"{mean:{sign}.{digits}f} ±{half:.{digits}f}"


def finite(value: Any) -> Any:
    """The value as strict JSON can say it: NaN and infinities, which JSON has not, are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(below) for key, below in value.items()}
    return [finite(below) for below in value] if isinstance(value, list | tuple) else value


def cell(value: Any) -> Any:
    """The value for CSV: text that a spreadsheet would compute starts with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


class Visible(io.TextIOBase):
    """A text stream before another one: what is written comes out visible, and encodable, on any terminal.

    rich writes past it, to `rich_proxied_file`, for its own colours; its consoles here make each text visible themselves.
    It has no `buffer`, so that nobody writes bytes past it by mistake.
    """

    def __init__(self, under: TextIO) -> None:
        self.under = self.rich_proxied_file = under

    def write(self, text: str | bytes, /) -> int:
        # Bytes are what click writes for a shell's Tab key; they are UTF-8, and as little to be obeyed.
        shown = visible(text if isinstance(text, str) else text.decode("utf-8", "backslashreplace"))
        encoding = self.encoding or "utf-8"
        self.under.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.under, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return getattr(self.under, "errors", None)

    def flush(self) -> None:
        self.under.flush()

    def isatty(self) -> bool:
        return self.under.isatty()

    def fileno(self) -> int:
        return self.under.fileno()

    def writable(self) -> bool:
        return True


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """Put `Visible` before stdout and stderr."""
    with contextlib.redirect_stdout(Visible(sys.stdout)), contextlib.redirect_stderr(Visible(sys.stderr)):
        yield


def setting_texts(shared: Mapping[str, Any]) -> list[str]:
    """Net and training of a board, where there are any: "mlp width 128 depth 2", "adamw lr 0.02 batch 64"."""
    net, train = shared["net"], shared.get("train") or {}  # a suite may list several, whose boards differ in nothing else
    parts = [" ".join([str(net["arch"]), *(f"{k} {net[k]}" for k in ("width", "depth", "norm") if k in net)])] if net else []
    trained = [word + str(train[k]) for word, k in (("", "optimizer"), ("lr ", "lr"), ("batch ", "batch")) if k in train]
    return parts + ([" ".join(trained)] if trained else [])
