"""Several tasks together: boards in, one table for each group of them that can be pooled, out. Serves pages, no verdict.

Boards are pooled that agree in all but task and budget (a task may have its own) and have most of their methods in common. The
interquartile mean needs one metric for all tasks; the probability of improvement, the mean rank and the signed-rank test need
none but for the unit of the differences. Failures count as the metric's declared `worst`, as on the boards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.identity import canonical
from harness.leaderboard import SHARED, Board, Metric, Row
from harness.stats import (
    FEWEST_PAIRS,
    Interval,
    holm,
    iqm,
    mean_ranks,
    performance_profile,
    probability_of_improvement,
    signed_rank_p,
    stratified_bootstrap_interval,
    t_interval,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reals = NDArray[np.float64]

ALIKE = tuple(name for name in SHARED if name not in ("task", "task_params", "budget"))
REPLICATIONS = 2_000  # enough for two digits of an interval that is itself indicative
# A score costs as much to draw as so many comparisons; an interval that costs more than MOST is left out: a tenth of a second.
DRAWING, MOST = 25, 1e8
SEED = 20261128  # of the bootstrap: the same boards give the same intervals
TAUS = 41
MOST_TASKS = 12  # that have a column each


@dataclass(frozen=True)
class PooledRow:
    """One method over all tasks of a pool.

    iqm: interquartile mean of the metric, in its unit; None where the tasks' metrics differ. improvement: the chance that one
    of its runs is better than one of the baseline's on the same task, averaged over the tasks; None for the baseline itself.
    rank: the mean over the tasks of the ranks of the means, 1 is best, with the t interval over the tasks. p: of Wilcoxon's
    test that the means differ from the baseline's, the tasks being the sample, after Holm over all methods of the pool; None
    for the baseline itself, where the metrics differ, and below 5 tasks. profile: the share of runs that are better than each
    of the pool's `taus`.
    intervals: of the mean of each task, as on its board. runs: seeds a task, of which n_failed failed (over all tasks).
    """

    method: str
    role: str
    ref: str
    iqm: Interval | None
    improvement: Interval | None
    rank: Interval
    p: float | None
    profile: tuple[float, ...]
    intervals: tuple[Interval | None, ...]
    runs: int
    n_failed: int


@dataclass(frozen=True)
class Pool:
    """Methods over several tasks, best mean rank first. metric: None where the tasks rank by different ones.

    left_out: methods that some task knows and that are not pooled, with the reason. refs: of each task, the full name and the
    parameters in JSON, as records have them.
    """

    tasks: tuple[str, ...]
    shared: Mapping[str, Any]
    metric: Metric | None
    baseline: str
    taus: tuple[float, ...]
    rows: tuple[PooledRow, ...]
    left_out: Mapping[str, str]
    refs: tuple[tuple[str, str], ...]

    @property
    def shown_tasks(self) -> tuple[str, ...]:
        """Those with a column each: all, or none where they would fill the page."""
        return self.tasks if len(self.tasks) <= MOST_TASKS else ()


def make_pools(boards: Sequence[Board]) -> list[Pool]:
    """One a group of boards of at least two tasks with at least two methods; empty where there is none."""
    return [pool for group in groups_of(boards) if len(group) > 1 and (pool := make_pool(group)) is not None]


def groups_of(boards: Sequence[Board]) -> list[list[Board]]:
    """Boards that may be pooled, in their order: each joins the first group in which its task is new and of whose common
    methods it has at least two, and at least half."""
    groups: list[tuple[str, list[Board], set[str]]] = []
    for board in boards:
        if board.metric.better == "neither":
            continue
        key, own = canonical([board.shared[name] for name in ALIKE]), {identity(row) for row in board.rows}
        for kind, group, common in groups:
            both = common & own
            known = {task_of(b) for b in group}
            if kind == key and len(both) >= 2 and 2 * len(both) >= len(common) and task_of(board) not in known:
                group.append(board)
                common.intersection_update(own)
                break
        else:
            groups.append((key, [board], own))
    return [group for _, group, _ in groups]


def task_of(board: Board) -> str:
    return canonical([board.shared["task"], board.shared["task_params"]])


def identity(row: Row) -> str:
    return canonical([row.ref, row.given])


# One pool -------------------------------------------------------------------------------------------------------------


def make_pool(boards: Sequence[Board]) -> Pool | None:
    """None where fewer than two methods can be pooled."""
    import numpy as np

    lines = [{identity(row): row for row in board.rows} for board in boards]
    scores, left_out = pooled_scores(boards, lines)
    if len(scores) < 2:
        return None
    metrics = {board.metric for board in boards}
    metric = metrics.pop() if len(metrics) == 1 else None
    baseline = next((key for key, row in lines[0].items() if row.method == boards[0].baseline and key in scores), None)
    ranks = ranks_by_method(boards, lines, list(scores))
    p_values = p_against(lines, list(scores), baseline) if metric and baseline is not None else {}
    with np.errstate(all="ignore"):  # what diverged is finite and may be huge
        taus = taus_of(list(scores.values())) if metric else ()
        rows = [
            PooledRow(
                method=lines[0][key].method,
                role=lines[0][key].role,
                ref=lines[0][key].ref,
                iqm=iqm_of(array, metric) if metric else None,
                improvement=improvement_of(array, scores[baseline]) if baseline is not None and key != baseline else None,
                rank=t_interval(ranks[key]),
                p=p_values.get(key),
                profile=tuple(performance_profile(array, taus).tolist()) if taus else (),
                intervals=tuple(line[key].interval for line in lines),
                runs=len(array),
                n_failed=sum(line[key].n_failed for line in lines),
            )
            for key, array in scores.items()
        ]
    rows.sort(key=lambda row: (row.rank.mean, row.method))
    shared = {name: boards[0].shared[name] for name in ALIKE}
    if metric and metric.better == "lower":
        taus = tuple(-tau for tau in taus)
    named = "" if baseline is None else lines[0][baseline].method
    refs = tuple((str(board.shared["task"]), canonical(board.shared["task_params"])) for board in boards)
    return Pool(tuple(board.task for board in boards), shared, metric, named, taus, tuple(rows), left_out, refs)


def pooled_scores(boards: Sequence[Board], lines: Sequence[Mapping[str, Row]]) -> tuple[dict[str, Reals], dict[str, str]]:
    """Runs x tasks by method, higher is better; and why the others have none. In the order of the first board."""
    import numpy as np

    names = {key: row.method for line in reversed(lines) for key, row in line.items()}
    found, left_out = {}, {}
    for key, name in names.items():
        missing = [board.task for board, line in zip(boards, lines, strict=True) if key not in line or not line[key].ranked]
        if missing:
            left_out[name] = f"not ranked on {', '.join(missing)}"
            continue
        columns = [
            [-v if board.metric.better == "lower" else v for v in line[key].scores if not math.isnan(v)]
            for board, line in zip(boards, lines, strict=True)
        ]
        counts = [len(column) for column in columns]
        if len(set(counts)) > 1 or not counts[0]:
            told = ", ".join(f"{n} on {board.task}" for n, board in zip(counts, boards, strict=True))
            left_out[name] = f"its numbers of scores differ: {told}"
            continue
        found[key] = np.array(columns).T
    order = {key: i for i, key in enumerate(lines[0])}
    return dict(sorted(found.items(), key=lambda item: order[item[0]])), left_out


def iqm_of(scores: Reals, metric: Metric) -> Interval:
    """In the metric's own direction."""
    found = bootstrapped(iqm, scores)
    if metric.better != "lower":
        return found
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return Interval(-found.mean, low, high, found.n)


def improvement_of(scores: Reals, baseline: Reals) -> Interval:
    return bootstrapped(probability_of_improvement, scores, baseline)


def bootstrapped(statistic: Callable[..., float], *scores: Reals) -> Interval:
    """Without an interval where it would take seconds; so many runs leave little doubt."""
    others = len(scores[1]) if len(scores) > 1 else 0
    if REPLICATIONS * scores[0].size * (DRAWING + others) > MOST:
        return Interval(statistic(*scores), None, None, min(map(len, scores)))
    return stratified_bootstrap_interval(statistic, *scores, seed=SEED, replications=REPLICATIONS)


def ranks_by_method(boards: Sequence[Board], lines: Sequence[Mapping[str, Row]], keys: Sequence[str]) -> dict[str, list[float]]:
    """Of each method, task by task, the rank of its mean among these methods."""
    ranks = [
        mean_ranks(means_of(line, keys), "lower" if board.metric.better == "lower" else "higher")
        for board, line in zip(boards, lines, strict=True)
    ]
    return {key: [each[i] for each in ranks] for i, key in enumerate(keys)}


def means_of(line: Mapping[str, Row], keys: Sequence[str]) -> list[float]:
    intervals = [line[key].interval for key in keys]
    return [i.mean if i is not None else math.nan for i in intervals]


def p_against(lines: Sequence[Mapping[str, Row]], keys: Sequence[str], baseline: str) -> dict[str, float]:
    """Of the methods but the baseline, after Holm; empty where there are too few tasks, or what diverged is no number."""
    means = {key: [means_of(line, [key])[0] for line in lines] for key in keys}
    others = [key for key in keys if key != baseline]
    found = [signed_rank_p([a - b for a, b in zip(means[key], means[baseline], strict=True)]) for key in others]
    known = [p for p in found if p is not None]
    if len(lines) < FEWEST_PAIRS or len(known) < len(others):
        return {}
    return dict(zip(others, holm(known), strict=True))


def taus_of(scores: Sequence[Reals]) -> tuple[float, ...]:
    """Evenly from the worst to the best score of all."""
    import numpy as np

    low, high = (float(end) for end in (min(a.min() for a in scores), max(a.max() for a in scores)))
    return tuple(np.linspace(low, high, TAUS).tolist())
