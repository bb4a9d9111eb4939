"""What a campaign of faults finds: a row of docs/reliability.md. Nothing is broken here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Tally:
    """One kind of fault, tried many times.

    fault: what was done, to what.   tried: how often; `of` says of what ("kills", "flips", "states").
    lost: acknowledged records that were not there afterwards.
    wrong: records that were there and differed, were doubled or were never made; readers that failed; damage not found.
    left_over: processes that outlived it; None where the campaign starts none.   notes: what else was counted, for people.
    skipped: why it could not be tried here; all counts are 0 then, and the page says so.
    """

    fault: str
    tried: int
    of: str
    lost: int
    wrong: int
    left_over: int | None = None
    notes: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.wrong or self.left_over)


# folder: empty, on a disk.   times: how often, in the campaign's own unit.   seed: of all that is random.
# pictures: where a campaign may leave a picture for the page, None: nowhere.
Campaign: TypeAlias = Callable[[Path, int, int, Path | None], list[Tally]]


@dataclass(frozen=True)
class Part:
    """A campaign by name. full: `times` for the page; quick: for a fast look."""

    campaign: str  # "module:function" under tests.faults
    full: int
    quick: int

    def load(self) -> Campaign:
        module, _, function = self.campaign.partition(":")
        found: Campaign = getattr(importlib.import_module(f"tests.faults.{module}"), function)
        return found
