"""What the paper says of tables, as rules over tables: each gives one number, and the tables are the sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness import All, Cell, Claim, Diff, Over, Rank, Tasks, Within, given
from harness_papers.selu.tables import EMBEDDED, FROM, HUGE_PMLB, LARGE_PMLB, PMLB_20, RULES, SMALL_PMLB

ARXIV = "https://arxiv.org/abs/1706.02515"
NETS = ("relu-net", "batchnorm-net", "layernorm-net", "weightnorm-net", "highway-net", "residual-net")
PEERS = ("random-forest", "svm")
STEPS, LONG = 400, 1_000  # optimiser steps of the suites of 20 tables, and of all
SEEDS = 1  # a table has one split, as in the paper: the tables are the sample

Table = Callable[[str, str], Cell]  # method, metric -> cell


def on(task: str, steps: int, **parameters: str | int) -> Table:
    where = given(budget__steps=steps, **{f"task__{name}": value for name, value in parameters.items()})
    return lambda method, metric: Cell(method, task, metric, where)


def pmlb(name: str, steps: int) -> Table:
    if name in HUGE_PMLB and steps == LONG:
        return on("table", steps, name=name, subset=FROM)
    return on("table", steps, name=name)


WITHOUT_FOLDER = [on(name, STEPS) for name in EMBEDDED] + [on("rule-table", STEPS, name=name) for name in RULES]
OF_PMLB = [pmlb(name, STEPS) for name in PMLB_20]
ALL_SMALL, ALL_LARGE = ([pmlb(name, LONG) for name in names] for names in (SMALL_PMLB, LARGE_PMLB))


def more_accurate(tables: Sequence[Table], rivals: Sequence[str]) -> All:
    """The accuracy of snn above that of each rival, by Wilcoxon's signed ranks over the tables."""
    return All(tuple(
        Within(Tasks(tuple(Diff(of("snn", "accuracy"), of(rival, "accuracy")) for of in tables)), low=0.0) for rival in rivals
    ))  # fmt: skip


def better_rank(tables: Sequence[Table], rivals: Sequence[str]) -> All:
    """The mean rank of snn below that of each rival, among snn and all of them."""

    def rank(method: str, of: Table) -> Rank:
        return Rank(of(method, "accuracy"), tuple(of(one, "accuracy") for one in ("snn", *rivals)))

    return All(tuple(
        Within(Tasks(tuple(Diff(rank("snn", of), rank(rival, of)) for of in tables), "mean"), high=0.0) for rival in rivals
    ))  # fmt: skip


def deeper(tables: Sequence[Table], rivals: Sequence[str]) -> Within:
    """The hidden layers that tuning chose for snn above the mean of those that it chose for the rivals."""
    pairs = tuple(
        Diff(of("snn", "hidden_layers"), Over(tuple(of(rival, "hidden_layers") for rival in rivals), "mean")) for of in tables
    )
    return Within(Tasks(pairs), low=0.0)


SMALLER = (
    "{tables} instead of 121 of UCI; {steps} steps of 64 rows for every net, without early stopping; eight quasi-random "
    "settings of depth (2 to 32), width (32, 64), rate and dropout for each net, the best on the validation part; weight norm "
    "without data-dependent first weights; nominal features are codes. One split a table"
)
DRAWN = SMALLER.format(tables="4 real tables, and 16 of UCI and PMLB that a rule defines,", steps=STEPS)
TWENTY = SMALLER.format(tables="20 tables of PMLB, ten of them with 1,000 rows or more, at even steps by rows", steps=STEPS)
WHOLE = SMALLER.format(tables="98 distinct tables of PMLB, at most 8,000 rows of each to learn from", steps=f"{LONG:,}")
GRID = ("the paper's grid of hyper-parameters and its early stopping", "the paper's ranks")
BEATS = "SNNs significantly outperform all competing feed-forward nets at 121 UCI tasks"
RIVALS = "nets with ReLU, batch norm, layer norm, weight norm, highway and residual layers"


def claim(name: str, says: str, rule: All | Within, scaled_down: str, value: str = BEATS) -> Claim:
    return Claim(
        name, says, rule, SEEDS, value, "abstract, UCI tables", ARXIV, scaled_down=scaled_down, unverified=GRID
    )  # fmt: skip


def first(end: str, tables: Sequence[Table], where: str, scaled_down: str) -> Claim:
    says = f"Tuned under the same trials, SELU nets are more accurate than {RIVALS} {where}"
    return claim(f"first-on-{end}", says, more_accurate(tables, NETS), scaled_down)


def best_mean_rank(end: str, tables: Sequence[Table], where: str, scaled_down: str) -> Claim:
    says = f"Tuned under the same trials, SELU nets have a better mean rank than {RIVALS} {where}"
    return claim(f"best-mean-rank-on-{end}", says, better_rank(tables, NETS), scaled_down)


def chosen_deeper(end: str, tables: Sequence[Table], where: str, scaled_down: str) -> Claim:
    says = f"The SELU nets that validation chooses are deeper than the other nets that it chooses {where}"
    value = "the winning SNN architectures are often very deep"
    return claim(f"chosen-deeper-on-{end}", says, deeper(tables, NETS), scaled_down, value)


DRAWN_20 = ("tables", WITHOUT_FOLDER, "over 20 tables that need no data folder", DRAWN)
REAL_20 = ("pmlb", OF_PMLB, "over 20 tables of PMLB", TWENTY)
SMALL = ("small-pmlb", ALL_SMALL, "over the tables of PMLB below 1,000 rows", WHOLE)
LARGE = ("large-pmlb", ALL_LARGE, "over the tables of PMLB with 1,000 rows or more", WHOLE)

CLAIMS = (
    *(make(*about) for about in (DRAWN_20, REAL_20) for make in (first, best_mean_rank, chosen_deeper)),
    *(make(*about) for about in (SMALL, LARGE) for make in (first, chosen_deeper)),
    claim(
        "beats-forest-and-svm-on-large-pmlb",
        "Over the tables of PMLB with 1,000 rows or more, SELU nets are more accurate than random forests and SVMs",
        more_accurate(ALL_LARGE, PEERS), WHOLE, "an advantage on the larger tables (the paper's numbers are not verified)",
    ),
)  # fmt: skip
