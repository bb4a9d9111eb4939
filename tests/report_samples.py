"""A registry that has something for every page, and one in which a stranger chose every name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.claims.verdicts import Decision, Verdict
from harness.identity import pair_key, series_key, trial_id
from harness.records import Attempt, CurvePoint, Measurement, Outcome, Resources, Timing
from harness.registry import Registry
from harness.specs import Claim, Paper
from tests.kernel_samples import kernel_attempt, kernel_trial
from tests.registry_samples import WHERE, make_attempt, make_trial, name_of
from tests.regress_samples import kernel_night

DECLARED = (Measurement("accuracy", "", "1", "higher", None, 0.0), Measurement("nll", "", "nat", "lower", None, 10.0))
HOSTILE = '</script><img src=x onerror="document.title=666">\u202e{{ 7*7 }}`=cmd|A1`'
NET = {"arch": "mlp", "width": 8, "depth": 2, "norm": "none"}


def quality(number: int, method: str, seed: int, accuracy: float, **changes: Any) -> Attempt:
    """An attempt on the board of `digits`, with a curve of three offers."""
    outcome = {name: changes.pop(name) for name in ("status", "error") if name in changes}
    where = changes.pop("where", WHERE)
    trial = replace(make_trial(method, seed, net=NET), **changes)
    fields = trial.__dict__
    trial = replace(trial, series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair_key(fields))
    ok = outcome.get("status", "ok") == "ok"
    values = (
        Measurement("accuracy", "test", "1", "higher", accuracy, 0.0),
        Measurement("nll", "test", "nat", "lower", 1 - accuracy, 10.0),
    )
    curve = tuple(
        CurvePoint(
            "accuracy", "test", "1", {"samples_seen": 1000.0 * k, "steps": 10.0 * k, "wall_s": 0.1 * k}, accuracy * k / 3
        )
        for k in (1, 2, 3)
    )
    given = {
        "measurements": values if ok else (),
        "curve": curve if ok else (),
        "spent": {"samples_seen": 3000.0},
        "resources": Resources(wall_s=1.0, solve_s=0.5 + 0.01 * seed + len(method) / 10, peak_rss_bytes=10**8, params=1000),
    }
    return replace(make_attempt(number, trial, where, **given, **outcome), declared=DECLARED)


def board(first: int = 0, **changes: Any) -> list[Attempt]:
    """relu, better and worse at five seeds each; one seed of worse failed."""
    means = {"relu": 0.90, "better": 0.95, "worse": 0.80}
    made = []
    for at, (method, mean) in enumerate(means.items()):
        for seed in range(5):
            role = "baseline" if method == "relu" else "method"
            failing = {"status": "oom", "error": "Traceback\nMemoryError: no"} if (method, seed) == ("worse", 3) else {}
            # Not the same spread for all: else a paired difference would have no interval.
            accuracy = mean + 0.01 * seed + 0.003 * ((seed * (at + 1)) % 3)
            made.append(quality(first + 10 * at + seed, method, seed, accuracy, role=role, **failing, **changes))
    return made


def kernels(first: int = 100) -> list[Attempt]:
    """Two implementations at two sizes, three processes each, with rates for the roofline."""
    made = []
    for implementation, times in (("ours", 2e-6), ("eager", 6e-6)):
        for elements in (10_000, 1_000_000):
            for seed in range(3):
                trial = kernel_trial("bump", implementation, seed, case={"elements": elements, "layout": "contiguous"})
                seconds = times * elements / 10_000 * (1 + 0.01 * seed)
                rates = tuple(
                    Measurement(name, region, unit, "higher", value)
                    for region in ("forward", "forward_backward")
                    for name, unit, value in (
                        ("flop_rate", "FLOP/s", 1e9),
                        ("bytes_rate", "B/s", 4e9),
                        ("roofline_share", "1", 0.3),
                    )
                )
                more = (*rates, Measurement("matmul_rate", "ceiling", "FLOP/s", "higher", 5e10))
                made.append(
                    kernel_attempt(first + len(made), trial, {"forward": seconds, "forward_backward": 3 * seconds}, more=more)
                )
    return made


def nights(count: int = 12, slow_from: int = 7) -> list[Attempt]:
    """A kernel that becomes a third slower, and stays so; the newest of all that is here."""
    return [a for night in range(count) for a in kernel_night(20 + night, 1e-3 if night < slow_from else 1.33e-3)]


def check_facts(machine: str) -> dict[str, Any]:
    """What `harness machine check` keeps."""
    timed = {"wall_s": 1e-3, "cpu_s": 1e-3, "samples": 30}
    figures = [{"elements": n, "bytes_per_s": 1e10 * k, **timed} for k, n in enumerate((10**4, 10**6), 1)]
    products = [{"size": n, "flops_per_s": 5e10 * k, **timed} for k, n in enumerate((256, 512), 1)]
    agreed = {"kernel": "copy", "block_s": 0.1, "wall": (0.01, -0.01, 0.02), "cpu": (0.001, -0.002, 0.001), "contention": 1.0}
    return {
        "machine": machine, "torch_version": "2.13.0", "device": "cpu", "device_name": "a CPU", "dtype": "float32",
        "threads": 1,
        "checked_at": "2026-09-01T02:00:00+00:00", "copies": figures, "matmuls": products, "agreements": [agreed],
        "load": (0.1, 0.2),
    }  # fmt: skip


PAPER = Paper(
    "toy", "A toy paper", "2601.00001", 2026, authors="A. Author",
    claims=(
        Claim("is-better", "better is more accurate than relu", None, 20, "by a point", "table 1", "https://example.org"),
        Claim("needs-a-cluster", "it scales", None, 20, "much", "figure 3", "https://example.org", missing="a cluster"),
    ),
)  # fmt: skip


def verdict(claim: str = "toy.is-better", says: str = "better is more accurate than relu") -> Verdict:
    decision = Decision("accuracy of better - relu", "supported", 0.0, float("inf"), 0.0, 0.05, 0.03, 0.07, 0.95, 20, "1",
                        p=0.001, effect_size=2.0, power=0.99)  # fmt: skip
    other = replace(decision, what="accuracy of better - worse", word="inconclusive", interval_low=-0.01)
    return Verdict(claim, "toy", says, "supported", "the interval lies above zero", (decision, other), 20, 20, power=0.99,
                   cost_ratio=1.5, command="harness claims toy")  # fmt: skip


def registry_of(path: Path, attempts: Sequence[Attempt]) -> Registry:
    """Folded: many loose files would be read again by each query."""
    registry = Registry.open(path)
    for made in attempts:
        registry.append(made)
    registry.keep_facts("ceilings", name_of("check", WHERE.machine), check_facts(WHERE.machine))
    registry.compact(everything=True)
    return Registry.open(path, create=False)


def everything(path: Path) -> Registry:
    return registry_of(path, [*board(), *kernels(), *nights()])


def hostile(path: Path) -> Registry:
    """Whatever a record can say, in a stranger's words."""
    where = replace(
        WHERE, machine=HOSTILE, suite=HOSTILE, host=HOSTILE, git_commit=HOSTILE, invocation=HOSTILE, environment=HOSTILE,
        machine_facts={HOSTILE: HOSTILE}, environment_facts={"packages": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE},
        data_facts={"da7a": {HOSTILE: {"licence": HOSTILE, "source": HOSTILE}}},
    )  # fmt: skip
    made = []
    for at, method in enumerate(("relu", HOSTILE)):
        for seed in range(4):
            error = {"status": "failed", "error": HOSTILE} if seed == 3 else {}
            made.append(
                quality(
                    10 * at + seed, method, seed, 0.8 + 0.01 * seed * (at + 1), where=where, task=f"d/{HOSTILE}", paper="toy",
                    role="baseline" if at == 0 else "method", dtype=HOSTILE, torch_version=HOSTILE,
                    net={**NET, "arch": HOSTILE}, method_params={HOSTILE: HOSTILE}, **error,
                )
            )  # fmt: skip
    for implementation in ("eager", HOSTILE):
        for seed in range(3):
            trial = kernel_trial(HOSTILE, implementation, seed)
            made.append(kernel_attempt(200 + len(made), trial, {"forward": 1e-6 * (1 + seed / 100), HOSTILE: 2e-6}, where))
    for night in range(3):
        timings = (Timing(HOSTILE, (1e-3,) * 3, (1e-3,) * 3, 0, HOSTILE),)
        trial = replace(make_trial(HOSTILE, 0), kind="timing", task=f"d/{HOSTILE}")
        outcome = Outcome("ok", started_at=f"2026-09-0{night + 1}T02:00:00+00:00", timings=timings)
        made.append(Attempt(f"{900 + night:032x}", trial, outcome, replace(where, invocation=f"{HOSTILE}{night}")))
    return registry_of(path, made)


HOSTILE_PAPER = Paper("toy", HOSTILE, HOSTILE, 2026, (Claim(HOSTILE, HOSTILE, None, 20, HOSTILE, HOSTILE, HOSTILE),), HOSTILE)


def hostile_verdict() -> Verdict:
    made = verdict(f"toy.{HOSTILE}", HOSTILE)
    return replace(
        made, reason=HOSTILE, command=HOSTILE, decisions=tuple(replace(d, what=HOSTILE, unit=HOSTILE) for d in made.decisions)
    )


def save(seed: int) -> list[tuple[str, bytes, str]]:
    """A drawing and a text, other ones for each seed: (name, content, media type)."""
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 80" width="200" height="80"><title>seed {seed}</title>'
        f'<path d="M0 40 C60 {10 * seed} 140 {80 - 10 * seed} 200 40" fill="none" stroke="#0072b2" stroke-width="3"/>'
        '<text x="10" y="20" style="font:12px sans-serif">a learned curve</text></svg>'
    )
    text = f'module circuit();\n  if (a < b) then "seed {seed}"\nendmodule\n'
    return [("curves.svg", picture.encode(), "image/svg+xml"), ("circuit.v", text.encode(), "text/plain")]


def with_artefacts(
    path: Path,
    saved: Callable[[int], Sequence[tuple[str, bytes, str]]] = save,
    attempts: Sequence[Attempt] | None = None,
) -> Registry:
    """The board, on which every trial of `better` saved something."""
    registry = Registry.open(path)
    folder = path.parent / f"{path.name}-scratch"
    folder.mkdir(exist_ok=True)
    for attempt in board() if attempts is None else attempts:
        blobs, files = [], {}
        for number, (name, content, media_type) in enumerate(
            saved(attempt.trial.seed) if attempt.trial.method.endswith("better") else ()
        ):
            files[name] = folder / f"{attempt.trial.seed}-{number}"
            files[name].write_bytes(content)
            blobs.append({"name": name, "media_type": media_type, "path": str(files[name])})
        registry.append(replace(attempt, outcome=replace(attempt.outcome, blobs=tuple(blobs))), files)
    registry.compact(everything=True)
    return Registry.open(path, create=False)
