"""What MLflow is asked to keep is what the registry keeps, and answers that differ give no figure."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from registry_samples import ACCURACY, make_attempt  # noqa: E402

from harness.records import Attempt, CurvePoint, Resources, Trial  # noqa: E402
from harness.registry import Registry  # noqa: E402
from tests.benchmarks.bench_peers import check_equal, content_of, vary  # noqa: E402
from tests.benchmarks.peers import Unavailable, ensure_mlflow  # noqa: E402


def curved(values: tuple[float, ...] = (0.25, 0.5)) -> Attempt:
    curve = tuple(
        CurvePoint("accuracy", "validation", "1", {"steps": 10.0 * n, "wall_s": 0.1 * n}, value)
        for n, value in enumerate(values, 1)
    )
    measured = (ACCURACY, replace(ACCURACY, part="validation", value=0.75))
    return make_attempt(
        1, curve=curve, measurements=measured, spent={"steps": 20.0, "wall_s": 0.2}, resources=Resources(1.5, peak_rss_bytes=7)
    )


def test_a_run_holds_what_its_attempt_holds():
    """A peer that is given less to keep is faster."""
    attempt = curved()

    run = content_of(attempt)

    assert run["params"].keys() == {f.name for f in fields(Trial)}
    assert run["params"]["net"] == '{"arch":"mlp","width":64}'
    metrics = [(key, value) for key, value, _ in run["metrics"]]
    assert metrics[:2] == [("validation.accuracy", 0.25), ("validation.accuracy", 0.5)]
    assert {("test.accuracy", 0.5), ("wall_s", 1.5), ("peak_rss_bytes", 7.0)} <= set(metrics)
    assert run["tags"]["status"] == "ok"
    assert run["tags"]["attempt_id"] == attempt.attempt_id
    assert json.loads(json.dumps(run)) == {**run, "metrics": [list(m) for m in run["metrics"]]}


def test_the_last_value_of_a_metric_is_the_measured_one():
    """MLflow gives back what has the greatest step, and of equal steps the greatest value: not a point of the curve."""
    last = max(
        (step, value) for key, value, step in content_of(curved((0.25, 0.99)))["metrics"] if key == "validation.accuracy"
    )

    assert last[1] == 0.75


def test_no_two_attempts_are_alike_and_each_can_be_recorded(tmp_path):
    """Copies would flatter whoever encodes copies well."""
    attempts = list(itertools.islice(vary(curved()), 12))
    registry = Registry.open(tmp_path / "registry")
    for attempt in attempts:
        assert registry.append(attempt).outcome.status == "ok"

    values = [
        value for a in attempts for value in (*(p.value for p in a.outcome.curve), *(m.value for m in a.outcome.measurements))
    ]
    assert len(set(values)) == len(values)
    assert len({a.trial.trial_id for a in attempts}) == len({a.attempt_id for a in attempts}) == 12
    assert len({a.trial.method for a in attempts}) == 10
    assert registry.table().num_rows == 12


ALL = {"runs": 3, "sum": 1.5}
BOARD = {"rows": [["a", 0.5, 2], ["b", 1.0, 1]]}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ALL, {**ALL, "runs": 2}),
        (ALL, {**ALL, "sum": 1.6}),
        ({**ALL, "runs": 2}, {**ALL, "runs": 2}),
        (BOARD, {"rows": BOARD["rows"][:1]}),
        (BOARD, {"rows": [["a", 0.5, 2], ["b", 1.1, 1]]}),
        (BOARD, {"rows": [["a", 0.5, 3], ["b", 1.0, 1]]}),
    ],
)
def test_answers_that_differ_give_no_figure(ours: dict[str, Any], theirs: dict[str, Any]):
    """Who lost something answers fast."""
    check_equal("all", ALL, ALL, 3)
    check_equal("board", BOARD, {"rows": BOARD["rows"][::-1]}, 3)

    with pytest.raises(RuntimeError, match=r"the registry says .*, MLflow says "):
        check_equal("what", ours, theirs, 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mlflow_is_compared_where_it_is_installed():
    """All three comparisons, with fifty runs."""
    try:
        ensure_mlflow(ROOT / ".venv-peers", install=False)
    except Unavailable as exc:
        pytest.skip(str(exc))
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "peers", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = {f["what"]: f for f in json.loads(done.stdout)}

    ratios = [f for f in figures.values() if f["readings"]["unit"] == "ratio"]
    assert [f["goal"] for f in ratios] == [0.1, 0.02, 0.02, 0.02, 0.02, 0.1]
    assert all(f["value"] > 0 for f in figures.values())
    assert sum(bool(f["peers"]) for f in figures.values()) == 6
