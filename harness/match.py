"""Matching: the value of a knob at which a method costs what the baseline costs. Costs are counted in a worker, cached here.

The search assumes that cost grows with the knob; it doubles, then bisects, and all requests take each step together, so
that one call of the worker serves them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.plan import Matched, MatchRequest, placed

Cost = Mapping[str, Any]
Count = Callable[[Sequence[Mapping[str, Any]]], Sequence[Cost]]
MAX_KNOB = 1 << 16


def find_matches(requests: Sequence[MatchRequest], count: Count, cache: Path) -> dict[str, Matched]:
    """Answers by request key. count: cost requests -> costs, in order (`ForkServer.cost`)."""
    answers = {r.key: known for r in requests if (known := read(cache, r.key)) is not None}
    fresh = [r for r in requests if r.key not in answers]
    if fresh:
        for request, matched in zip(fresh, search(fresh, count), strict=True):
            answers[request.key] = matched
            write(cache, request.key, matched)
    return answers


def search(requests: Sequence[MatchRequest], count: Count) -> list[Matched]:
    """Bisection over integers, every request in step."""
    costs = count([target_request(r) for r in requests])
    targets = [amount(c, r.unit, r.target_method) for c, r in zip(costs, requests, strict=True)]
    tried: list[dict[int, float]] = [{} for _ in requests]
    low, high = [0] * len(requests), [0] * len(requests)
    guess = [r.start for r in requests]
    while True:
        open_ = [i for i in range(len(requests)) if guess[i]]
        if not open_:
            break
        costs = count([own_request(requests[i], guess[i]) for i in open_])
        for i, cost in zip(open_, costs, strict=True):
            tried[i][guess[i]] = got = amount(cost, requests[i].unit, requests[i].method)
            if got > targets[i]:
                high[i] = guess[i]
            else:
                low[i] = guess[i]
            guess[i] = next_guess(low[i], high[i])
    return [best(t, target, r) for t, target, r in zip(tried, targets, requests, strict=True)]


def next_guess(low: int, high: int) -> int:
    """The next value to try between one that costs too little (0: none known) and one that costs too much; 0 ends."""
    if not high:
        return low * 2 if low * 2 <= MAX_KNOB else 0
    middle = (low + high) // 2
    return middle if middle not in (low, high) and middle > 0 else 0


def best(tried: Mapping[int, float], target: float, request: MatchRequest) -> Matched:
    value = min(tried, key=lambda v: (abs(tried[v] - target), v))
    off = tried[value] / target - 1.0
    if abs(off) > request.tolerance:
        reason = f"nearest is {request.where}={value} with {off:+.1%} {request.unit} (tolerance {request.tolerance:.0%})"
        return Matched(None, target, tried[value], reason)
    return Matched(value, target, tried[value])


def amount(cost: Cost, unit: str, method: str) -> float:
    if "error" in cost:
        raise HarnessError(f"budget.match: counting {unit} of {method} failed: {cost['error']}")
    got = float(cost[unit])
    if got <= 0:
        raise HarnessError(f"budget.match: {method} has {got} {unit}; nothing to match, exclude it")
    return got


def target_request(r: MatchRequest) -> dict[str, Any]:
    return {"method": r.target_method, "params": dict(r.target_params), "net": r.target_net, "train": r.train,
            "shape": dict(r.shape), "track": r.track}  # fmt: skip


def own_request(r: MatchRequest, value: int) -> dict[str, Any]:
    net, params = placed(r.where, value, dict(r.net) if r.net else None, dict(r.method_params))
    return {"method": r.method, "params": params, "net": net, "train": r.train, "shape": dict(r.shape), "track": r.track}


def read(cache: Path, key: str) -> Matched | None:
    try:
        return Matched(**json.loads((cache / f"{key}.json").read_text()))
    except FileNotFoundError:
        return None


def write(cache: Path, key: str, matched: Matched) -> None:
    """Whole or not at all: another invocation may read at the same moment."""
    cache.mkdir(parents=True, exist_ok=True)
    temporary = cache / f".{key}.tmp"
    temporary.write_text(json.dumps(matched.__dict__))
    temporary.replace(cache / f"{key}.json")
