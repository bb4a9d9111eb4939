"""Worlds whose truth is known, put before the real judge of claims: rows of made-up attempts in, the word of a verdict out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.claims.evidence import Evidence, Where
from harness.claims.fixing import Fixing, Place, Protocol, terms_of
from harness.claims.judging import judge_claim
from harness.claims.verdicts import Verdict
from harness.rules import All, AtLeast, Cell, Diff, Rule, Share, Within, cells
from harness.specs import Claim
from harness.stats import Interval
from tests.statistics.simulation import METHODS, Rate, covers, stream, tell

SEEDS = 10
FIXED_AT = datetime(2026, 1, 1, tzinfo=UTC)
SHARED = {"device": "cpu", "dtype": "float32", "threads": 1}
BASE, *RIVALS = (Cell(name, "task", "score") for name in ("method", "a", "b", "c", "d", "e"))
FAR = 100.0  # deviations: what is true beyond any doubt


@dataclass(frozen=True)
class Claimed:
    """A rule, and where the truth of each rival lies below the method's: 0 is the limit of each condition."""

    rule: Rule
    gaps: tuple[float, ...]
    extension: int = 0


def beats(rival: Cell) -> Within:
    return Within(Diff(BASE, rival), low=0.0)


TWO, FIVE = (tuple(beats(rival) for rival in RIVALS[:n]) for n in (2, 5))
CLAIMS = {
    "better, where there is no difference": Claimed(FIVE[0], (0.0,)),
    "the same with a declared extension to 20 seeds": Claimed(FIVE[0], (0.0,), extension=10),
    "better than both of two, no difference": Claimed(All(TWO), (0.0, 0.0)),
    "better than all of five, equal to one": Claimed(All(FIVE), (0.0, FAR, FAR, FAR, FAR)),
    "better than all of five, equal to all": Claimed(All(FIVE), (0.0,) * 5),
    "better than at least one of five, equal to all": Claimed(AtLeast(1, FIVE), (0.0,) * 5),
    "better than at least three of five, truly than two": Claimed(AtLeast(3, FIVE), (0.0, 0.0, 0.0, FAR, FAR)),
}


def judged(name: str, method: str, samples: int) -> Iterator[Verdict]:
    """Verdicts on draws of one claim; every method draws alike, and a seed does the same to all of them."""
    claimed = CLAIMS[name]
    n = SEEDS + claimed.extension
    generator = stream("ledger", name, method)
    shared = generator.normal(size=(samples, n))
    draw = METHODS[method]
    numbers = {BASE: shared + draw(generator, (samples, n))}
    for cell, gap in zip(RIVALS, claimed.gaps, strict=False):
        numbers[cell] = shared + draw(generator, (samples, n)) - gap
    yield from verdicts(claimed.rule, {cell: drawn.tolist() for cell, drawn in numbers.items()}, claimed.extension)


def judged_shares(share: float, limit: float, samples: int) -> Iterator[Verdict]:
    """Of a claim that more than `limit` of the seeds solve the task."""
    drawn = (stream("ledger", "share", share, limit).random((samples, SEEDS)) < share).astype(float)
    yield from verdicts(Within(Share(BASE, low=1.0), low=limit), {BASE: drawn.tolist()})


def verdicts(rule: Rule, numbers: Mapping[Cell, Sequence[Sequence[float]]], extension: int = 0) -> Iterator[Verdict]:
    """One for each sample. numbers: samples x seeds of each cell."""
    claim = Claim("c", "", rule, SEEDS, "", "", "", extension=extension)
    seeds = tuple(range(SEEDS + extension))
    places = tuple(Place(c, SHARED, tuple(f"{c.method}-{s}" for s in seeds)) for c in dict.fromkeys(cells(rule)))
    protocol = Protocol("p.c", terms_of(claim), seeds[:SEEDS], seeds[SEEDS:], places)
    fixing = Fixing(protocol, "s", FIXED_AT)
    for sample in range(len(numbers[BASE])):
        series = {
            key: [row_of(key, value)]
            for place in places
            for key, value in zip(place.series, numbers[place.cell][sample], strict=True)
        }
        (verdict,) = judge_claim("p.c", claim, [fixing], Evidence({Where("m", "2"): series}))
        yield verdict


def row_of(key: str, value: float) -> dict[str, Any]:
    metric = {"quantity": "score", "part": "test", "unit": "1", "better": "higher", "value": value, "worst": None}
    return {
        "series_key": key, "started_at": FIXED_AT + timedelta(days=1), "status": "ok", "attempt_id": key, "error": "",
        "role": "method", "code_digest": "c", "data_digest": "", "git_commit": "", "solve_s": 1.0,
        "measurements": [metric], "declared": [],
    }  # fmt: skip


@dataclass(frozen=True)
class Called:
    """How often each word was said; covered: the interval of the first condition holds the truth, 0."""

    supported: Rate
    refuted: Rate
    covered: Rate


def calls(found: Iterator[Verdict], truth: float = 0.0) -> Called:
    made = list(found)
    words = [verdict.word for verdict in made]
    firsts = [verdict.decisions[0] for verdict in made]
    held = [covers(Interval(d.estimate or 0.0, d.interval_low, d.interval_high, d.n), truth) for d in firsts]
    return Called(tell([w == "supported" for w in words]), tell([w == "refuted" for w in words]), tell(held))
