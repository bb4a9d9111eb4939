"""Fixing a claim before its trials start: its rule with the exact series on which it will be judged, as a fact of the registry.

A protocol's digest covers the rule with its numbers of seeds and its effect, and for every cell of the rule the keys of its
series, one a seed; a series key covers method, task, net, training, budget, tuning, device, dtype, threads and seed. So a claim
or a suite that was edited has another digest, and only attempts that started after that one was fixed count for it. It guards
against mistakes and temptation; who may write into the registry could forge a fact as well as a record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from harness.catalogue import Catalogue
from harness.identity import SERIES, digest, series_key
from harness.plan import Plan, fits
from harness.provenance import new_id
from harness.records import Trial
from harness.registry import Registry
from harness.rules import Cell, cells
from harness.specs import Claim
from harness.suite import Suite

KIND = "claim"  # of the facts
SHARED = tuple(name for name in SERIES if name != "seed")  # what all trials of a cell have in common
CELL_TEXT = ("method", "task", "metric", "part", "at")


@dataclass(frozen=True)
class Place:
    """A cell with its trials. shared: what defines them all but the seed; series: their keys, one for each seed, in order."""

    cell: Cell
    shared: Mapping[str, Any]
    series: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """How a claim is judged. terms: its rule as JSON, numbers of seeds, effect.

    seeds: those of the first look; extension: those that are added for a second one.
    """

    claim: str
    terms: Mapping[str, Any]
    seeds: tuple[int, ...]
    extension: tuple[int, ...]
    places: tuple[Place, ...]

    @property
    def digest(self) -> str:
        return digest({
            "claim": self.claim, "terms": self.terms, "seeds": self.seeds, "extension": self.extension,
            "cells": [[to_json(place.cell), place.series] for place in self.places],
        })  # fmt: skip

    @property
    def all_seeds(self) -> tuple[int, ...]:
        return (*self.seeds, *self.extension)

    @property
    def device(self) -> str:
        return str(self.places[0].shared["device"])


@dataclass(frozen=True)
class Fixing:
    """A protocol that holds since fixed_at (UTC): of equal ones the earliest counts. suite: whose run fixed it.

    run: what stood behind `harness run` then: the suite as it was typed, and what changed it. () for what older versions fixed.
    """

    protocol: Protocol
    suite: str
    fixed_at: datetime
    run: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unfixed:
    """A claim of a suite that it cannot fix on this device, and why."""

    claim: str
    device: str
    reasons: tuple[str, ...]


# From a plan ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """The trials of a suite that differ in their seed only. names: what a cell may say of them."""

    trials: Mapping[int, Trial]
    names: Mapping[str, Any]
    shared: Mapping[str, Any]


def find_protocols(suite: Suite, plan: Plan, catalogue: Catalogue) -> Iterator[Protocol | Unfixed]:
    """What the suite's claims would be judged on, device by device. plan: of the whole suite, as nothing has narrowed it."""
    if not suite.claims:
        return
    uses = {device: group_uses(plan, device) for device in dict.fromkeys(suite.devices)}
    for name in dict.fromkeys(suite.claims):
        claim = catalogue.claims[name][1]
        if claim.rule is None:
            yield Unfixed(name, "", (f"it is not testable here: {claim.missing}",))
            continue
        for device, found in uses.items():
            yield find_protocol(name, claim, device, sorted(suite.seeds), found)


def group_uses(plan: Plan, device: str) -> list[Use]:
    grouped: dict[str, dict[int, Trial]] = {}
    trials = (*(p.trial for p in plan.planned), *plan.waiting)  # what tuning chooses is in no series
    for trial in (t for t in trials if t.kind == "quality" and t.device == device):
        grouped.setdefault(digest({n: getattr(trial, n) for n in SHARED}), {})[trial.seed] = trial
    firsts = [(trials, next(iter(trials.values()))) for trials in grouped.values()]
    return [Use(trials, names_of_trial(one), {n: getattr(one, n) for n in SHARED}) for trials, one in firsts]


def find_protocol(name: str, claim: Claim, device: str, seeds: Sequence[int], uses: Sequence[Use]) -> Protocol | Unfixed:
    """Each cell must be exactly one use of the suite, with its metric measured at all the seeds of the first look."""
    if not uses:
        return Unfixed(name, device, (f"the suite has no trial on {device} here",))
    if len(seeds) < claim.seeds:
        return Unfixed(name, device, (f"it is looked at with {claim.seeds} seeds, and the suite has {len(seeds)}",))
    first, later = look_seeds(seeds, claim)
    places, reasons = [], []
    alike: dict[tuple[str, str], list[Use]] = {}  # a claim over a hundred tables has as many cells of one method and task
    for cell in dict.fromkeys(cells(claim.rule)):
        if (cell.method, cell.task) not in alike:
            alike[cell.method, cell.task] = fitting(uses, {"method": cell.method, "task": cell.task})
        found = fitting(alike[cell.method, cell.task], dict(cell.given))
        if reason := why_not(cell, found, first):
            reasons.append(reason)
            continue
        shared = found[0].shared
        places.append(Place(cell, shared, tuple(series_key({**shared, "seed": seed}) for seed in (*first, *later))))
    if reasons:
        return Unfixed(name, device, tuple(reasons))
    return Protocol(name, terms_of(claim), first, later, tuple(places))


def fitting(uses: Iterable[Use], wanted: Mapping[str, Any]) -> list[Use]:
    return [use for use in uses if all(fits(use.names, key, value) for key, value in wanted.items())]


def look_seeds(seeds: Sequence[int], claim: Claim) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The suite's first seeds, and what would extend them: its next ones, then those that follow its last."""
    rest = [*seeds[claim.seeds :], *range(seeds[-1] + 1, seeds[-1] + 1 + claim.extension)]
    return tuple(seeds[: claim.seeds]), tuple(rest[: claim.extension])


def why_not(cell: Cell, found: Sequence[Use], seeds: Iterable[int]) -> str:
    """Why the uses that fit a cell do not make it definite; "" where they do."""
    if cell.at != "end":
        return f'{cell_text(cell)} is read at {cell.at!r}; records hold what a trial ended with: "end"'
    if not found:
        return f"no trial of the suite is {cell_text(cell)}"
    if len(found) > 1:
        return f"{len(found)} methods, nets or budgets of the suite fit {cell_text(cell)}; it must be one"
    trials = found[0].trials
    if absent := [seed for seed in seeds if seed not in trials]:
        return f"the suite leaves out seeds {', '.join(map(str, absent))} of {cell_text(cell)}"
    if cell.metric not in next(iter(trials.values())).measure:
        return f"the suite does not measure {cell.metric}, which {cell_text(cell)} needs"
    return ""


def names_of_trial(trial: Trial) -> dict[str, Any]:
    """What a cell may say of a trial, by dotted name; as `exclude` names it, and budget, dtype and threads."""
    groups = {"method": trial.method_params, "task": trial.task_params, "net": trial.net, "train": trial.train}
    groups["budget"] = trial.budget
    dotted = {f"{group}.{key}": value for group, values in groups.items() for key, value in (values or {}).items()}
    plain = {name: getattr(trial, name) for name in ("method", "task", "track", "role", "device", "dtype", "threads")}
    return dotted | plain


def cell_text(cell: Cell) -> str:
    """crrelu on digits (net.arch=mlp)."""
    given = ", ".join(f"{name}={value}" for name, value in cell.given)
    return f"{cell.method} on {cell.task}" + (f" ({given})" if given else "")


# As JSON --------------------------------------------------------------------------------------------------------------


def terms_of(claim: Claim) -> dict[str, Any]:
    """What of a claim decides its verdict, beside the series. Its words, value and source may be corrected at any time."""
    effect = None if claim.effect is None else float(claim.effect)
    return {"rule": to_json(claim.rule), "seeds": claim.seeds, "extension": claim.extension, "effect": effect}


def to_json(rule: Any) -> Any:
    """A rule, or a part of one, as plain values: every dataclass names its type; infinities are text, which JSON lacks."""
    if is_dataclass(rule):
        return {"is": type(rule).__name__, **{f.name: limit(f.name, getattr(rule, f.name)) for f in fields(rule)}}
    if isinstance(rule, tuple):
        return [to_json(item) for item in rule]
    if isinstance(rule, float) and not math.isfinite(rule):
        return str(rule)
    return rule


def limit(name: str, value: Any) -> Any:
    """A limit written as a whole number is the same limit."""
    return to_json(float(value) if name in ("low", "high", "slack") else value)


def to_facts(fixing: Fixing) -> dict[str, Any]:
    protocol = fixing.protocol
    return {
        "claim": protocol.claim, "digest": protocol.digest, "suite": fixing.suite, "run": list(fixing.run),
        "fixed_at": fixing.fixed_at.isoformat(timespec="microseconds"), "terms": protocol.terms,
        "seeds": list(protocol.seeds), "extension": list(protocol.extension),
        "cells": [{"cell": to_json(p.cell), "shared": p.shared, "series": list(p.series)} for p in protocol.places],
    }  # fmt: skip


def from_facts(facts: Mapping[str, Any]) -> Fixing:
    """Raises ValueError, KeyError, TypeError or AttributeError for what is none, or does not bear out its digest."""
    places = tuple(place_of(told) for told in facts["cells"])
    seeds, extension = tuple(map(int, facts["seeds"])), tuple(map(int, facts["extension"]))
    protocol = Protocol(str(facts["claim"]), dict(facts["terms"]), seeds, extension, places)
    for place in places:
        if place.series != tuple(series_key({**place.shared, "seed": seed}) for seed in (*seeds, *extension)):
            raise ValueError("its series keys are not those of its trials")
    if not places or protocol.digest != facts["digest"]:
        raise ValueError("its digest is not that of its content")
    fixed_at = datetime.fromisoformat(facts["fixed_at"])
    run = tuple(map(str, facts.get("run", ())))
    return Fixing(protocol, str(facts["suite"]), fixed_at if fixed_at.tzinfo else fixed_at.replace(tzinfo=UTC), run)


def place_of(told: Mapping[str, Any]) -> Place:
    cell = told["cell"]
    given = tuple((str(name), value) for name, value in cell["given"])
    text = {name: str(cell[name]) for name in CELL_TEXT}
    return Place(Cell(given=given, **text), dict(told["shared"]), tuple(map(str, told["series"])))


# In the registry ------------------------------------------------------------------------------------------------------


def fixings(registry: Registry) -> list[Fixing]:
    """What is fixed, each protocol once, as it was fixed first; in that order. What is no fixing is left out with a warning."""
    earliest: dict[str, Fixing] = {}
    for fact in registry.facts():
        if fact["kind"] != KIND:
            continue
        try:
            fixing = from_facts(fact["facts"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            registry.warn(f"registry {registry.path}: the fact {fact['name']!r} fixes no claim ({exc}); it is left out")
            continue
        known = earliest.get(fixing.protocol.digest)
        if known is None or (fixing.fixed_at, fixing.suite) < (known.fixed_at, known.suite):
            earliest[fixing.protocol.digest] = fixing
    return sorted(earliest.values(), key=lambda f: (f.fixed_at, f.protocol.claim, f.protocol.digest))


def fix(protocols: Iterable[Protocol], registry: Registry, suite: str, run: Sequence[str] = ()) -> list[Fixing]:
    """Fix what is not fixed yet, from now on; what was keeps its time. Durable when this returns. Raises RegistryError.

    run: the words behind `harness run` that bring the suite's trials about again.
    """
    known = {fixing.protocol.digest: fixing for fixing in fixings(registry)}
    found = []
    for protocol in protocols:
        fixing = known.get(protocol.digest)
        if fixing is None:
            fixing = Fixing(protocol, suite, datetime.now(UTC), tuple(run))
            registry.keep_facts(KIND, new_id(), to_facts(fixing))
        found.append(fixing)
    return found
