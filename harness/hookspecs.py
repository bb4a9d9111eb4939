"""The hooks: one signature, one sentence, no code. A plugin implements those it needs; each returns a list."""

from __future__ import annotations

import pluggy

from harness.specs import Command, Dataset, Kernel, Method, Paper, Probe, Task, Track

PROJECT = "harness"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def harness_papers() -> list[Paper]:  # type: ignore[empty-body]
    """The papers that the plugin implements, with their claims."""


@hookspec
def harness_tracks() -> list[Track]:  # type: ignore[empty-body]
    """Kinds of problem that the plugin brings."""


@hookspec
def harness_tasks() -> list[Task]:  # type: ignore[empty-body]
    """Problems, each of a track that some plugin brings."""


@hookspec
def harness_methods() -> list[Method]:  # type: ignore[empty-body]
    """Components and learners."""


@hookspec
def harness_probes() -> list[Probe]:  # type: ignore[empty-body]
    """Further metrics of any solution of a track."""


@hookspec
def harness_datasets() -> list[Dataset]:  # type: ignore[empty-body]
    """Data sets by name, each with its digest."""


@hookspec
def harness_kernels() -> list[Kernel]:  # type: ignore[empty-body]
    """Hot operations, each with its implementations and a float64 reference."""


@hookspec
def harness_commands() -> list[Command]:  # type: ignore[empty-body]
    """Commands of `harness` that the plugin brings."""
