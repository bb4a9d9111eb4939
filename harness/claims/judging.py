"""Claims and a registry in, verdicts out: each claim on each protocol that was fixed for it, on each machine, never pooled.

What is asked of a claim beside its rule: that it was fixed before, that all its seeds are there, that there are ten pairs at
least, and that a cause has its ablation. Where something lacks the word is `inconclusive`, with what lacks and the command.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from types import MappingProxyType

from harness.catalogue import Catalogue, did_you_mean
from harness.claims.deciding import Ends, decide, fewest_seeds
from harness.claims.evidence import Evidence, Found, Where, read_evidence
from harness.claims.fixing import Fixing, Protocol, fixings, terms_of
from harness.claims.numbers import Shared, bracket, ranges, shared_given
from harness.claims.verdicts import Decision, Verdict, Word
from harness.errors import HarnessError
from harness.records import FAILURES
from harness.registry import Registry
from harness.rules import Cell, Given, cells
from harness.specs import Claim
from harness.stats import looks

ALPHA = 0.05
POWER = 0.8  # from here on `inconclusive` is an answer
MOST_NAMED = 4  # cells with failed attempts that a reason names one by one


def judge_claims(
    registry: Registry, catalogue: Catalogue, names: Collection[str] = (), suites: Mapping[str, str] = MappingProxyType({})
) -> list[Verdict]:
    """The verdicts of all claims, or of those named (a paper, or paper.claim), in the order of their names.

    One for each protocol and place of execution; one without a place where nothing has run. suites: claim -> the suite that
    would fix it. Raises HarnessError for a name that no paper bears.
    """
    chosen = choose(catalogue, names)
    known = fixings(registry)
    listed = {name: [f for f in known if f.protocol.claim == name] for name in chosen}
    evidence = read_evidence(registry, [f.protocol for found in listed.values() for f in found])
    claims = catalogue.claims
    return [v for name in chosen for v in judge_claim(name, claims[name][1], listed[name], evidence, suites.get(name, ""))]


def choose(catalogue: Catalogue, names: Collection[str]) -> list[str]:
    claims = catalogue.claims
    papers = {name.partition(".")[0] for name in claims}
    for name in names:
        if name not in claims and name not in papers:
            mean = did_you_mean(name, [*claims, *papers])
            raise HarnessError(f"no paper and no claim {name!r}{mean} (`harness list claims` lists all)")
    return sorted(c for c in claims if not names or c in names or c.partition(".")[0] in names)


def judge_claim(name: str, claim: Claim, fixed: Sequence[Fixing], evidence: Evidence, suite: str = "") -> list[Verdict]:
    """On each protocol of its present terms, and at each place; one where nothing has run."""
    bare = Verdict(
        name, name.partition(".")[0], claim.says, "inconclusive", "", seeds=claim.seeds, wanted=claim.seeds,
        effect=claim.effect, value=claim.value, place=claim.place, source=claim.source, scaled_down=claim.scaled_down,
        unverified=claim.unverified,
    )  # fmt: skip
    if claim.rule is None:
        return [replace(bare, word="not testable here", reason=f"it would take {claim.missing}", missing=(claim.missing,))]
    valid = [fixing for fixing in fixed if fixing.protocol.terms == terms_of(claim) and whole(fixing.protocol, claim)]
    if not valid:
        edited = [fixing for fixing in fixed if fixing.protocol.terms != terms_of(claim)]
        why = f"edited since it was fixed at {edited[-1].fixed_at:%Y-%m-%d %H:%M} UTC; " if edited else ""
        command = f"harness run {suite}" + (" --force" if edited else "") if suite else ""
        return [replace(bare, reason=f"{why}no run has fixed it yet", suite=suite, command=command)]
    made = []
    for fixing in valid:
        places = evidence.places(fixing)
        of_one = [judge_at(bare, claim, fixing, where, evidence.find(fixing, where)) for where in places]
        made += name_others(of_one) or [judge_at(bare, claim, fixing, None, evidence.find(fixing, Where("", "")))]
    return made


def whole(protocol: Protocol, claim: Claim) -> bool:
    """Whether it has what its terms ask for: every cell of the rule, as many seeds, none twice. Others may write facts too."""
    named, seeds = list(dict.fromkeys(cells(claim.rule))), protocol.all_seeds
    sizes = (len(protocol.seeds), len(protocol.extension), len(set(seeds)))
    threads = protocol.places[0].shared["threads"]
    return (
        [place.cell for place in protocol.places] == named
        and sizes == (claim.seeds, claim.extension, len(seeds))
        and isinstance(threads, int)
    )


def name_others(verdicts: Sequence[Verdict]) -> list[Verdict]:
    told = [f"{v.machine}, torch {v.torch_version}: {v.word}" for v in verdicts]
    return [replace(v, others=tuple(told[:i] + told[i + 1 :])) for i, v in enumerate(verdicts)]


# One claim on one protocol at one place ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """One look at a rule: its word on n seeds, and its decisions."""

    word: Word
    decisions: tuple[Decision, ...]
    n: int


def judge_at(bare: Verdict, claim: Claim, fixing: Fixing, where: Where | None, found: Mapping[Cell, Found]) -> Verdict:
    """where None: nothing has run."""
    protocol = fixing.protocol
    shared = protocol.places[0].shared
    known = replace(
        bare, protocol=protocol.digest, fixed_at=fixing.fixed_at.isoformat(timespec="seconds"), suite=fixing.suite,
        machine=where.machine if where else "", torch_version=where.torch_version if where else "", device=protocol.device,
        dtype=str(shared["dtype"]), threads=int(shared["threads"]),
    )  # fmt: skip
    assert claim.rule is not None, "judge_claim returns before"
    look = look_at(claim, protocol, found)
    found = {cell: one.first(protocol.all_seeds[: look.n]) for cell, one in found.items()}
    rows = [row for one in found.values() for row in one.rows if row is not None]
    least = min(look.decisions, key=lambda d: (d.n - d.wanted, d.n))
    known = replace(
        known, word=look.word, decisions=look.decisions, seeds=look.n, n=least.n, wanted=least.wanted, tasks=least.tasks,
        attempts=tuple(sorted({row["attempt_id"] for row in rows})), cost_ratio=cost_ratio(found),
        missing=missing_of(found, shared_given(claim.rule)),
    )  # fmt: skip
    known = explain(known, claim, fixing, look, found)
    return replace(known, reason=known.reason + failed(found, shared_given(claim.rule)))


def look_at(claim: Claim, protocol: Protocol, found: Mapping[Cell, Found]) -> Look:
    """The first look, or the second where the first is complete and open and all seeds of the extension are there."""
    seeds, extension = len(protocol.seeds), len(protocol.extension)
    values, units = {c: f.values for c, f in found.items()}, {c: f.unit for c, f in found.items()}
    ends = Ends(protocol.all_seeds, {c: [row["status"] if row else "" for row in f.rows] for c, f in found.items()})
    first, second = (1 - confidence for confidence in looks(ALPHA, extension))
    assert claim.rule is not None
    word, decisions = decide(claim.rule, values, units, seeds, first, claim.effect, ends)
    whole = not any(None in v for v in values.values()) and not any(d.lacks for d in decisions)
    if word != "inconclusive" or not extension or not whole:
        return Look(word, decisions, seeds)
    return Look(*decide(claim.rule, values, units, seeds + extension, second, claim.effect, ends), seeds + extension)


def missing_of(found: Mapping[Cell, Found], shared: Shared) -> tuple[str, ...]:
    """What lacks, cell by cell, with the seeds and why; two metrics of one trial lack it once."""
    told = dict[str, None]()
    for cell, one in found.items():
        lacking = sorted((why, seed) for seed, why in one.lacks.items())
        for why, group in groupby(lacking, key=lambda pair: pair[0]):
            seeds = ranges([seed for _, seed in group])
            told[f"{cell.method} on {cell.task}{bracket(cell.given, shared)}: seeds {seeds} {why}"] = None
    return tuple(told)


def cost_ratio(found: Mapping[Cell, Found]) -> float | None:
    """Median seconds of `solve` of the methods over those of all else, on what they share of task, net and budget; the median.

    They are of quality trials, that ran beside others: an indication, no timing. None where only one side is there.
    """
    groups: dict[object, dict[bool, list[float]]] = {}
    for cell, one in found.items():
        around = (cell.task, tuple(item for item in cell.given if not item[0].startswith("method.")))
        for row in one.rows:
            if row is not None and row["status"] == "ok" and (row["solve_s"] or 0.0) > 0.0:
                groups.setdefault(around, {}).setdefault(row["role"] == "method", []).append(row["solve_s"])
    ratios = [median(sides[True]) / median(sides[False]) for sides in groups.values() if len(sides) == 2]
    return median(ratios) if ratios else None


# Why, and what would settle it ------------------------------------------------------------------------------------------


def explain(known: Verdict, claim: Claim, fixing: Fixing, look: Look, found: Mapping[Cell, Found]) -> Verdict:
    """The verdict with its reason and its command, and what overrides the word of the rule."""
    device = ["--device", known.device] if known.device != "cpu" else []
    run = shlex.join(["harness", "run", *(fixing.run or [fixing.suite]), *device])
    known = replace(known, command=run)
    if claim.because and claim.because not in {cell.method for cell in cells(claim.rule)}:
        why = f"it says what the cause is, and its rule does not compare with {claim.because}, which lacks it"
        return replace(known, word="inconclusive", reason=why, command="")
    if torn := torn_tasks(found):
        why = f"its attempts on {', '.join(torn)} ran on different data, which makes no pairs{mixed(found)}"
        return replace(known, word="inconclusive", reason=why, command=f"{run} --force")
    if known.word == "refuted":
        wrong = [d for d in known.decisions if d.word == "refuted"]
        return replace(
            known, reason=f"{wrong[0].what} lies outside the range" + several(len(wrong), len(known.decisions)) + mixed(found)
        )
    if known.word == "supported":
        return replace(known, reason=holds(known.decisions) + mixed(found))
    if needs := sorted({what for one in found.values() for what in one.unsupported.values()}):
        return replace(known, word="not testable here", missing=tuple(needs), reason=f"it cannot run here: {'; '.join(needs)}")
    if known.missing:
        return unfinished(known, found, run)
    if claim.rule is not None and claim.seeds < (fewest := fewest_seeds(claim.rule)):
        return replace(known, reason=f"it names {claim.seeds} seeds; {fewest} are the fewest for its rule", command="")
    return undecided(known, claim, fixing, look, found, run)


def holds(decisions: Sequence[Decision]) -> str:
    if len(decisions) > 1:
        return f"{sum(d.word == 'supported' for d in decisions)} of {len(decisions)} conditions hold"
    return f"all {decisions[0].n} values lie in the range" if decisions[0].every else "the interval lies inside the range"


def several(wrong: int, of: int) -> str:
    return f" ({wrong} of {of} conditions)" if of > 1 else ""


def torn_tasks(found: Mapping[Cell, Found]) -> list[str]:
    """The tasks, under the same parameters of theirs, whose attempts ran on more than one state of the data."""
    data: dict[tuple[str, Given], set[str]] = {}
    for cell, one in found.items():
        parameters = tuple(item for item in cell.given if item[0].startswith("task."))
        data.setdefault((cell.task, parameters), set()).update(row["data_digest"] for row in one.rows if row is not None)
    return sorted({task for (task, _), digests in data.items() if len(digests) > 1})


def mixed(found: Mapping[Cell, Found]) -> str:
    """What makes the seeds less than one sample: the code changed between them, or some were taken more than once.

    A digest is of a method's code with all that it uses, so only those of one method on one task are compared; that two methods
    ran at different commits is told apart.
    """
    digests: dict[tuple[str, str], set[str]] = {}
    commits: dict[str, set[frozenset[str]]] = {}
    for cell, one in found.items():
        rows = [row for row in one.rows if row is not None]
        digests.setdefault((cell.method, cell.task), set()).update(row["code_digest"] for row in rows)
        if ran_at := frozenset(row["git_commit"] for row in rows if row["git_commit"]):
            commits.setdefault(cell.task, set()).add(ran_at)
    states = max(map(len, digests.values()), default=0)
    apart = any(len(of_cells) > 1 for of_cells in commits.values())
    changed = sum(len(one.changed) for one in found.values())
    told = [f"its seeds ran under {states} states of the code"] if states > 1 else []
    told += ["what it compares ran at different commits"] if apart and states <= 1 else []
    told += [f"{changed} of its trials ran again and gave another number, which counts"] if changed else []
    return "".join(f"; {text}" for text in told)


def failed(found: Mapping[Cell, Found], shared: Shared) -> str:
    """Of which cells attempts failed, and how; two metrics of one trial are told once."""
    told = dict[str, None]()
    for cell, one in found.items():
        ends = Counter(row["status"] for row in one.rows if row is not None)
        how = {status: k for status, k in ends.items() if status in FAILURES}
        if how:
            counted = "" if any("declares no worst" in why for why in one.lacks.values()) else ", counted as the worst"
            kinds = ", ".join(how) if len(how) == 1 else ", ".join(f"{k} {status}" for status, k in sorted(how.items()))
            of = f"{cell.method} on {cell.task}{bracket(cell.given, shared)}"
            told[f"{sum(how.values())} of {ends.total()} attempts of {of} failed ({kinds}){counted}"] = None
    more = [f"attempts of {len(told) - MOST_NAMED} further cells failed"] if len(told) > MOST_NAMED else []
    return "".join(f"; {text}" for text in [*list(told)[:MOST_NAMED], *more])


def unfinished(known: Verdict, found: Mapping[Cell, Found], run: str) -> Verdict:
    reasons = {why for one in found.values() for why in one.lacks.values()}
    lacking = sum(len(one.lacks) for one in found.values())
    total = sum(len(one.values) for one in found.values())
    if lacking == total and reasons == {"did not run"}:
        return replace(known, reason="nothing has run since it was fixed", command=run)
    force = " --force" if "ran before the claim was fixed" in reasons else ""
    retry = " --retry-failed" if any("declares no worst" in why for why in reasons) and not force else ""
    return replace(known, reason=f"{lacking} of {total} numbers are missing", command=f"{run}{force}{retry}")


def undecided(known: Verdict, claim: Claim, fixing: Fixing, look: Look, found: Mapping[Cell, Found], run: str) -> Verdict:
    """All is there, and the intervals leave it open: an answer where the power for the claim's effect is large enough."""
    note = mixed(found)
    open_ = [d for d in known.decisions if d.word == "inconclusive"]
    if holes := list(dict.fromkeys(d.lacks for d in open_ if d.lacks)):
        more = f" (and {len(holes) - 1} more conditions lack something)" if len(holes) > 1 else ""
        again = any(row and row["status"] in FAILURES for one in found.values() for row in one.rows)
        return replace(known, reason=f"{holes[0]}{more}{note}", command=f"{run} --retry-failed" if again else "")
    powers = [d.power for d in open_]
    power = min((p for p in powers if p is not None), default=None) if None not in powers else None
    needed = [d.seeds_needed for d in open_]
    seeds = max((n for n in needed if n is not None), default=None) if None not in needed else None
    known = replace(known, power=power, seeds_needed=seeds)
    extension = len(fixing.protocol.extension)
    if extension and look.n == claim.seeds:
        total = look.n + extension
        why = f"the first look leaves it open; it may be extended to {total} seeds, once{note}"
        return replace(known, reason=why, command=f"{run} --seeds {total}")
    if power is not None and power >= POWER:
        why = f"an answer: an effect of {claim.effect:g} would have been found with {100 * power:.0f} %{note}"
        return replace(known, reason=why, command="")
    # One look at its seeds is all that the claim allows, so no command settles it: with more of them it is another claim.
    more = f"; with seeds={seeds} in its plugin, and run anew, it would have 80 %" if seeds and seeds > look.n else ""
    if claim.effect is None:
        finest = max((d.detectable for d in open_ if d.detectable is not None), default=None)
        finds = f"; {look.n} seeds find {finest:.2g} with 80 %" if finest is not None else ""
        why = f"open, and it names no effect{finds}{more and more + ' for what was seen'}{note}"
    elif power is None:
        why = f"open; no power is computed for this kind of number{note}"
    else:
        why = f"open: power {100 * power:.0f} % for an effect of {claim.effect:g}{more}{note}"
    return replace(known, reason=why, command="")
