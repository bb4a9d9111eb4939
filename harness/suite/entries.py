"""The entries of `tasks`, `methods` and `kernels`: names found in the catalogue, parameters read by the plugins' models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from harness.catalogue import Catalogue, Offer, did_you_mean
from harness.errors import HarnessError
from harness.specs import Component, Kernel, Learner, Method, Task, Track
from harness.suite.parameters import Combination, combine, count_combinations, resolve_params
from harness.suite.schema import MAX_ENTRIES
from harness.suite.text import Loc, shown
from harness.suite.values import MAX_FINDINGS, Finding, Raw, explain

MAX_COMBINATIONS = 10_000  # of all entries of one kind: more is no suite for people, and takes minutes to check
MANY = 10**15
T = TypeVar("T", bound=Task | Component | Learner | Kernel)


@dataclass(frozen=True)
class Use(Generic[T]):
    """An entry whose name a plugin offers. resolved: its parameter sets that are valid, in order; sets: how many it writes."""

    loc: Loc
    entry: dict[str, Any]
    offer: Offer[T]
    resolved: tuple[dict[str, Any], ...] = ()
    sets: int = 1

    @property
    def name(self) -> str:
        """What the suite calls it."""
        label = self.entry.get("as")
        return label if isinstance(label, str) else str(self.entry["use"])

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be called by in `match.to` and `exclude`."""
        return (self.name, self.offer.name, self.offer.ref)


@dataclass(frozen=True)
class Chosen:
    """What the suite names and the plugins offer.

    tracks_known, methods_known: no name of that kind is in doubt. Only then may something be said to be absent: one unknown
    task must not make its track's clocks and metrics mistakes too.
    """

    tasks: tuple[Use[Task], ...]
    methods: tuple[Use[Method], ...]
    kernels: tuple[Use[Kernel], ...]
    tracks: tuple[Offer[Track], ...]
    tracks_known: bool
    methods_known: bool


def choose(raw: Raw, catalogue: Catalogue) -> tuple[Chosen, list[Finding]]:
    """What the suite names, and what is wrong with the names and the parameters."""
    found: list[Finding] = []
    tasks = _uses(raw, "tasks", catalogue.task, found)
    methods = _uses(raw, "methods", catalogue.method, found)
    kernels = _uses(raw, "kernels", catalogue.kernel, found)
    tracks = _tracks(tasks, catalogue, found)
    wanted = {bare(use.offer.spec.track) for use in tasks}
    tracks_known = bool(tasks) and len(tasks) == len(raw.list_at("tasks")) and wanted <= {track.name for track in tracks}
    methods_known = bool(methods) and len(methods) == len(raw.list_at("methods"))
    chosen = Chosen(tuple(tasks), tuple(methods), tuple(kernels), tracks, tracks_known, methods_known)
    return chosen, list(_with_broken(found, catalogue))


def _uses(raw: Raw, kind: str, look_up: Callable[[str], Offer[T]], found: list[Finding]) -> list[Use[T]]:
    """The entries of one of these keys that a plugin offers, with their parameters; the rest goes to found."""
    made: list[Use[T]] = []
    room = MAX_COMBINATIONS
    for i, entry in enumerate(raw.list_at(kind)[:MAX_ENTRIES]):
        if len(found) >= MAX_FINDINGS:
            break
        if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
            continue
        try:
            offer = look_up(entry["use"])
        except HarnessError as exc:
            found.append(((kind, i, "use"), str(exc)))
            continue
        use, wrong = _with_parameters(Use((kind, i), entry, offer), room)
        found += wrong
        room = max(room - use.sets, 0)
        made.append(use)
    return made


def _with_broken(found: Iterable[Finding], catalogue: Catalogue) -> Iterator[Finding]:
    """Where a name is unknown and a plugin is broken, the one may be the other's."""
    broken = ", ".join(b.id for b in catalogue.broken)
    for loc, text in found:
        yield loc, f"{text}; these plugins could not be loaded: {broken}" if broken and loc[-1] == "use" else text


def bare(name: str) -> str:
    """The name without its distribution."""
    return name.rpartition("/")[2]


def _tracks(tasks: Iterable[Use[Task]], catalogue: Catalogue, found: list[Finding]) -> tuple[Offer[Track], ...]:
    """The tracks of the chosen tasks, each once."""
    made: dict[str, Offer[Track]] = {}
    for use in tasks:
        try:
            track = catalogue.track(use.offer.spec.track)
            made.setdefault(track.ref, track)
        except HarnessError as exc:
            found.append(((*use.loc, "use"), f"task {use.offer.name!r} of plugin {use.offer.plugin.id} needs a track: {exc}"))
    return tuple(made.values())


def _with_parameters(use: Use[T], room: int) -> tuple[Use[T], list[Finding]]:
    """The entry with its parameters resolved, and what is wrong with them."""
    parts = {part: use.entry.get(part, {}) for part in ("params", "grid", "zip")}
    lists = (*_values(parts["grid"]), *_values(parts["zip"]))
    if not all(isinstance(p, dict) for p in parts.values()) or not all(isinstance(v, list) and v for v in lists):
        return use, []  # the first pass has said so
    wrong = list(_misplaced(use, parts))
    sets = count_combinations(parts["grid"], parts["zip"])
    if sets > room:
        many = sets if sets < MANY else "too many"  # a product of long lists may have more digits than Python prints
        wrong.append((use.loc, f"the parameters make {many} combinations; a suite has at most {MAX_COMBINATIONS}: split it"))
    if wrong:
        return use, wrong
    resolved: list[dict[str, Any]] = []
    places: dict[Loc, str] = {}
    for combination in combine(parts["params"], parts["grid"], parts["zip"]):
        values, errors = _resolve(use, combination)
        resolved += values
        places |= {loc: text for loc, text in errors if loc not in places}
        if len(places) >= MAX_FINDINGS:
            break
    return Use(use.loc, use.entry, use.offer, tuple(resolved), sets), list(places.items())


def _values(part: Any) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else ()


def _misplaced(use: Use[T], parts: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Parameters that do not exist, stand in two places, or are aligned with lists of another length."""
    known = [f.alias or name for name, f in use.offer.spec.params.model_fields.items()]
    seen: dict[str, str] = {}
    for part, name in ((part, name) for part, given in parts.items() for name in given):
        loc = (*use.loc, part, name)
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            yield loc, f"{use.offer.name!r} has no parameter {shown(name)}{did_you_mean(name, known)} ({takes})"
        elif name in seen:
            yield loc, f"{name!r} stands in {seen[name]} too; keep one of them"
        seen[name] = part
    lengths = {name: len(values) for name, values in parts["zip"].items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        yield (*use.loc, "zip"), f"the lists must have one length, but {each}; complete them, or use grid to multiply"


def _resolve(use: Use[T], combination: Combination) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The combination with defaults, in a list; or what its model says, each at the place of its value."""
    model = use.offer.spec.params
    try:
        return [resolve_params(model, combination.values)], []
    except ValidationError as exc:
        return [], [_place(use, combination, loc, text) for loc, text in explain(exc, model, combination.values)]
    except Exception as exc:  # a plugin's own validator, or a default that is no JSON: name the plugin and go on
        what = f"plugin {use.offer.plugin.id}: reading the parameters of {use.offer.name!r} raised {type(exc).__name__}: {exc}"
        return [], [(use.loc, f"{what}; report it to the plugin's authors")]


def _place(use: Use[T], combination: Combination, loc: Loc, text: str) -> Finding:
    """Where in the file a parameter's error belongs: its value, else the entry."""
    describe = f"(`harness describe {use.offer.name}` shows the parameters)"
    if not loc:
        return use.loc, f"{text} {describe}"
    name, *rest = loc
    place = combination.places.get(str(name), ("params", name))
    return (*use.loc, *place, *rest), f"{text} {describe}"
