"""`harness doctor`: what is missing here, and the mend. `harness completion`: names at the Tab key."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.options import example, json_option, option, registry_option
from harness.showing import one_line

WIDTH = 14


@click.command("doctor", epilog=example("harness doctor --json"), short_help="What is missing here, and the mend.")
@registry_option
@option("--data-dir", type=click.Path(path_type=Path), default=None, help="The data folder that runs are given.")
@json_option
def doctor_command(registry: Path, data_dir: Path | None, as_json: bool) -> None:
    """Look at this machine as a run would, and say of each thing whether it is in order.

    \b
    ok    nothing to do
    warn  runs work; something is left out, or timings are doubtful
    fail  runs do not work, or something that is named does not

    Looked at: Python, packages, torch, CUDA, g++ (tried, for torch.compile), gcc (a kernel of ours is compiled and called), the
    registry (a file is written, linked, flushed and removed), the data folder, the cache, free disk, plugins, the clock, the
    CPU governor, cores, memory, extras, git. Takes a few seconds; how noisy the machine is, `harness machine check` measures.

    Exit: 0 where nothing failed, 5 where something did.
    """
    from harness.catalogue import load_catalogue
    from harness.data.files import data_folder
    from harness.doctor import Place, examine

    findings = []
    for finding in examine(Place(registry, data_folder(data_dir)), load_catalogue()):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.state:<5} {finding.check:<{WIDTH}} {one_line(finding.found)}")
            if finding.mend:
                click.echo(f"{'':<5} {'':<{WIDTH}} -> {one_line(finding.mend)}")
    failed = sum(finding.state == "fail" for finding in findings)
    warned = sum(finding.state == "warn" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "failed": failed, "warned": warned, "checks": [asdict(f) for f in findings]}))
    else:
        click.echo(f"\n{len(findings)} checks: {len(findings) - failed - warned} ok, {warned} to look at, {failed} failed")
    sys.exit(5 if failed else 0)


@click.command("completion", epilog=example("harness completion bash"), short_help="Shell completion: a script to source.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, suites, data sets and names of methods at the Tab key.

    \b
    bash (4.4 or newer)  eval "$(harness completion bash)"     in ~/.bashrc
    zsh                  eval "$(harness completion zsh)"      in ~/.zshrc, after compinit
    fish                 harness completion fish > ~/.config/fish/completions/harness.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, "click has all three"
    click.echo(made(ctx.find_root().command, {}, "harness", "_HARNESS_COMPLETE").source())


COMMANDS = [doctor_command, completion_command]
