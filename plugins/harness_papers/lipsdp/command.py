"""`harness certify`: Lipschitz bounds of a network that a user hands in, each proved apart from the method that found it.

What a method claims is never printed: its evidence is checked by `verify`, and the number that this proves is the result.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from harness import HarnessError, Invalid, Unsupported
from harness_papers.lipsdp import METHODS

if TYPE_CHECKING:
    from harness_papers.lipsdp.certificate_files import Certificate
    from harness_papers.lipsdp.importing import Imported

NAMES = [method.name for method in METHODS]
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
SOME_FAILED, REFUSED = 1, 3
# Methods whose matrices are dense in all units: above so many they run only where they are named.
DENSE, MOST_UNITS = ("nsr-full", "nsr-null", "lipsdp-rr"), 256
OF_SLOPES, OF_GROUPS = ("lipsdp-neuron", "lipsdp-layer"), ("lipsdp-nsr", *DENSE)


class Duration(click.ParamType[float]):
    """Seconds of "90s", "5m", "1h"."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        amount, unit = str(value)[:-1], str(value)[-1:]
        if unit not in SECONDS or not amount.replace(".", "", 1).isdigit() or not float(amount) > 0:
            self.fail(f"{value!r}: write a number above 0 with its unit ({', '.join(SECONDS)}), such as 5m", param, ctx)
        return float(amount) * SECONDS[unit]


class Shape(click.ParamType[tuple[int, ...]]):
    """Sizes joined by commas, without the batch."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r}: write sizes above 0 joined by commas, without the batch, such as 1,28,28", param, ctx)
        return tuple(map(int, parts))


@click.command("certify", epilog="\b\nExample:\n  harness certify harness_papers.lipsdp.examples:relu_net --timeout 1m")
@click.argument("net")
@click.option("--norm", type=click.Choice(["l2", "linf"]), default="l2", show_default=True, help="Of input and output.")
@click.option(
    "--method", multiple=True, type=click.Choice(NAMES), metavar="NAME", help="May be given again; all that fit else."
)
@click.option("--input-shape", type=Shape(), default=None, help="Without the batch, where NET leaves it open: 1,28,28.")
@click.option(
    "--activation-group", type=click.IntRange(min=2), default=None, help="Units that a layer sorts together; found out else."
)
@click.option(
    "--sorting-class", multiple=True, metavar="NAME", help="A module class that sorts groups, besides MaxMin and GroupSort."
)
@click.option("--timeout", type=Duration(), default="5m", show_default=True, help="For each method.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of sampled inputs.")
@click.option(
    "--certificate", type=click.Path(path_type=Path, dir_okay=False), default=None, help="File that gets all that was proved."
)
@click.option(
    "--check", type=click.Path(path_type=Path, dir_okay=False, exists=True), default=None, help="File to check; no solver runs."
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for machines.")
def certify(
    net: str,
    norm: Literal["l2", "linf"],
    method: Sequence[str],
    input_shape: tuple[int, ...] | None,
    activation_group: int | None,
    sorting_class: Sequence[str],
    timeout: float,
    seed: int,
    certificate: Path | None,
    check: Path | None,
    as_json: bool,
) -> None:
    """Bound the Lipschitz constant of NET from above, with a proof, and from below, with two inputs.

    NET is an ONNX file, or module:callable (as in mynet:make), where the callable gives a torch.nn.Module. Its layers must be
    a chain of Linear, Conv, average pooling and batch normalisation with one kind of activation: relu, leaky relu, tanh,
    sigmoid, MaxMin or GroupSort. What was read is compared with NET at random inputs.

    Each method runs in a process of its own, up to --timeout; then its evidence is checked in float64, with the rounding
    counted, by code that shares nothing with it. The smallest eigenvalue is that of the matrix that proves the bound, after
    rounding, its diagonal scaled to about 1. --certificate saves the evidence, --check FILE proves it anew for NET.

    Exit codes: 0; 1 where a method failed or ran out of time; 2 for a mistake in NET; 3 where --check refuses a certificate.
    """
    from harness_papers.lipsdp.importing import import_network

    if certificate is not None and certificate.suffix == ".onnx":
        raise click.UsageError(f"--certificate {certificate}: that is the name of a network; write a name such as net.json")
    found = import_network(net, shape=input_shape, norm=norm, group=activation_group, sorting=sorting_class)
    if check is not None:
        rows, refused = check_file(check, found)
        show(found, rows, as_json)
        sys.exit(REFUSED if refused else 0)
    rows, proved = run_methods(found, method, timeout, seed)
    if certificate is not None:
        save(certificate, found, rows, proved)
    show(found, rows, as_json)
    sys.exit(SOME_FAILED if any(row["status"] in ("failed", "timeout", "diverged", "invalid") for row in rows) else 0)


def run_methods(
    found: Imported, names: Sequence[str], timeout_s: float, seed: int
) -> tuple[list[dict[str, Any]], list[Certificate]]:
    """A row per method, and the certificates that were proved. Methods that do not fit are left out unless named."""
    from harness_papers.lipsdp.alone import solve_alone
    from harness_papers.lipsdp.certificate_files import Certificate

    rows, proved = [], []
    for method in METHODS:
        if method.name not in (names or fitting(found)):
            continue
        click.echo(f"{method.name} ...", err=True)
        with tempfile.TemporaryDirectory() as folder:
            ended = solve_alone(method.solve, {}, found.network, Path(folder), timeout_s, seed)
        if ended["status"] == "unsupported" and not names:
            click.echo(f"  left out: {ended['error']}", err=True)
            continue
        row = {"method": method.name, "status": ended["status"], "error": ended["error"], "seconds": ended["seconds"]}
        row["solver_status"] = ended.get("logged", {}).get("solver_status")
        if ended["solution"] is not None:
            one = Certificate(method.name, ended["solution"])
            row |= prove_row(found, one)
            proved += [one] if "bound" in row else []
        rows.append(row)
    if not any("bound" in row for row in rows):
        raise HarnessError("no bound: " + "; ".join(f"{row['method']}: {row['status']}: {row['error']}" for row in rows))
    return rows, proved


def fitting(found: Imported) -> list[str]:
    """The methods that may say something of the network, in their order; the rest is found out where they run."""
    net = found.network
    other = OF_SLOPES if net.grouped else OF_GROUPS
    large = [name for name in DENSE if net.units > MOST_UNITS and name not in other]
    for name in large:
        click.echo(f"{name}: left out above {MOST_UNITS} units; --method {name} runs it", err=True)
    return [name for name in NAMES if name not in other and name not in large]


def prove_row(found: Imported, one: Certificate) -> dict[str, Any]:
    """What the evidence proves: bound, kind, evidence, smallest eigenvalue; or status invalid, and why."""
    from harness_papers.lipsdp.verify import OF_UNITS, margin, prove

    started = time.monotonic()
    try:
        proof = prove(found.network, one.solution)
    except (Invalid, Unsupported) as exc:
        return {"status": "invalid", "error": str(exc), "verified_s": time.monotonic() - started}
    evidence = one.solution.evidence
    smallest = margin(found.network, proof.bound, evidence) if isinstance(evidence, OF_UNITS) else None
    return {
        "bound": proof.bound,
        "kind": proof.kind,
        "evidence": type(evidence).__name__,
        "min_eigenvalue": smallest,
        "repair": proof.repair,
        "verified_s": time.monotonic() - started,
    }


def check_file(path: Path, found: Imported) -> tuple[list[dict[str, Any]], bool]:
    """(a row per certificate of the file, whether one was refused)."""
    from harness_papers.lipsdp.certificate_files import facts_of, read_certificates

    made_for, certificates = read_certificates(path)
    ours = facts_of(found.network)
    differing = [name for name, value in ours.items() if made_for.get(name) != value]
    if differing:
        click.echo(
            f"warning: {path}: made for a network of another {', '.join(differing)}; checked against {found.source}", err=True
        )
    rows = [{"method": one.method, "status": "ok", "error": "", **prove_row(found, one)} for one in certificates]
    return rows, any(row["status"] == "invalid" for row in rows)


def save(path: Path, found: Imported, rows: Sequence[dict[str, Any]], proved: Sequence[Certificate]) -> None:
    from harness_papers.lipsdp.certificate_files import write_certificates

    kept = ("bound", "min_eigenvalue", "seconds", "verified_s")
    facts = {row["method"]: {"proved": {name: row[name] for name in kept}} for row in rows if "bound" in row}
    write_certificates(path, found.network, proved, facts)


# What is printed ----------------------------------------------------------------------------------------------------------


def show(found: Imported, rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    from harness_papers.lipsdp.certificate_files import facts_of

    if as_json:
        facts = {"source": found.source, "input_shape": found.shape, "difference": found.difference, **facts_of(found.network)}
        click.echo(json.dumps({"network": facts, "methods": list(rows)}))
        return
    click.echo(describe(found))
    headings = ("method", "upper bound", "lower bound", "evidence", "min eigenvalue", "seconds", "checked in")
    cells = [headings, *(cells_of(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    for row in cells:
        texts = [row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))]
        click.echo("  ".join(texts).rstrip())
    for row in rows:
        if row["error"]:
            click.echo(f"{row['method']}: {row['status']}: {row['error']}")
        elif row.get("solver_status") not in (None, "optimal"):
            click.echo(f"{row['method']}: its solver ended as {row['solver_status']!r}; the bound above is what is proved")
    click.echo(summary(rows))


def describe(found: Imported) -> str:
    net = found.network
    sizes = "-".join(str(n) for n in (net.weights[0].shape[1], *(w.shape[0] for w in net.weights)))
    kind = f"{net.activation} in groups of {net.group}" if net.grouped else net.activation
    kind = kind if net.hidden else "no activation"
    return f"{found.source}: {sizes}, {kind}, {net.norm}; read to within {found.difference:.1g} of the original\n"


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    """A bound is rounded away from the constant, so that the printed number is true as well."""
    bound, seconds = row.get("bound"), row.get("seconds")
    eigenvalue = row.get("min_eigenvalue")
    return (
        row["method"],
        rounded(bound, up=True) if bound is not None and row["kind"] == "upper" else "",
        rounded(bound, up=False) if bound is not None and row["kind"] == "lower" else "",
        row.get("evidence", row["status"]),
        "" if eigenvalue is None else f"{eigenvalue:.2e}",
        "" if seconds is None else f"{seconds:.2f}",
        "" if "verified_s" not in row else f"{row['verified_s']:.2f}",
    )


def rounded(value: float, *, up: bool) -> str:
    """Seven digits, rounded upwards or downwards."""
    from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

    context = Context(prec=7, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    return f"{float(context.create_decimal(Decimal(value))):.7g}"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The tightest of each side, and how far they are apart."""
    proved = [row for row in rows if "bound" in row]
    upper = min((row for row in proved if row["kind"] == "upper"), key=lambda row: row["bound"], default=None)
    lower = max((row for row in proved if row["kind"] == "lower"), key=lambda row: row["bound"], default=None)
    said = [f"L <= {rounded(upper['bound'], up=True)} ({upper['method']})"] if upper else []
    said += [f"L >= {rounded(lower['bound'], up=False)} ({lower['method']})"] if lower else []
    if upper and lower and lower["bound"] > 0:
        said.append(f"at most {upper['bound'] / lower['bound']:.3g} times apart")
    return "\n" + ", ".join(said) if said else "\nnothing is proved"
