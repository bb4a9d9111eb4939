"""The stages of one trial in this process: load, seal, solve, score. Fills a `Draft`; raises what a stage raises.

A quality trial scores every offer (the curve) and the solution that `solve` returns. Where the budget ends `solve`, the last
offer is the result: its scores are those of the moment it was made, whatever training did to the object afterwards (probes
see it as it is at the end). A timing trial scores nothing: it solves, again where once tells too little, keeps readings of
regions, then times the track's inference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.catalogue import Catalogue
from harness.catalogue import Offer as Offered
from harness.context import Clocks, Context
from harness.errors import BudgetSpent, HarnessError, Unsupported
from harness.identity import canonical
from harness.records import CurvePoint, Measurement, SeriesValue, Timing, Trial
from harness.specs import Component, Instance, Learner, Method, Metric, Probe, Task, Track
from harness.timing import StopRule, measure
from harness.worker.deriving import Deriver
from harness.worker.kernel import run_kernel
from harness.worker.measuring import INFERENCE, Meter, RegionRecorder, synchronizer
from harness.worker.resolving import resolve
from harness.worker.scoring import (
    Offer,
    Scorer,
    Scores,
    finite,
    modules_of,
    require_protocol,
    seed_everything,
    to_curve,
    to_measurements,
    to_series,
)
from harness.worker.sealing import Keeper, Vault, collect, own_storage

VALIDATION = "validation"  # the part that may steer
OVERRUN = 1.05  # a solution that comes later than this share of its wall_s budget is not accepted


@dataclass
class Draft:
    """What a trial has given so far: kept whatever happens next."""

    ctx: Context | None = None
    params: int | None = None
    measurements: tuple[Measurement, ...] = ()
    series: tuple[SeriesValue, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    timings: tuple[Timing, ...] = ()
    not_finite: list[str] = field(default_factory=list)
    diagnostics: Mapping[str, float | str] = field(default_factory=dict)  # of a trial that has no ctx


@dataclass(frozen=True)
class Cast:
    """The declarations that a trial names, and their validated parameters."""

    task: Task
    track: Track
    method: Method
    probes: tuple[Probe, ...]
    task_params: BaseModel
    method_params: BaseModel

    @property
    def metrics(self) -> dict[str, Metric]:
        """Every metric by name; a probe cannot take a task's name."""
        probed = {m.name: m for probe in self.probes for m in probe.metrics}
        return probed | {m.name: m for m in self.task.metrics}


def run_stages(trial: Trial, catalogue: Catalogue, keeper: Keeper, scratch: Path, cache_dir: Path | None, rule: StopRule,
               meter: Meter, draft: Draft) -> None:  # fmt: skip
    """Raises whatever load, solve or score raises; what was found until then is in the draft."""
    if trial.kind == "kernel":
        run_kernel(trial, catalogue, rule, draft)
        return
    cast = find_cast(trial, catalogue)
    ctx = draft.ctx = make_context(trial, scratch, cache_dir)
    ctx.clocks = Clocks({})  # what load does is not the method's to pay
    solve = resolve_solve(cast)
    seed_everything(ctx.stream_seed("global/load"), ctx.device)
    problem, vault = load_sealed(cast, ctx, keeper, only=VALIDATION if trial.kind == "tuning" else None)
    if trial.kind == "tuning":  # the same instance as the trial that it tunes for, but nothing else that is random
        ctx.draw_anew("tuning")
    try:
        meter.watch_device(ctx.device)
        seed_everything(ctx.stream_seed("global"), ctx.device)
        act = play_timing if trial.kind == "timing" else play_quality
        act(trial, cast, ctx, problem, vault, solve, rule, draft)
    finally:
        ctx.clocks.stop()
        ctx.stage = "score"
        vault.destroy()


# Before solve -----------------------------------------------------------------------------------------------------------


def find_cast(trial: Trial, catalogue: Catalogue) -> Cast:
    """Raises HarnessError for a name that no plugin offers, pydantic's ValidationError for parameters that do not fit."""
    task, track, method = catalogue.task(trial.task), catalogue.track(trial.track), catalogue.method(trial.method)
    return Cast(
        task.spec,
        track.spec,
        method.spec,
        chosen_probes(trial, catalogue, track),
        task.spec.params.model_validate(dict(trial.task_params)),
        method.spec.params.model_validate(trial.settings("method")),
    )


def chosen_probes(trial: Trial, catalogue: Catalogue, track: Offered[Track]) -> tuple[Probe, ...]:
    """The track's probes that are always measured or that the trial names a metric of."""
    own = [o.spec for o in catalogue.probes if o.spec.track in (track.name, track.ref)]
    always = trial.kind != "tuning"
    return tuple(p for p in own if (p.always and always) or any(m.name in trial.measure for m in p.metrics))


def make_context(trial: Trial, scratch: Path, cache_dir: Path | None) -> Context:
    return Context(
        device=trial.device, dtype=trial.dtype, budget=trial.budget, root_seed=trial.root_seed, seed=trial.seed,
        task=canonical([trial.task, dict(trial.task_params)]), scratch=scratch, threads=trial.threads,
        net=trial.net, train=trial.settings("train"),
        derive=Deriver(cache_dir, trial.root_seed, trial.seed) if cache_dir is not None else None,
    )  # fmt: skip


def resolve_solve(cast: Cast) -> Callable[[Any, Context], Any]:
    """(problem, ctx) -> solution: a learner's own solve, or the track's learner around a component."""
    if isinstance(cast.method, Learner):
        solve = resolve(cast.method.solve, f"learner {cast.method.name!r}: solve")
        return lambda problem, ctx: solve(problem, ctx, cast.method_params)
    return component_solve(cast, cast.method)


def component_solve(cast: Cast, component: Component) -> Callable[[Any, Context], Any]:
    from harness.lab import ComponentUse  # here: a track of other plugins may never need the lab

    if cast.track.learner is None:
        raise HarnessError(f"track {cast.track.name!r} has no learner, so it cannot train a net around {component.name!r}")
    train = resolve(cast.track.learner, f"track {cast.track.name!r}: learner")
    build = resolve(component.build, f"component {component.name!r}: build")
    use = ComponentUse(component.name, component.kind, build, cast.method_params, component.init)
    return lambda problem, ctx: train(problem, ctx, use)


def load_sealed(cast: Cast, ctx: Context, keeper: Keeper, *, only: str | None = None) -> tuple[Any, Vault]:
    """The problem for the method, and the held parts under seal, or one of them. Nothing else of what load made survives this.

    Raises Unsupported where the task holds no such part.
    """
    problem, vault = _load(cast, ctx, keeper, only)
    collect()
    return problem, vault


def _load(cast: Cast, ctx: Context, keeper: Keeper, only: str | None) -> tuple[Any, Vault]:
    made = resolve(cast.task.load, f"task {cast.task.name!r}: load")(cast.task_params, ctx)
    if not isinstance(made, Instance) or not isinstance(made.held, Mapping) or not made.held:
        raise HarnessError(f"{cast.task.load} of task {cast.task.name!r} must return Instance(problem, held), held with a part")
    problem_type = resolve(cast.track.problem, f"track {cast.track.name!r}: problem")
    if isinstance(problem_type, type) and not isinstance(made.problem, problem_type):
        given = type(made.problem).__name__
        raise HarnessError(
            f"{cast.task.load} gave a {given} as its problem; track {cast.track.name!r} wants {cast.track.problem}"
        )
    if only is not None and only not in made.held:
        raise Unsupported(
            f"task {cast.task.name!r} holds no part {only!r} ({', '.join(made.held)}), so nothing can be tuned on it"
        )
    held = made.held if only is None else {only: made.held[only]}
    return own_storage(made.problem), Vault(held, keeper)


# Quality ----------------------------------------------------------------------------------------------------------------


def play_quality(
    trial: Trial, cast: Cast, ctx: Context, problem: Any, vault: Vault, solve: Callable[[Any, Context], Any],
    rule: StopRule, draft: Draft,
) -> None:  # fmt: skip
    """Solve under the budget, score the offers and the end, measure."""
    scorer = make_scorer(cast, ctx, vault)
    offers: list[Offer] = []
    last: list[Any] = []

    def on_offer(solution: Any, at: Mapping[str, float]) -> None:
        require_in_time(ctx)
        offers.append(Offer(dict(at), scorer.score(solution)))
        last[:] = [solution]
        draft.curve = to_curve(offers, cast.metrics)

    ctx._on_offer = on_offer
    try:
        solution = run_solve(solve, problem, ctx)
        require_in_time(ctx)
    except BudgetSpent as spent:
        if not last:
            raise HarnessError(
                f"the budget of {spent} ended solve before any offer; call ctx.offer(solution) earlier"
            ) from None
        solution, final = last[0], offers[-1].scores
    else:
        draft.params = count_params(solution)
        final = scorer.score(solution)
        if not offers or without_wall(offers[-1].at) != without_wall(ctx.clocks.amounts()):
            offers.append(Offer(ctx.clocks.amounts(), final))
    draft.params = count_params(solution)
    draft.curve = to_curve(offers, cast.metrics)
    told = scorer.summarise(offers)
    complete = {part: {**final[part], **told[part]} for part in final}
    scorer.require_complete(complete)
    keep(trial, cast, complete, scorer.probe(solution), draft)


def run_solve(solve: Callable[[Any, Context], Any], problem: Any, ctx: Context) -> Any:
    """Call solve on fresh clocks; they stop when it ends, however it ends."""
    ctx.stage = "solve"
    ctx.clocks = Clocks(ctx.budget)
    ctx.clocks.start()
    try:
        solution = solve(problem, ctx)
        synchronizer(ctx.device)()
        return solution
    finally:
        ctx.clocks.stop()
        ctx.stage = "score"


def require_in_time(ctx: Context) -> None:
    """Raises BudgetSpent for a solution that comes too late: a method that never spends must not gain time by it."""
    if ctx.clocks.wall_s > OVERRUN * ctx.budget.get("wall_s", float("inf")):
        raise BudgetSpent("wall_s")


def make_scorer(cast: Cast, ctx: Context, vault: Vault) -> Scorer:
    task = cast.task
    return Scorer(
        task,
        cast.task_params,
        resolve(task.score, f"task {task.name!r}: score"),
        resolve(task.summarise, f"task {task.name!r}: summarise") if task.summarise else None,
        [(p, resolve(p.measure, f"probe {p.name!r}: measure")) for p in cast.probes],
        resolve(cast.track.solution, f"track {cast.track.name!r}: solution"),
        vault,
        ctx,
    )


def keep(trial: Trial, cast: Cast, scores: Scores, probed: Scores, draft: Draft) -> None:
    """Into the draft: the metrics that the trial asks for, all that are always measured, and the names of those not finite."""
    always = {m.name for p in cast.probes if p.always for m in p.metrics}
    wanted = set(trial.measure) | always if trial.measure else set(cast.metrics)
    chosen = {
        part: {name: value for name, value in {**probed[part], **scores[part]}.items() if name in wanted} for part in scores
    }
    draft.measurements = to_measurements(chosen, cast.metrics)
    draft.series = to_series(chosen, cast.metrics)
    draft.not_finite = [f"{name} on {part}" for part, values in chosen.items() for name, v in values.items() if not finite(v)]


def without_wall(at: Mapping[str, float]) -> dict[str, float]:
    return {unit: amount for unit, amount in at.items() if unit != "wall_s"}


def count_params(solution: Any) -> int | None:
    """Trainable parameters of the solution's net, each tensor once; None where it is no net."""
    nets = modules_of(solution)
    return sum(p.numel() for p in nets[0].parameters() if p.requires_grad) if nets else None


# Timing -----------------------------------------------------------------------------------------------------------------


def play_timing(
    trial: Trial, cast: Cast, ctx: Context, problem: Any, vault: Vault, solve: Callable[[Any, Context], Any],
    rule: StopRule, draft: Draft,
) -> None:  # fmt: skip
    """Solve with regions recorded, until they are known well; then time the track's inference on the last solution."""
    last: list[Any] = []
    wanted = tuple(name for name in trial.measure if name != INFERENCE)
    with_inference = cast.track.inference is not None and (INFERENCE in trial.measure or not trial.measure)
    recorder = RegionRecorder(wanted, synchronizer(ctx.device), rule, may_end=lambda: bool(last) or not with_inference)
    ctx._region = recorder.region
    ctx._on_offer = lambda solution, at: last.__setitem__(slice(None), [solution])
    try:
        solve_for_timing(solve, problem, ctx, last)
        while recorder.wants_more():
            solve_for_timing(solve, problem, ctx, last)
    finally:
        draft.timings = recorder.timings()
    absent = sorted(set(wanted) - {t.region for t in draft.timings})
    if absent:
        raise HarnessError(
            f"to be timed: {absent}, but solve finished none after warm-up; mark it, `with ctx.region({absent[0]!r})`"
        )
    if INFERENCE in trial.measure and not with_inference:
        raise HarnessError(f"to be timed: inference, but track {cast.track.name!r} declares none; drop it from measure.timing")
    if with_inference:
        if not last:
            raise HarnessError("to be timed: inference, but solve neither returned nor offered a solution in its time")
        require_protocol(last[0], resolve(cast.track.solution, f"track {cast.track.name!r}: solution"))
        draft.params = count_params(last[0])
        draft.timings += (time_inference(cast, ctx, problem, last[0], rule),)


def solve_for_timing(solve: Callable[[Any, Context], Any], problem: Any, ctx: Context, last: list[Any]) -> None:
    """One pass. BudgetSpent is its proper end: the regions are known, the time is up or the budget is spent."""
    ctx.blobs.clear()
    with contextlib.suppress(BudgetSpent):
        last[:] = [run_solve(solve, problem, ctx)]


def time_inference(cast: Cast, ctx: Context, problem: Any, solution: Any, rule: StopRule) -> Timing:
    ctx._region = None
    thunk = resolve(str(cast.track.inference), f"track {cast.track.name!r}: inference")(solution, problem, ctx)
    samples = measure(thunk, synchronize=synchronizer(ctx.device), rule=rule)
    return Timing(INFERENCE, samples.wall_s, samples.cpu_s, samples.warmup, samples.stop_reason)
