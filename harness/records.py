"""What crosses the borders between stages: a `Trial` to run, the worker's `Outcome`, the `Attempt` that the registry keeps.

Frozen data; seconds, bytes and UTC; None means not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

SCHEMA_VERSION = 2
Status = Literal["ok", "failed", "timeout", "oom", "diverged", "invalid", "unsupported", "interrupted"]
STATUSES: tuple[str, ...] = get_args(Status)
FAILURES = ("failed", "timeout", "oom", "diverged", "invalid")  # these count as each metric's `worst`
Kind = Literal["tuning", "quality", "timing", "kernel"]
KERNELS = "paper-harness/kernels"  # the track of kernel trials
KERNEL_REGIONS = ("forward", "backward", "forward_backward")


@dataclass(frozen=True)
class Trial:
    """method x parameters x task x device x dtype x threads x seed, fully resolved; nothing has run.

    method and task are full references ("dist/name"). net and train are None for a learner. seed: the seed index, or the
    number of the fresh process for timing. matched: what `match` chose, {"where", "value", "to", "unit", "target",
    "got", "mismatch"} and the baseline's "net" and "train"; or None.
    tuning: the rule, {"trials", "space", "metric"}, of a tuning trial also its "point"; what the space names is then missing in
    train and method_params. tuned: the point, {"point", "values"}, and where it was chosen also its "score" on the validation
    part, how many "trials" of the tuning "failed", and the seconds "cost_s" that all of them took; or None.
    """

    kind: Kind
    track: str
    method: str
    method_params: Mapping[str, Any]
    role: str
    paper: str
    task: str
    task_params: Mapping[str, Any]
    net: Mapping[str, Any] | None
    train: Mapping[str, Any] | None
    budget: Mapping[str, float]
    tuning: Mapping[str, Any] | None
    device: str
    dtype: str
    threads: int
    seed: int
    root_seed: int
    measure: tuple[str, ...]
    matched: Mapping[str, Any] | None
    code_digest: str
    data_digest: str
    torch_version: str
    series_key: str
    trial_id: str
    pair_key: str
    tuned: Mapping[str, Any] | None = None

    def settings(self, owner: Literal["train", "method"]) -> dict[str, Any] | None:
        """train or method_params as they are used: with the values of the tuning's point."""
        plain = self.train if owner == "train" else self.method_params
        values = (self.tuned or {}).get("values", {})
        own = {name.partition(".")[2]: value for name, value in values.items() if name.partition(".")[0] == owner}
        return None if plain is None else {**plain, **own}

    @property
    def label(self) -> str:
        """How people read it: crrelu(eps=0.01) on digits [cnn] seed 3."""
        net = f" [{self.net['arch']}]" if self.net else ""
        net = f" [{case_text(self.task_params)}]" if self.kind == "kernel" else net
        seed = f"timing {self.seed}" if self.kind in ("timing", "kernel") else f"seed {self.seed}"
        seed += f" tuning {self.tuned['point']}" if self.kind == "tuning" and self.tuned else ""
        return f"{self.method.rpartition('/')[2]} on {self.task.rpartition('/')[2]}{net} {self.device} {seed}"


def case_text(case: Mapping[str, Any]) -> str:
    """A kernel's case for people: "1M strided"; what it has besides size and layout by name."""
    words = [short_count(int(case["elements"]))] if "elements" in case else []
    words += [str(case["layout"])] if case.get("layout", "contiguous") != "contiguous" else []
    return " ".join(words + [f"{name}={value}" for name, value in case.items() if name not in ("elements", "layout")])


def short_count(n: int) -> str:
    """10000 -> "10k", 16777216 -> "16Mi"; as it is where neither divides it."""
    for unit, size in (("Mi", 1 << 20), ("M", 10**6), ("Ki", 1 << 10), ("k", 1000)):
        if n >= size and n % size == 0:
            return f"{n // size}{unit}"
    return str(n)


@dataclass(frozen=True)
class Measurement:
    """One number: a task's metric or a probe's, on one part ("test", "validation", "resource")."""

    quantity: str
    part: str
    unit: str
    better: str
    value: float | None
    worst: float | None = None


@dataclass(frozen=True)
class SeriesValue:
    """One metric over a named axis."""

    quantity: str
    part: str
    unit: str
    axis: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class CurvePoint:
    """One metric at one offer. at: amounts on the clocks, wall_s (evaluation time excluded) among them."""

    quantity: str
    part: str
    unit: str
    at: Mapping[str, float]
    value: float


@dataclass(frozen=True)
class Timing:
    """Raw readings of one region, seconds a call; warm-up is not among them."""

    region: str
    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    warmup: int
    stop_reason: str


@dataclass(frozen=True)
class Blob:
    """An artefact of a trial: bytes under their SHA-256 in registry/blobs."""

    name: str
    media_type: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Resources:
    """What an attempt cost. wall_s: whole child process; solve_s: clocks of `solve` alone, evaluation excluded."""

    wall_s: float | None = None
    solve_s: float | None = None
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None
    peak_device_bytes: int | None = None
    minor_faults: int | None = None
    params: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What the worker sends back. Executors fill in what a worker cannot say itself (timeout, signal, its output)."""

    status: Status
    error: str = ""
    exit_code: int | None = None
    signal: int | None = None
    limit: str = ""  # which limit fired: "timeout", "rlimit_data", "polled_rss", "device_memory", "kernel_oom"
    measurements: tuple[Measurement, ...] = ()
    series: tuple[SeriesValue, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    timings: tuple[Timing, ...] = ()
    spent: Mapping[str, float] = field(default_factory=dict)
    diagnostics: Mapping[str, float | str] = field(default_factory=dict)
    blobs: tuple[Mapping[str, Any], ...] = ()  # {"name", "media_type", "path" in the scratch folder}
    resources: Resources = Resources()
    started_at: str = ""  # UTC, ISO 8601, microseconds
    log: str = ""  # the kept part of stdout and stderr, in order
    log_dropped_bytes: int = 0
    environment: Mapping[str, Any] = field(default_factory=dict)  # as the worker saw it: threads, malloc settings, torch build

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_json`, after a trip through JSON."""
        made = dict(data)
        made["measurements"] = tuple(Measurement(**m) for m in made.get("measurements", ()))
        made["series"] = tuple(SeriesValue(**{**s, "x": tuple(s["x"]), "y": tuple(s["y"])}) for s in made.get("series", ()))
        made["curve"] = tuple(CurvePoint(**c) for c in made.get("curve", ()))
        made["timings"] = tuple(
            Timing(**{**t, "wall_s": tuple(t["wall_s"]), "cpu_s": tuple(t["cpu_s"])}) for t in made.get("timings", ())
        )
        made["blobs"] = tuple(made.get("blobs", ()))
        made["resources"] = Resources(**made.get("resources", {}))
        return Outcome(**made)


@dataclass(frozen=True)
class Provenance:
    """Where an invocation ran. machine: HARNESS_MACHINE, else a digest of CPU model, cores, memory, GPU model.

    machine_facts and environment_facts are shared by many attempts and kept once, under the digests that name them.
    """

    invocation: str
    suite: str
    machine: str
    environment: str
    host: str
    boot_id: str
    git_commit: str
    git_dirty: bool | None
    machine_facts: Mapping[str, Any]
    environment_facts: Mapping[str, Any]
    data_facts: Mapping[str, Any]  # data_digest -> what it covers


@dataclass(frozen=True)
class Attempt:
    """One execution of a trial: the row of the registry.

    declared: the metrics that the trial owes, without values, so that a failed attempt can count as their `worst`.
    """

    attempt_id: str
    trial: Trial
    outcome: Outcome
    provenance: Provenance
    blobs: tuple[Blob, ...] = ()
    declared: tuple[Measurement, ...] = ()
