"""A method on one network, outside of any suite: in a process of its own, which may be stopped.

A folder holds network.npz and job.json; each offer and the result are written to result.json, whole or not at all, so that a
process that is stopped leaves its last offer.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness import Diverged, Unsupported
from harness.errors import BudgetSpent
from harness_papers.lipsdp.certificate_files import decode, encode
from harness_papers.lipsdp.problems import Array, Bound, Network

RUN = "from harness_papers.lipsdp.alone import main; main()"
GRACE_S = 5.0  # past its time, for a solver that looks at the clock between iterations


class Alone:
    """As much of `ctx` as methods of this track use: randomness from one seed, wall seconds, offers. Nothing is recorded."""

    device, dtype, threads = "cpu", "float64", 1

    def __init__(self, folder: Path, budget_s: float, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.budget = {"wall_s": budget_s}
        self.started = time.monotonic()
        self.logged: dict[str, Any] = {}
        self.scratch = folder
        self.offered: dict[str, Any] = {}

    def rng(self, stream: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream.encode()])

    def left(self, unit: str) -> float:
        return self.budget["wall_s"] - (time.monotonic() - self.started) if unit == "wall_s" else float("inf")

    def spend(self, **units: float) -> None:
        if self.left("wall_s") <= 0:
            raise BudgetSpent("wall_s")

    def log(self, **facts: Any) -> None:
        self.logged |= facts

    def save(self, name: str, content: bytes, media_type: str) -> None:
        """Nothing: the command writes certificates of its own."""

    @contextlib.contextmanager
    def region(self, name: str) -> Iterator[None]:
        yield

    def offer(self, solution: Any) -> None:
        self.offered = encode(solution)
        self.leave({"status": "offered", **self.offered})

    def leave(self, result: Mapping[str, Any]) -> None:
        taken = {"seconds": time.monotonic() - self.started, "cpu_s": time.process_time()}
        part = self.folder / "part.json"
        part.write_text(json.dumps({**result, **taken}))
        part.replace(self.folder / "result.json")


def solve_alone(
    solve: str, params: Mapping[str, Any], network: Network, folder: Path, timeout_s: float, seed: int = 0
) -> dict[str, Any]:
    """{"status", "seconds", "solution" (a Bound, or None), "error"} of a method; "module:function", params of its Params class.

    status: ok; timeout: stopped, with the last offer as solution, if there was one; unsupported, diverged, failed.
    """
    write_network(folder / "network.npz", network)
    (folder / "job.json").write_text(json.dumps({"solve": solve, "params": dict(params), "budget_s": timeout_s, "seed": seed}))
    started, log = time.monotonic(), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(folder)], stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True, env={"OMP_NUM_THREADS": "1", **os.environ},
        )  # fmt: skip
        try:
            code: int | None = process.wait(timeout_s + GRACE_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return read_result(folder, code, time.monotonic() - started, log.read_text(errors="replace")[-2000:])


def read_result(folder: Path, code: int | None, seconds: float, log: str) -> dict[str, Any]:
    """What the process left. code: None where it was stopped."""
    file = folder / "result.json"
    result = json.loads(file.read_text()) if file.is_file() else {"status": "none"}
    result["solution"] = decode(result) if "evidence" in result else None
    if result["status"] in ("none", "offered"):
        lines = log.strip().splitlines()
        died = f"its process ended with {code}: {lines[-1] if lines else 'without a word'}"
        result |= {"status": "timeout", "error": "stopped"} if code is None else {"status": "failed", "error": died}
    return {"seconds": seconds, "error": "", **result}


def write_network(path: Path, network: Network) -> None:
    arrays = {
        f"{name}.{k}": array for name in ("weights", "biases", "directions") for k, array in enumerate(getattr(network, name))
    }
    settings = {name: getattr(network, name) for name in ("activation", "alpha", "beta", "norm", "group")}
    np.savez(path, settings=json.dumps(settings), **arrays)


def read_network(path: Path) -> Network:
    with np.load(path, allow_pickle=False) as held:
        settings = json.loads(str(held["settings"]))

        def all_of(name: str) -> tuple[Array, ...]:
            return tuple(held[f"{name}.{k}"] for k in range(sum(key.startswith(f"{name}.") for key in held.files)))

        return Network(all_of("weights"), all_of("biases"), directions=all_of("directions"), **settings)


def main() -> None:
    """In the process: the folder is its argument. Imports and the network are read before the clock starts."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    module, _, name = job["solve"].partition(":")
    solve, params = getattr(importlib.import_module(module), name), params_of(job["solve"])(**job["params"])
    network = read_network(folder / "network.npz")
    ctx = Alone(folder, job["budget_s"], job["seed"])
    try:
        solution: Bound = solve(network, ctx, params)
    except BudgetSpent:
        ctx.leave({"status": "timeout", "error": "its time was spent", **ctx.offered})
        return
    except (Unsupported, Diverged) as exc:
        ctx.leave({"status": type(exc).__name__.lower(), "error": str(exc)})
        return
    ctx.leave({"status": "ok", **encode(solution), "logged": {name: str(value) for name, value in ctx.logged.items()}})


def params_of(solve: str) -> Any:
    from harness_papers.lipsdp import METHODS

    return next(method.params for method in METHODS if method.solve == solve)
