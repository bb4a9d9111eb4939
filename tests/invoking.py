"""The command line as tests call it: in this process where no worker is needed, in one of its own where trials run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import main

COMMAND = [sys.executable, "-c", "from harness.cli import main; main()"]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as JSON; what NaN and Infinity are in Python is no JSON, so they are refused."""
        return json.loads(self.out, parse_constant=lambda name: 1 / 0)


def harness(*arguments: str | Path) -> Ended:
    """`harness ARGUMENTS` in this process: for what starts no worker."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
        except SystemExit as exc:
            code = exc.code
    return Ended(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def started(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """`harness ARGUMENTS` in a process group of its own, as a shell would start it."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=cwd, env=environment_of(environment), text=True, process_group=0,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], timeout_s: float = 200.0) -> Ended:
    """Wait for it; one that does not end is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, out, err)


def harness_process(*arguments: str | Path, cwd: Path, **environment: str) -> Ended:
    """`harness ARGUMENTS` in a process of its own, to its end."""
    return ended(started(*arguments, cwd=cwd, **environment))


def environment_of(changes: Mapping[str, str]) -> dict[str, str]:
    """This environment without the harness's own variables, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
    return {**kept, **changes}


def query(registry: Path, sql: str) -> list[dict[str, Any]]:
    """The rows that `harness query --json` gives."""
    answer = harness("query", sql, "--json", "--registry", registry)
    assert answer.code == 0, answer.err
    rows: list[dict[str, Any]] = answer.json
    return rows


def run_script(script: Path, **environment: str) -> str:
    """What a script of ours prints, in a process of its own; one that fails fails the test."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
