"""Options that several commands share, each with its variable; sizes, durations and lists as people write them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.showing import one_line

F = TypeVar("F", bound=Callable[..., Any])


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """click.option, also readable from HARNESS_<NAME>."""
    long = next(n for n in names if n.startswith("--")).split("/")[0]
    return click.option(*names, envvar="HARNESS_" + long.removeprefix("--").replace("-", "_").upper(), **settings)


def short(ref: str | None) -> str:
    """The bare name of a reference, as people write it: "dist/name" -> "name"; on one line, whatever a record holds."""
    return one_line(ref).rpartition("/")[2]


def example(text: str) -> str:
    """An epilog with one example that works."""
    return f"\b\nExample:\n  {text}"


registry_option = option(
    "--registry", type=click.Path(path_type=Path, file_okay=False), default=Path("registry/local"), show_default=True,
    help="Folder of the registry.",
)  # fmt: skip
data_dir_option = option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False, exists=True), default=None,
    help="Folder with data that is not embedded.",
)  # fmt: skip
json_option = option("--json", "as_json", is_flag=True, help="JSON on stdout, for machines.")


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """A reader of stdout that goes away (`| head`) ends the printing in silence, and is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class CommaList(click.ParamType[tuple[str, ...]]):
    """`a,b` or the option given twice."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(v.strip() for v in str(value).split(",") if v.strip())


class Limit(click.ParamType[float]):
    """A share below 1 ("0.1") or a number of trials ("20")."""

    name = "share|count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r}: write a share below 1 (0.1) or a whole number of trials (20)", param, ctx)
        if number <= 0 or (number >= 1 and number != int(number)):
            self.fail(f"{value!r}: write a share between 0 and 1, or a whole number of trials", param, ctx)
        return number


class Duration(click.ParamType[float]):
    """Seconds of "7d", "12h", "30m", "90s"."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        from harness.suite.schema import SECONDS

        amount, unit = str(value)[:-1], str(value)[-1:]
        if unit not in SECONDS or not amount.replace(".", "", 1).isdigit():
            self.fail(f"{value!r}: write a number with its unit ({', '.join(SECONDS)}), such as 7d", param, ctx)
        return float(amount) * SECONDS[unit]


class Shard(click.ParamType[tuple[int, int]]):
    """I/N, 1-based."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        index, _, of = str(value).partition("/")
        if not (index.isdigit() and of.isdigit() and 1 <= int(index) <= int(of)):
            self.fail(f"{value!r}: write I/N with 1 <= I <= N, for example 1/4", param, ctx)
        return int(index), int(of)
