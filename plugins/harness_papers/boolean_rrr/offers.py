"""When to offer and what: at even shares of the budget, the best net so far on the training table."""

from __future__ import annotations

from typing import Any

from harness_papers.boolean_rrr.problem import BooleanProblem, LayeredNet, bit_share

POINTS = 20
EXACT = (1.0, 1.0)


class Offers:
    """Counts how much of the budget is gone, and keeps the net that got most training bits right.

    `best` is that net: among equals the last one, since weights go on to improve after the bits are right. The authors'
    program keeps its nets by the same rule. Only training data is looked at. Where a trial has no budget (a timing trial
    may have none), only the first net and the solution are offered.
    """

    def __init__(self, ctx: Any, problem: BooleanProblem) -> None:
        self.best: LayeredNet
        self._ctx, self._table = ctx, problem.table
        self._best_key: tuple[float, float] | None = None
        self._next = 0

    def due(self) -> bool:
        """True once at the start and then each time another 1 / 20 of the budget is gone."""
        gone = max((1 - self._ctx.left(unit) / amount for unit, amount in self._ctx.budget.items()), default=0.0)
        if gone * POINTS < self._next - 1e-9:  # the end of the budget counts, whatever the rounding of the share
            return False
        self._next = int(gone * POINTS + 1e-9) + 1
        return True

    def consider(self, net: LayeredNet) -> bool:
        """Keep the net if none was better. True if it gives all training bits, also when its weights are run as a circuit."""
        key = (bit_share(net, self._table), bit_share(LayeredNet(net.weights), self._table))
        if self._best_key is None or key >= self._best_key:
            self.best, self._best_key = net, key
        return key == EXACT

    @property
    def exact(self) -> bool:
        """Whether the best net gives all training bits, also when its weights are run as a circuit."""
        return self._best_key == EXACT

    def show(self) -> None:
        """Offer the best net so far."""
        self._ctx.offer(self.best)
