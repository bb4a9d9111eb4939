"""`harness machine check` and `show`: what this machine can do at most, how well it repeats itself, and what is known of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import example, json_option, option, registry_option
from harness.errors import MissingError
from harness.showing import finite, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.kernels.ceilings import Agreement, CopyFigure, MachineCheck, MatmulFigure

CHECK = "harness machine check"
TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
RATES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""))


@click.group("machine", short_help="What this machine can do, and how noisy it is.")
def machine_group() -> None:
    """The ceilings that kernels are told in shares of, and the noise floor that a regression has to rise above."""


@machine_group.command("check", epilog=example("harness machine check --rounds 3"), short_help="Measure ceilings and noise.")
@option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="What to measure.")
@option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads, as in a suite.")
@option("--rounds", type=click.IntRange(3, 1000), default=20, show_default=True, help="Rounds of A/A, each of four blocks.")
@registry_option
@json_option
def check_command(device: str, threads: int, rounds: int, registry: Path, as_json: bool) -> None:
    """Measure copy bandwidth, the rate of matrix products and the noise of one kernel timed against itself; keep it.

    Takes about half a minute, in a process started as a worker is. Earlier checks stay in the registry; the last one counts.
    """
    from harness.kernels.ceilings import KIND, read_check
    from harness.provenance import new_id
    from harness.registry import Registry

    opened = Registry.open(registry)  # first: one that cannot be written must not cost the measurement
    facts = measure(device, threads, rounds)
    found = read_check(facts)
    assert found is not None
    opened.keep_facts(KIND, new_id(), facts)
    if as_json:
        click.echo(json.dumps(as_data(found)))
    else:
        draw_check(found)
    for warning in opened.warnings:
        click.echo(f"warning: {one_line(warning)}", err=True)


def measure(device: str, threads: int, rounds: int) -> dict[str, Any]:
    """The facts of a check, from a process of its own. Raises MissingError where there is no such device."""
    from harness.kernels.ceilings import read_check
    from harness.provenance import torch_version
    from harness.worker.environment import RECORDED, worker_environment

    environment = worker_environment(threads)
    # -P: no working folder on the path.
    command = [sys.executable, "-P", "-m", "harness.kernels.checkup", "--device", device, "--threads", str(threads),
               "--rounds", str(rounds)]  # fmt: skip
    found: dict[str, Any] = {}
    # A session of its own: Ctrl-C is for this process to hear.
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                told = json.loads(line)
                if "doing" in told:
                    click.echo(told["doing"], err=True)
                elif "missing" in told:
                    raise MissingError(f"--device {device}: {told['missing']}; use --device cpu")
                else:
                    found = told["found"]
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    recorded = {name: environment[name] for name in RECORDED if name in environment}
    facts = {**found, "machine": name_of(found["device_name"]), "torch_version": torch_version(), "environment": recorded}
    assert read_check(facts) is not None
    return facts


@machine_group.command("show", epilog=example("harness machine show"), short_help="What is known of this machine.")
# No variable: HARNESS_MACHINE is what this machine is called, which is the default, not a wish.
@click.option("--machine", default=None, help="A machine of the registry. [default: this one]")
@registry_option
@json_option
def show_command(machine: str | None, registry: Path, as_json: bool) -> None:
    """Print what this machine is, its last check for each device, number of threads and torch version, and its noise floor."""
    from harness.kernels.ceilings import latest_checks
    from harness.registry import Registry

    opened = Registry.open(registry, create=False) if registry.is_dir() else None
    facts = opened.facts() if opened else []
    known = {machine: facts_of(machine, facts)} if machine else describe_here()
    checks = [check for name in known for check in latest_checks(facts, name)]
    if as_json:
        told = {"machines": known, "checks": [as_data(check) for check in checks]}
        click.echo(json.dumps(finite(told), default=str))
    else:
        draw_machine(known)
        for check in checks:
            click.echo()
            draw_check(check)
        if not checks:
            mend = f"`{CHECK}` does it" if machine is None else f"`{CHECK}` there does it, `harness merge` brings it here"
            click.echo(one_line(f"nothing is known of its ceilings and its noise in {registry}; {mend}"))
    for warning in opened.warnings if opened else ():
        click.echo(f"warning: {one_line(warning)}", err=True)


def name_of(gpu: str) -> str:
    """This machine's name in records; with the GPU where there is one to name."""
    from harness.identity import digest
    from harness.provenance import describe_machine

    told = {"cuda": True, "name": gpu} if gpu else None
    return os.environ.get("HARNESS_MACHINE") or digest(describe_machine(told))[:16]


def describe_here() -> dict[str, dict[str, Any]]:
    """Name -> facts. Where there is a GPU, records that used it name the machine otherwise than those that did not."""
    from harness.provenance import describe_environment, describe_machine, torch_version

    environment = describe_environment()
    running = {name: environment[name] for name in ("python", "os", "libc")} | {"torch": torch_version()}
    gpus = [""] if (gpu := find_gpu()) == "" else ["", gpu]
    return {name_of(gpu): {**describe_machine({"cuda": bool(gpu), "name": gpu}), **running} for gpu in gpus}


def find_gpu() -> str:
    """The GPU's name from its driver, without torch; "" where there is none, or nothing to ask it with."""
    try:
        import pynvml
    except ImportError:
        return ""
    from harness.kernels.nvml import gpu_name

    return gpu_name(pynvml)


def facts_of(machine: str, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the registry holds of a machine; {} where that is nothing."""
    found = [f["facts"] for f in facts if f["kind"] == "machine" and f["name"] == machine and isinstance(f["facts"], dict)]
    return dict(found[0]) if found else {}


def as_data(check: MachineCheck) -> dict[str, Any]:
    """A check as JSON, with what is computed from it."""
    from harness.kernels.ceilings import noise_floor

    return {
        **check.model_dump(mode="json"),
        "noise_floor": noise_floor(check),
        "noise_clock": check.clock,
        "contended": check.contended,
    }


# Drawing ----------------------------------------------------------------------------------------------------------------


def draw_machine(known: Mapping[str, Mapping[str, Any]]) -> None:
    for name, facts in known.items():
        click.echo(f"machine {one_line(name)}")
        for key, value in facts.items():
            if value != "":
                click.echo(f"  {one_line(key):<11} {one_line(value)}")


def draw_check(check: MachineCheck) -> None:
    """Two tables and the noise floor; then what makes it doubtful, and the command that would settle it."""
    from harness.cli.tables import console
    from harness.kernels.ceilings import noise_floor

    out = console()
    threads = f"{check.threads} thread{'s' if check.threads > 1 else ''}"
    told = f"{check.device_name or check.device}, {check.dtype}, {threads}, torch {check.torch_version}"
    click.echo(one_line(f"checked {check.checked_at[:16].replace('T', ' ')} UTC: {told}"))
    draw_ceilings(check, out)
    draw_agreements(check.agreements, out)
    floor = noise_floor(check)
    clock = "process time" if check.clock == "cpu" else "wall time" if check.device == "cpu" else "the device's time"
    click.echo(f"noise floor: {percent(floor)} (standard deviation of one median, {clock})")
    if check.state:
        click.echo("clock: " + ", ".join(one_line(f"{key} {value}") for key, value in check.state.items()))
    if check.contended:
        click.echo(
            f"doubtful: other work wanted the same cores (load {check.load[0]:.1f} before, {check.load[1]:.1f} after); "
            f"`{CHECK} --device {check.device} --threads {check.threads}` on a quiet machine settles it"
        )


def draw_ceilings(check: MachineCheck, out: Console) -> None:
    table = new_table("ceiling", ("rate", "wall", "CPU", "samples"), "doubts")
    for copy in check.copies:
        what, rate = f"copy of {copy.elements:,} elements", in_units(copy.bytes_per_s, RATES, "B/s")
        table.add_row(*cells(what, rate, *told_in(copy), copy.samples, ", ".join(copy.doubts)))
    for product in check.matmuls:
        what, rate = f"matrix product, {product.size:,} x {product.size:,}", in_units(product.flops_per_s, RATES, "FLOP/s")
        table.add_row(*cells(what, rate, *told_in(product), product.samples, ", ".join(product.doubts)))
    out.print(table)


def told_in(figure: CopyFigure | MatmulFigure) -> tuple[str, str]:
    """One call on both clocks."""
    return in_units(figure.wall_s, TIMES), in_units(figure.cpu_s, TIMES)


def draw_agreements(agreements: Sequence[Agreement], out: Console) -> None:
    table = new_table("A/A", ("rounds", "sd wall", "95 % within", "sd CPU", "95 % within", "wall / CPU"))
    for one in agreements:
        figures = (percent(value) for value in (one.sd("wall"), one.p95("wall"), one.sd("cpu"), one.p95("cpu")))
        table.add_row(*cells(one.kernel, len(one.wall), *figures, f"{one.contention:.2f}"))
    out.print(table)


def new_table(title: str, figures: Sequence[str], *words: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title)
    for name in figures:
        table.add_column(name, justify="right")
    for name in words:
        table.add_column(name)
    return table


def cells(*values: object) -> list[Any]:
    """As rich takes them: text of others is no markup."""
    from rich.text import Text

    return [Text(one_line(value)) for value in values]


def in_units(value: float, units: Sequence[tuple[float, str]], of: str = "") -> str:
    """12.3 GB/s, 4.56 us: three digits, by the largest unit that the value reaches."""
    size, name = next((unit for unit in units if abs(value) >= unit[0]), units[-1])
    return f"{value / size:.3g} {name}{of}"


def percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %"


COMMANDS = [machine_group]
