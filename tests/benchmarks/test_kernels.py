"""docs/kernels.md says what the committed records say: missed goals, doubts and fallbacks too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.records import Measurement
from harness.registry import Registry

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.benchmarks`

from tests.benchmarks.kernels import MARK, REFERENCE, render_figures, write_page  # noqa: E402
from tests.kernel_samples import kernel_attempt, kernel_trial  # noqa: E402

LARGE = {"elements": 1 << 24, "layout": "contiguous"}
FLOOR_S = 1e-6  # of the made-up attempts
FALLBACK = Measurement("fallback", "check", "1", "neither", 1.0)


@pytest.fixture
def registry(tmp_path):
    """gelu at 10k floats takes 10 us forward and 20 both ways."""
    opened = Registry.open(tmp_path / "registry")
    opened.append(kernel_attempt(0, kernel_trial("gelu", "eager"), {"forward": 10e-6, "forward_backward": 20e-6}))
    return opened


def add(registry, number, kernel, times, **more):
    changes = {"case": more.pop("case")} if "case" in more else {}
    registry.append(kernel_attempt(number, kernel_trial(kernel, "ours", **changes), times, **more))


@pytest.mark.parametrize(("multiple", "met"), [(1.25, "yes"), (1.31, "**no**")])
def test_a_goal_of_the_large_case_is_met_or_said_to_be_missed(registry, multiple, met):
    add(registry, 1, "selu", {"forward": 1e-6, "forward_backward": multiple * FLOOR_S}, case=LARGE)

    figures = render_figures(registry)

    assert f"| selu | - | - | - | {multiple:.2f} | 0 | <= 1.3 | {met} |" in figures
    assert f"{int(met == 'yes')} of 1 are met." in figures


@pytest.mark.parametrize(("both_s", "met"), [(19e-6, "yes"), (21e-6, "**no**")])
def test_no_slower_than_gelu_means_forward_and_both_passes(registry, both_s, met):
    add(registry, 1, "crrelu", {"forward": 5e-6, "forward_backward": both_s})

    assert f"| crrelu | 5 us | {both_s * 1e6:.3g} us | 0.50, {both_s / 20e-6:.2f} | <= 1 | {met} |" in render_figures(registry)


def test_a_fallback_meets_no_goal(registry):
    """It is torch's code under our name."""
    add(registry, 1, "crrelu", {"forward": 5e-6, "forward_backward": 9e-6}, more=(FALLBACK,))

    figures = render_figures(registry)

    assert "0 of 0 are met." in figures
    assert "ours (fallback, not ranked)" in figures


def test_what_waited_for_a_core_is_counted_and_marked(registry):
    add(registry, 1, "crrelu", {"forward": 5e-6, "forward_backward": 9e-6},
        more=(Measurement("contended", "forward", "1", "neither", 1.0),))  # fmt: skip

    figures = render_figures(registry)

    assert "waited for a core (`contended`): 1 of 4 at 10k" in figures
    assert "| crrelu | 5 us ! | 9 us |" in figures


def test_only_what_is_below_the_mark_is_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{MARK}\n\nold\n")

    write_page(page, "new\n")

    assert page.read_text() == f"# By hand\n\n{MARK}\n\nnew\n"
    page.write_text("# no mark\n")
    with pytest.raises(ValueError, match=r"page\.md has no line"):
        write_page(page, "new\n")


def test_the_page_in_the_manual_is_what_the_committed_records_say():
    """Whoever changes either has to run `make docs/kernels.md`."""
    figures = (ROOT / "docs/kernels.md").read_text(encoding="utf-8").partition(MARK)[2]

    assert figures.strip() == render_figures(Registry.open(REFERENCE, create=False)).strip()
