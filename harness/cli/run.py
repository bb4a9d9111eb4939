"""`harness run`, `plan`, `validate`, `schema`: from a suite file to records and a leaderboard."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import completing
from harness.cli.claims import fix_claims, lines, tell, to_json
from harness.cli.options import (
    CommaList,
    Limit,
    Shard,
    data_dir_option,
    example,
    json_option,
    option,
    reader_may_leave,
    registry_option,
)

if TYPE_CHECKING:
    from harness.catalogue import Catalogue
    from harness.claims.fixing import Protocol, Unfixed
    from harness.executors import ForkServer
    from harness.plan import Plan, Selection
    from harness.records import Measurement, Provenance, Trial
    from harness.registry import Registry
    from harness.run import Limits, Summary
    from harness.suite import Suite

ASK_ABOVE_S = 3600.0
INTERRUPTED = 130
GONE_SHOWN = 3


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What narrows or changes a suite from the command line."""
    for decorate in reversed(
        [
            option("-m", "--method", "methods", multiple=True, metavar="GLOB", help="Only these methods, 'evonorm-*'."),
            option("-t", "--task", "tasks", multiple=True, metavar="GLOB", help="Only these tasks."),
            option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a key: net.width=64."),
            option("--seeds", default=None, metavar="N|LIST", help="Number of seeds, or a list '3,5,8'."),
            option("--device", "devices", type=CommaList(), default=None, help="cpu, cuda, or both: cpu,cuda."),
            option("--limit", type=Limit(), default=None, help="Share (0.1) or number (20) of trials but tuning; pairs first."),
            option("--shard", type=Shard(), default=None, help="Only part I of N, by whole pairs; for schedulers."),
            option("--retry-failed", is_flag=True, help="Run failed and unsupported trials again."),
            option("--force", is_flag=True, help="Run everything again, also what is done."),
        ]
    ):
        command = decorate(command)
    return command


@dataclass(frozen=True)
class Choice:
    """The command line of `run` and `plan`, as one value."""

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    overrides: tuple[str, ...]
    seeds: str | None
    devices: tuple[str, ...] | None
    limit: float | None
    shard: tuple[int, int] | None
    retry_failed: bool
    force: bool
    timeout: str | None = None
    memory: str | None = None

    def all_overrides(self) -> list[str]:
        """--seeds, --device and the limits as the `--set` that they stand for."""
        made = list(self.overrides)
        made += [f"limits.{name}={value}" for name in ("timeout", "memory") if (value := getattr(self, name)) is not None]
        if self.seeds is not None:
            made.append(f"seeds={self.seeds}" if self.seeds.isdigit() else f"seeds=[{self.seeds}]")
        if self.devices is not None:
            made.append(f"devices=[{', '.join(self.devices)}]")
        return made

    def words(self) -> list[str]:
        """What of it decides which trials the suite has on a device; the limits, and what picks some of them, do not."""
        seeds = [] if self.seeds is None else ["--seeds", self.seeds]
        return [word for change in self.overrides for word in ("--set", change)] + seeds

    def selection(self) -> Selection:
        from harness.plan import Selection

        return Selection(self.methods, self.tasks, self.limit, self.retry_failed, self.force, self.shard)


@click.command(
    "run",
    epilog=example("harness run vision --seeds 3 -m relu -m crrelu"),
    short_help="Run what is missing of a suite, then show its leaderboard.",
)
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...", shell_complete=completing.suites)
@selection_options
@option("-j", "--jobs", type=click.IntRange(min=1), default=None, help="Trials at once. [default: cores / threads]")
@option("--timeout", default=None, metavar="TIME", help="Hard limit of one trial: 90s, 30m, 2h. [default: the suite's]")
@option("--memory", default=None, metavar="SIZE", help="Memory limit of one trial: 4GiB. [default: the suite's]")
@option("--dry-run", is_flag=True, help="Print the plan and stop.")
@option("--yes", is_flag=True, help="Do not ask before a long run.")
@registry_option
@data_dir_option
@json_option
def run_command(
    suites: tuple[str, ...], jobs: int | None, dry_run: bool, yes: bool, registry: Path, data_dir: Path | None, as_json: bool,
    **narrowing: Any,
) -> None:  # fmt: skip
    """Run what is missing of each SUITE (a file, or the name of a shipped one) and show its leaderboard.

    A trial that is done in the registry is not run again; a failed one neither, unless --retry-failed. Ctrl-C (SIGTERM and
    SIGHUP too) keeps all that is finished, and the same command goes on from there.
    """
    codes = []
    with stopped_by_signals():
        for name in suites:
            with session(name, Choice(**narrowing), registry, data_dir, jobs, read_only=dry_run) as s:
                if dry_run:
                    show_plan(s, as_json)
                    continue
                codes.append(run_suite(s, yes, as_json))
            if INTERRUPTED in codes:
                break
    sys.exit(max(codes, default=0))


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM (a scheduler, a service, a shutdown) and SIGHUP (a terminal that is closed) stop a run as Ctrl-C does.

    The exit code is then 128 + the signal's number: 143, 129. One that is ignored, by `nohup` say, stays so.
    """
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # no other hears signals
        numbers = []
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        if not came:
            raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
    if came:
        with suppress(OSError):  # the terminal that was closed
            click.echo(f"stopped by {signal.Signals(came[0]).name}", err=True)
        sys.exit(128 + came[0])


@dataclass
class Session:
    """A suite with everything around it, ready to run. claims: what they are judged on, of the whole suite."""

    suite: Suite
    catalogue: Catalogue
    plan: Plan
    trials: list[Trial]
    registry: Registry
    executor: ForkServer
    provenance: Provenance
    parallel: int
    claims: list[Protocol | Unfixed]
    torch_version: str
    words: list[str]  # behind `harness run`, for the suite as it is here
    again: Callable[[], Session]  # the same, planned anew from what the registry holds by now


@contextmanager
def session(
    name: str, choice: Choice, registry_path: Path, data_dir: Path | None, jobs: int | None, *, read_only: bool
) -> Iterator[Session]:
    """Load, match and plan. The fork server starts only when something has to run in it."""
    from harness import data, match, plan, provenance
    from harness.claims.fixing import find_protocols
    from harness.data.cache import cache_root
    from harness.executors import ForkServer, WorkerOptions
    from harness.fetching import downloads_of
    from harness.registry import Registry
    from harness.suite import find_suite, load_suite

    catalogue = load_plugins()
    suite = load_suite(find_suite(name), catalogue, overrides=choice.all_overrides())
    registry = Registry.open(registry_path, create=not read_only)
    parallel = jobs or max(1, (os.cpu_count() or 1) // suite.threads)
    options = WorkerOptions(data_dir=data_dir, cache_dir=cache_root(), threads=suite.threads)
    modules, datasets = needs_of(suite, catalogue)
    with ForkServer(parallel, options, preload=modules, datasets=datasets) as executor:
        gpu = executor.probe_devices() if "cuda" in suite.devices else {"cuda": False}
        here = plan.Here(
            torch_version=provenance.torch_version(),
            devices={"cpu": "", "cuda": "" if gpu["cuda"] else str(gpu.get("reason", "not usable"))},
            missing_data=data.missing([o.name for o in catalogue.datasets], data_dir),
            fetchable=frozenset(o.name for o in catalogue.datasets if downloads_of(o.spec)),
        )
        where = provenance.gather(suite.name, gpu, suite.path.parent)
        matched = match.find_matches(plan.match_requests(suite, catalogue), executor.cost, cache_root() / "match")
        where = replace(where, data_facts=data_facts(suite, catalogue))

        def planned() -> Session:
            states = registry.states(where.machine)
            done = {key: plan.Done(s.status, s.quantities, s.wall_s) for key, s in states.items()}
            scores = tuning_scores(registry, where.machine) if suite.tuning else {}
            whole = plan.make_plan(suite, catalogue, here, done, matched, registry.wall_times(where.machine), scores)
            selection = choice.selection()
            narrowed = plan.narrow(whole, selection)
            return Session(
                suite, catalogue, narrowed, plan.to_run(narrowed, selection), registry, executor, where, parallel,
                list(find_protocols(suite, whole, catalogue)), here.torch_version, [name, *choice.words()], planned,
            )  # fmt: skip

        yield planned()
    for warning in registry.warnings:
        click.echo(f"warning: {warning}", err=True)


def tuning_scores(registry: Registry, machine: str) -> dict[str, float]:
    """By trial id: what the latest tuning trials scored on the validation part, where they ended well."""
    sql = """
        SELECT trial_id, arg_max(value, attempt_id) AS score
        FROM measurements JOIN (SELECT attempt_id, measure FROM attempts WHERE kind = 'tuning') USING (attempt_id)
        WHERE machine = $machine AND part = 'validation' AND status = 'ok' AND list_contains(measure, quantity)
              AND value IS NOT NULL AND annotation IS DISTINCT FROM 'invalid' GROUP BY trial_id"""
    return {row["trial_id"]: row["score"] for row in registry.query(sql, {"machine": machine}).to_pylist()}


def load_plugins() -> Catalogue:
    """The catalogue; broken plugins are named on stderr and stop nothing."""
    from harness.catalogue import load_catalogue

    return warn_of_broken(load_catalogue())


def warn_of_broken(catalogue: Catalogue) -> Catalogue:
    for broken in catalogue.broken:
        click.echo(f"warning: plugin {broken.id} {broken.version} is left out: {broken.error}", err=True)
    return catalogue


def needs_of(suite: Suite, catalogue: Catalogue) -> tuple[list[str], list[str]]:
    """The modules and the embedded data of the suite's trials: the fork server reads them once, before it forks."""
    from harness.plan import datasets_of, expand_uses

    modules: set[str] = set()
    datasets: set[str] = set()
    for use in expand_uses(suite, catalogue):
        spec, track, task = use.method.spec, use.track.spec, use.task.spec
        for dotted in (getattr(spec, "build", None), getattr(spec, "solve", None), track.learner, track.problem,
                       track.solution, track.inference, task.load, task.score, task.summarise):  # fmt: skip
            if dotted:
                modules.add(dotted.partition(":")[0])
        datasets |= {n for n in datasets_of(task, use.task_params) if catalogue.dataset(n).spec.where == "embedded"}
    for entry in suite.kernels:
        kernel = catalogue.kernel(entry.ref).spec
        for dotted in (kernel.inputs, kernel.reference, *(i.run for i in kernel.implementations)):
            modules.add(dotted.partition(":")[0])
    return sorted(modules), sorted(datasets)


def data_facts(suite: Suite, catalogue: Catalogue) -> dict[str, Any]:
    """What each data digest of the suite's trials covers."""
    from harness.plan import data_digest, datasets_of, expand_uses

    facts = {}
    for use in expand_uses(suite, catalogue):
        names = datasets_of(use.task.spec, use.task_params)
        specs = [catalogue.dataset(n).spec for n in names]
        facts[data_digest(use, catalogue)] = {
            d.name: {"digest": d.digest, "source": d.source, "licence": d.licence} for d in specs
        }
    return facts


def run_suite(s: Session, yes: bool, as_json: bool) -> int:
    """Run, report, and say how it ended: the exit code."""
    from harness.cli.boards import draw_leaderboards
    from harness.cli.drawing import draw_progress
    from harness.cli.kernels import draw_kernel_boards
    from harness.errors import DamagedError
    from harness.kernelboard import make_kernel_boards
    from harness.leaderboard import make_leaderboards
    from harness.pooling import make_pools
    from harness.run import Limits, run_trials

    for note in s.plan.notes:
        click.echo(f"skipped: {note.trials} trials: {note.what}; {note.mend}", err=True)
    limits = Limits(s.suite.limits.timeout_s, s.suite.limits.memory_bytes)
    confirm(s, yes)
    if s.claims:
        fix_claims(s.claims, s.registry, s.suite.name, s.words, s.provenance.machine, s.torch_version)
    s, stopped = tune_first(s, limits) if any(trial.kind == "tuning" for trial in s.trials) else (s, False)
    if stopped:
        return INTERRUPTED
    with draw_progress(s.suite.name, s.plan, s.trials, at_once(s)) as progress:
        summary = run_trials(
            s.trials, s.executor, s.registry, s.provenance, declared_by(s.catalogue), limits, s.parallel, progress
        )
    trials = {p.trial.trial_id for p in s.plan.planned}
    with reader_may_leave():
        if s.suite.tasks:
            boards = make_leaderboards(s.registry, trials, s.provenance.machine, baseline_of(s.suite), with_ids=as_json)
            draw_leaderboards(boards, make_pools(boards), "json" if as_json else "table")
        if s.suite.kernels:
            draw_kernel_boards(make_kernel_boards(s.registry, s.provenance.machine, kernel_trials(s)), as_json=as_json)
    old = states_left(s)
    click.echo(ending(s, summary.counts, old), err=True)
    tell_gone(summary, s.registry)
    if s.claims:
        papers = sorted({claim.partition(".")[0] for claim in s.suite.claims})
        click.echo(f"`harness claims {' '.join(papers)}` judges the claims of {s.suite.name}", err=True)
    if summary.interrupted:
        return INTERRUPTED
    if summary.lost:
        return DamagedError.exit_code
    return 1 if summary.failed or old["failed"] else 0


def tune_first(s: Session, limits: Limits) -> tuple[Session, bool]:
    """Run the tuning trials, then plan those that waited for them; and whether the user stopped it.

    A point that fails is a result, the worst there is, and no failure of the run.
    """
    from harness.cli.drawing import draw_progress
    from harness.run import run_trials

    trials = [trial for trial in s.trials if trial.kind == "tuning"]
    with draw_progress(f"{s.suite.name} tuning", s.plan, trials, s.parallel) as progress:
        summary = run_trials(
            trials, s.executor, s.registry, s.provenance, declared_by(s.catalogue), limits, s.parallel, progress
        )
    counts = ", ".join(f"{n} {status}" for status, n in sorted(summary.counts.items())) or "nothing to run"
    click.echo(f"{s.suite.name}: tuning: {counts}; points that fail count as the worst", err=True)
    tell_gone(summary, s.registry)
    after = s.again()
    return replace(after, trials=[trial for trial in after.trials if trial.kind != "tuning"]), summary.interrupted


def at_once(s: Session) -> int:
    """What is timed runs alone."""
    return s.parallel if any(trial.kind in ("tuning", "quality") for trial in s.trials) else 1


def kernel_trials(s: Session) -> list[Trial]:
    return [p.trial for p in s.plan.planned if p.trial.kind == "kernel"]


def tell_gone(summary: Summary, registry: Registry) -> None:
    """Say which records of this run were gone or damaged when it ended: something has written into the registry."""
    for trials, what in (
        (summary.again, "they are recorded again"),
        (summary.lost, "they are lost, and the same command runs these trials anew"),
    ):
        if trials:
            shown = ", ".join(trial.label for trial in trials[:GONE_SHOWN]) + (", ..." if len(trials) > GONE_SHOWN else "")
            click.echo(
                f"warning: registry {registry.path}: {len(trials)} records of this run were gone or damaged when it ended; "
                f"{what}: {shown}; find the plugin that writes there, and see `harness verify`",
                err=True,
            )  # fmt: skip


def baseline_of(suite: Suite) -> str | None:
    """The method that leaderboards compare the others with: the first baseline of the suite."""
    return next((m.ref for m in suite.methods if m.role == "baseline"), None)


def states_left(s: Session) -> Counter[str]:
    """The states of the trials that this run leaves as they were."""
    run = {t.trial_id for t in s.trials}
    return Counter(p.state for p in s.plan.planned if p.trial.trial_id not in run and p.trial.kind != "tuning")


def ending(s: Session, counts: dict[str, int], old: Counter[str]) -> str:
    """One line: what ran, what was done before, what failed and the command that shows why."""
    ran = ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "nothing to run"
    before = ", ".join(
        [f"{old['done']} done before", *(f"{n} {state} before" for state, n in sorted(old.items()) if state != "done")]
    )
    line = f"{s.suite.name}: {ran}; {before}; registry {s.registry.path}"
    failed = sum(n for status, n in counts.items() if status not in ("ok", "unsupported", "interrupted")) + old["failed"]
    return f"{line}\n`harness status --failed` lists what failed, `harness logs TRIAL` shows why" if failed else line


def confirm(s: Session, yes: bool) -> None:
    """Say how long it will take where earlier records tell; ask above an hour."""
    predicted = s.plan.predict(s.trials)
    if not s.trials or predicted is None:
        return
    seconds = predicted / at_once(s)
    click.echo(f"{len(s.trials)} trials, about {seconds / 60:.1f} min from earlier records", err=True)
    if seconds > ASK_ABOVE_S and not yes and not click.confirm("Run them?", err=True):
        raise click.Abort()


def declared_by(catalogue: Catalogue) -> Callable[[Trial], tuple[Measurement, ...]]:
    """The metrics that a quality trial owes on its test part."""
    from harness.records import Measurement

    probed = {m.name: m for o in catalogue.probes for m in o.spec.metrics}

    def declared(trial: Trial) -> tuple[Measurement, ...]:
        if trial.kind != "quality":
            return ()
        known = probed | {m.name: m for m in catalogue.task(trial.task).spec.metrics}
        metrics = [known[name] for name in trial.measure]
        return tuple(Measurement(m.name, "test", m.unit, m.better, None, m.worst) for m in metrics)

    return declared


@click.command("plan", epilog=example("harness plan vision --seeds 3"), short_help="What a suite would run, and for how long.")
@click.argument("suite", metavar="SUITE", shell_complete=completing.suites)
@selection_options
@option("-j", "--jobs", type=click.IntRange(min=1), default=None, help="Trials at once. [default: cores / threads]")
@registry_option
@data_dir_option
@json_option
def plan_command(suite: str, jobs: int | None, registry: Path, data_dir: Path | None, as_json: bool, **narrowing: Any) -> None:
    """Print what `run` would do: trials by state, matched widths, predicted time. Runs no trial and writes no record."""
    with session(suite, Choice(**narrowing), registry, data_dir, jobs, read_only=True) as s:
        show_plan(s, as_json)


def show_plan(s: Session, as_json: bool) -> None:
    from harness.cli.drawing import draw_plan

    told = tell(s.claims, s.registry, s.provenance.machine, s.torch_version) if s.claims else []
    if as_json:
        rows = [{**p.trial.__dict__, "state": p.state, "predicted_s": p.predicted_s} for p in s.plan.planned]
        notes = [n.__dict__ for n in s.plan.notes]
        whole = {"suite": s.plan.suite, "trials": rows, "notes": notes, "claims": to_json(told), "to_run": len(s.trials)}
        click.echo(json.dumps({**whole, "waiting": len(s.plan.waiting), "predicted_s": s.plan.predict(s.trials)}))
    else:
        draw_plan(s.plan, s.trials)
        for line in lines(told):
            click.echo(line)


@click.command("validate", epilog=example("harness validate suites/vision.yaml"), short_help="Check a suite file.")
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...", shell_complete=completing.suites)
@option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a key first: net.width=64.")
def validate_command(suites: Sequence[str], overrides: tuple[str, ...]) -> None:
    """Check schema, names and parameters; every mistake at once, each with its line and the mend. Imports no torch."""
    from harness.errors import SuiteError
    from harness.suite import find_suite, load_suite

    catalogue = load_plugins()
    mistakes = []
    for name in suites:
        try:
            suite = load_suite(find_suite(name), catalogue, overrides=list(overrides))
            click.echo(f"{suite.path}: ok")
        except SuiteError as exc:
            mistakes.append(str(exc))
    if mistakes:
        raise SuiteError("\n".join(mistakes))


@click.command(
    "schema", epilog=example("harness schema > suites/suite.schema.json"), short_help="JSON Schema of the suite file."
)
def schema_command() -> None:
    """Print the JSON Schema of the suite file; editors complete and check suites with it (first line of each suite)."""
    from harness.suite import suite_schema

    click.echo(json.dumps(suite_schema(load_plugins()), indent=2, sort_keys=True))


COMMANDS = [run_command, plan_command, validate_command, schema_command]
