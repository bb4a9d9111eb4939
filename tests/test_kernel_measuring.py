"""One kernel trial: checked before and after timing, its figures, what is refused, and how its outcome reads."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import kernel_cheats as cheats
import pytest
import torch
from helpers import PluginSite, plugin_site, trial  # noqa: F401  (plugin_site is a fixture)

from harness.errors import HarnessError, Unsupported
from harness.kernels.ceilings import Ceilings
from harness.kernels.checking import Run, WrongResult
from harness.kernels.compiling import cache_state
from harness.kernels.measuring import KernelFigures, measure_kernel
from harness.kernels.memory import extra_bytes
from harness.kernels.rotation import Rotation
from harness.records import Outcome
from harness.specs import KernelCase
from harness.timing import StopRule
from harness.worker import WorkerOptions, run_trial

QUICK = StopRule(min_total_s=0.01, limit_s=0.2, warmup_s=0.002)
CEILINGS = Ceilings(1e10, 1e11)


def measured(
    run: Run, rng: torch.Generator, elements: int = 2000, *, kind: str = "ours", layout: str = "contiguous", threads: int = 1,
    regions: tuple[str, ...] = (), device: torch.device = cheats.CPU, fallback=None, requires=(), devices=("cpu", "cuda"),
    rule: StopRule = QUICK, **changes,
) -> KernelFigures:  # fmt: skip
    kernel, implementation = cheats.kernel(**changes)
    spec = replace(implementation.spec, kind=kind, requires=requires, devices=devices)
    return measure_kernel(
        kernel, replace(implementation, spec=spec, run=run, fallback=fallback), KernelCase(elements=elements, layout=layout),
        device, torch.float32, threads, rule, rng, regions, ceilings_of=lambda *_: CEILINGS,
    )  # fmt: skip


def value(figures: KernelFigures, quantity: str, part: str) -> float | None:
    return next(m.value for m in figures.measurements if (m.quantity, m.part) == (quantity, part))


# Figures --------------------------------------------------------------------------------------------------------------


def test_a_trial_gives_each_figure_of_each_region_and_the_raw_samples(rng):
    """What a view of kernels reads: a row for each quantity and part, and nothing that is not finite."""
    figures = measured(cheats.honest(), rng)

    rows = {(m.quantity, m.part) for m in figures.measurements}
    regions = ("copy", "forward", "backward", "forward_backward")
    timed = ("time", "bytes_rate", "flop_rate", "roofline_share", "floor_multiple", "faults", "calls_per_sample", "spread",
             "contended")  # fmt: skip
    assert rows == {
        *((quantity, region) for quantity in timed for region in regions),
        ("error_forward", "check"), ("error_backward", "check"), ("copy_rate", "ceiling"), ("matmul_rate", "ceiling"),
        ("extra_bytes", "forward"), ("extra_bytes", "forward_backward"),
    }  # fmt: skip
    assert [t.region for t in figures.timings] == list(regions)
    assert all(len(t.wall_s) == len(t.cpu_s) >= 1 for t in figures.timings)
    assert all(m.value is None or math.isfinite(m.value) for m in figures.measurements)
    assert len(rows) == len(figures.measurements)


def test_figures_are_derived_from_the_median_and_the_declared_work(rng):
    """One CPU thread: process time. 2000 floats forward: 16 kB, 12,000 operations; backward 24 kB, 24,000."""
    figures = measured(cheats.honest(), rng)
    raw = {t.region: t for t in figures.timings}

    for region, moved, flops in (("forward", 16e3, 12e3), ("backward", 24e3, 24e3), ("forward_backward", 40e3, 36e3)):
        time_s, copy_s = median(raw[region].cpu_s), median(raw["copy"].cpu_s)
        assert value(figures, "time", region) == time_s
        assert value(figures, "bytes_rate", region) == pytest.approx(moved / time_s)
        assert value(figures, "flop_rate", region) == pytest.approx(flops / time_s)
        assert value(figures, "roofline_share", region) == pytest.approx(max(moved / 1e10, flops / 1e11) / time_s)
        assert value(figures, "floor_multiple", region) == pytest.approx(time_s / (moved / (16e3 / copy_s)))
    assert value(figures, "floor_multiple", "copy") == pytest.approx(1)


def test_several_threads_are_timed_by_the_wall(rng):
    """Their process time adds up."""
    figures = measured(cheats.honest(), rng, threads=2, regions=("forward",))

    assert value(figures, "time", "forward") == median(next(t for t in figures.timings if t.region == "forward").wall_s)


@pytest.mark.parametrize("layout", ["contiguous", "strided", "unaligned"])
@pytest.mark.parametrize("elements", [0, 1])
def test_nothing_and_a_single_element_are_checked_and_timed(elements, layout, rng):
    """What an empty batch costs is pure overhead; rates of no work are not measured rather than 0 or infinite."""
    figures = measured(cheats.honest(), rng, elements, layout=layout)

    assert value(figures, "time", "forward_backward") > 0
    assert (value(figures, "bytes_rate", "forward") is None) == (elements == 0)
    assert (value(figures, "floor_multiple", "forward") is None) == (elements == 0)


def test_only_the_regions_asked_for_are_timed_and_the_copy(rng):
    """A suite may want forward alone; the floor is always known."""
    assert [t.region for t in measured(cheats.honest(), rng, regions=("forward",)).timings] == ["copy", "forward"]
    with pytest.raises(HarnessError, match=r"to be timed: \['forward_cold'\]; kernel 'bump' has \['forward', 'backward'"):
        measured(cheats.honest(), rng, regions=("forward_cold",))
    with pytest.raises(HarnessError, match=r"\['backward'\]"):
        measured(cheats.honest(), rng, regions=("backward",), backward=False)


def test_why_eager_code_runs_is_told(rng):
    """The row of a kernel without its compiler is labelled, for it is not the kernel's."""
    assert (
        measured(cheats.formula, rng, fallback=lambda inputs, case: "no C compiler").diagnostics["fallback"] == "no C compiler"
    )
    assert "fallback" not in measured(cheats.formula, rng, fallback=lambda inputs, case: "").diagnostics


def test_what_cannot_run_here_is_unsupported_with_the_mend(rng):
    """Neither failed nor slow: not to be measured on this device, or for want of a library."""
    with pytest.raises(Unsupported, match="runs on cuda, not on cpu"):
        measured(cheats.honest(), rng, devices=("cuda",))
    with pytest.raises(Unsupported, match="needs nothing_like_this; pip install nothing_like_this"):
        measured(cheats.honest(), rng, kind="peer", requires=("torch", "nothing_like_this"))
    with pytest.raises(Unsupported, match=r"needs nothing_like_this\.part; pip install its-package"):
        measured(cheats.honest(), rng, kind="peer", requires=("nothing_like_this.part:its-package",))


def test_torch_is_left_as_it_was(rng):
    """The check fills memory and asks for determinism; the timing must not."""
    measured(cheats.honest(), rng)

    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.slow  # inductor in an empty cache
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch's own
def test_a_compiled_implementation_is_checked_and_its_first_call_stands_apart(rng, tmp_path, monkeypatch):
    """Its first call is seconds, its later ones microseconds; whether the cache helped is told with it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    figures = [measured(cheats.formula, rng, kind="compiled") for _ in range(2)]

    assert [f.diagnostics["compile_cache"] for f in figures] == ["cold", "warm"]
    assert all(value(f, "first_call", "compile") > 10 * value(f, "time", "forward_backward") for f in figures)
    assert value(figures[1], "first_call", "compile") < value(figures[0], "first_call", "compile")
    assert {m.quantity for m in figures[0].measurements if m.part == "compile"} == {"first_call", "first_call_forward"}


def test_a_cache_that_was_not_asked_is_neither_warm_nor_cold():
    """Where inductor's cache is off there is nothing to say of it."""
    assert cache_state({"fxgraph_cache_miss": 0, "fxgraph_cache_hit": 0}) == "off"
    assert cache_state({"fxgraph_cache_miss": 1, "fxgraph_cache_hit": 3}) == "cold"


# Wrong ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (cheats.right_at_first, "timed.value_forward"),
        (cheats.kept_after_a_while, "timed.value_forward"),
        (lambda: cheats.gradient_kept_after_a_while(30), "timed.value_backward"),
    ],
)
def test_who_behaves_only_while_being_checked_is_caught_after_timing(make, name, rng):
    """Timed calls are the checked ones: the last, and one drawn, with operands that changed under the timer."""
    with pytest.raises(WrongResult) as caught:
        measured(make(), rng)

    assert caught.value.check == name
    assert "timed call" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "name"), [(cheats.wrong_for_one_parameter, "value_backward"), (cheats.first_half_only, "written")]
)
def test_a_wrong_implementation_is_never_timed(make, name, rng):
    """It raises before the timer is asked for."""
    kernel, implementation = cheats.kernel()

    def no_timer(device: torch.device, cold: bool):
        raise AssertionError("timed")

    with pytest.raises(WrongResult) as caught:
        measure_kernel(
            kernel, replace(implementation, run=make()), KernelCase(elements=100), cheats.CPU, torch.float32, 1, QUICK, rng,
            timer_of=no_timer, ceilings_of=lambda *_: CEILINGS,
        )  # fmt: skip
    assert caught.value.check == name


# Turns ----------------------------------------------------------------------------------------------------------------


def test_operands_take_turns_and_change_without_a_trace(rng):
    """Each call gets the next set; now and then an element differs, and autograd's version counter does not tell."""
    sets = [torch.randn(50, generator=rng) for _ in range(2)]
    seen = []
    call = Rotation(sets, sets, lambda x: seen.append((id(x), x.clone())), rng).thunk()

    for _ in range(200):
        call()

    assert [address for address, _ in seen] == [id(sets[i % 2]) for i in range(200)]
    contents = [x for address, x in seen if address == id(sets[0])]
    changes = sum(not torch.equal(a, b) for a, b in pairwise(contents))
    assert 5 <= changes <= 30
    assert all((a != b).sum() <= 1 for a, b in pairwise(contents))
    assert [x._version for x in sets] == [0, 0]


def test_kept_results_meet_the_operands_of_their_call(rng):
    """What is compared afterwards is compared with what it was made from, though that has changed since."""
    sets = [torch.randn(50, generator=rng) for _ in range(2)]
    rotation = Rotation(sets, sets, lambda x: x.exp(), rng)
    call = rotation.thunk()
    for _ in range(500):
        call()

    kept = [(which, torch.equal(sets[number].exp(), result)) for which, number, result in rotation.results()]

    assert kept == [("the last timed call", True), ("a timed call drawn at random", True)]


@pytest.mark.parametrize("elements", [0, 1])
def test_few_elements_take_turns_too(elements, rng):
    """Without elements nothing can change; a single one takes the other set's value."""
    sets = [torch.randn(elements, generator=rng) for _ in range(2)]
    before = [x.clone() for x in sets]
    call = Rotation(sets, sets, lambda x: x, rng).thunk()

    for _ in range(40):
        call()

    assert any(not torch.equal(a, b) for a, b in zip(sets, before, strict=True)) == (elements == 1)


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "extra"),
    [
        (lambda x: (x * 2,), 0),
        (lambda x: (x * 2, x * 3), 0),
        (lambda x: (x[1:],), 0),
        (lambda x: ((x * 2).exp(),), 4000),
        (lambda x: (((x * 2).exp() + 1) * x,), 4000),
        (lambda x: (torch.stack([x, x, x]).sum(0),), 12000),
    ],
)
def test_memory_beyond_inputs_and_results_is_counted(act, extra, rng):
    """Temporaries at their peak; what is returned or given costs nothing. 1000 floats are 4000 bytes."""
    x = torch.randn(1000, generator=rng)

    assert extra_bytes(lambda: act(x), [x], cheats.CPU) == pytest.approx(extra, abs=200)  # scalars as operands: a few bytes


# As a trial -----------------------------------------------------------------------------------------------------------

DECLARED = """
    import harness
    from harness.specs import Implementation, Kernel

    KERNEL = Kernel(
        "bump", inputs="kernel_cheats:make_inputs", reference="kernel_cheats:formula",
        implementations=(
            Implementation("eager", "eager", "kernel_cheats:formula"),
            Implementation("ours", "ours", "NAME_code:ours", fallback="NAME_code:why"),
            Implementation("wrong", "ours", "NAME_code:wrong"),
            Implementation("peer", "peer", "nothing_like_this:run", requires=("nothing_like_this",)),
        ),
        flops=lambda case, itemsize: {"forward": 6 * case.elements, "backward": 12 * case.elements},
        bytes=lambda case, itemsize: {"forward": 2 * itemsize * case.elements, "backward": 3 * itemsize * case.elements},
    )

    @harness.hookimpl
    def harness_kernels():
        return [KERNEL]
"""
CODE = """
    import kernel_cheats

    ours, wrong = kernel_cheats.honest(), kernel_cheats.wrong_for_one_parameter()

    def why(inputs, case):
        return "no compiler in this test"
"""


@pytest.fixture
def play(plugin_site: PluginSite, tmp_path: Path):  # noqa: F811
    """play(implementation, **trial fields) -> Outcome of a kernel trial."""

    def act(implementation: str, **changes) -> Outcome:
        plugin_site.write("kernelplug", DECLARED, CODE)
        of = {"kind": "kernel", "track": "paper-harness/kernels", "task": "kernelplug/bump", "task_params": {"elements": 1000}}
        asked = replace(trial(), **{**of, "method": f"kernelplug/bump/{implementation}", "budget": {}, **changes})
        return run_trial(asked, plugin_site.catalogue(), WorkerOptions(scratch=tmp_path, timing_limit_s=0.2))

    return act


def test_a_kernel_trial_is_an_attempt_like_any_other(play):
    """Measurements, raw timings and diagnostics reach the outcome and survive a trip through JSON."""
    outcome = play("ours", measure=("forward",))

    assert outcome.status == "ok", outcome.error
    assert [t.region for t in outcome.timings] == ["copy", "forward"]
    assert outcome.diagnostics["fallback"] == "no compiler in this test"
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert outcome.resources.wall_s > 0


def test_a_wrong_kernel_is_failed_by_the_name_of_its_check_and_has_no_time(play):
    """Never fast, never ranked."""
    outcome = play("wrong")

    assert outcome.status == "failed"
    assert outcome.error.startswith("wrong result, caught by value_backward: the gradient of b: error")
    assert not outcome.measurements
    assert not outcome.timings


def test_a_peer_that_is_not_installed_is_unsupported_before_its_code_is_imported(play):
    """Its module could not be imported; the record says what to install."""
    outcome = play("peer")

    assert outcome.status == "unsupported"
    assert "pip install nothing_like_this" in outcome.error


def test_an_implementation_that_is_not_there_is_named_with_those_that_are(play):
    """A typing error, not a crash."""
    outcome = play("theirs")

    assert outcome.status == "failed"
    assert "has no implementation 'theirs'; it has eager, ours, wrong, peer" in outcome.error


def test_every_implementation_meets_the_same_inputs(play, monkeypatch):
    """Times are compared side by side: the draws depend on case and seed, not on who computes."""
    seen = []

    def draw(case, generator, device, dtype):
        seen.append(generator.initial_seed())
        return cheats_make(case, generator, device, dtype)

    cheats_make = cheats.make_inputs
    monkeypatch.setattr(cheats, "make_inputs", draw)
    for implementation, seed in (("eager", 0), ("ours", 0), ("ours", 1)):
        play(implementation, seed=seed, measure=("forward",))

    first, same, other = dict.fromkeys(seen[:4]), dict.fromkeys(seen[4:8]), dict.fromkeys(seen[8:])
    assert first == same
    assert other != first


@pytest.mark.cuda
def test_a_kernel_is_timed_hot_and_cold_on_cuda(rng):
    """Each region twice, by the device's clock."""
    figures = measured(cheats.honest(), rng, 1 << 20, device=torch.device("cuda"))

    regions = ("forward", "backward", "forward_backward")
    assert {t.region for t in figures.timings} == {*regions, "copy", "copy_cold", *(f"{r}_cold" for r in regions)}
