"""`harness machine check` and `show`: one real check of this machine, kept, shown, and never replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from test_ceilings import a_check

from harness.cli.machine import in_units, machine_group, percent
from harness.errors import MissingError, RegistryError
from harness.kernels.ceilings import KIND, noise_floor, read_check
from harness.registry import Registry

MACHINE = "machine-of-this-test"


def machine(*arguments: object) -> Result:
    """`harness machine ARGUMENTS` in this process; a check has a process of its own anyway."""
    return CliRunner().invoke(machine_group, [str(a) for a in arguments], env={"HARNESS_MACHINE": MACHINE})


def kept_checks(registry: Path) -> list[dict[str, Any]]:
    return [f for f in Registry.open(registry, create=False).facts() if f["kind"] == KIND]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A registry with one check in it, and how that ended."""
    registry = tmp_path_factory.mktemp("checked") / "registry"
    return registry, machine("check", "--rounds", 3, "--json", "--registry", registry)


def test_a_check_measures_ceilings_and_noise_in_a_workers_environment_and_keeps_them(checked):
    """With glibc's defaults a copy would be timed by its page faults, and no kernel of a worker could be compared with it."""
    registry, ended = checked
    told = json.loads(ended.stdout)
    (fact,) = kept_checks(registry)

    assert ended.exit_code == 0
    assert [c["elements"] for c in told["copies"]] == [10_000, 1_000_000, 16_000_000]
    assert all(1e8 < c["bytes_per_s"] < 1e13 for c in told["copies"])
    assert told["matmuls"]
    assert all(len(one["wall"]) == len(one["cpu"]) == 3 for one in told["agreements"])
    assert told["noise_floor"] == noise_floor(fact["facts"])
    assert fact["facts"]["environment"]["MALLOC_MMAP_THRESHOLD_"] == "1000000000"
    assert fact["facts"]["environment"]["OMP_NUM_THREADS"] == "1"
    assert (fact["facts"]["machine"], fact["facts"]["threads"]) == (MACHINE, 1)
    assert "A/A of gelu" in ended.stderr  # what it is doing


def test_show_prints_the_machine_its_ceilings_with_their_date_and_the_noise_floor(checked):
    """All that a reader needs to judge a share of a roofline or a regression."""
    registry, ended = checked
    told = json.loads(ended.stdout)

    shown = machine("show", "--registry", registry)

    assert shown.exit_code == 0
    for words in (
        f"machine {MACHINE}", "cores", f"checked {told['checked_at'][:10]}", "copy of 16,000,000 elements", "matrix product",
        "gelu of 10k floats", f"noise floor: {percent(told['noise_floor'])}",
    ):  # fmt: skip
        assert words in shown.stdout
    assert ("doubtful: other work wanted the same cores" in shown.stdout) == told["contended"]


def test_where_nothing_was_checked_yet_show_says_the_command_that_does(tmp_path):
    """Also without any registry: the machine itself is known."""
    shown = machine("show", "--registry", tmp_path / "none")

    assert shown.exit_code == 0
    assert "cores" in shown.stdout
    assert "`harness machine check` does it" in shown.stdout
    assert not (tmp_path / "none").exists()


def keep(registry: Path, *checks: dict[str, Any]) -> None:
    opened = Registry.open(registry)
    for number, check in enumerate(checks):
        opened.keep_facts(KIND, f"check-{number}-{check['checked_at']}", check)


def test_a_later_check_is_added_and_counts(tmp_path):
    """Append only: the earlier one stays in the registry, for who asks how the machine was."""
    first = a_check(machine=MACHINE)
    second = a_check(machine=MACHINE, checked_at="2026-11-25T00:00:00.000000+00:00")
    keep(tmp_path / "r", second, first)

    shown = json.loads(machine("show", "--json", "--registry", tmp_path / "r").stdout)

    assert len(kept_checks(tmp_path / "r")) == 2
    assert [check["checked_at"] for check in shown["checks"]] == [second["checked_at"]]
    assert list(shown["machines"]) == [MACHINE]


def test_a_machine_of_another_place_is_shown_by_name(tmp_path):
    """After a merge; what its name would do to a terminal is shown, not obeyed."""
    keep(tmp_path / "r", a_check(machine="far\x1b[2J"))

    shown = machine("show", "--machine", "far\x1b[2J", "--registry", tmp_path / "r")
    unknown = machine("show", "--machine", "further", "--registry", tmp_path / "r")

    assert "copy of 10 elements" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "`harness machine check` there does it, `harness merge` brings it here" in unknown.stdout


def test_a_check_is_garbage_to_nobody_and_verify_knows_it(tmp_path):
    """No attempt names it, and yet it is not to be collected; nor is it foreign."""
    keep(tmp_path / "r", a_check(machine=MACHINE))
    opened = Registry.open(tmp_path / "r")

    assert opened.garbage(grace_s=-1) == []
    assert opened.verify(hands_off=True) == []
    assert len(kept_checks(tmp_path / "r")) == 1


def test_a_check_is_merged_like_all_else(tmp_path):
    """The noise floor of the machine that measured goes with its records."""
    keep(tmp_path / "a", a_check(machine=MACHINE))
    here = Registry.open(tmp_path / "b")

    report = here.merge(tmp_path / "a")

    assert not report.fact_conflicts
    assert [read_check(fact["facts"]) for fact in kept_checks(tmp_path / "b")] == [read_check(a_check(machine=MACHINE))]


def test_a_registry_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    """Half a minute of measuring for nothing."""
    (tmp_path / "file").write_text("no folder")

    ended = machine("check", "--registry", tmp_path / "file" / "registry")

    assert isinstance(ended.exception, RegistryError)
    assert "copy of" not in ended.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_something_missing(tmp_path):
    """Exit 5, the reason and the mend; and nothing is kept."""
    ended = machine("check", "--device", "cuda", "--registry", tmp_path / "r")

    assert isinstance(ended.exception, MissingError)
    assert str(ended.exception) == "--device cuda: torch finds no CUDA device; use --device cpu"
    assert not kept_checks(tmp_path / "r")


@pytest.mark.parametrize(
    ("value", "text"), [(12.34e9, "12.3 GB/s"), (0.98e9, "980 MB/s"), (4.561e12, "4.56 TB/s"), (17.0, "17 B/s"), (0.0, "0 B/s")]
)
def test_rates_are_told_in_the_largest_unit_that_they_reach(value, text):
    """Three digits: more would be noise."""
    assert in_units(value, ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, "")), "B/s") == text
