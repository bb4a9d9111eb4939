"""CPU seconds of commands that should answer at once: `harness --help` beside asv's and benchopt's, `harness list methods`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tests.benchmarks.figures import Figure, Readings, interleave
from tests.benchmarks.usage import clean_environment, run_measured

HELP_GOAL_S = 0.22
LIST_GOAL_S = 0.5
BIN = Path(sys.executable).parent


def measure_startup(folder: Path, rounds: int, benchopt: Path | None, reason: str) -> list[Figure]:
    """benchopt: its command, or None for the given reason. All commands run in turns, once unread before."""
    commands = {
        "harness --help": [BIN / "harness", "--help"],
        "harness list methods": [BIN / "harness", "list", "methods"],
        "asv --help": [BIN / "asv", "--help"],
    }
    if benchopt is not None:
        commands["benchopt --help"] = [benchopt, "--help"]
    environment = clean_environment()
    calls = {name: partial(run_measured, argv, folder, environment) for name, argv in commands.items()}
    for call in calls.values():
        call()  # compiles modules to bytecode and fills the page cache
    found = {name: Readings(name, "s", tuple(u.cpu_s for u in usages)) for name, usages in interleave(calls, rounds).items()}
    return [
        Figure(
            "CPU of `harness --help`", found["harness --help"], HELP_GOAL_S,
            peers=tuple(found[name] for name in ("asv --help", "benchopt --help") if name in found),
            missing=() if benchopt is not None else (reason,),
        ),
        Figure("CPU of `harness list methods`", found["harness list methods"], LIST_GOAL_S),
    ]  # fmt: skip
