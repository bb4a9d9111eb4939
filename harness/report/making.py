"""One call for all: a registry in, a folder of pages out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import __version__
from harness.errors import HarnessError
from harness.exporting.writing import replacing
from harness.report.artefacts import COPY
from harness.report.collecting import Collected, collect
from harness.report.markdown import render_results
from harness.report.pages import make_pages
from harness.report.rendering import ASSETS, Heading, charts_of, render_pages
from harness.showing import one_line

if TYPE_CHECKING:
    from harness.claims.verdicts import Verdict
    from harness.registry import Registry
    from harness.specs import Paper


@dataclass(frozen=True)
class Made:
    """What was written."""

    folder: Path
    pages: int
    charts: int
    size_bytes: int
    attempts: int


def make_report(
    registry: Registry,
    folder: Path,
    papers: Iterable[Paper] = (),
    methods: Mapping[str, Mapping[str, str]] | None = None,
    verdicts: Sequence[Verdict] = (),
    compared: tuple[str, str] | None = None,
    results: tuple[Path, str] | None = None,
    tell: Callable[[str], None] = lambda file: None,
) -> Made:
    """Write the pages, all or none: a report that is there stays until the new one is whole. tell: each page's file name.

    results: also a Markdown document of boards, claims and kernels, and the command that writes it.
    Raises HarnessError for a folder that holds something else, MissingError without the extra `report`.
    """
    refuse_strangers(folder)
    found = collect(registry, papers, verdicts, methods, compared)
    pages = list(make_pages(found, compared))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
        written = Path(aside) / "report"
        written.mkdir()
        size = 0
        for name, text in render_pages(pages, heading_of(found)):
            tell(name)
            size += (written / name).write_text(text, encoding="utf-8")
        for name, content in copies_of(found).items():
            size += (written / name).write_bytes(content)
        put(written, folder)
    if results is not None:
        file, command = results
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as whole:
            whole.write_text(render_results(found, heading_of(found), command), encoding="utf-8")
    return Made(folder, len(pages), sum(map(charts_of, pages)), size, sum(row["n"] for row in found.counts))


def copies_of(found: Collected) -> dict[str, bytes]:
    """File name -> content, of the artefacts that pages show."""
    return {a.file: a.content for shown in found.artefacts.values() for a in shown if a.file}


def refuse_strangers(folder: Path) -> None:
    """A folder full of other things is a mistyped -o: nothing of it may be lost."""
    if folder.exists() and not folder.is_dir():
        raise HarnessError(f"{folder}: is a file; name a folder with -o")
    strangers = sorted(f.name for f in folder.iterdir() if not is_ours(f)) if folder.is_dir() else []
    if strangers:
        listed = ", ".join(map(one_line, strangers[:3])) + (", ..." if len(strangers) > 3 else "")
        raise HarnessError(f"{folder}: holds what is no report ({listed}); name an empty or a new folder with -o")


def is_ours(file: Path) -> bool:
    return file.is_file() and (file.suffix == ".html" or file.name in ASSETS or COPY.fullmatch(file.name) is not None)


def put(written: Path, folder: Path) -> None:
    """The new report in the place of the old one."""
    if folder.is_dir():
        old = written.parent / "old"
        folder.rename(old)
        written.rename(folder)
        shutil.rmtree(old)
    else:
        written.rename(folder)


def heading_of(found: Collected) -> Heading:
    newest = found.newest
    at = newest["at"]
    return Heading(
        version=__version__,
        newest="" if at is None else f"{at:%Y-%m-%d %H:%M} UTC",
        commit=one_line(newest["git_commit"])[:12] if newest["git_commit"] else "",
        torch=one_line(newest["torch_version"]) if newest["torch_version"] else "",
        attempts=f"{sum(row['n'] for row in found.counts):,}",
        machines=", ".join(one_line(m.name) for m in found.machines),
    )
