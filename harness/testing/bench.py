"""One play of a method on a task, as a worker would run it, but watched: what `examine_method` and `examine_task` compare.

The held parts are sealed while the method works, the clocks and the scoring are the worker's own. Nothing is recorded.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.catalogue import Catalogue, Offer
from harness.context import Clocks, Context
from harness.errors import BudgetSpent, HarnessError
from harness.identity import canonical
from harness.nets import Net, Train
from harness.specs import Component, Instance, Learner, Method, Task, Track
from harness.testing.watching import RANDOM_STATES, digest_of, kept_state, read_state, solving, workers_alive
from harness.worker.deriving import Deriver
from harness.worker.resolving import resolve
from harness.worker.scoring import Offer as Offered
from harness.worker.scoring import Scores, seed_everything
from harness.worker.sealing import PipeKeeper, Vault, collect, own_storage
from harness.worker.staging import Cast, component_solve, make_scorer, run_solve

# Small, and yet enough to learn something: on 8x8 digits an MLP is right eight times of ten after it.
BUDGET = {"samples_seen": 6000.0, "steps": 60.0}
NETS = (Net(arch="mlp", width=32, depth=1), Net(arch="cnn", width=8, depth=1), Net(arch="vit", width=12, depth=1, patch=4))
TRAIN = Train(lr=0.01, evaluations=2)
SMALL = {  # parameters that make the core's tasks small
    "digits": {"subset": 400},
    "sines": {"items": 400},
    "mnist": {"subset": 400},
}
FIRST = {"classify": "digits", "regress": "sines"}


class WatchedContext(Context):
    """A context that remembers what a method asked it for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.asked: set[str] = set()
        self.refused: list[str] = []
        self.ended_s: float | None = None  # of the process' CPU clock, when the budget ended solve
        self.spent_after = 0
        self.scoring_s = 0.0

    def stream_seed(self, stream: str) -> int:
        if self.stage == "solve":
            self.asked.add(stream)
        try:
            return super().stream_seed(stream)
        except HarnessError:
            self.refused.append(stream)
            raise

    def spend(self, **units: float) -> None:
        if self.stage == "solve" and self.ended_s is not None:
            self.spent_after += 1
        try:
            super().spend(**units)
        except BudgetSpent:
            if self.ended_s is None:
                self.ended_s = time.process_time() - self.scoring_s
            raise

    def offer(self, solution: Any) -> None:
        before = time.process_time()
        try:
            super().offer(solution)
        finally:
            self.scoring_s += time.process_time() - before

    def derive(self, recipe: str, **args: Any) -> dict[str, torch.Tensor]:
        self.asked.add(f"derive/{recipe}")
        return super().derive(recipe, **args)


@dataclass(frozen=True)
class Setting:
    """What a play is made of. net, train: None for a learner."""

    method: Offer[Method]
    task: Offer[Task]
    track: Offer[Track]
    method_params: Any
    task_params: Any
    budget: Mapping[str, float]
    net: Net | None = None
    train: Train | None = None

    @property
    def cast(self) -> Cast:
        return Cast(self.task.spec, self.track.spec, self.method.spec, (), self.task_params, self.method_params)


@dataclass
class Played:
    """What came of a play. scores: of the end, on the held parts. outputs: predictions on their inputs, if it predicts."""

    scores: Scores
    outputs: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]
    solution: Any
    spent: dict[str, float]
    ctx: WatchedContext
    changed: list[str]  # of the global state, by solve
    problem_changed: bool
    solution_changed: bool  # by the first score
    left_working: list[str]
    solve_s: float  # wall seconds, and CPU seconds, of which scoring takes its part
    solve_cpu_s: float
    late_s: float  # CPU seconds from the end of the budget to the return of solve, scoring aside
    ended: bool = False  # by the budget
    reader: Callable[[Any], tuple[Scores, dict[str, torch.Tensor]]] | None = field(default=None, repr=False)

    @property
    def result(self) -> str:
        """A digest of what the method gave: equal for equal results."""
        return digest_of([self.scores, self.outputs, self.spent])


Change = Callable[[Any], Any]


@contextlib.contextmanager
def playing(
    setting: Setting, seed: int = 0, *, solve_seed: int | None = None, dtype: str = "float32", device: str = "cpu",
    budget: Mapping[str, float] | None = None, problem: Change | None = None, held: Change | None = None,
) -> Iterator[Played]:  # fmt: skip
    """Play once; inside, `reader` scores further solutions on the same held parts. Raises what load, solve or score raises.

    solve_seed: the streams of solve are those of this seed, on the problem of `seed`. problem, held: change what load gave.
    """
    cast = setting.cast
    keeper = PipeKeeper()
    with contextlib.ExitStack() as stack:
        stack.callback(keeper.close)
        gc.freeze()  # what was there before cannot hold a part: `collect` need not look at it, which takes most of a small play
        stack.callback(gc.unfreeze)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-check-")))
        changed = stack.enter_context(kept_state())
        torch.use_deterministic_algorithms(True, warn_only=True)
        ctx = make_watched(setting, seed, dtype, device, setting.budget if budget is None else budget, scratch)
        solving(lambda: ctx.stage == "solve")
        solve = resolve_watched(cast)
        seed_everything(ctx.stream_seed("global/load"), ctx.device)
        given, vault = load_and_seal(cast, ctx, keeper, problem, held)
        stack.callback(vault.destroy)
        if solve_seed is not None:
            ctx._seed = solve_seed
        seed_everything(ctx.stream_seed("global"), ctx.device)
        scorer = make_scorer(cast, ctx, vault)
        offers: list[tuple[Any, Offered]] = []

        def on_offer(solution: Any, at: Mapping[str, float]) -> None:
            offers.append((solution, Offered(dict(at), scorer.score(solution))))

        ctx._on_offer = on_offer
        before, alive, problem_before = list(changed()), set(workers_alive()), digest_of(given)
        started, started_cpu, ended = time.perf_counter(), time.process_time(), False
        try:
            solution = run_solve(solve, given, ctx)
        except BudgetSpent as spent:
            if not offers:
                raise HarnessError(
                    f"the budget of {spent} ended solve before any offer; offer a first solution early"
                ) from None
            solution, ended = offers[-1][0], True
        late = time.process_time() - ctx.scoring_s - ctx.ended_s if ctx.ended_s is not None else 0.0
        solve_s, solve_cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        changed_now = changed_since(changed, before, ctx)
        problem_changed = digest_of(given) != problem_before
        left = sorted(set(workers_alive()) - alive)
        ctx.stage = "score"
        solution_before = digest_of(solution)
        scores = offers[-1][1].scores if ended else scorer.score(solution)
        outputs, labels = predict_parts(solution, ctx, vault)
        solution_changed = digest_of(solution) != solution_before

        def read(other: Any) -> tuple[Scores, dict[str, torch.Tensor]]:
            return scorer.score(other), predict_parts(other, ctx, vault)[0]

        amounts = {unit: amount for unit, amount in ctx.clocks.amounts().items() if unit != "wall_s"}
        yield Played(
            scores, outputs, labels, solution, amounts, ctx, changed_now, problem_changed, solution_changed, left,
            solve_s, solve_cpu_s,
            late, ended, read,
        )  # fmt: skip


def play(setting: Setting, seed: int = 0, **settings: Any) -> Played:
    """As `playing`, where nothing more is to be scored."""
    with playing(setting, seed, **settings) as played:
        played.reader = None
        return played


def changed_since(changed: Callable[[], list[str]], before: list[str], ctx: Context) -> list[str]:
    """What solve changed: random states were set anew before it, so they are compared with what they were set to."""
    names = [name for name in changed() if name not in RANDOM_STATES and name not in before]
    now = read_state()
    stage, ctx.stage = ctx.stage, "score"
    try:
        with kept_state():
            seed_everything(ctx.stream_seed("global"), ctx.device)
            fresh = read_state()
    finally:
        ctx.stage = stage
    return names + [name for name in RANDOM_STATES if now[name] != fresh[name]]


def make_watched(
    setting: Setting, seed: int, dtype: str, device: str, budget: Mapping[str, float], scratch: Path
) -> WatchedContext:
    task = setting.task
    ctx = WatchedContext(
        device=device, dtype=dtype, budget=budget, root_seed=0, seed=seed,
        task=canonical([task.ref, setting.task_params.model_dump(mode="json")]), scratch=scratch,
        threads=torch.get_num_threads(),
        net=setting.net.model_dump() if setting.net else None, train=setting.train.model_dump() if setting.train else None,
        derive=Deriver(scratch / "cache", 0, seed),
    )  # fmt: skip
    ctx.clocks = Clocks({})
    return ctx


def resolve_watched(cast: Cast) -> Callable[[Any, Context], Any]:
    if isinstance(cast.method, Component):
        return component_solve(cast, cast.method)
    assert isinstance(cast.method, Learner)
    solve = resolve(cast.method.solve, f"learner {cast.method.name!r}: solve")
    return lambda problem, ctx: solve(problem, ctx, cast.method_params)


def load_and_seal(
    cast: Cast, ctx: Context, keeper: PipeKeeper, problem: Change | None, held: Change | None
) -> tuple[Any, Vault]:
    made = load_instance(cast.task, cast.task_params, ctx)
    parts = dict(made.held) if held is None else held(dict(made.held))
    given = made.problem if problem is None else problem(made.problem)
    vault = Vault(parts, keeper)
    given = own_storage(given)
    del made, parts
    collect()
    return given, vault


def load_instance(task: Task, params: Any, ctx: Context) -> Instance:
    made = resolve(task.load, f"task {task.name!r}: load")(params, ctx)
    if not isinstance(made, Instance) or not isinstance(made.held, Mapping) or not made.held:
        raise HarnessError(f"{task.load} of task {task.name!r} must return Instance(problem, held), held with a part")
    return made


def predict_parts(solution: Any, ctx: Context, vault: Vault) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Predictions on the inputs of every held part that has "x", and its "y", where the solution predicts."""
    predict = getattr(solution, "predict", None)
    outputs: dict[str, torch.Tensor] = {}
    labels: dict[str, torch.Tensor] = {}
    if not callable(predict):
        return outputs, labels
    with vault.opened() as opened:
        for part in vault.parts:
            held = opened.read(part)
            if isinstance(held, Mapping) and isinstance(held.get("x"), torch.Tensor):
                outputs[part] = predict(held["x"].to(ctx.device)).detach().cpu()
                if isinstance(held.get("y"), torch.Tensor):
                    labels[part] = held["y"]
    return outputs, labels


# What to play ---------------------------------------------------------------------------------------------------------------


def settings_for(
    catalogue: Catalogue, method: Offer[Method], task: str | None, params: Mapping[str, Any],
    budget: Mapping[str, float] | None,
    task_params: Mapping[str, Any] | None = None,
) -> Iterator[Setting]:  # fmt: skip
    """Settings to try, the smallest first. Raises HarnessError where a name or a parameter does not fit."""
    spec = method.spec
    chosen = spec.params.model_validate(dict(params))
    tasks = [catalogue.task(task)] if task else tasks_for(catalogue, method)
    for offer in tasks:
        track = catalogue.track(offer.spec.track)
        given = dict(SMALL.get(offer.name, {})) if task_params is None else dict(task_params)
        clocks = (*track.spec.clocks, "wall_s")
        amounts = dict(budget) if budget is not None else first_clock(clocks)
        try:
            at = offer.spec.params.model_validate(given)
        except ValueError:  # a task of another plugin under a name of the core's
            at = offer.spec.params()
        if isinstance(spec, Learner):
            yield Setting(method, offer, track, chosen, at, amounts)
            continue
        for net in NETS:
            yield Setting(method, offer, track, chosen, at, amounts, net, TRAIN)


def first_clock(clocks: tuple[str, ...]) -> dict[str, float]:
    """The first of the usual budgets that means something; none where the method ends by itself."""
    return next(({unit: amount} for unit, amount in BUDGET.items() if unit in clocks), {})


def tasks_for(catalogue: Catalogue, method: Offer[Method]) -> list[Offer[Task]]:
    """The tasks of a method's track, the usual one first, then by size; only those whose data are here."""
    spec = method.spec
    names = (spec.track, spec.track.rpartition("/")[2]) if isinstance(spec, Learner) else ("classify", "regress")
    own = [o for o in catalogue.tasks if o.spec.track.rpartition("/")[2] in names]
    here = [o for o in own if data_here(o.spec)]
    return sorted(here, key=lambda o: (o.name != FIRST.get(o.spec.track, ""), size_of(o.spec), o.ref))


def data_here(task: Task) -> bool:
    from harness import data

    try:
        names = task.datasets(task.params()) if callable(task.datasets) else task.datasets
        return all(name not in data.DATASETS or data.dataset(name).where != "folder" for name in names)
    except Exception:  # a plugin's own function; check_task says what is wrong with it
        return False


def size_of(task: Task) -> int:
    try:
        sizes = task.shape(task.params()) if task.shape else {}
        return max(map(int, sizes.values()), default=0)
    except Exception:
        return 1 << 60
