"""A metric against a number of the task: drawn where boards differ in nothing else, and never over what does differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoking import query

from harness.report import make_report
from harness.report.collecting import Collected, collect
from harness.report.pages.sweeps import find_sweeps, sweep_sections
from tests.report_samples import quality, registry_of

MEANS = {"relu": 0.5, "better": 0.9}


def at(size: int, first: int, methods: tuple[str, ...] = ("relu", "better"), **changes: object) -> list:
    """Three seeds of each method on the task of a size, whose mean grows with it."""
    params = {"size": size, "kind": "a", **changes.pop("params", {})}
    return [
        quality(first + 3 * i + seed, name, seed, MEANS[name] + 0.001 * size + 0.01 * (seed - 1), task_params=params, **changes)
        for i, name in enumerate(methods)
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[Path, Collected]:
    """Sizes 1, 2 and 5 of one kind; two sizes of another kind, and one of another budget; a method that has one size only."""
    folder = tmp_path_factory.mktemp("swept") / "registry"
    attempts = [*at(1, 1), *at(2, 11), *at(5, 21), *at(1, 31, params={"kind": "b"}), *at(2, 41, params={"kind": "b"})]
    attempts += [*at(9, 51, budget={"steps": 3.0}), *at(7, 61, params={"size": True}), *at(8, 71, params={"size": "8"})]
    opened = registry_of(folder, attempts)
    return folder, collect(opened)


def test_boards_that_differ_in_one_number_of_the_task_are_a_sweep(found):
    """Not those of another kind, budget or of a value that is no number; two values are no trend."""
    (sweep,) = find_sweeps(found[1].boards)

    assert sweep.parameter == "size"
    assert [value for value, _ in sweep.boards] == [1.0, 2.0, 5.0]


def test_the_table_has_each_method_s_mean_at_each_value(found):
    (section,) = sweep_sections(found[1].boards)
    (table,) = section.tables

    assert section.title == "accuracy ↑ against size of digits"
    assert "In all of them: kind a." in section.text
    assert [column.name for column in table.columns] == ["size", "better", "relu"]  # as the board of the largest value ranks
    values = [[cell.value for cell in row.cells] for row in table.rows]
    assert values == [[size, pytest.approx(0.9 + size / 1000), pytest.approx(0.5 + size / 1000)] for size in (1, 2, 5)]


def test_what_is_never_ranked_is_not_drawn(tmp_path):
    """An oracle may be given a number that is not its own, so that it never leads: its line would tell a story of another."""
    attempts = [
        quality(10 * size + seed + 4 * (role == "oracle"), name, seed, 0.5 + 0.01 * seed, task_params={"size": size}, role=role)
        for size in (1, 2, 3)
        for name, role in (("better", "method"), ("relu", "oracle"))
        for seed in range(3)
    ]
    (section,) = sweep_sections(collect(registry_of(tmp_path / "registry", attempts)).boards)

    assert [column.name for column in section.tables[0].columns] == ["size", "better"]


def test_the_picture_draws_a_line_a_method_with_its_interval(found):
    (section,) = sweep_sections(found[1].boards)
    (figure,) = section.tables[0].figures
    rows = figure.spec["data"]["values"]

    assert {row["group"] for row in rows} == {"better", "relu"}
    assert [row["x"] for row in rows if row["group"] == "relu"] == [1.0, 2.0, 5.0]
    assert all(row["low"] < row["y"] < row["high"] for row in rows)
    assert figure.spec["layer"][0]["encoding"]["y"]["title"] == "accuracy"  # 0.5 to 0.9: not by the logarithm


def test_the_sql_beside_it_gives_its_numbers(found):
    folder, collected = found
    (section,) = sweep_sections(collected.boards)

    rows = query(folder, section.tables[0].sql)

    ours = [row for row in rows if json.loads(row["task_params"]) in [{"kind": "a", "size": size} for size in (2, 5)]]
    means = {(row["swept"], row["method"].rpartition("/")[2]): row["mean"] for row in ours}
    assert means[5.0, "better"] == pytest.approx(0.905)
    assert means[2.0, "relu"] == pytest.approx(0.502)


def test_values_far_apart_are_drawn_by_their_logarithm(tmp_path):
    """Bounds of deep networks, say: else all but the largest would lie on the axis."""
    attempts = [
        quality(10 * size + seed, "relu", seed, 0.5 * 30.0**size * (1 + 0.1 * seed), task_params={"size": size})
        for size in (1, 2, 3)
        for seed in range(3)
    ]
    opened = registry_of(tmp_path / "registry", attempts)

    (section,) = sweep_sections(collect(opened).boards)

    y = section.tables[0].figures[0].spec["layer"][0]["encoding"]["y"]
    assert (y["scale"]["type"], y["title"]) == ("log", "accuracy (log)")


def test_a_name_that_no_harness_writes_is_not_drawn(tmp_path):
    """It would stand in a path of SQL."""
    attempts = [a for size in (1, 2, 3) for a in at(0, 10 * size, params={"size": 0, 'x"]; DROP': size})]

    assert find_sweeps(collect(registry_of(tmp_path / "registry", attempts)).boards) == []


def test_the_page_of_leaderboards_holds_it(found, tmp_path):
    folder, _ = found
    from harness.registry import Registry

    make_report(Registry.open(folder, create=False), tmp_path / "report")
    page = (tmp_path / "report" / "leaderboard.html").read_text()

    assert "accuracy ↑ against size of digits" in page
    assert page.count("<svg") >= 1
