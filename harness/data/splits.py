"""Train, validation and test parts: their rows, drawn by a task's own generator. Their sizes are `harness.data.sizes`'."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from harness.data.arrays import Array
from harness.data.sizes import Sizes
from harness.errors import HarnessError


class Parts(NamedTuple):
    """Row numbers of each part, int64, in random order; no row is in two parts."""

    train: Array
    validation: Array
    test: Array


def split(sizes: Sizes, items: int, test_items: int, labels: Array | None, rng: np.random.Generator) -> Parts:
    """Draw the parts. labels (N,): each part holds every class in its share, to within one item a class; None: no strata.

    items, test_items: as for `part_sizes`: where test_items > 0, the test part is drawn from that many last rows only.
    """
    strata = np.zeros(items, np.int64) if labels is None else labels
    rows = np.arange(items)
    if test_items:
        test, _ = pick(rows[items - test_items :], sizes.test, strata, rng)
        pool = rows[: items - test_items]
    else:
        test, pool = pick(rows, sizes.test, strata, rng)
    validation, pool = pick(pool, sizes.validation, strata, rng)
    train, _ = pick(pool, sizes.train, strata, rng)
    return Parts(rng.permutation(train), rng.permutation(validation), rng.permutation(test))


def pick(rows: Array, count: int, strata: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Exactly `count` of the rows, each stratum in its share to within one, at random; and the rows that are left.

    Systematic sampling: rows in the order of their strata, shuffled within, every (n / count)-th from a random start.
    """
    n = len(rows)
    if count > n:
        raise HarnessError(f"{count} rows are asked for, {n} are left")
    order = rows[np.lexsort((rng.random(n), strata[rows]))]
    # Integers throughout: a float step would sometimes give one row too many.
    steps = (np.arange(n + 1) * count + int(rng.integers(max(n, 1)))) // max(n, 1)
    chosen = np.diff(steps) > 0
    return order[chosen], order[~chosen]
