"""`check_method`: a component or a learner against the contract, on a small problem of its track."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.catalogue import Catalogue, Offer, load_catalogue
from harness.errors import Diverged, HarnessError, MissingError, Unsupported
from harness.specs import Component, Method
from harness.testing.bench import Played, Setting, play, playing, settings_for
from harness.testing.components import dtype_name, examine_component, first_line
from harness.testing.documented import examine_documented
from harness.testing.findings import Report, chosen_checks
from harness.testing.watching import digest_of, watched_data, watched_seeding

METHOD_CHECKS = (
    "documented", "runs", "same_seed", "other_seed", "dtype", "device", "cpu_cuda", "shuffled_labels", "test_part",
    "inputs_kept", "state_restored", "save_load", "clock",
)  # fmt: skip
WALL_S = 0.5  # the budget of the play that the clock ends
GRACE_S = 1.0  # what may pass after it: a step that has begun, and this machine's noise
LATE_CPU_S = 0.5  # of work after the budget has said that it is spent
PERMUTATIONS = 400
SIGMAS = 6  # of chance: one play in a billion
LEARNED = 0.2  # of accuracy above chance, without which shuffled labels tell nothing
CLOSE_ON_CUDA = 1e-6  # of outputs in float64, over the largest of them: training multiplies what rounding leaves


def check_method(
    method: str, *, task: str | None = None, params: Mapping[str, Any] | None = None,
    task_params: Mapping[str, Any] | None = None, budget: Mapping[str, float] | None = None,
    only: Iterable[str] | None = None, catalogue: Catalogue | None = None,
) -> Report:  # fmt: skip
    """Check a component or a learner that an installed plugin offers. Raises NonConformant with all findings.

    method: its name, or "dist/name". params: its parameters; its defaults where not given. task, task_params: what it is played
    on, a small task of its track unless given. budget: {clock: amount}. only: names of checks (`CHECKS`).
    Raises HarnessError for a name that no plugin offers.
    """
    report = examine_method(
        method, task=task, params=params, task_params=task_params, budget=budget, only=only, catalogue=catalogue
    )
    report.require()
    return report


def examine_method(
    method: str, *, task: str | None = None, params: Mapping[str, Any] | None = None,
    task_params: Mapping[str, Any] | None = None, budget: Mapping[str, float] | None = None,
    only: Iterable[str] | None = None, catalogue: Catalogue | None = None,
) -> Report:  # fmt: skip
    """As `check_method`, but what was found is returned, not raised."""
    catalogue = catalogue or load_catalogue()
    offer = catalogue.method(method)
    wanted = chosen_checks(only, METHOD_CHECKS)
    report = Report(offer.name)
    examine_documented(offer.spec, report)
    if set(wanted) - {"documented"}:
        play_checks(catalogue, offer, task, params or {}, task_params, budget, wanted, report)
    report.keep([*wanted, "runs"])
    report.close(wanted)
    return report


def play_checks(
    catalogue: Catalogue, offer: Offer[Method], task: str | None, params: Mapping[str, Any],
    task_params: Mapping[str, Any] | None, budget: Mapping[str, float] | None, wanted: list[str], report: Report,
) -> None:  # fmt: skip
    try:
        setting, first = find_setting(catalogue, offer, task, params, task_params, budget)
    except MissingError as exc:
        skip_all(report, wanted, str(exc))
        return
    except Exception as exc:  # a plugin's own code
        report.add("runs", f"{type(exc).__name__}: {first_line(exc)}", "make it run here; `harness run` shows the traceback")
        skip_all(report, wanted, "it does not run")
        return
    if isinstance(offer.spec, Component):
        try:
            examine_component(offer.spec, setting.method_params, report)
        except Exception as exc:
            report.add(
                "runs", f"by itself: {type(exc).__name__}: {first_line(exc)}", "let it work on plain tensors of its shape"
            )
    for check, examine in EXAMINERS.items():
        if check in wanted:
            try:
                examine(setting, first, report)
            except (Unsupported, MissingError) as exc:
                report.skipped[check] = str(exc)
            except Exception as exc:
                report.add(
                    check, f"it failed here: {type(exc).__name__}: {first_line(exc)}", "make it run with this setting too"
                )


def skip_all(report: Report, wanted: Iterable[str], why: str) -> None:
    report.skipped |= {check: why for check in wanted if check not in ("documented", "runs")}
    if not report.findings:
        report.skipped["runs"] = why


def find_setting(
    catalogue: Catalogue, offer: Offer[Method], task: str | None, params: Mapping[str, Any],
    task_params: Mapping[str, Any] | None, budget: Mapping[str, float] | None,
) -> tuple[Setting, Played]:  # fmt: skip
    """The first setting in which the method runs, and its play. Raises MissingError where none is supported here."""
    why = "no task of its track has its data here"
    for setting in settings_for(catalogue, offer, task, params, budget, task_params):
        try:
            return setting, play(setting)
        except (Unsupported, MissingError) as exc:
            why = str(exc)
    raise MissingError(f"it runs on nothing that is here: {why}")


# The checks -------------------------------------------------------------------------------------------------------------


def examine_same_seed(setting: Setting, first: Played, report: Report) -> None:
    again = play(setting)
    if again.result != first.result:
        text = f"two plays with seed 0 on {setting.task.name} differ: {difference(first, again)}"
        report.add(
            "same_seed", text, "draw every random number from ctx.generator(name) or ctx.rng(name), keep nothing in modules"
        )


def examine_other_seed(setting: Setting, first: Played, report: Report) -> None:
    """On the same problem. Equal results are right for a method that draws nothing: it then asked for no stream either."""
    with watched_seeding() as seeded:
        other = play(setting, solve_seed=1)
    if other.result != first.result:
        return
    if seeded:
        text = f"seeds 0 and 1 give the same result on {setting.task.name}, and it seeds a generator of its own: {seeded[0]}"
        report.add("other_seed", text, "use ctx.generator(name) or ctx.rng(name): they are seeded by the trial")
    elif other.ctx.asked:
        report.skipped["other_seed"] = f"the results are equal, though it asked for streams {sorted(other.ctx.asked)}"
    else:
        report.skipped["other_seed"] = "it draws nothing random: another seed gives the same result"


def examine_dtype(setting: Setting, first: Played, report: Report) -> None:
    wide = play(setting, dtype="float64")
    for played, dtype in ((first, torch.float32), (wide, torch.float64)):
        for part, output in played.outputs.items():
            if output.dtype != dtype:
                text = f"in a {dtype_name(dtype)} trial predict gives {dtype_name(output.dtype)} on {part}"
                report.add("dtype", text, "build in ctx.dtype, and return the dtype of the input")
        module = getattr(played.solution, "module", None)
        if isinstance(module, torch.nn.Module):
            others = sorted({dtype_name(p.dtype) for p in module.parameters() if p.is_floating_point() and p.dtype != dtype})
            if others:
                text = f"in a {dtype_name(dtype)} trial its net has parameters in {', '.join(others)}"
                report.add("dtype", text, "build them in ctx.dtype")


def examine_device(setting: Setting, first: Played, report: Report) -> None:
    if not torch.cuda.is_available():
        report.skipped.setdefault("cpu_cuda", "no CUDA device here")
        if setting.net is None:
            report.skipped.setdefault("device", "a learner is seen on CUDA only, and there is none here")
        return
    here, there = play(setting, dtype="float64"), play(setting, dtype="float64", device="cuda")
    module = getattr(there.solution, "module", None)
    if isinstance(module, torch.nn.Module) and any(p.device.type != "cuda" for p in module.parameters()):
        report.add("device", "in a CUDA trial its net has parameters on the CPU", "build on ctx.device")
    for part, output in here.outputs.items():
        gap = float((output - there.outputs[part]).abs().max() / output.abs().max().clamp_min(1e-30))
        if gap > CLOSE_ON_CUDA:
            text = f"CPU and CUDA differ on {part} by {gap:.2g} of the largest output, in float64"
            report.add("cpu_cuda", text, "draw on the CPU (ctx.generator) and look at what the CUDA path computes")
            return


def examine_shuffled(setting: Setting, first: Played, report: Report) -> None:
    """Of the held parts: above chance is who reads them. Of the training part: who knows the labels from elsewhere."""
    if not is_classification(first):
        report.skipped["shuffled_labels"] = "its held parts have no class labels"
        return
    held = play(setting, held=shuffle_held)
    for part, scores in held.scores.items():
        if "accuracy" in scores and part in held.outputs:
            accuracy, (mean, deviation) = as_float(scores["accuracy"]), chance(held.outputs[part], held.labels[part])
            if accuracy > mean + SIGMAS * deviation + 1e-9:
                text = f"with the labels of {part} shuffled its accuracy is {accuracy:.3f}, where chance is {mean:.3f}"
                report.add("shuffled_labels", text, "let predict see its input alone; it must not reach for the labels")
                return
    trained = play(setting, problem=shuffle_problem)
    part = next(iter(first.outputs))
    learned, blind = as_float(first.scores[part].get("accuracy", 0.0)), as_float(trained.scores[part].get("accuracy", 0.0))
    expected = chance(first.outputs[part], first.labels[part])[0]
    if learned - expected < LEARNED:
        report.skipped["shuffled_labels"] = f"it learned too little here to tell (accuracy {learned:.2f})"
    elif blind - expected > (learned - expected) / 2:
        text = f"trained on shuffled labels its accuracy is {blind:.3f} (on true ones {learned:.3f}, chance {expected:.3f})"
        report.add("shuffled_labels", text, "learn from the problem alone: it knows labels from elsewhere")


def examine_test_part(setting: Setting, first: Played, report: Report) -> None:
    with watched_data() as touched:
        played = play(setting)
    for stream in sorted(set(played.ctx.refused)):
        text = f"solve asks for the stream {stream!r}, from which the split is drawn"
        report.add("test_part", text, "use a stream of your own name; data is split by the task")
    for what in dict.fromkeys(touched):
        report.add("test_part", f"solve opens {what}", "learn from the problem alone: data is loaded by the task")


def examine_inputs(setting: Setting, first: Played, report: Report) -> None:
    if first.problem_changed:
        report.add(
            "inputs_kept", f"solve changes the problem of {setting.task.name} in place", "work on a copy: x = problem.x.clone()"
        )


def examine_state(setting: Setting, first: Played, report: Report) -> None:
    """In a second play: what a library did when the first one imported it is not the method's doing."""
    for name in play(setting).changed:
        mend = "draw from ctx.generator(name), or put it back" if "random" in name else "put it back, or leave it alone"
        report.add(
            "state_restored", f"after solve {name} {'are' if name.endswith('s') and 'signal' in name else 'is'} another", mend
        )


def examine_saving(setting: Setting, first: Played, report: Report) -> None:
    with playing(setting) as played:
        assert played.reader is not None
        before = played.reader(played.solution)
        try:
            loaded = pickle.loads(pickle.dumps(played.solution))  # noqa: S301  (bytes that this process has just written)
        except Exception as exc:
            text = f"its solution cannot be saved: {type(exc).__name__}: {first_line(exc)}"
            report.add(
                "save_load", text, "let the solution hold plain data and modules: no lambda, no local class, no open file"
            )
            return
        if digest_of(played.reader(loaded)) != digest_of(before):
            text = "its solution, pickled and loaded, gives other outputs"
            report.add("save_load", text, "keep what predict needs in the solution, and let __getstate__ drop nothing of it")


def examine_clock(setting: Setting, first: Played, report: Report) -> None:
    if first.solution_changed:
        text = "the first call of predict changes the solution"
        report.add("clock", text, "do all work in solve: what predict does is on no clock")
    if first.left_working:
        text = f"threads still run after solve: {', '.join(first.left_working)}"
        report.add("clock", text, "join them before solve returns: what they do then is on no clock")
    units = {unit: amount / 3 for unit, amount in first.spent.items()}
    for budget in [{"wall_s": WALL_S}] + [{unit: amount} for unit, amount in units.items() if amount >= 1]:
        try:
            ended = play(setting, budget=budget)
        except HarnessError as exc:
            if "before any offer" in str(exc):
                continue  # it stopped as it was told to
            raise
        except Diverged:
            continue
        unit, amount = next(iter(budget.items()))
        if ended.ctx.spent_after:
            text = f"after its budget of {unit} had ended solve it called ctx.spend {ended.ctx.spent_after} times more"
            report.add("clock", text, "let BudgetSpent pass: catch Exception, never BaseException")
        elif ended.late_s > LATE_CPU_S:
            text = f"after its budget of {unit} had ended solve it worked {ended.late_s:.1f} s more"
            report.add("clock", text, "return at once: what comes after is on no clock")
        elif unit == "wall_s" and not ended.ended and worked_s(ended) > amount + GRACE_S:
            text = f"with a budget of {amount} s solve came back after {ended.solve_s:.1f} s"
            report.add("clock", text, "call ctx.spend(...) before each step: it ends solve in time")
        else:
            continue
        return


EXAMINERS = {
    "same_seed": examine_same_seed,
    "other_seed": examine_other_seed,
    "dtype": examine_dtype,
    "device": examine_device,
    "shuffled_labels": examine_shuffled,
    "test_part": examine_test_part,
    "inputs_kept": examine_inputs,
    "state_restored": examine_state,
    "save_load": examine_saving,
    "clock": examine_clock,
}


# Their parts ------------------------------------------------------------------------------------------------------------


def worked_s(played: Played) -> float:
    """Seconds of solve, scoring aside, of the wall or the CPU, whichever is less: a busy machine is not the method's doing."""
    return min(played.solve_s, played.solve_cpu_s) - played.ctx.scoring_s


def difference(one: Played, other: Played) -> str:
    """The first score that differs; or what else does."""
    for part, scores in one.scores.items():
        for name, value in scores.items():
            if digest_of(value) != digest_of(other.scores.get(part, {}).get(name)):
                return f"{name} on {part} is {value} and {other.scores.get(part, {}).get(name)}"
    if one.spent != other.spent:
        return f"they spent {one.spent} and {other.spent}"
    return "the outputs have other bits"


def is_classification(played: Played) -> bool:
    known = [label for label in played.labels.values() if label.dtype == torch.int64 and label.ndim == 1]
    return bool(known) and all(o.ndim == 2 for o in played.outputs.values())


def shuffled(labels: Tensor) -> Tensor:
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(20260217))]


def shuffle_held(held: dict[str, Any]) -> dict[str, Any]:
    return {part: {**data, "y": shuffled(data["y"])} for part, data in held.items()}


def shuffle_problem(problem: Any) -> Any:
    return replace(problem, y=shuffled(problem.y.cpu()).to(problem.y.device))


def chance(outputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean and deviation of the accuracy of these predictions over random orders of these labels."""
    predicted, generator = outputs.argmax(1), torch.Generator().manual_seed(1)
    rates = torch.stack([
        (predicted == labels[torch.randperm(len(labels), generator=generator)]).double().mean() for _ in range(PERMUTATIONS)
    ])  # fmt: skip
    return float(rates.mean()), float(rates.std())


def as_float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
