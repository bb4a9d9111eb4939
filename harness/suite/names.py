"""The second pass over a suite's raw tree: names against the plugins, and what must fit together.

It reads the tree that the first pass has refused in part, and skips what is not of the right type. Of the plugins it runs
only their `Params` models.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from harness.catalogue import Catalogue, did_you_mean
from harness.errors import HarnessError
from harness.identity import canonical
from harness.nets import Net, Train
from harness.records import KERNEL_REGIONS, Kind
from harness.specs import Component, Learner, Role
from harness.suite.entries import Chosen, Use, bare, choose
from harness.suite.parameters import matches
from harness.suite.schema import MAX_ENTRIES, MAX_PATTERN, Device, SuiteForm
from harness.suite.text import Loc, Mistake, dotted, shown
from harness.suite.values import MAX_FINDINGS, Finding, Raw, check_values, explain, missing


def check_suite(raw: Raw, catalogue: Catalogue) -> tuple[SuiteForm | None, list[Mistake]]:
    """Both passes; the form is None where a scalar is wrong. Mistakes in the order of the file, options last."""
    form, findings = check_values(raw)
    kept: dict[Loc, str] = {}
    for loc, text in (*findings, *itertools.islice(check_names(raw, catalogue), MAX_FINDINGS)):
        written = raw.written(loc)
        above = (written[:n] for n in range(len(written) + 1))
        if not any(place in kept or place in raw.document.unread for place in above):
            kept[written] = text
    return form, [Mistake(raw.document.origin(loc), dotted(loc), text) for loc, text in kept.items()]


def check_names(raw: Raw, catalogue: Catalogue) -> Iterator[Finding]:
    """Every name against the plugins, every parameter against its model, and what must fit together."""
    chosen, wrong = choose(raw, catalogue)
    yield from wrong
    yield from check_needed(raw)
    yield from check_repeats(raw)
    yield from check_same_trials(raw, chosen)
    yield from check_kernels(raw, chosen)
    yield from check_fit(raw, chosen)
    yield from check_net(raw, catalogue)
    yield from check_budget(raw, chosen, catalogue)
    yield from check_match(raw, chosen)
    yield from check_tuning(raw, chosen)
    yield from check_measure(raw, chosen, catalogue)
    yield from check_claims(raw, catalogue)
    yield from check_exclude(raw, chosen, catalogue)


def check_needed(raw: Raw) -> Iterator[Finding]:
    """Tasks and methods need each other; kernels may stand alone."""
    given = {key for key in ("tasks", "methods", "kernels") if key in raw.data}
    for key in ("tasks", "methods"):
        if key not in given and given != {"kernels"}:
            yield (key,), missing((key,))


def check_repeats(raw: Raw) -> Iterator[Finding]:
    """Nothing stands twice in one list."""
    plain: list[Loc] = [("seeds",), ("devices",), ("claims",), ("exclude",), ("measure", "quality"), ("measure", "timing")]
    grids: list[Loc] = [
        (kind, i, "grid", name)
        for kind in ("tasks", "methods", "kernels")
        for i in range(min(len(raw.list_at(kind)), MAX_ENTRIES))
        for name in raw.dict_at(kind, i, "grid")
    ]
    for loc in (*plain, *grids):
        yield from _repeats(loc, raw.list_at(*loc), lambda value: value)
    yield from _repeats(("net",), raw.list_at("net"), lambda value: _with_defaults(Net, value))
    yield from _repeats(("train",), raw.list_at("train"), lambda value: _with_defaults(Train, value))


def _repeats(loc: Loc, items: Sequence[Any], meaning: Callable[[Any], Any]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        key = canonical(meaning(item))
        if key in first:
            yield (*loc, i), f"{shown(item)} stands at {dotted((*loc, first[key]))} already; remove one"
        first.setdefault(key, i)


def _with_defaults(model: type[Net] | type[Train], value: Any) -> Any:
    try:
        return model.model_validate_json(json.dumps(value), strict=True).model_dump(mode="json")
    except ValidationError:
        return value


def check_same_trials(raw: Raw, chosen: Chosen) -> Iterator[Finding]:
    """No two entries stand for the same trials; no two are called the same."""
    kinds: tuple[tuple[str, Sequence[Use[Any]]], ...] = (
        ("task", chosen.tasks), ("method", chosen.methods), ("kernel", chosen.kernels)
    )  # fmt: skip
    for kind, uses in kinds:
        seen: dict[str, Use[Any]] = {}
        for use in uses:
            for values in use.resolved:
                key = canonical([use.offer.ref, values, use.entry.get("implementations")])
                if seen.get(key) is use and not _grid_repeats(use):
                    yield (
                        use.loc,
                        f"{kind} {use.offer.name!r} gets the same parameters twice from this line; shorten its grid or zip",
                    )
                    break
                if key in seen and seen[key] is not use:
                    other = raw.written(seen[key].loc)
                    line = raw.document.origin(other)
                    where = f"{dotted(other)} (line {line})" if isinstance(line, int) else dotted(other)
                    yield use.loc, f"{kind} {use.offer.name!r} with the same parameters is {where} already; remove one"
                    break
                seen.setdefault(key, use)
    for i, use in enumerate(chosen.methods):
        others = [other for j, other in enumerate(chosen.methods) if j != i]
        if "as" in use.entry and any(use.name == o.name and ("as" not in o.entry or o.loc < use.loc) for o in others):
            yield (*use.loc, "as"), f"another method of the suite is called {use.name!r}; pick a name of its own"


def _grid_repeats(use: Use[Any]) -> bool:
    """Whether a list of the grid holds a value twice, which `check_repeats` has said."""
    return any(True for values in use.entry.get("grid", {}).values() for _ in _repeats((), values, lambda value: value))


def check_kernels(raw: Raw, chosen: Chosen) -> Iterator[Finding]:
    """Each implementation that is named is one of its kernel, and stands there once."""
    for use in chosen.kernels:
        loc = (*use.loc, "implementations")
        yield from _repeats(loc, raw.list_at(*loc), lambda value: value)
        known = [i.name for i in use.offer.spec.implementations]
        for i, name in enumerate(raw.list_at(*loc)):
            if isinstance(name, str) and name not in known:
                mean = did_you_mean(name, known)
                yield (
                    (*loc, i),
                    f"kernel {use.offer.name!r} has no implementation {shown(name)}{mean} (it has {', '.join(known)})",
                )


def check_fit(raw: Raw, chosen: Chosen) -> Iterator[Finding]:
    """Each method has a task of its kind and each task a method; components have a net to go into."""
    if _all_known(chosen):
        yield from _without_partner(chosen)
    components = [use for use in chosen.methods if isinstance(use.offer.spec, Component)]
    if components and "net" not in raw.data:
        name = components[0].offer.name
        yield ("net",), f"missing; {name!r} is a component and goes into a net: add `net: {{arch: mlp, width: 128}}`"


def _all_known(chosen: Chosen) -> bool:
    return chosen.tracks_known and chosen.methods_known


def _without_partner(chosen: Chosen) -> Iterator[Finding]:
    trains = sorted(track.name for track in chosen.tracks if track.spec.learner)
    solved = {bare(use.offer.spec.track) for use in chosen.methods if isinstance(use.offer.spec, Learner)}
    components = any(isinstance(use.offer.spec, Component) for use in chosen.methods)
    names = sorted(track.name for track in chosen.tracks)
    for use in chosen.methods:
        spec = use.offer.spec
        if isinstance(spec, Learner) and bare(spec.track) not in names:
            here = f"the tasks here are of {', '.join(names)}"
            yield (*use.loc, "use"), f"{use.offer.name!r} solves track {spec.track!r} and {here}; add a task of {spec.track!r}"
        if isinstance(spec, Component) and not trains:
            here = f"no track here ({', '.join(names)}) trains a net"
            yield (*use.loc, "use"), f"{use.offer.name!r} is a component and {here}; add a task of a track that does"
    for task in chosen.tasks:
        track = bare(task.offer.spec.track)
        if track not in solved and not (components and track in trains):
            yield (
                (*task.loc, "use"),
                f"no method here solves track {track!r} of task {task.offer.name!r}; add one, or remove the task",
            )


def check_net(raw: Raw, catalogue: Catalogue) -> Iterator[Finding]:
    """The activation that a net names exists; identity is none, for layers that have their own."""
    for i, net in enumerate(raw.list_at("net")[:MAX_ENTRIES]):
        name = net.get("activation") if isinstance(net, dict) else None
        if not isinstance(name, str) or name == "identity":
            continue
        try:
            spec = catalogue.method(name).spec
        except HarnessError as exc:
            yield ("net", i, "activation"), str(exc)
            continue
        if not isinstance(spec, Component) or spec.kind != "activation":
            kind = spec.kind if isinstance(spec, Component) else "learner"
            yield ("net", i, "activation"), f"{name!r} is of kind {kind!r}; name an activation, such as relu"


def check_budget(raw: Raw, chosen: Chosen, catalogue: Catalogue) -> Iterator[Finding]:
    """Each unit is a clock of a track that the suite uses; nets are trained under at least one."""
    units = [unit for unit in raw.dict_at("budget") if unit != "match"]
    tracks = chosen.tracks if chosen.tracks_known else catalogue.tracks
    clocks = {clock for track in tracks for clock in track.spec.clocks} | {"wall_s"}
    allowed = sorted(clocks | ({"epochs"} if "samples_seen" in clocks else set()))
    for unit in units:
        if unit not in allowed:
            of = f"track {', '.join(sorted(t.name for t in tracks))} has" if chosen.tracks_known else "the tracks have"
            yield (
                ("budget", unit),
                f"{of} no clock {shown(unit)}{did_you_mean(unit, allowed)} (clocks here: {', '.join(allowed)})",
            )
    if "epochs" in units and "samples_seen" in units:
        yield ("budget", "epochs"), "epochs are counted on samples_seen, which stands here too; keep one of them"
    sized = any(use.offer.spec.shape for use in chosen.tasks)
    if "epochs" in units and "epochs" in allowed and chosen.tracks_known and not sized:
        yield ("budget", "epochs"), "no task here says how many items it trains on; use samples_seen"
    trained = [use for use in chosen.methods if isinstance(use.offer.spec, Component)]
    if trained and not units:
        add = "samples_seen: 30000" if "budget" in raw.data else "budget: {samples_seen: 30000}"
        yield (
            ("budget",),
            f"no amount is given: the net around {trained[0].offer.name!r} would be trained for ever; add `{add}`, say",
        )


def check_match(raw: Raw, chosen: Chosen) -> Iterator[Finding]:
    """One quantity that a track can match, and one method to match it to."""
    match = raw.dict_at("budget", "match")
    if not match:
        return
    quantities = [name for name in ("params", "flops") if match.get(name) is not None]
    if len(quantities) != 1:
        yield (
            ("budget", "match"),
            f"got {' and '.join(quantities) or 'neither params nor flops'}; write one of them, such as params: 5%",
        )
    matchable = sorted({name for track in chosen.tracks for name in track.spec.matchable})
    for name in quantities:
        if chosen.tracks_known and name not in matchable:
            can = f"use {' or '.join(matchable)}" if matchable else "remove match"
            yield ("budget", "match", name), f"no track here can match {name}; {can}"
    if isinstance(match.get("to"), str):
        yield from _match_to(match["to"], chosen)


def _match_to(to: str, chosen: Chosen) -> Iterator[Finding]:
    loc = ("budget", "match", "to")
    called = [use for use in chosen.methods if use.name == to] or [use for use in chosen.methods if to in use.names]
    if not called and chosen.methods_known:
        known = [use.name for use in chosen.methods]
        yield loc, f"no method of this suite is called {shown(to)}{did_you_mean(to, known)} (methods here: {', '.join(known)})"
    elif (sets := sum(use.sets for use in called)) > 1:
        mend = "give the one that is meant a line of its own, with `as: NAME`"
        yield loc, f"{to!r} stands here with {sets} sets of parameters; {mend}"


def check_tuning(raw: Raw, chosen: Chosen) -> Iterator[Finding]:
    """Each dimension is a setting that something here has and that nothing else sets, and all its values are allowed there."""
    components = any(isinstance(use.offer.spec, Component) for use in chosen.methods)
    known = [
        f"train.{name}" for name in Train.model_fields if name != "evaluations" and (components or not chosen.methods_known)
    ]
    known += sorted({f"method.{p}" for use in chosen.methods for p in use.offer.spec.params.model_fields})
    for name, written in raw.dict_at("tuning", "space").items():
        loc: Loc = ("tuning", "space", name)
        if name not in known:
            if chosen.methods_known or not name.startswith("method."):
                yield loc, f"nothing here has a setting {shown(name)}{did_you_mean(name, known)} (there are {', '.join(known)})"
            continue
        ways = [way for way in ("log", "linear", "values") if isinstance(written, dict) and written.get(way) is not None]
        if len(ways) != 1:
            yield (
                loc,
                f"got {' and '.join(ways) or 'none of log, linear and values'}; write one of them, such as log: [1e-4, 1e-1]",
            )
            continue
        values = raw.list_at(*loc, ways[0])
        yield from _dimension(loc, ways[0], values)
        for text in _refused(name, values, chosen, ways[0]):
            yield (*loc, ways[0]), text
        for other in _set_elsewhere(name, raw, chosen):
            yield loc, f"{name} is listed at {dotted(other)} too; tune it or list it"
    metric = raw.get("tuning", "metric")
    metrics = sorted({m.name for use in chosen.tasks for m in use.offer.spec.metrics if m.better != "neither"})
    if isinstance(metric, str) and metric not in metrics and chosen.tracks_known:
        mean = did_you_mean(metric, metrics)
        yield ("tuning", "metric"), f"no task here ranks by {shown(metric)}{mean} (metrics here: {', '.join(metrics)})"


def _dimension(loc: Loc, way: str, values: Sequence[Any]) -> Iterator[Finding]:
    """Bounds in order, above 0 for ratios; no value twice."""
    if way == "values":
        yield from _repeats((*loc, way), values, lambda value: value)
    elif _numbers(values):
        if not values[0] < values[1]:
            yield (*loc, way), f"got {shown(values)}; write the lower bound first, then a greater one"
        elif way == "log" and values[0] <= 0:
            yield (*loc, way), f"got {shown(values)}; a logarithm needs bounds above 0: raise the lower one, or use linear"


def _refused(name: str, values: Sequence[Any], chosen: Chosen, way: str) -> Iterator[str]:
    """What the setting's models say of its values. Between bounds lie fractions: what is a whole number has no range."""
    owner, _, setting = name.partition(".")
    uses = [use for use in chosen.methods if setting in use.offer.spec.params.model_fields]
    models: list[tuple[str, type[BaseModel]]] = (
        [(name, Train)] if owner == "train" else [(f"{use.offer.name}.{setting}", use.offer.spec.params) for use in uses]
    )
    between = [values[0] + (values[1] - values[0]) * 0.3719] if way != "values" and _numbers(values) else []
    for called, model in models:
        for value in (*values, *between):
            if wrong := _why_refused(model, setting, value):
                yield f"{called} takes no fractions; use values: [...]" if value in between else f"{called}: {wrong}"
                break


def _why_refused(model: type[BaseModel], setting: str, value: Any) -> str:
    """What a model says of one value, with all others at their defaults; "" where it takes it."""
    try:
        model.model_validate_json(json.dumps({setting: value}), strict=True)
    except ValidationError as exc:
        return next(text for _, text in explain(exc, model, {setting: value}))
    except Exception as exc:  # a plugin's own validator
        return f"{type(exc).__name__}: {exc}"
    return ""


def _numbers(values: Sequence[Any]) -> bool:
    return len(values) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _set_elsewhere(name: str, raw: Raw, chosen: Chosen) -> Iterator[Loc]:
    """Where the suite lists several values of a setting, or matches by it."""
    owner, _, setting = name.partition(".")
    if owner == "train":
        listed = [train.get(setting) for train in raw.list_at("train") if isinstance(train, dict)]
        if len({canonical(value) for value in listed}) > 1:
            yield ("train",)
        return
    for use in chosen.methods:
        for part in ("grid", "zip"):
            if setting in raw.dict_at(*use.loc, part):
                yield (*use.loc, part, setting)
        if raw.dict_at("budget", "match") and isinstance(use.offer.spec, Learner) and use.offer.spec.knob == setting:
            yield ("budget", "match")


def check_measure(raw: Raw, chosen: Chosen, catalogue: Catalogue) -> Iterator[Finding]:
    """Each quantity is a metric of a chosen task or of a probe of its track; `inference` needs a track that has one."""
    tracks = {track.name for track in chosen.tracks}
    metrics = {m.name for use in chosen.tasks for m in use.offer.spec.metrics}
    metrics |= {m.name for probe in catalogue.probes if bare(probe.spec.track) in tracks for m in probe.spec.metrics}
    for i, name in enumerate(raw.list_at("measure", "quality")):
        if chosen.tracks_known and isinstance(name, str) and name not in metrics:
            mean = did_you_mean(name, metrics)
            yield (
                ("measure", "quality", i),
                f"no task or probe here gives {shown(name)}{mean} (quantities here: {', '.join(sorted(metrics))})",
            )
    for i, region in enumerate(raw.list_at("measure", "timing")):
        if isinstance(region, str) and not chosen.tasks and "kernels" in raw.data and region not in KERNEL_REGIONS:
            mean = did_you_mean(region, KERNEL_REGIONS)
            yield ("measure", "timing", i), f"kernels have no region {shown(region)}{mean} ({', '.join(KERNEL_REGIONS)})"
        if region == "inference" and chosen.tracks_known and not any(track.spec.inference for track in chosen.tracks):
            yield ("measure", "timing", i), f"no track here ({', '.join(sorted(tracks))}) can time inference; remove it"


def check_claims(raw: Raw, catalogue: Catalogue) -> Iterator[Finding]:
    """Each claim is one that a paper makes."""
    for i, name in enumerate(raw.list_at("claims")[:MAX_ENTRIES]):
        if isinstance(name, str) and name not in catalogue.claims:
            mean = did_you_mean(name, catalogue.claims)
            yield (
                ("claims", i),
                f"no paper makes claim {shown(name)}{mean} (paper.claim; `harness list claims` lists all)",
            )


def check_exclude(raw: Raw, chosen: Chosen, catalogue: Catalogue) -> Iterator[Finding]:
    """Each pattern is over a name that trials have, and could match one."""
    values = _values_of_trials(catalogue)
    known = [*values, "seed", *(f"net.{name}" for name in Net.model_fields), *(f"train.{name}" for name in Train.model_fields)]
    known += sorted({f"method.{p}" for use in chosen.methods for p in use.offer.spec.params.model_fields})
    known += sorted({f"task.{p}" for use in chosen.tasks for p in use.offer.spec.params.model_fields})
    known += sorted({f"case.{p}" for use in chosen.kernels for p in use.offer.spec.params.model_fields})
    for i, item in enumerate(raw.list_at("exclude")[:MAX_ENTRIES]):
        if item == {}:
            yield ("exclude", i), "an empty item would leave out every trial; write a pattern, such as {method: relu}"
        for key, pattern in item.items() if isinstance(item, dict) else ():
            loc = ("exclude", i, key)
            if key not in known and (_all_known(chosen) or not key.startswith(("method.", "task.", "case."))):
                yield loc, f"trials have no {shown(key)}{did_you_mean(key, known)} (names here: {', '.join(known)})"
            elif isinstance(pattern, list | dict):
                yield loc, f"got {shown(pattern)}; write one pattern or one value, and another item for another pattern"
            elif isinstance(pattern, str) and len(pattern) > MAX_PATTERN:
                yield loc, f"got {shown(pattern)}, {len(pattern)} characters; write a pattern of at most {MAX_PATTERN}"
            elif key == "kind" and pattern == "tuning":
                yield (
                    loc,
                    "tuning goes with the trials that it is for; exclude those by method, task or seed, or remove `tuning`",
                )
            elif key in values and not any(matches(value, pattern) for value in values[key]):
                mean = did_you_mean(str(pattern), values[key])
                yield loc, f"no {key} matches {shown(pattern)}{mean} (write a name, or a pattern with *)"


def _values_of_trials(catalogue: Catalogue) -> dict[str, list[str]]:
    """What a trial's fields can be, where that is known beforehand: by the plugins, not by the suite, whose methods an option
    may have narrowed.
    """
    return {
        "method": [name for o in catalogue.methods for name in (o.name, o.ref)],
        "task": [name for o in catalogue.tasks for name in (o.name, o.ref)],
        "kernel": [name for o in catalogue.kernels for name in (o.name, o.ref)],
        "implementation": sorted({i.name for o in catalogue.kernels for i in o.spec.implementations}),
        "track": [name for o in catalogue.tracks for name in (o.name, o.ref)],
        "device": list(get_args(Device)),
        "role": list(get_args(Role)),
        "kind": [kind for kind in get_args(Kind) if kind != "tuning"],
    }
