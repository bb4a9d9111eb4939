"""What the harness itself costs: finding plugins, an empty trial, a leaderboard."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

SUITE = """
schema: harness/suite/1
name: empty
tasks: [{use: random-net, params: {dims: 4-8-3}}]
methods: [norm-product]
seeds: 10
"""


def time_load_catalogue() -> None:
    """In a process that has loaded it once: plugins are asked anew, their modules are there."""
    from harness.catalogue import load_catalogue

    load_catalogue()


time_load_catalogue.version = "1"


class EmptyTrials:
    """Ten trials whose method does next to nothing, run once; then what they left behind is read."""

    timeout = 120.0
    version = "1"

    def setup(self, registry: str) -> None:
        self.time_leaderboard(registry)  # the first call imports duckdb

    def setup_cache(self) -> str:
        suite, registry = Path("empty.yaml").absolute(), Path("registry").absolute()  # asv makes the folder and removes it
        suite.write_text(SUITE)
        command = [sys.executable, "-c", "from harness.cli import main; main()", "run", str(suite), "--registry", str(registry)]
        subprocess.run([*command, "--yes"], check=True, timeout=self.timeout)
        return str(registry)

    def track_trial(self, registry: str) -> float:
        """CPU seconds of a trial's process: forked, set up, scored and sent back."""
        from harness.registry import Registry

        rows = Registry.open(Path(registry), create=False).attempts(status="ok")
        return statistics.median(row["cpu_s"] for row in rows)

    track_trial.unit = "seconds"

    def time_leaderboard(self, registry: str) -> None:
        from harness.leaderboard import make_leaderboards
        from harness.provenance import machine_id
        from harness.registry import Registry

        make_leaderboards(Registry.open(Path(registry), create=False), None, machine_id())
