"""What is said of a claim: frozen data, which the command line, the pages and SQL show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Word = Literal["supported", "refuted", "inconclusive", "not testable here"]


@dataclass(frozen=True)
class Decision:
    """One comparison of a rule: a number over the seeds, and the range in which it has to lie.

    what: in words, "accuracy of crrelu - relu on digits, mlp". low, high: the range, infinite where open; slack: how far beyond
    is still undecided. estimate with its interval: None where nothing is known yet. values: one number a seed, in the order of
    the seeds, None where it is missing. unit: of the estimate. p: of a sign-flip test against the nearer limit; effect_size:
    mean over standard deviation; power: of finding the claim's effect with this spread at this n; None where it has no meaning.
    seeds_needed: for a power of 80 %, for the claim's effect, or where it states none for the difference that was seen.
    detectable: the difference that is found with a power of 80 %. refuting_confidence: of the interval that has to lie beyond
    the range to refute; wider than the one shown where one condition of several refutes all. every: each single value has to
    lie in the range; the interval is then that of the values. lacks: why it is open though every attempt is there: cells that
    failed at every seed, seeds at which all that it compares failed or that give no number. wanted: what n is once all is
    there. tasks: n and values are of tasks, not of seeds.
    """

    what: str
    word: Word
    low: float
    high: float
    slack: float
    estimate: float | None
    interval_low: float | None
    interval_high: float | None
    confidence: float
    n: int
    unit: str = ""
    values: tuple[float | None, ...] = ()
    p: float | None = None
    effect_size: float | None = None
    power: float | None = None
    seeds_needed: int | None = None
    detectable: float | None = None
    refuting_confidence: float = 0.95
    every: bool = False
    lacks: str = ""
    wanted: int = 0
    tasks: bool = False


@dataclass(frozen=True)
class Verdict:
    """A claim under one protocol (its rule and exact series), on one machine and environment.

    reason: why this word, in a sentence. power: the least of the decisions' that are open. seeds_needed: for a power of 80 %.
    cost_ratio: median seconds of the paper's method over those of what it is compared with. attempts: those it rests on.
    missing: what has not run, or cannot. n, wanted: of the decision that lacks most; tasks: they count tasks, not seeds.
    protocol: digest of rule and series, "" where none is fixed; fixed_at: UTC.
    command: what would run or complete it, or ran it; "" where no run settles it. others: verdicts of the same protocol
    elsewhere ("machine: word").
    """

    claim: str
    paper: str
    says: str
    word: Word
    reason: str
    decisions: tuple[Decision, ...] = ()
    n: int = 0
    seeds: int = 0
    effect: float | None = None
    power: float | None = None
    seeds_needed: int | None = None
    cost_ratio: float | None = None
    attempts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    protocol: str = ""
    fixed_at: str = ""
    suite: str = ""
    machine: str = ""
    device: str = ""
    dtype: str = ""
    threads: int = 0
    torch_version: str = ""
    command: str = ""
    value: str = ""
    place: str = ""
    source: str = ""
    scaled_down: str = ""
    unverified: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    wanted: int = 0
    tasks: bool = False
