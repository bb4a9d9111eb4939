"""Where an invocation runs: machine, environment, git state. Imports no torch and starts no device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import MissingError
from harness.identity import digest
from harness.records import Provenance


def gather(suite: str, gpu: Mapping[str, Any] | None = None, folder: Path | None = None) -> Provenance:
    """All of it, once per invocation. gpu: what the executor's device probe found; folder: whose git state counts."""
    machine_facts = describe_machine(gpu)
    environment_facts = describe_environment()
    commit, dirty = git_state(folder or Path.cwd())
    return Provenance(
        invocation=new_id(),
        suite=suite,
        machine=os.environ.get("HARNESS_MACHINE") or digest(machine_facts)[:16],
        environment=digest(environment_facts),
        host=platform.node(),
        boot_id=read_text("/proc/sys/kernel/random/boot_id"),
        git_commit=commit,
        git_dirty=dirty,
        machine_facts=machine_facts,
        environment_facts=environment_facts,
        data_facts={},
    )


def new_id() -> str:
    """32 hex digits that sort by time: 48 bits of milliseconds, 80 random bits."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def machine_id() -> str:
    """The name of this machine in records, without a GPU: for commands that only read."""
    return os.environ.get("HARNESS_MACHINE") or digest(describe_machine(None))[:16]


def describe_machine(gpu: Mapping[str, Any] | None) -> dict[str, Any]:
    """CPU model, cores, memory, GPU model: what makes two machines the same one for pooling."""
    # Memory in whole GiB: a kernel update moves the figure by some pages, and that is no other machine.
    memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    gpu_name = str(gpu["name"]) if gpu and gpu.get("cuda") else ""
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "memory_gib": memory_gib, "gpu": gpu_name, "arch": platform.machine()}


def cpu_model() -> str:
    for line in read_text("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def describe_environment() -> dict[str, Any]:
    """Python, operating system, every installed distribution with its version."""
    packages = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "os": platform.platform(),
        "libc": "-".join(platform.libc_ver()),
        "packages": dict(sorted(packages.items())),
    }


def torch_version() -> str:
    """The installed torch, without importing it."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError as exc:
        raise MissingError("torch is not installed; pip install 'torch>=2.10'") from exc


def git_state(folder: Path) -> tuple[str, bool | None]:
    """Commit and dirty flag of the repository around folder; ("", None) outside one or without git."""
    try:
        run = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "", None
    lines = run.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid")), "")
    return ("" if commit == "(initial)" else commit), any(not line.startswith("#") for line in lines)


def read_text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
