"""Plugins that a test writes: a module and a dist-info folder on a path, so that importlib.metadata finds them for real.

`plugin_site` is a fixture: `from helpers import plugin_site` where it is used. `trial` makes a Trial of the toy track that
`PluginSite.write_toy` declares: find the threshold that tells positive numbers, accuracy on held parts.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.catalogue import Catalogue, load_catalogue
from harness.records import Trial

TOY_DECLARED = '''
    """A track, a task and the methods of a test; imports no torch."""
    import harness

    class TaskParams(harness.Params):
        items: int = 200

    class MethodParams(harness.Params):
        scale: float = 1.0

    METRICS = (
        harness.Metric("accuracy", "share", "higher", worst=0.0),
        harness.Metric("first", "1", "neither"),
    )
    TRACK = harness.Track("toy", "1", problem="NAME_code:Problem", solution="NAME_code:Guesser", clocks=("steps",),
                          inference="NAME_code:inference")
    TASK = harness.Task("signs", "toy", METRICS, load="NAME_code:load", score="NAME_code:score", params=TaskParams,
                        shape=lambda params: {"inputs": 1, "outputs": 2, "train_items": params.items})

    @harness.hookimpl
    def harness_tracks():
        return [TRACK]

    @harness.hookimpl
    def harness_tasks():
        return [TASK]

    @harness.hookimpl
    def harness_methods():
        return [harness.Learner(name, "toy", solve=f"NAME_code:{name}", params=MethodParams, cost="NAME_code:cost")
                for name in METHODS]
'''

TOY_CODE = '''
    """Code of the toy track: the label of x is its sign."""
    import dataclasses, typing, torch
    from harness import Instance

    @dataclasses.dataclass(frozen=True)
    class Problem:
        x: torch.Tensor
        y: torch.Tensor

    @typing.runtime_checkable
    class Guesser(typing.Protocol):
        def guess(self, x: torch.Tensor) -> torch.Tensor: ...

    class Threshold:
        def __init__(self, at):
            self.at = at

        def guess(self, x):
            return (x > self.at).long()

    def load(params, ctx):
        g = ctx.generator("split")
        x = torch.randn(3 * params.items, generator=g, dtype=ctx.dtype)
        y = (x > 0).long()
        n = params.items
        return Instance(Problem(x[:n], y[:n]), {"validation": (x[n:2*n], y[n:2*n]), "test": (x[2*n:], y[2*n:])})

    def score(held, solution, params, ctx):
        x, y = held
        right = (solution.guess(x) == y).double().mean()
        return {"accuracy": right, "first": float(x[0])}

    def inference(solution, problem, ctx):
        return lambda: solution.guess(problem.x)

    def cost(shape, params):
        return {"params": shape["inputs"] + int(params.scale), "flops": 2.0}

    def good(problem, ctx, params):
        """A threshold that walks to 0, by random steps from the global generator."""
        solution = Threshold(2.0)
        for step in range(20):
            ctx.spend(steps=1)
            with ctx.region("step"):
                candidate = solution.at * float(torch.rand(()))
                solution = Threshold(candidate)
            if step % 5 == 4:
                ctx.offer(solution)
        ctx.log(at=solution.at)
        return solution
'''


@dataclass
class PluginSite:
    """A folder with the plugins of one test. Its `environment` makes other processes find them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, declared: str, code: str) -> None:
        """One distribution with one entry point: module NAME declares, module NAME_code is the code."""
        self._forget(name)
        (self.folder / f"{name}.py").write_text(textwrap.dedent(declared).replace("NAME", name))
        (self.folder / f"{name}_code.py").write_text(textwrap.dedent(code).replace("NAME", name))
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[harness]\n{name} = {name}\n")
        importlib.invalidate_caches()

    def _forget(self, name: str) -> None:
        """What was written before under this name: a test may write it anew, within the second that bytecode is told by."""
        for module in (name, f"{name}_code"):
            sys.modules.pop(module, None)
            for compiled in (self.folder / "__pycache__").glob(f"{module}.*"):
                compiled.unlink()

    def write_toy(self, methods: str = "", names: tuple[str, ...] = (), *, name: str = "toyplug", declared: str = "") -> None:
        """The toy track with `good` and whatever functions `methods` defines; names: which of them are methods.

        declared: further declarations, appended."""
        listed = f"METHODS = {('good', *names)!r}\n"
        declarations = listed + textwrap.dedent(TOY_DECLARED) + textwrap.dedent(declared)
        self.write(name, declarations, textwrap.dedent(TOY_CODE) + textwrap.dedent(methods))

    def catalogue(self) -> Catalogue:
        return load_catalogue()


@contextlib.contextmanager
def open_plugin_site(folder: Path) -> Iterator[PluginSite]:
    """A fresh site in `folder`, first on this process's path and on that of its children; forgotten afterwards."""
    folder.mkdir()
    path = os.pathsep.join(p for p in (str(folder), os.environ.get("PYTHONPATH", "")) if p)
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.syspath_prepend(str(folder))
        yield PluginSite(folder, {"PYTHONPATH": path})
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def plugin_site(tmp_path: Path) -> Iterator[PluginSite]:
    """A fresh site for one test."""
    with open_plugin_site(tmp_path / "site") as site:
        yield site


def marked_processes(name: str, value: str) -> list[int]:
    """Processes on this machine that were started with name=value in their environment, zombies left out."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


BASE = Trial(
    kind="quality", track="toyplug/toy", method="toyplug/good", method_params={}, role="method", paper="", task="toyplug/signs",
    task_params={}, net=None, train=None, budget={"steps": 20.0}, tuning=None, device="cpu", dtype="float32", threads=1, seed=0,
    root_seed=0, measure=(), matched=None, code_digest="c", data_digest="d", torch_version="t", series_key="s", trial_id="i",
    pair_key="p",
)  # fmt: skip


def trial(method: str = "good", **changes: Any) -> Trial:
    """A trial of the toy track."""
    return replace(BASE, method=f"toyplug/{method}", trial_id=f"{method}-{changes.get('seed', 0)}", **changes)
