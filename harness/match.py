"""Matching: the value of a knob at which a method costs what the baseline costs. Costs are counted in a worker, cached here.

Parameters, or FLOPs of training on one item (`harness.lab.cost`); a learner's are what its own `cost` says.

The search assumes that cost grows with the knob; it doubles, then bisects, and all requests take each step together, so
that one call of the worker serves them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.plan import Matched, MatchRequest, placed

Cost = Mapping[str, Any]
Count = Callable[[Sequence[Mapping[str, Any]]], Sequence[Cost]]
MAX_KNOB = 1 << 16
MAX_UNUSABLE = 16  # refused values, without one that works, after which the method counts as one that cannot be matched


def find_matches(requests: Sequence[MatchRequest], count: Count, cache: Path) -> dict[str, Matched]:
    """Answers by request key. count: cost requests -> costs, in order (`ForkServer.cost`)."""
    answers = {r.key: known for r in requests if (known := read(cache, r.key)) is not None}
    fresh = [r for r in requests if r.key not in answers]
    for request, matched in zip(fresh, search(fresh, count), strict=True):
        answers[request.key] = matched
        if matched.got:  # what could not be counted may be for want of a library: ask again next time
            write(cache, request.key, matched)
    return answers


def search(requests: Sequence[MatchRequest], count: Count) -> list[Matched]:
    """Bisection over integers, every request in step."""
    searches = [Search(r) for r in requests]
    targets = count([target_request(r) for r in requests]) if requests else []
    for one, cost in zip(searches, targets, strict=True):
        one.aim(cost)
    while open_ := [one for one in searches if one.guess]:
        for one, cost in zip(open_, count([own_request(one.request, one.guess) for one in open_]), strict=True):
            one.learn(cost)
    return [one.answer() for one in searches]


@dataclass
class Search:
    """One request's bisection. guess: the next value to try; 0: the search has ended."""

    request: MatchRequest
    target: float = 0.0
    low: int = 0
    high: int = 0
    guess: int = 0
    tried: dict[int, float] = field(default_factory=dict)
    costs: dict[int, Cost] = field(default_factory=dict)  # of the values tried; 0: the baseline's
    unusable: dict[int, str] = field(default_factory=dict)  # values that the method refuses (groups that must divide a width)
    reason: str = ""

    def aim(self, cost: Cost) -> None:
        self.target, self.costs[0] = float(cost.get(self.request.unit, 0.0)), cost
        if self.target <= 0:
            self.reason = self.failure(cost, self.request.target_method)
        self.guess = 0 if self.reason else self.request.start

    def learn(self, cost: Cost) -> None:
        got = float(cost.get(self.request.unit, 0.0))
        if got <= 0:
            self.unusable[self.guess] = self.failure(cost, self.request.method)
            if len(self.unusable) >= MAX_UNUSABLE and not self.tried:
                self.reason = self.unusable[self.request.start]
        else:
            self.tried[self.guess], self.costs[self.guess] = got, cost
            if got > self.target:
                self.high = self.guess
            else:
                self.low = self.guess
        self.guess = 0 if self.reason else next_guess(self.low, self.high, self.unusable)

    def failure(self, cost: Cost, method: str) -> str:
        unit = self.request.unit
        why = cost.get("error") or cost.get(f"no_{unit}")
        return f"counting {unit} of {method} failed: {why}" if why else f"{method} has no {unit}"

    def answer(self) -> Matched:
        if self.reason:
            return Matched(None, self.target, 0.0, self.reason)
        value = min(self.tried, key=lambda v: (abs(self.tried[v] - self.target), v))
        off, r = self.tried[value] / self.target - 1.0, self.request
        if abs(off) > r.tolerance:
            reason = f"nearest is {r.where}={value} with {off:+.1%} {r.unit} (tolerance {r.tolerance:.0%})"
            return Matched(None, self.target, self.tried[value], reason)
        return Matched(value, self.target, self.tried[value], **self.coverage(value))

    def coverage(self, value: int) -> dict[str, Any]:
        """How much of both costs was counted. What a learner declares without saying so was worked out by hand: all of it."""
        if self.request.unit != "flops":
            return {}
        target, own = self.costs[0], self.costs[value]
        uncounted = tuple(sorted({*target.get("uncounted", ()), *own.get("uncounted", ())}))
        return {"counted": own.get("counted", 1.0), "target_counted": target.get("counted", 1.0), "uncounted": uncounted}


def next_guess(low: int, high: int, unusable: Collection[int]) -> int:
    """The next value to try between one that costs too little (0: none known) and one that costs too much; 0 ends.

    Values that the method refuses are stepped over: the nearest one to the middle, or to twice the last, is tried instead.
    """
    if not high:
        value = low * 2 or max(unusable, default=0) + 1
        while value in unusable:
            value += 1
        return value if value <= MAX_KNOB else 0
    middle = (low + high) // 2
    between = (v for v in range(low + 1, high) if v not in unusable)
    return min(between, key=lambda v: (abs(v - middle), v), default=0)


def target_request(r: MatchRequest) -> dict[str, Any]:
    return {"method": r.target_method, "params": dict(r.target_params), "net": r.target_net, "train": r.train,
            "shape": dict(r.shape), "track": r.track}  # fmt: skip


def own_request(r: MatchRequest, value: int) -> dict[str, Any]:
    net, params = placed(r.where, value, dict(r.net) if r.net else None, dict(r.method_params))
    return {"method": r.method, "params": params, "net": net, "train": r.train, "shape": dict(r.shape), "track": r.track}


def read(cache: Path, key: str) -> Matched | None:
    try:
        found = json.loads((cache / f"{key}.json").read_text())
    except FileNotFoundError:
        return None
    return Matched(**{**found, "uncounted": tuple(found.get("uncounted", ()))})


def write(cache: Path, key: str, matched: Matched) -> None:
    """Whole or not at all: another invocation may read at the same moment."""
    cache.mkdir(parents=True, exist_ok=True)
    temporary = cache / f".{key}.tmp"
    temporary.write_text(json.dumps(matched.__dict__))
    temporary.replace(cache / f"{key}.json")
