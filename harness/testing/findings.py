"""What a check can say: findings with the name of the check, what is wrong and the mend. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.errors import HarnessError

# Of each check, what it asks. `harness plugin check --list` prints this table; docs/plugins.md holds it too.
CHECKS: Mapping[str, str] = {
    "loads": "the entry point loads, and what it declares is well formed and written for this API",
    "import_cheap": "importing the declarations imports no heavy library (torch, SciPy, pandas, ...), and takes under a second",
    "import_pure": "importing them touches nothing: no file, no network, no process, no output, no global state",
    "documented": "a summary is stated, and every parameter has a type, a default and a description",
    "runs": "it runs on a small problem of its track, and ends in time",
    "same_seed": "the same seed gives the same result, bit for bit",
    "other_seed": "another seed gives another result, unless nothing random is drawn",
    "dtype": "the trial's dtype is kept: float32 in, float32 out, and float64 likewise",
    "device": "tensors are made where the input is (seen on the meta device, and on CUDA where there is one)",
    "cpu_cuda": "CPU and CUDA agree up to rounding; skipped where there is no GPU",
    "shuffled_labels": "with labels shuffled the score is chance: of the training part, and of the held parts",
    "test_part": "solve asks for no data and for no stream of the split",
    "inputs_kept": "the problem and the inputs of a call are as before, bit for bit",
    "state_restored": "random states, threads, dtype, working folder, environment and the like are as before",
    "save_load": "what is saved and loaded again gives equal outputs",
    "clock": "no work after the clock stops: none after the budget has ended solve, and none in the background or in predict",
    "claims": "claims name methods, tasks, metrics and parameters that exist",
    "commands": "a command's code is a click command, and its help ends with an example",
    "suites": "the suites in the package's folder have no mistakes",
    "load": "a task's load gives a problem of its track, finite, of the declared shape, and held parts that can be sealed",
    "parts": "the training part holds no items of the held parts",
    "score": "a task's score is pure: the same twice, nothing changed, all metrics, none below its declared worst",
    "kernel": "every implementation computes what its float64 reference does, forward and backward, in every layout",
    "work": "FLOPs and bytes of a kernel are whole numbers of 0 or more, and grow with its size",
}


@dataclass(frozen=True)
class Finding:
    """One breach. check: a name of CHECKS; about: what it was found in; what: what is wrong; mend: what to do."""

    check: str
    about: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.check}: {self.about}: {self.what}; {self.mend}"


@dataclass
class Report:
    """What was examined: passed and skipped (with the reason) checks by name, findings, and notes (warnings)."""

    about: str
    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, check: str, what: str, mend: str) -> None:
        self.findings.append(Finding(check, self.about, what, mend))

    def keep(self, checks: Iterable[str]) -> None:
        """Leave the findings of these checks alone, each once."""
        wanted = set(checks)
        self.findings = list(dict.fromkeys(f for f in self.findings if f.check in wanted))

    def close(self, checks: Iterable[str]) -> None:
        """Of these checks all that found nothing and were not skipped have passed."""
        wrong = {finding.check for finding in self.findings}
        self.passed += [c for c in checks if c not in wrong and c not in self.skipped and c not in self.passed]
        self.skipped = {check: why for check, why in self.skipped.items() if check not in wrong}

    def require(self) -> None:
        """Raises NonConformant where something was found."""
        if self.findings:
            raise NonConformant(self.findings)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Report:
        findings = [Finding(**finding) for finding in data["findings"]]
        return Report(data["about"], list(data["passed"]), dict(data["skipped"]), findings, list(data["notes"]))


class NonConformant(AssertionError):
    """What breaks the contract, one finding a line; `findings` has them as data."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(map(str, self.findings)))


def chosen_checks(only: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """The checks asked for, in the order of `known`. Raises HarnessError for one that is none of them."""
    known = list(known)
    if only is None:
        return known
    asked = [only] if isinstance(only, str) else list(only)
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise HarnessError(f"no check {', '.join(map(repr, unknown))} here; there are {', '.join(known)}")
    return [check for check in known if check in asked]
