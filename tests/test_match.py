"""Matching against costs that are known in closed form."""

from __future__ import annotations

import pytest

from harness.match import find_matches
from harness.plan import MatchRequest


def request(tolerance: float = 0.05, start: int = 32, unit: str = "params") -> MatchRequest:
    return MatchRequest(
        unit=unit, tolerance=tolerance, to="relu", where="net.width", start=start, method="m", method_params={},
        target_method="relu", target_params={}, net={"width": start}, target_net={"width": 64}, train=None,
        shape={"inputs": 10}, track="classify", code="c",
    )  # fmt: skip


class Counter:
    """Costs of an MLP 10-w-w-3, with `extra` per hidden unit for the method that is matched."""

    def __init__(self, extra: float) -> None:
        self.extra, self.calls = extra, 0

    def __call__(self, requests):
        self.calls += 1
        return [self.cost(r["net"]["width"], 0 if r["method"] == "relu" else self.extra) for r in requests]

    @staticmethod
    def cost(w: int, extra: float) -> dict[str, float]:
        return {"params": 10 * w + w + w * w + w + 3 * w + 3 + extra * w}


@pytest.mark.parametrize("extra", [0, 7, 40, -3])
@pytest.mark.parametrize("start", [1, 32, 64, 500])
def test_the_width_found_is_the_nearest_there_is(tmp_path, extra, start):
    """Whatever the start, no other width is nearer to the baseline's parameters."""
    found = find_matches([request(tolerance=0.5, start=start)], Counter(extra), tmp_path)
    matched = next(iter(found.values()))

    target = Counter.cost(64, 0)["params"]
    nearest = min(range(1, 200), key=lambda w: abs(Counter.cost(w, extra)["params"] - target))
    assert matched.value == nearest
    assert matched.mismatch == pytest.approx(Counter.cost(nearest, extra)["params"] / target - 1)


@pytest.mark.parametrize("start", [3, 8, 64, 100])
def test_values_that_the_method_refuses_are_stepped_over(tmp_path, start):
    """Groups that must divide the width leave gaps; the nearest width that works is found all the same."""

    class Divided(Counter):
        def __call__(self, requests):
            costs = super().__call__(requests)
            refused = [r["method"] != "relu" and r["net"]["width"] % 8 for r in requests]
            return [{"error": "8 does not divide"} if no else cost for cost, no in zip(costs, refused, strict=True)]

    found = find_matches([request(tolerance=0.5, start=start)], Divided(40), tmp_path)

    target = Counter.cost(64, 0)["params"]
    nearest = min(range(8, 200, 8), key=lambda w: abs(Counter.cost(w, 40)["params"] - target))
    assert next(iter(found.values())).value == nearest


def test_what_cannot_be_matched_says_so(tmp_path):
    """A method whose smallest width is still too big is reported, not run at a wrong size."""
    found = find_matches([request(tolerance=0.05)], Counter(1e6), tmp_path)
    matched = next(iter(found.values()))

    assert matched.value is None
    assert "nearest is net.width=1" in matched.reason
    assert "tolerance 5%" in matched.reason


def test_a_search_is_made_once(tmp_path):
    """Widths are cached by the digest of the request, code included."""
    counter = Counter(7)
    first = find_matches([request()], counter, tmp_path)
    calls = counter.calls

    assert find_matches([request()], counter, tmp_path) == first
    assert counter.calls == calls


def test_a_method_that_cannot_be_counted_says_so_and_is_asked_again(tmp_path):
    """The worker's error reaches the user with the method's name; a missing library may be there tomorrow."""

    def fail(requests):
        return [{"error": "no cvxpy"} if r["method"] == "m" else {"params": 10.0} for r in requests]

    found = find_matches([request()], fail, tmp_path)

    assert next(iter(found.values())).value is None
    assert next(iter(found.values())).reason == "counting params of m failed: no cvxpy"
    assert next(iter(find_matches([request(tolerance=0.5)], Counter(0), tmp_path).values())).value == 64


def test_flops_are_matched_with_the_share_that_was_counted(tmp_path):
    """What a match rests on is recorded with it: the shares of both, and the operations that no formula knows."""

    def count(requests):
        """A learner's declared cost says nothing of a share: it was worked out by hand."""
        return [
            {"params": 1.0, "flops": 6.0 * r["net"]["width"]}
            if r["method"] == "relu"
            else {"params": 1.0, "flops": 6.2 * r["net"]["width"], "counted": 0.98, "uncounted": ["aten.erfinv"]}
            for r in requests
        ]

    asked = request(unit="flops")
    fresh, cached = (find_matches([asked], count, tmp_path)[asked.key] for _ in range(2))

    assert (fresh.value, fresh.target) == (62, 384.0)
    assert (fresh.counted, fresh.target_counted, fresh.uncounted) == (0.98, 1.0, ("aten.erfinv",))
    assert cached == fresh


def test_a_net_whose_step_cannot_be_counted_is_matched_by_parameters_all_the_same(tmp_path):
    """Only the FLOPs are unknown; the reason is the counter's."""

    def count(requests):
        return [{"params": 5.0 * r["net"]["width"], "no_flops": "reads a value"} for r in requests]

    by_params, by_flops = (
        next(iter(find_matches([request(unit=unit)], count, tmp_path).values())) for unit in ("params", "flops")
    )

    assert by_params.value == 64
    assert by_flops.reason == "counting flops of relu failed: reads a value"
