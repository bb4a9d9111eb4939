"""`check_task`: a task against the contract, with a method of its track that solves it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.catalogue import Catalogue, Offer, load_catalogue
from harness.errors import HarnessError, MissingError, Unsupported
from harness.lab import Classify, Regress
from harness.specs import Instance, Method, Metric, Series, Task, Track
from harness.testing.bench import NETS, TRAIN, Setting, WatchedContext, first_clock, load_instance, make_watched, play, playing
from harness.testing.components import dtype_name, examine_left, first_line
from harness.testing.documented import examine_documented
from harness.testing.findings import Report, chosen_checks
from harness.testing.methods import LEARNED, as_float, chance, is_classification, shuffle_problem
from harness.testing.watching import digest_of, kept_state, watched_seeding
from harness.worker.resolving import resolve
from harness.worker.scoring import seed_everything
from harness.worker.sealing import flatten, own_storage

TASK_CHECKS = (
    "documented", "load", "runs", "same_seed", "other_seed", "dtype", "parts", "score", "shuffled_labels", "inputs_kept",
    "state_restored",
)  # fmt: skip
SHARED_ITEMS = 0.5  # of a held part may be in the training part: real data has twins, a leak has all


def check_task(
    task: str, *, params: Mapping[str, Any] | None = None, method: str | None = None, budget: Mapping[str, float] | None = None,
    only: Iterable[str] | None = None, catalogue: Catalogue | None = None,
) -> Report:  # fmt: skip
    """Check a task that an installed plugin offers. Raises NonConformant with all findings.

    task: its name, or "dist/name". params: its parameters. method: what solves it; one of its track unless given. only: names
    of checks (`CHECKS`). Raises HarnessError for a name that no plugin offers.
    """
    report = examine_task(task, params=params, method=method, budget=budget, only=only, catalogue=catalogue)
    report.require()
    return report


def examine_task(
    task: str, *, params: Mapping[str, Any] | None = None, method: str | None = None, budget: Mapping[str, float] | None = None,
    only: Iterable[str] | None = None, catalogue: Catalogue | None = None,
) -> Report:  # fmt: skip
    """As `check_task`, but what was found is returned, not raised."""
    catalogue = catalogue or load_catalogue()
    offer = catalogue.task(task)
    wanted = chosen_checks(only, TASK_CHECKS)
    report = Report(offer.name)
    examine_documented(offer.spec, report)
    try:
        examine_running(catalogue, offer, params or {}, method, budget, report)
    except MissingError as exc:
        report.skipped |= {check: str(exc) for check in wanted if check != "documented"}
    report.keep(wanted)
    report.close(wanted)
    return report


def examine_running(
    catalogue: Catalogue, offer: Offer[Task], params: Mapping[str, Any], method: str | None,
    budget: Mapping[str, float] | None, report: Report,
) -> None:  # fmt: skip
    spec, track = offer.spec, catalogue.track(offer.spec.track)
    chosen = spec.params.model_validate(dict(params))
    later = [check for check in TASK_CHECKS if check not in ("documented", "load")]
    try:
        first, _ = load_once(offer, track, chosen)
        examine_load(spec, track.spec, chosen, first, report)
    except MissingError:
        raise
    except Exception as exc:
        report.add("load", f"{type(exc).__name__}: {first_line(exc)}", "return harness.Instance(problem, held)")
        report.skipped |= dict.fromkeys(later, "it does not load")
        return
    examine_randomness(offer, track, chosen, first, report)
    examine_parts(first, report)
    del first
    setting = find_solver(catalogue, offer, track, chosen, method, budget)
    if setting is None:
        report.skipped |= dict.fromkeys(("runs", "score", "shuffled_labels", "inputs_kept"), "no method here solves it")
        return
    try:
        examine_scoring(setting, report)
        examine_labels(setting, report)
    except Exception as exc:
        text = f"with {setting.method.name}: {type(exc).__name__}: {first_line(exc)}"
        report.add("runs", text, "let score take what a method of the track returns")


# Load -------------------------------------------------------------------------------------------------------------------


def load_once(
    offer: Offer[Task], track: Offer[Track], params: Any, seed: int = 0, dtype: str = "float32"
) -> tuple[Instance, tuple[WatchedContext, list[str]]]:
    """What load gives; the context that it had, and what of the global state it changed."""
    none: Any = None
    setting = Setting(none, offer, track, none, params, {})
    with tempfile.TemporaryDirectory(prefix="harness-check-") as scratch, kept_state() as changed:
        ctx = make_watched(setting, seed, dtype, "cpu", {}, Path(scratch))
        asked = ctx.stream_seed

        def remembered(stream: str) -> int:
            ctx.asked.add(stream)
            return asked(stream)

        ctx.stream_seed = remembered  # type: ignore[method-assign]
        seed_everything(asked("global/load"), ctx.device)
        made = load_instance(offer.spec, params, ctx)
        return made, (ctx, changed())


def examine_load(spec: Task, track: Track, params: Any, made: Instance, report: Report) -> None:
    problem_type = resolve(track.problem, f"track {track.name!r}: problem")
    if isinstance(problem_type, type) and not isinstance(made.problem, problem_type):
        text = f"its problem is a {type(made.problem).__name__}; track {track.name!r} has {track.problem}"
        report.add("load", text, f"return Instance({problem_type.__name__}(...), held)")
        return
    for part, held in made.held.items():
        try:
            flatten(part, held)
        except HarnessError as exc:
            report.add("load", first_line(exc), "put plain data into `held`: tensors, arrays, numbers, text")
    problem = made.problem
    x = getattr(problem, "x", None)
    if isinstance(x, Tensor) and x.is_floating_point() and not bool(x.isfinite().all()):
        report.add("load", "problem.x holds values that are not finite", "fill or drop what is missing")
    if spec.shape is not None and isinstance(problem, Classify | Regress):
        declared, real = dict(spec.shape(params)), problem.shape
        wrong = {name: (value, real[name]) for name, value in declared.items() if name in real and real[name] != value}
        if wrong:
            text = ", ".join(f"{name} is {given} and load gave {got}" for name, (given, got) in wrong.items())
            report.add(
                "load", f"its declared shape is another: {text}", "let `shape` and `load` agree: match works from the shape"
            )


def examine_randomness(offer: Offer[Task], track: Offer[Track], params: Any, first: Instance, report: Report) -> None:
    again, (ctx, changed) = load_once(offer, track, params)
    before = digest_of([first.problem, dict(first.held)])
    if digest_of([again.problem, dict(again.held)]) != before:
        text = "load gives two different problems for one seed"
        report.add("same_seed", text, "draw every random number from ctx.generator(name) or ctx.rng(name)")
    examine_left(changed, "load", report)
    with watched_seeding() as seeded:
        other, _ = load_once(offer, track, params, seed=1)
    if digest_of([other.problem, dict(other.held)]) == before:
        if seeded:
            text = f"seeds 0 and 1 give the same problem, and load seeds a generator of its own: {seeded[0]}"
            report.add("other_seed", text, 'use ctx.generator("split"): it is seeded by the trial')
        elif ctx.asked - {"global/load"}:
            report.skipped["other_seed"] = "the problems are equal, though it asked for a stream"
        else:
            report.skipped["other_seed"] = "it draws nothing random: it is one fixed problem"
    wide, _ = load_once(offer, track, params, dtype="float64")
    for made, dtype in ((first, torch.float32), (wide, torch.float64)):
        for name in ("x", "y"):
            value = getattr(made.problem, name, None)
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != dtype:
                text = f"in a {dtype_name(dtype)} trial problem.{name} is {dtype_name(value.dtype)}"
                report.add("dtype", text, "cast it: x.to(ctx.dtype)")


def examine_parts(made: Instance, report: Report) -> None:
    """Rows of a held part that are in the training part too."""
    x = getattr(made.problem, "x", None)
    if not isinstance(x, Tensor):
        report.skipped["parts"] = "its problem has no items x"
        return
    known = rows_of(x)
    seen = False
    for part, held in made.held.items():
        if not isinstance(held, Mapping) or not isinstance(held.get("x"), Tensor) or held["x"].shape[1:] != x.shape[1:]:
            continue
        seen = True
        rows = rows_of(held["x"].to(x.dtype))
        share = sum(row in known for row in rows) / max(1, len(rows))
        if share > SHARED_ITEMS and len(known) > 1:
            report.add(
                "parts", f"{share:.0%} of the items of {part!r} are in problem.x too", "split before you standardise or draw"
            )
    if not seen:
        report.skipped["parts"] = 'its held parts have no items "x" of that shape'


def rows_of(x: Tensor) -> set[bytes]:
    return {row.tobytes() for row in own_storage(x).detach().cpu().contiguous().flatten(1).numpy()} if x.ndim > 1 else set()


# Score ------------------------------------------------------------------------------------------------------------------


def find_solver(
    catalogue: Catalogue, offer: Offer[Task], track: Offer[Track], params: Any, method: str | None,
    budget: Mapping[str, float] | None,
) -> Setting | None:  # fmt: skip
    """The first method that solves the task: the reference net with relu where the track has a learner, else a learner."""
    amounts = dict(budget) if budget is not None else first_clock((*track.spec.clocks, "wall_s"))
    for candidate in [catalogue.method(method)] if method else solvers(catalogue, track):
        for net in NETS if not hasattr(candidate.spec, "solve") else (None,):
            chosen = candidate.spec.params()
            setting = Setting(candidate, offer, track, chosen, params, amounts, net, TRAIN if net else None)
            try:
                play(setting)
            except (Unsupported, MissingError):
                continue
            except Exception:
                if method:
                    raise
                continue  # that method's affair
            return setting
    return None


def solvers(catalogue: Catalogue, track: Offer[Track]) -> list[Offer[Method]]:
    relu = [o for o in catalogue.methods if o.ref == "paper-harness/relu"] if track.spec.learner else []
    learners = [o for o in catalogue.methods if getattr(o.spec, "track", None) in (track.name, track.ref)]
    return relu + sorted(learners, key=lambda o: (o.plugin is not track.plugin, o.name))


def examine_scoring(setting: Setting, report: Report) -> None:
    with playing(setting) as played:
        assert played.reader is not None
        solution_before = digest_of(played.solution)
        one, two = played.reader(played.solution)[0], played.reader(played.solution)[0]
        if digest_of(one) != digest_of(two):
            report.add(
                "score", "the same solution scored twice gives other numbers", "score by the held part and the solution alone"
            )
        if digest_of(played.solution) != solution_before:
            report.add("score", "score changes the solution", "work on copies; training goes on after an offer")
        declared = {metric.name: metric for metric in setting.task.spec.metrics}
        for part, scores in one.items():
            for name, value in scores.items():
                examine_worst(declared[name], part, value, report)
        if played.problem_changed:
            report.add(
                "inputs_kept", f"{setting.method.name} changes the problem in place", "that method is wrong, or the problem is"
            )
        names = sorted({name for scores in one.values() for name in scores})
        if not setting.task.spec.summarise and set(declared) - set(names):
            report.add("score", f"it gives no {sorted(set(declared) - set(names))}", "return every declared metric, or drop it")


def examine_worst(metric: Metric, part: str, value: float | Series, report: Report) -> None:
    if metric.worst is None or metric.better == "neither" or isinstance(value, Series):
        return
    below = value < metric.worst if metric.better == "higher" else value > metric.worst
    if below:
        text = f"{metric.name} on {part} is {value:.4g}, beyond its declared worst {metric.worst:.4g}"
        report.add("score", text, "declare a worst that no solution can fall below, or None")


def examine_labels(setting: Setting, report: Report) -> None:
    first = play(setting)
    if not is_classification(first) or not isinstance(next(iter(first.outputs.values())), Tensor):
        report.skipped["shuffled_labels"] = "its held parts have no class labels"
        return
    part = next(iter(first.outputs))
    if "accuracy" not in first.scores[part]:
        report.skipped["shuffled_labels"] = "it declares no accuracy"
        return
    blind = play(setting, problem=shuffle_problem)
    learned, got = as_float(first.scores[part]["accuracy"]), as_float(blind.scores[part]["accuracy"])
    expected = chance(first.outputs[part], first.labels[part])[0]
    classes = first.outputs[part].shape[1]
    if learned - expected < LEARNED or classes < 5:
        report.skipped["shuffled_labels"] = f"with {classes} classes and accuracy {learned:.2f} it would tell nothing"
    elif got - expected > (learned - expected) / 2:
        text = f"trained on shuffled labels {setting.method.name} has accuracy {got:.3f} (chance {expected:.3f})"
        report.add("shuffled_labels", text, "the items carry their labels; take them out of x")
