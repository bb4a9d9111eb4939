"""A rule and the values of its cells in, one three-valued word out, with each decision that it rests on.

The chance that a rule is called supported where it does not hold, or refuted where it does, is at most alpha, however many
conditions it has (alpha / 2 where each condition has one limit). For that a condition among others is called at its share of
alpha. Of "k of m": if fewer hold, m - k + 1 do not, and one of these has to be called supported; if it holds, k do, and one of
these has to be called refuted. So the former is done at alpha / (m - k + 1), the latter at alpha / k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.claims.numbers import Shared, Values, numbers, ranges, shared_given, unit_of, words
from harness.claims.verdicts import Decision, Word
from harness.records import FAILURES
from harness.rules import All, Cell, Corr, Diff, Every, Number, Over, Rule, Seeds, Share, Statistic, Tasks, Within, cells
from harness.stats import (
    Interval,
    binomial_interval,
    correlation_interval,
    detectable_effect,
    effect_size,
    iqm_interval,
    median_interval,
    power_of_paired_t,
    power_of_share,
    safe_mean,
    seeds_needed,
    seeds_needed_for_share,
    sign_flip_p,
    signed_rank_interval,
    signed_rank_p,
    t_interval,
)

FEWEST_PAIRS = 10
ROUNDING = 1e-12  # relative; doubles have 1e-16
BROKE = ("failed", "oom", "timeout")  # these say nothing of the method where all seeds end so; a divergence does
OVER_SEEDS = {"mean": t_interval, "median": median_interval, "iqm": iqm_interval}
OVER_TASKS = {"mean": t_interval, "signed-rank": signed_rank_interval}


@dataclass(frozen=True)
class Ends:
    """The seeds in their order, and of each cell how its attempts at them ended; "" where none did."""

    seeds: Sequence[int]
    statuses: Mapping[Cell, Sequence[str]]

    def of(self, cell: Cell, position: int) -> str:
        return self.statuses[cell][position] if cell in self.statuses else ""


@dataclass(frozen=True)
class Setting:
    """What is common to all decisions of a rule at one look. n: its seeds. shared: what all cells are given, for words."""

    values: Values
    units: Mapping[Cell, str]
    n: int
    effect: float | None
    shared: Shared
    ends: Ends


@dataclass(frozen=True)
class Levels:
    """The chance of error that a part of a rule may spend, two-sided: on being called supported, on being called refuted."""

    support: float
    refute: float


def decide(
    rule: Rule, values: Values, units: Mapping[Cell, str], n: int, alpha: float, effect: float | None, ends: Ends | None = None
) -> tuple[Word, tuple[Decision, ...]]:
    """The word of a rule on the first n seeds, and its decisions in the order of the rule. alpha: two-sided, of this look.

    ends: how the attempts ended; None: all are ok, at seeds 0, 1, ...
    """
    at = Setting(values, units, n, effect, shared_given(rule), ends or Ends(range(n), {}))
    return judge(rule, at, Levels(alpha, alpha))


def judge(rule: Rule, at: Setting, levels: Levels) -> tuple[Word, tuple[Decision, ...]]:
    if isinstance(rule, Within):
        one = judge_within(rule, at, levels)
        return one.word, (one,)
    if isinstance(rule, Every):
        one = judge_every(rule, at)
        return one.word, (one,)
    k, m = (len(rule.rules) if isinstance(rule, All) else rule.k), len(rule.rules)
    shares = Levels(levels.support / max(1, m - k + 1), levels.refute / max(1, k))
    judged = [judge(part, at, shares) for part in rule.rules]
    return combine(k, [word for word, _ in judged]), tuple(one for _, decisions in judged for one in decisions)


def combine(k: int, found: Sequence[Word]) -> Word:
    """k of them have to be supported. All of them is k = len."""
    if sum(word == "supported" for word in found) >= k:
        return "supported"
    return "refuted" if sum(word != "refuted" for word in found) < k else "inconclusive"


def fewest_seeds(rule: Rule) -> int:
    """With fewer, a part of the rule decides nothing. Where the tasks are the sample one seed does."""
    if isinstance(rule, Within) and isinstance(rule.node, Tasks):
        return 1
    if isinstance(rule, Within | Every):
        return rule.at_least if isinstance(rule, Every) else FEWEST_PAIRS
    return max(map(fewest_seeds, rule.rules))


# One decision ---------------------------------------------------------------------------------------------------------


def judge_within(rule: Within, at: Setting, levels: Levels) -> Decision:
    """The interval at the level of supporting is shown; where refuting takes a wider one, that decides."""
    known = Decision(
        words(rule.node, at.shared), "inconclusive", rule.low, rule.high, rule.slack, None, None, None, 1 - levels.support, 0,
        unit_of(rule.node, at.units), refuting_confidence=1 - levels.refute,
    )  # fmt: skip
    pairs = pairs_of(rule.node, at)
    there = [pair for pair in pairs if None not in pair]
    known = replace(
        known, n=len(there), wanted=len(pairs), tasks=isinstance(rule.node, Tasks),
        values=tuple(shown(pair) for pair in pairs), lacks=lacks(rule.node, at, pairs),
    )  # fmt: skip
    if not there:
        return known
    shown_interval, refuting = (interval(rule.node, there, 1 - level) for level in (levels.support, levels.refute))
    if shown_interval is None or refuting is None:
        return known
    known = replace(known, estimate=shown_interval.mean, interval_low=shown_interval.low, interval_high=shown_interval.high)
    known = with_power(rule, known, there, at.effect)
    if len(there) < len(pairs) or len(pairs) < FEWEST_PAIRS or known.lacks:
        return known
    return replace(known, word=word_of(rule, shown_interval, refuting, size_of(rule.node, at)))


def word_of(rule: Within, supporting: Interval, refuting: Interval, size: float) -> Word:
    """Touching a limit is not enough: a method that gives the same numbers as another is not better."""
    low, high = ends(supporting)
    if above(low, rule.low, size) and above(rule.high, high, size):
        return "supported"
    low, high = ends(refuting)
    if above(rule.low - rule.slack, high, size) or above(low, rule.high + rule.slack, size):
        return "refuted"
    return "inconclusive"


def ends(found: Interval) -> tuple[float, float]:
    """NaN where there is no interval: nothing lies above or below it."""
    return (math.nan, math.nan) if found.low is None or found.high is None else (found.low, found.high)


def above(a: float, b: float, size: float = 0.0) -> bool:
    """By more than what is only rounding of numbers of this size: 0.92 - 0.9 is not above 0.02. False for NaN."""
    return a > b and not math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING * size)


def size_of(node: Statistic, at: Setting) -> float:
    """Of the values whose differences a number is: near 0 it is rounded as they are. 0 for what is no difference of them."""
    match node:
        case Cell():
            there = [abs(value) for value in at.values[node][: at.n] if value is not None]
            return max(filter(math.isfinite, there), default=0.0)
        case Diff(a, b):
            return max(size_of(a, at), size_of(b, at))
        case Over(nodes, _) | Tasks(nodes, _):
            return max(size_of(part, at) for part in nodes)
        case Seeds(of, _):
            return size_of(of, at)
        case _:
            return 0.0


def judge_every(rule: Every, at: Setting) -> Decision:
    """Single values, no sample: a counterexample refutes whatever else is missing. The range of what was seen is shown."""
    pairs = pairs_of(rule.node, at)
    found = tuple(value for (value,) in pairs)
    there = [value for value in found if value is not None]
    wrong = [value for value in there if not rule.low <= value <= rule.high]
    enough = len(there) == at.n >= rule.at_least
    word: Word = "refuted" if wrong else "supported" if enough else "inconclusive"
    if broken(rule.node, at):
        word = "inconclusive"
    return Decision(
        f"every {words(rule.node, at.shared)}", word, rule.low, rule.high, 0.0, safe_mean(there) if there else None,
        min(there, default=None), max(there, default=None), 1.0, len(there), unit_of(rule.node, at.units), found,
        refuting_confidence=1.0, every=True, wanted=at.n, lacks=lacks(rule.node, at, pairs),
    )  # fmt: skip


Pair = tuple[float | None, ...]


def pairs_of(node: Statistic, at: Setting) -> list[Pair]:
    """What each seed contributes: one number, or two of a correlation; of `Tasks` what each task does. None where all that is
    compared failed: no tie."""
    void = [] if isinstance(node, Tasks) else all_failed(node, at)
    return [(None,) * len(pair) if i in void else pair for i, pair in enumerate(known_pairs(node, at))]


def mean_of_seeds(node: Number, at: Setting) -> float | None:
    found = [value for (value,) in pairs_of(node, at)]
    there = [value for value in found if value is not None]
    return safe_mean(there) if there and len(there) == len(found) else None


def known_pairs(node: Statistic, at: Setting) -> list[Pair]:
    match node:
        case Corr(a, b):
            return list(zip(numbers(a, at.values, at.n), numbers(b, at.values, at.n), strict=True))
        case Seeds(inner, _):
            return [(value,) for value in numbers(inner, at.values, at.n)]
        case Tasks(nodes, _):
            return [(mean_of_seeds(one, at),) for one in nodes]
        case Share(inner, low, high):
            single = numbers(inner, at.values, at.n)
            return [(None if value is None else float(low <= value <= high),) for value in single]
        case _:
            return [(value,) for value in numbers(node, at.values, at.n)]


def all_failed(node: Statistic, at: Setting) -> list[int]:
    """The positions of the seeds at which every cell failed. A single cell is compared with none: its failure counts."""
    named = dict.fromkeys(cells(node))
    return [i for i in range(at.n) if len(named) > 1 and all(at.ends.of(cell, i) in FAILURES for cell in named)]


def broken(node: Statistic, at: Setting) -> list[Cell]:
    """The cells of which no attempt came to an end of the method's own."""
    return [cell for cell in dict.fromkeys(cells(node)) if all(at.ends.of(cell, i) in BROKE for i in range(at.n))]


def lacks(node: Statistic, at: Setting, pairs: Sequence[Pair]) -> str:
    """Why a decision is open though no attempt lacks: cells that are broken, seeds that tell nothing; "" where none."""
    told = [f"{words(cell, at.shared)} failed at every seed, which says nothing of the method" for cell in broken(node, at)]
    if isinstance(node, Tasks):
        each = [lacks(one, at, pairs_of(one, at)) for one in node.nodes] if not told else []
        return "; ".join(told + list(filter(None, each))[:1])
    void = all_failed(node, at)
    if void and not told:
        told.append(f"all that is compared failed at seeds {ranges([at.ends.seeds[i] for i in void])}, which is no tie")
    there = {i for i in range(at.n) if all(at.values[cell][i] is not None for cell in cells(node))}
    none = [at.ends.seeds[i] for i, pair in enumerate(pairs) if None in pair and i in there and i not in void]
    if none:
        told.append(f"seeds {ranges(none)} give no number")
    return "; ".join(told)


def shown(pair: Pair) -> float | None:
    """What a decision shows of a seed; of a correlation there is no one number a seed."""
    return pair[0] if len(pair) == 1 else None


def interval(node: Statistic, pairs: Sequence[Pair], confidence: float) -> Interval | None:
    columns = [[value for value in column if value is not None] for column in zip(*pairs, strict=True)]
    match node:
        case Corr():
            return correlation_interval(columns[0], columns[1], confidence)
        case Share():
            return binomial_interval(round(sum(columns[0])), len(columns[0]), confidence)
        case Seeds(_, how):
            return OVER_SEEDS[how](columns[0], confidence)
        case Tasks(_, how):
            return OVER_TASKS[how](columns[0], confidence)
        case _:
            return t_interval(columns[0], confidence)


# Power ----------------------------------------------------------------------------------------------------------------


def with_power(rule: Within, known: Decision, pairs: Sequence[Pair], effect: float | None) -> Decision:
    """p, effect size and power of a mean, power of a share; the others have none. Of tasks no power: their number is given."""
    alpha, n = 1 - known.confidence, len(pairs)
    if isinstance(rule.node, Share):
        if effect is None:
            return known
        limit, share = (rule.low, rule.low + effect) if math.isfinite(rule.low) else (1 - rule.high, 1 - rule.high + effect)
        return replace(
            known, power=power_of_share(min(1.0, share), limit, n, alpha),
            seeds_needed=seeds_needed_for_share(min(1.0, share), limit, alpha=alpha),
        )  # fmt: skip
    if isinstance(rule.node, Corr) or (isinstance(rule.node, Seeds) and rule.node.how != "mean"):
        return known
    single = [value for (value,) in pairs if value is not None]
    limit = nearer(rule, known.estimate)
    if isinstance(rule.node, Tasks) and rule.node.how == "signed-rank":
        return replace(known, p=signed_rank_p(single, limit))
    known = replace(known, p=sign_flip_p(single, limit), effect_size=effect_size(single, limit))
    if isinstance(rule.node, Tasks):
        return known
    sd = spread(single)
    if sd is None:
        return known
    seen = abs((known.estimate or 0.0) - limit)
    return replace(
        known,
        power=None if effect is None else power_of_paired_t(effect, sd, n, alpha),
        seeds_needed=seeds_needed(seen if effect is None else effect, sd, alpha=alpha) if math.isfinite(seen) else None,
        detectable=detectable_effect(sd, n, alpha=alpha),
    )


def nearer(rule: Within, estimate: float | None) -> float:
    """The limit that is nearer to the estimate; 0 where the range has none."""
    limits = [limit for limit in (rule.low, rule.high) if math.isfinite(limit)]
    return min(limits, key=lambda limit: abs((estimate or 0.0) - limit), default=0.0)


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation; None where it is no finite number."""
    if len(values) < 2:
        return None
    mean = safe_mean(values)
    sd = math.hypot(*[value - mean for value in values]) / math.sqrt(len(values) - 1)
    return sd if math.isfinite(sd) else None
