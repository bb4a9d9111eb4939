"""The core's own plugin: two tracks, their tasks, the baselines, and kernels to compare with.

It has no door that other plugins lack.
"""

from __future__ import annotations

from harness.builtin.baselines import METHODS
from harness.builtin.datasets import DATASETS
from harness.builtin.kernels import KERNELS
from harness.builtin.tasks import TASKS
from harness.builtin.tracks import PROBES, TRACKS
from harness.hookspecs import hookimpl
from harness.specs import Dataset, Kernel, Method, Probe, Task, Track


@hookimpl
def harness_tracks() -> list[Track]:
    return TRACKS


@hookimpl
def harness_tasks() -> list[Task]:
    return TASKS


@hookimpl
def harness_methods() -> list[Method]:
    return METHODS


@hookimpl
def harness_probes() -> list[Probe]:
    return PROBES


@hookimpl
def harness_datasets() -> list[Dataset]:
    return DATASETS


@hookimpl
def harness_kernels() -> list[Kernel]:
    return KERNELS
