"""Scoring: a solution in, checked metrics out. The state that a method has set up is put aside meanwhile and put back after.

So an offer never changes training: random states, gradient mode, default dtype, threads, working folder and the modes of the
solution's module are as before. And a score never depends on them: it starts from torch's defaults and a seed of its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.context import Context
from harness.errors import HarnessError
from harness.records import CurvePoint, Measurement, SeriesValue
from harness.specs import Metric, Probe, Series, Task
from harness.worker.sealing import Vault, require_owner

Value = float | Series
Scores = dict[str, dict[str, Value]]  # part -> metric -> value


@dataclass(frozen=True)
class Offer:
    """A scored solution and what had been spent by then."""

    at: Mapping[str, float]
    scores: Scores


class Scorer:
    """Scores solutions of one trial on its sealed parts."""

    def __init__(
        self,
        task: Task,
        params: Any,
        score: Callable[..., Mapping[str, Any]],
        summarise: Callable[..., Mapping[str, Any]] | None,
        probes: Sequence[tuple[Probe, Callable[..., Mapping[str, Any]]]],
        protocol: type,
        vault: Vault,
        ctx: Context,
    ) -> None:
        self._task, self._params = task, params
        self._score, self._summarise, self._probes = score, summarise, probes
        self._protocol, self._vault, self._ctx = protocol, vault, ctx
        self._owner = os.getpid()

    def score(self, solution: Any) -> Scores:
        """All parts by the task's score. Raises HarnessError for a solution or a score that breaks its contract."""
        return self._on_parts(solution, self._score_part)

    def probe(self, solution: Any) -> Scores:
        """All parts by the probes."""
        return self._on_parts(solution, self._probe_part) if self._probes else {part: {} for part in self._vault.parts}

    def summarise(self, offers: Sequence[Offer]) -> Scores:
        """What the whole curve tells, for each part; empty where the task has nothing to say on it."""
        if self._summarise is None:
            return {part: {} for part in self._vault.parts}
        made = {}
        for part in self._vault.parts:
            curve = [{"at": dict(o.at), **scalars(o.scores[part])} for o in offers]
            told = self._summarise(curve, self._params)
            where = f"{self._task.summarise} of task {self._task.name!r}"
            made[part] = check_metrics(told, self._task.metrics, where, all_of=False)
        return made

    def require_complete(self, scores: Scores) -> None:
        """Raises HarnessError where score and summarise together leave a declared metric out."""
        for part, values in scores.items():
            missing = sorted({m.name for m in self._task.metrics} - set(values))
            if missing:
                raise HarnessError(
                    f"task {self._task.name!r} declares {missing}, which neither score nor summarise gave for part {part!r}"
                )

    def _on_parts(self, solution: Any, measure: Callable[[Any, Any], dict[str, Value]]) -> Scores:
        require_owner(self._owner)
        require_protocol(solution, self._protocol)
        with neutral_state(self._ctx, solution), self._vault.opened() as opened:
            return {part: measure(opened.read(part), solution) for part in self._vault.parts}

    def _score_part(self, held: Any, solution: Any) -> dict[str, Value]:
        told = self._score(held, solution, self._params, self._ctx)
        where = f"{self._task.score} of task {self._task.name!r}"
        return check_metrics(told, self._task.metrics, where, all_of=self._summarise is None)

    def _probe_part(self, held: Any, solution: Any) -> dict[str, Value]:
        made: dict[str, Value] = {}
        for probe, measure in self._probes:
            told = measure(held, solution, self._ctx)
            made |= check_metrics(told, probe.metrics, f"{probe.measure} of probe {probe.name!r}", all_of=True)
        return made


def require_protocol(solution: Any, protocol: type) -> None:
    """Raises HarnessError, naming what is missing, for a solution that is not of the track's protocol."""
    if isinstance(solution, protocol):
        return
    wanted = [name for name in dir(protocol) if not name.startswith("_")] + list(getattr(protocol, "__annotations__", {}))
    lacks = sorted({name for name in wanted if not hasattr(solution, name)})
    hint = f"it lacks {', '.join(lacks)}" if lacks else "return one"
    raise HarnessError(f"solve gave {type(solution).__name__!r} as its solution, which is no {protocol.__name__}: {hint}")


def check_metrics(told: Any, declared: Iterable[Metric], where: str, *, all_of: bool) -> dict[str, Value]:
    """The metrics as floats and Series. Raises HarnessError for an undeclared or missing one and for what is no number."""
    if not isinstance(told, Mapping):
        raise HarnessError(f"{where} returned {type(told).__name__}; return a mapping of metric names to numbers")
    names = {m.name for m in declared}
    extra, missing = sorted(set(told) - names), sorted(names - set(told))
    if extra:
        raise HarnessError(f"{where} returned {extra}, not declared in its metrics {sorted(names)}; declare or drop them")
    if missing and all_of:
        raise HarnessError(f"{where} did not return {missing}, declared in its metrics; return every one, or drop them")
    return {name: to_value(value, f"{where}: metric {name!r}") for name, value in told.items()}


def to_value(value: Any, where: str) -> Value:
    if isinstance(value, Series):
        if len(value.x) != len(value.y):
            raise HarnessError(f"{where}: a Series with {len(value.x)} x and {len(value.y)} y; give equally many")
        return Series(value.axis, tuple(float(x) for x in value.x), tuple(float(y) for y in value.y))
    try:
        return float(value)
    except (TypeError, ValueError) as exc:
        raise HarnessError(f"{where} is {value!r}; return a number or a harness.Series") from exc


def scalars(values: Mapping[str, Value]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not isinstance(value, Series)}


def finite(value: Value) -> bool:
    return all(map(math.isfinite, value.y)) if isinstance(value, Series) else math.isfinite(value)


# State ------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def neutral_state(ctx: Context, solution: Any) -> Iterator[None]:
    """Inside: stage "score", torch's default modes, global generators at the seed of the stream "score". After: as before."""
    stage, cwd = ctx.stage, os.open(".", os.O_PATH)
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    modes = [(m, m.training) for m in modules_of(solution)]
    with kept_generators(ctx.device):
        try:
            ctx.stage = "score"
            torch.set_default_dtype(torch.float32)
            set_threads(ctx.threads)
            ctx.scratch.mkdir(parents=True, exist_ok=True)  # this method, or one beside it, may have deleted it
            os.chdir(ctx.scratch)
            seed_everything(ctx.stream_seed("score"), ctx.device)
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            ctx.stage = stage
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
            set_threads(threads)
            os.fchdir(cwd)  # by descriptor: a method may have removed or renamed its own working folder
            os.close(cwd)
            for module, training in modes:
                module.training = training


def modules_of(solution: Any) -> list[torch.nn.Module]:
    net = solution if isinstance(solution, torch.nn.Module) else getattr(solution, "module", None)
    return list(net.modules()) if isinstance(net, torch.nn.Module) else []


def set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """The global generators of torch (CPU and the trial's device), NumPy and Python, put back afterwards."""
    cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy_state)  # noqa: NPY002  (the legacy global state is what methods may use)
        random.setstate(python_state)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


def seed_everything(seed: int, device: torch.device) -> None:
    """Global generators of torch, NumPy and Python, for code that draws from them."""
    # Not torch.manual_seed: without CUDA it queues a call with a stack trace each time, 4 ms of a small trial.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (the legacy global state is what methods may use)
    random.seed(seed)


# Records ----------------------------------------------------------------------------------------------------------------


def to_measurements(scores: Scores, metrics: Mapping[str, Metric]) -> tuple[Measurement, ...]:
    """The scalars; a value that is not finite is None."""
    return tuple(
        Measurement(name, part, m.unit, m.better, value if math.isfinite(value) else None, m.worst)
        for part, values in scores.items()
        for name, value in scalars(values).items()
        if (m := metrics.get(name)) is not None
    )


def to_series(scores: Scores, metrics: Mapping[str, Metric]) -> tuple[SeriesValue, ...]:
    return tuple(
        SeriesValue(name, part, m.unit, value.axis, value.x, value.y)
        for part, values in scores.items()
        for name, value in values.items()
        if isinstance(value, Series) and (m := metrics.get(name)) is not None
    )


def to_curve(offers: Iterable[Offer], metrics: Mapping[str, Metric]) -> tuple[CurvePoint, ...]:
    """The finite scalars of every offer: a point that is not finite has no place on a curve."""
    return tuple(
        CurvePoint(name, part, m.unit, dict(offer.at), value)
        for offer in offers
        for part, values in offer.scores.items()
        for name, value in scalars(values).items()
        if (m := metrics.get(name)) is not None and math.isfinite(value)
    )
