"""The plugins, each loaded in its own try; what they offer, by name. Imports no torch.

An entry point of the group `harness` is one plugin, registered as "dist:name". A plugin that cannot be imported or that
declares nonsense is kept as a `Broken` with its error and stops nothing else. Two plugins that offer one name: the bare
name is an error that names both, "dist/name" works.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
import math
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from harness import hookspecs
from harness.contract import FIRST, STATED, require_compatible, stated_by
from harness.errors import HarnessError, PluginError
from harness.identity import digest, digest_folder
from harness.rules import mistakes, whole_number
from harness.showing import one_line
from harness.specs import Claim, Command, Component, Dataset, Kernel, Learner, Method, Paper, Probe, Task, Track

GROUP = "harness"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # a slash would make "dist/name" ambiguous
DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._+-]{0,63})?")  # "pmlb/iris"
COMMAND = re.compile(r"[a-z][a-z0-9-]{0,31}")
METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
FILE_LIKE = re.compile(r".*\.\..*|.*\.|.*\.(py|ya?ml|json|parquet)", re.IGNORECASE)  # would be read as a path or a file
MOST_SEEDS = 10_000  # of a claim
T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """A loaded entry point. home: the folder (or the one file) whose code is the plugin's; api: what it was written for."""

    dist: str
    name: str
    version: str
    module: Any
    home: Path
    api: str = FIRST

    @property
    def id(self) -> str:
        return f"{self.dist}:{self.name}"


@dataclass(frozen=True)
class Broken:
    """An entry point that could not be used, and why."""

    id: str
    version: str
    value: str
    error: str


@dataclass(frozen=True)
class Offer(Generic[T]):
    """A declaration and the plugin that made it."""

    spec: T
    plugin: Plugin

    @property
    def name(self) -> str:
        return str(getattr(self.spec, "name"))  # noqa: B009  (T has no bound that all specs share)

    @property
    def ref(self) -> str:
        """The full reference: what identities and records hold."""
        return f"{self.plugin.dist}/{self.name}"


@dataclass(frozen=True)
class Catalogue:
    """Everything that the installed plugins offer. Look names up with `method`, `task`, `track`, `dataset`, `claim`."""

    plugins: tuple[Plugin, ...] = ()
    broken: tuple[Broken, ...] = ()
    papers: tuple[Offer[Paper], ...] = ()
    tracks: tuple[Offer[Track], ...] = ()
    tasks: tuple[Offer[Task], ...] = ()
    methods: tuple[Offer[Method], ...] = ()
    probes: tuple[Offer[Probe], ...] = ()
    datasets: tuple[Offer[Dataset], ...] = ()
    kernels: tuple[Offer[Kernel], ...] = ()
    commands: tuple[Offer[Command], ...] = ()
    _digests: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)
    _home_digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)  # by plugin's id

    def method(self, name: str) -> Offer[Method]:
        return find(self.methods, name, "method")

    def task(self, name: str) -> Offer[Task]:
        return find(self.tasks, name, "task")

    def track(self, name: str) -> Offer[Track]:
        return find(self.tracks, name, "track")

    def dataset(self, name: str) -> Offer[Dataset]:
        return find(self.datasets, name, "dataset")

    def kernel(self, name: str) -> Offer[Kernel]:
        return find(self.kernels, name, "kernel")

    @cached_property
    def claims(self) -> dict[str, tuple[Offer[Paper], Claim]]:
        """Claims by full name, "paper.claim"."""
        return {f"{o.spec.name}.{c.name}": (o, c) for o in self.papers for c in o.spec.claims}

    def paper_of(self, plugin: Plugin) -> str:
        """The paper that a plugin implements; "" for the core's own."""
        return next((o.spec.name for o in self.papers if o.plugin is plugin), "")

    def home_digest(self, plugin: Plugin) -> str:
        """The plugin's own code, and that of the packages beside it which it imports: several papers may share a room."""
        if plugin.id not in self._home_digests:
            own, rooms = self._digest(plugin.home), shared_rooms(plugin)
            with_rooms = {"own": own, **{room.name: self._digest(room) for room in rooms}}
            self._home_digests[plugin.id] = digest(with_rooms) if rooms else own
        return self._home_digests[plugin.id]

    def code_digest(self, method: Offer[Method], task: Offer[Task], track: Offer[Track]) -> str:
        """What a trial's code is: the method's plugin, the task's, the track's, harness.lab and harness.data.

        Editing one paper changes no other paper's digest.
        """
        here = Path(__file__).parent
        parts = {
            "method": self.home_digest(method.plugin),
            "task": self.home_digest(task.plugin),
            "track": self.home_digest(track.plugin),
            "lab": self._digest(here / "lab"),
            "data": self._digest(here / "data"),
        }
        return digest(parts)

    def kernel_digest(self, kernel: Offer[Kernel]) -> str:
        """What a kernel's code is: its plugin, harness.lab, and how kernels are measured."""
        here = Path(__file__).parent
        parts = {"kernel": self.home_digest(kernel.plugin), "lab": self._digest(here / "lab")}
        return digest(parts | {"measured": self._digest(here / "kernels")})

    def _digest(self, folder: Path) -> str:
        if folder not in self._digests:
            self._digests[folder] = digest_folder(folder)
        return self._digests[folder]


def find(offers: Iterable[Offer[T]], name: str, kind: str) -> Offer[T]:
    """The one offer of that name, bare or "dist/name". Raises HarnessError with the mend."""
    offers = list(offers)
    exact = [o for o in offers if name in (o.name, o.ref)]
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise HarnessError(f"{kind} {name!r} is offered by several plugins; write one of {sorted(o.ref for o in exact)}")
    mean = did_you_mean(name, [o.name for o in offers])
    raise HarnessError(f"no plugin offers {kind} {name!r}{mean} (`harness list {kind}s` lists all)")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" or "": for error messages."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


KINDS: Mapping[str, type | tuple[type, ...]] = {
    "papers": Paper,
    "tracks": Track,
    "tasks": Task,
    "methods": (Component, Learner),
    "probes": Probe,
    "datasets": Dataset,
    "kernels": Kernel,
    "commands": Command,
}


def load_catalogue(
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None, kinds: Collection[str] = KINDS.keys()
) -> Catalogue:
    """Load every entry point of the group and ask each plugin for its declarations, one plugin at a time.

    kinds: what to ask for. Claims take longest to check, and not everybody needs them.
    """
    found = importlib.metadata.entry_points(group=GROUP) if entry_points is None else entry_points
    plugins: list[Plugin] = []
    broken: list[Broken] = []
    offers: dict[str, list[Offer[Any]]] = {kind: [] for kind in KINDS}
    for point in sorted(set(found), key=lambda p: (p.dist.name if p.dist else "", p.name)):
        dist, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")
        try:
            check_name("entry point", point.name)
            plugin = load_plugin(point, dist, version)
            declared = ask(plugin, kinds)
            check(plugin, declared)
        except (Exception, SystemExit) as exc:  # a plugin's own code: name it and go on
            error = " ".join(f"{type(exc).__name__}: {exc}".split())
            broken.append(Broken(*map(one_line, (f"{dist}:{point.name}", version, point.value, error))))
            continue
        plugins.append(plugin)
        for kind, specs in declared.items():
            offers[kind] += [Offer(spec, plugin) for spec in specs]
    declared_by_kind: dict[str, Any] = {kind: tuple(made) for kind, made in offers.items()}
    return Catalogue(tuple(plugins), tuple(broken), **declared_by_kind)


def shared_rooms(plugin: Plugin) -> list[Path]:
    """The packages and modules beside a plugin's own that it imports by their full name, and what those import in turn.

    Read from the text of import statements, so that nothing is imported. Not of the core, whose parts are counted by name.
    """
    module = plugin.module.__name__ if inspect.ismodule(plugin.module) else type(plugin.module).__module__
    top, *below = module.split(".")
    if not below or top == "harness":
        return []
    package = plugin.home.parents[len(below) - 1]
    statement = re.compile(rf"^[ \t]*(?:from|import)[ \t]+{re.escape(top)}\.(\w+)", re.MULTILINE)
    found: dict[str, Path] = {}
    unread = [plugin.home]
    while unread:
        home = unread.pop()
        files = [home] if home.is_file() else sorted(home.rglob("*.py"))
        names = {name for file in files for name in statement.findall(file.read_text(errors="replace"))} - {below[0], *found}
        for name in sorted(names):
            room = next((path for path in (package / name, package / f"{name}.py") if path.exists()), None)
            if room is not None:
                found[name] = room
                unread.append(room)
    return [found[name] for name in sorted(found)]


def load_plugin(point: importlib.metadata.EntryPoint, dist: str, version: str) -> Plugin:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a plugin's import warnings are its own affair; `plugin check` shows them
        try:
            module = point.load()
        except Exception:
            # What it imports may be gone with its API, or not be here yet: then that is the reason to give.
            if (stated := stated_by(point.module)) is not None:
                require_compatible(stated)
            raise
    api = require_compatible(getattr(sys.modules[point.module], STATED, FIRST))
    source = Path(inspect.getfile(module if inspect.ismodule(module) else sys.modules[type(module).__module__])).resolve()
    return Plugin(dist, point.name, version, module, source.parent if source.name == "__init__.py" else source, api)


def ask(plugin: Plugin, kinds: Collection[str] = KINDS.keys()) -> dict[str, list[Any]]:
    """The plugin's declarations of these kinds. Its own manager: pluggy's shared one would stop at the first broken plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin.module, name=plugin.id)
    manager.check_pending()
    answers = {kind: getattr(manager.hook, f"harness_{kind}")() for kind in kinds}
    return {kind: [spec for answer in lists for spec in answer] for kind, lists in answers.items()}


def check(plugin: Plugin, declared: Mapping[str, list[Any]]) -> None:
    """Raises PluginError for a declaration of the wrong type, a name given twice, a name or a `worst` that cannot be used."""
    for kind, specs in declared.items():
        for spec in specs:
            if not isinstance(spec, KINDS[kind]):
                raise PluginError(f"harness_{kind} returned {spec!r}; return a list of {KINDS[kind]!r}")
        names = [spec.name for spec in specs]
        for name in names:
            check_name(kind, name)
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise PluginError(f"harness_{kind} offers {twice} twice; give each its own name")
        for paper in (spec for spec in specs if isinstance(spec, Paper)):
            check_claims(paper)
        if kind == "datasets":
            for spec in specs:
                check_dataset(spec)
        if kind == "kernels":
            for spec in specs:
                check_kernel(spec)
        if kind == "commands":
            for spec in specs:
                check_command(spec)
        for metric in (m for spec in specs if isinstance(spec, Task | Probe) for m in spec.metrics):
            if not isinstance(metric.name, str) or not METRIC.fullmatch(metric.name):
                raise PluginError(f"metric {shown(metric.name)}: use letters, digits, '.', '_', '-', '+' and '@', 64 at most")
            if metric.better not in ("higher", "lower", "neither"):
                raise PluginError(f"metric {metric.name!r}: better={metric.better!r}; write 'higher', 'lower' or 'neither'")
            if metric.worst is not None and not math.isfinite(metric.worst):
                raise PluginError(
                    f"metric {metric.name!r}: worst={metric.worst}; give a finite number, or None to leave it out"
                )


def check_name(kind: str, name: Any) -> None:
    """Raises PluginError for a name that is none, or that somewhere else would be read as a path or a file."""
    allowed, mend = (DATASET, "one '/' between two names is allowed") if kind == "datasets" else (NAME, "64 at most")
    if not isinstance(name, str) or not allowed.fullmatch(name):
        raise PluginError(f"harness_{kind} offers {shown(name)}; use letters, digits, '.', '_' and '-' only, {mend}")
    if FILE_LIKE.fullmatch(name):
        raise PluginError(f"harness_{kind} offers {name!r}, which reads as a path or a file; leave '..' and the suffix out")


def check_claims(paper: Paper) -> None:
    """Raises PluginError with every mistake in a paper's claims: judging meets no rule that it cannot judge."""
    for claim in paper.claims:
        if not isinstance(claim, Claim):
            raise PluginError(f"paper {paper.name!r}: claims holds {shown(claim)}; give harness.Claim(...)")
        check_name("papers", claim.name)
    names = [claim.name for claim in paper.claims]
    wrong = [
        f"claim {name!r} is there twice; give each its own name" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    wrong += [f"claim {claim.name!r}: {text}" for claim in paper.claims for text in mistakes_of(claim)]
    if wrong:
        raise PluginError(f"paper {paper.name!r}: " + "; ".join(dict.fromkeys(wrong)))


def mistakes_of(claim: Claim) -> list[str]:
    """What is wrong with its rule and its numbers."""
    wrong = []
    if claim.rule is None and not claim.missing:
        wrong.append("it has no rule; give one, or say in `missing` what it would take")
    if claim.rule is not None:
        wrong += mistakes(claim.rule)
    if not whole_number(claim.seeds, 1 if claim.rule else 0, MOST_SEEDS):
        wrong.append(f"seeds={shown(claim.seeds)}; give 1 to {MOST_SEEDS}")
    if not whole_number(claim.extension, 0, MOST_SEEDS):
        wrong.append(f"extension={shown(claim.extension)}; give 0 to {MOST_SEEDS}")
    if claim.effect is not None and not (isinstance(claim.effect, int | float) and 0 < claim.effect < math.inf):
        wrong.append(f"effect={shown(claim.effect)}; give a difference above 0, or None")
    return wrong


def check_kernel(spec: Kernel) -> None:
    """Raises PluginError for implementations that cannot be told apart, or none that the others can be compared with."""
    names = [implementation.name for implementation in spec.implementations]
    for name in names:
        check_name("kernels", name)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or not names:
        wrong = f"has {twice} twice" if twice else "has no implementation"
        raise PluginError(f"kernel {spec.name!r} {wrong}; give each implementation its own name, and at least one of them")


def check_command(spec: Command) -> None:
    """Raises PluginError for a name that is no word to type on a command line."""
    if not COMMAND.fullmatch(spec.name):
        raise PluginError(f"harness_commands offers {shown(spec.name)}; use lower-case letters, digits and '-' only")


def check_dataset(spec: Dataset) -> None:
    """Raises PluginError for a data set whose file would not lie in the data folder (or in its package), or of no size."""
    path = spec.path.partition(":")[2] if spec.where == "embedded" else spec.path
    if spec.where != "generated" and not stays_inside(path):
        raise PluginError(
            f"data set {spec.name!r}: path {shown(spec.path)}; name a file inside the folder: no '..', no leading '/'"
        )
    if spec.size_bytes < 0:
        raise PluginError(f"data set {spec.name!r}: size_bytes={spec.size_bytes}; give the bytes of the unpacked file")


def stays_inside(path: str) -> bool:
    """Whether a relative path names something below the folder that it is put behind, by its words alone."""
    return path.isprintable() and "\\" not in path and not any(part in ("", ".", "..") for part in path.split("/"))


def shown(name: Any) -> str:
    """A wrong name for a message, cut where it is long."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."
