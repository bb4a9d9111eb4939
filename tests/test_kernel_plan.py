"""Kernels in suites and plans: what is multiplied, what is left out, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalogue import Catalogue, Offer, Plugin
from harness.errors import SuiteError
from harness.plan import Here, make_plan
from harness.records import KERNEL_REGIONS
from harness.specs import Implementation, Kernel, KernelCase, Learner, Metric, Task, Track
from harness.suite import load_suite_text

HERE = Here("2.13.0", {"cpu": "", "cuda": "no GPU here"})


class Wide(KernelCase):
    hidden: int = 8


def work(case, itemsize):
    return {"forward": case.elements, "backward": 2 * case.elements}


@pytest.fixture
def catalogue(tmp_path):
    """Two kernels: one with three implementations, of which one is for the GPU only; one without a backward pass."""
    (tmp_path / "paper.py").write_text("x = 1\n")
    plugin = Plugin("papers", "paper", "1", None, tmp_path / "paper.py")
    made = (
        Implementation("eager", "eager", "m:eager"),
        Implementation("ours", "ours", "m:ours"),
        Implementation("tritonic", "ours", "m:tritonic", devices=("cuda",)),
    )
    bump = Kernel("bump", "m:inputs", made, "m:reference", work, work, params=Wide)
    copy = Kernel("copy", "m:inputs", made[:1], "m:reference", work, work, backward=False)
    task = Task("puzzle", "solve", (Metric("gap", "1", "lower"),), "m:load", "m:score")
    return Catalogue(
        plugins=(plugin,),
        kernels=(Offer(bump, plugin), Offer(copy, plugin)),
        tracks=(Offer(Track("solve", "1", "m:P", "m:S", ("steps",)), plugin),),
        tasks=(Offer(task, plugin),),
        methods=(Offer(Learner("solver", "solve", "m:solve"), plugin),),
    )


def suite(catalogue, text):
    return load_suite_text(f"schema: harness/suite/1\nname: s\n{text}", Path("s.yaml"), catalogue)


def trials(catalogue, text, here=HERE):
    return [p.trial for p in make_plan(suite(catalogue, text), catalogue, here, {}, {}).planned]


def test_cases_multiply_with_implementations_and_three_fresh_processes(catalogue):
    """2 sizes x 2 layouts x the 2 implementations for a CPU x 3."""
    made = trials(catalogue, "kernels: [{use: bump, grid: {elements: [0, 10000], layout: [contiguous, strided]}}]")

    assert len(made) == 2 * 2 * 2 * 3
    assert {t.kind for t in made} == {"kernel"}
    assert {t.method for t in made} == {"papers/bump/eager", "papers/bump/ours"}
    assert {(t.role, t.method.rpartition("/")[2]) for t in made} == {("baseline", "eager"), ("method", "ours")}
    assert {"elements": 0, "layout": "contiguous", "hidden": 8} in [t.task_params for t in made]
    assert len({t.trial_id for t in made}) == len(made)


def test_implementations_of_one_case_and_process_pair(catalogue):
    """That is what a ratio is taken over."""
    made = trials(catalogue, "kernels: [bump]")

    keys = [{t.pair_key for t in made if t.seed == seed} for seed in range(3)]
    assert all(len(k) == 1 for k in keys)
    assert len(set.union(*keys)) == 3


def test_a_kernel_without_a_backward_pass_is_timed_forward_only(catalogue):
    made = trials(catalogue, "kernels: [bump, copy]")

    assert {t.measure for t in made if t.task == "papers/copy"} == {("forward",)}
    assert {t.measure for t in made if t.task == "papers/bump"} == {KERNEL_REGIONS}


def test_regions_and_implementations_can_be_chosen(catalogue):
    made = trials(catalogue, "kernels: [{use: bump, implementations: [ours]}]\nmeasure: {timing: [backward]}")

    assert {(t.method, t.measure) for t in made} == {("papers/bump/ours", ("backward",))}


def test_kernels_run_when_all_else_is_done(catalogue):
    """What is timed must not share the machine with training."""
    text = """
    kernels: [bump]
    tasks: [puzzle]
    methods: [solver]
    seeds: 2
    measure: {timing: [step, forward]}
    """
    made = trials(catalogue, "\n".join(line.strip() for line in text.splitlines()))

    assert [t.kind for t in made] == ["quality"] * 2 + ["timing"] * 3 + ["kernel"] * 6
    assert {t.measure for t in made if t.kind == "timing"} == {("step",)}
    assert {t.measure for t in made if t.kind == "kernel"} == {("forward",)}


def test_exclude_names_kernels_implementations_and_cases(catalogue):
    grid = "kernels: [{use: bump, grid: {elements: [1, 10]}}]\n"

    assert {t.task_params["elements"] for t in trials(catalogue, grid + "exclude: [{case.elements: 1}]")} == {10}
    assert {t.method for t in trials(catalogue, grid + "exclude: [{kernel: bump, implementation: e*}]")} == {"papers/bump/ours"}


def test_without_a_gpu_its_trials_are_a_note_with_the_mend(catalogue):
    plan = make_plan(suite(catalogue, "kernels: [bump]\ndevices: [cpu, cuda]"), catalogue, HERE, {}, {})

    assert {p.trial.device for p in plan.planned} == {"cpu"}
    assert [(n.trials, n.what) for n in plan.notes] == [(9, "device cuda: no GPU here")]


def test_a_suite_needs_tasks_and_methods_or_kernels(catalogue):
    """Both keys are missing, and both are said."""
    with pytest.raises(SuiteError) as caught:
        suite(catalogue, "seeds: 2")

    assert [line.split(": ", 2)[1] for line in str(caught.value).splitlines()] == ["tasks", "methods"]
    with pytest.raises(SuiteError, match="methods: missing"):
        suite(catalogue, "kernels: [bump]\ntasks: [puzzle]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kernels: [bmup]", r"s\.yaml:3: kernels\[0\]: .*did you mean 'bump'"),
        ("kernels: [{use: bump, implementations: [our]}]", r"implementations\[0\]: .*did you mean 'ours'.*ours, tritonic"),
        ("kernels: [{use: bump, implementations: [ours, ours]}]", "stands at .* already"),
        ("kernels: [{use: bump, params: {size: 3}}]", "no parameter 'size'.*elements, layout, hidden"),
        ("kernels: [{use: bump, params: {elements: -1}}]", "at least 0"),
        ("kernels: [{use: bump, params: {layout: diagonal}}]", "'contiguous', 'strided' or 'unaligned'"),
        ("kernels: [bump, bump]", "is kernels.0. .* already"),
        ("kernels: [bump]\nmeasure: {timing: [forwards]}", "did you mean 'forward'"),
        ("kernels: [bump]\nexclude: [{implementation: cudnn}]", "no implementation matches 'cudnn'"),
        ("kernels: []", "at least 1"),
    ],
)
def test_a_mistake_is_answered_with_the_place_and_the_mend(catalogue, text, said):
    with pytest.raises(SuiteError, match=said):
        suite(catalogue, text)


def test_the_code_of_the_measuring_is_part_of_a_kernel_trials_identity(catalogue):
    """A repaired timer makes old readings ones of other code."""
    (trial, *_) = trials(catalogue, "kernels: [bump]")

    assert trial.code_digest == catalogue.kernel_digest(catalogue.kernel("bump"))
    assert trial.code_digest != catalogue.home_digest(catalogue.kernel("bump").plugin)
