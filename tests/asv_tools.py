"""A scratch repository, asv itself, and the points in what it publishes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.exporting.asv import PREFIX

ASV_MEMORY = 4 << 30  # bytes; one infinity in a file makes asv ask for all there is


def git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(repository), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def run_asv(folder: Path, *arguments: str) -> str:
    """What asv prints; it may not take more than ASV_MEMORY."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ASV_MEMORY, ASV_MEMORY))

    command = [sys.executable, "-m", "asv", *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, preexec_fn=limit, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def graph_values(html: Path) -> Iterator[float]:
    """Every number in the published graphs; summaries repeat them."""
    for path in (html / "graphs").rglob("*.json"):
        if path.name.startswith(PREFIX) and "summary" not in path.relative_to(html).parts:
            for _, values in json.loads(path.read_text()):
                yield from (v for v in (values if isinstance(values, list) else [values]) if v is not None and v == v)
