"""asv's step detection as the one voice on the long history: the contract with asv, and what is called a step."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from harness.errors import MissingError
from harness.regress import history
from harness.regress.history import find_step, lower_is_better


def noisy(*levels: tuple[int, float]) -> list[float]:
    """So many nights at each level, with 1 % noise."""
    rng = np.random.default_rng(7)
    return [level * (1 + 0.01 * x) for n, level in levels for x in rng.standard_normal(n)]


def test_asv_gives_what_the_adapter_reads():
    """asv promises nothing of this module as a library; a release that changes it must fail here, not in a night."""
    step_detect = importlib.import_module("asv.step_detect")

    steps = step_detect.detect_steps([1.0] * 10 + [2.0] * 10)
    latest, best, rises = step_detect.detect_regressions(steps, threshold=0.03)

    assert [(s[0], s[1], s[2]) for s in steps] == [(0, 10, 1.0), (10, 20, 2.0)]
    assert (latest, best) == (2.0, 1.0)
    assert rises == [(9, 10, 1.0, 2.0)]
    assert step_detect.detect_regressions(steps[:1], threshold=0.03) == (None, None, None)


def test_a_step_is_found_where_it_is():
    """The commit that is named is the first of the new level."""
    step = find_step(noisy((20, 1.0), (10, 1.15)))

    assert step is not None
    assert (step.before, step.at) == (19, 20)
    assert step.levels == ((0, 20), (20, 30))
    assert step.new / step.old == pytest.approx(1.15, abs=0.02)


@pytest.mark.parametrize(
    "values",
    [noisy((40, 1.0)), noisy((20, 1.0), (20, 1.015)), noisy((20, 1.0), (20, 0.8)), noisy((15, 1.0), (10, 1.3), (15, 1.0))],
    ids=["quiet", "below the threshold", "faster", "repaired"],
)
def test_no_step_is_called_where_nothing_is_worse_now(values):
    """Below 3 % asv's own noise begins; what was repaired is no regression any more."""
    assert find_step(values) is None


def test_of_several_steps_the_largest_is_named():
    """One commit to look at first."""
    step = find_step(noisy((20, 1.0), (20, 1.1), (20, 1.5)))

    assert step is not None
    assert step.at == 40
    assert step.new / step.old == pytest.approx(1.5, abs=0.03)


def test_one_bad_night_is_no_new_level():
    """It is what the rule of the night is for; the history wants to see it twice."""
    assert find_step([*noisy((30, 1.0)), 3.0]) is None
    assert find_step([*noisy((30, 1.0)), 3.0, 3.0]) is not None


def test_a_long_history_is_judged_by_its_end_in_its_own_numbers():
    """The fit's time grows with the square of the length; positions stay those of the whole history."""
    step = find_step(noisy((400, 1.0), (50, 1.2)))

    assert step is not None
    assert step.at == 400
    assert step.levels[1] == (400, 450)


def test_an_infinity_is_refused():
    """asv would eat all memory on it."""
    with pytest.raises(ValueError, match="not finite"):
        find_step([1.0] * 10 + [float("inf")])


def test_without_asv_the_mend_is_named(monkeypatch):
    """No silent fallback to another rule."""
    monkeypatch.setattr(history, "available", lambda: False)

    with pytest.raises(MissingError, match="pip install"):
        find_step([1.0] * 10)


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ([0.5, 2.0], "lower", [0.5, 2.0]),
        ([0.9, 0.8], "higher", [0.1, 0.2]),
        ([2.0, 4.0], "higher", [0.5, 0.25]),
        ([-1.0, 2.0], "lower", None),
        ([0.0, 2.0], "higher", None),
        ([1.0, float("inf")], "lower", None),
    ],
)
def test_higher_is_better_becomes_an_error_or_an_inverse(values, better, expected):
    """asv reads lower as better, and its threshold is relative to the value."""
    found = lower_is_better(values, better)

    assert found == (None if expected is None else pytest.approx(expected))
