"""The pages, one module each: `Collected` in, `Page` out."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.blocks import Page
from harness.report.collecting import Collected
from harness.report.pages import attempts, claims, compare, kernels, leaderboard, machines, methods, nightly, overview


def make_pages(found: Collected, compared: tuple[str, str] | None = None) -> Iterator[Page]:
    """In the order of the navigation. compared: the two sides of the compare page; None: the best two of each board."""
    yield overview.make_page(found)
    yield leaderboard.make_page(found)
    yield claims.make_page(found)
    yield from methods.make_pages(found)
    yield compare.make_page(found, compared)
    yield kernels.make_page(found)
    yield nightly.make_page(found)
    yield machines.make_page(found)
    yield from attempts.make_pages(found)
