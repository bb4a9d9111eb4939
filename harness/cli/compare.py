"""`harness compare`: results of quality trials, or times of kernels, of A against B."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import completing
from harness.cli.options import example, json_option, option, registry_option, short
from harness.errors import HarnessError
from harness.showing import finite, one_line

if TYPE_CHECKING:
    from harness.cli.tables import Column
    from harness.comparing import Contrast, Contrasts
    from harness.registry import Registry

NOTHING = 4
SHOWN = 12  # of what cannot be compared; --json has all


@click.command(
    "compare",
    epilog=example("harness compare relu crrelu"),
    short_help="Methods, commits, dates, machines or environments compared.",
)
@click.argument("names", nargs=-1, metavar="[A B]", shell_complete=completing.methods)
@option("--kernels", is_flag=True, help="Compare times of kernels instead of results.")
@click.option(
    "--machine", default=None, help="With --kernels and without A and B: records of this machine. [default: this one]"
)
@option("-k", "--kernel", "wanted", multiple=True, metavar="NAME", help="Only this kernel; repeat.")
@option("-t", "--task", "tasks", multiple=True, metavar="GLOB", help="Only these tasks.")
@option("-m", "--method", "methods", multiple=True, metavar="GLOB", help="Only these methods.")
@option("--metric", "metrics", multiple=True, metavar="NAME", help="By this metric; repeat. [default: by which a task ranks]")
@option("--markdown", is_flag=True, help="As Markdown tables, for a document.")
@registry_option
@json_option
def compare_command(
    names: tuple[str, ...], kernels: bool, machine: str | None, wanted: tuple[str, ...], tasks: tuple[str, ...],
    methods: tuple[str, ...], metrics: tuple[str, ...], markdown: bool, registry: Path, as_json: bool,
) -> None:  # fmt: skip
    """Compare B with A, pair by pair: two methods, commits, days (2026-11-24), machines, torch versions or environments.

    What A and B are is understood from the registry and said; where a name may mean several things, write method:NAME,
    machine:NAME, torch:VERSION, environment:DIGEST, commit:DIGEST or date:DAY. A method may have parameters: 'elu(alpha=0.5)'.

    Methods are paired by seed where all else agrees; the other kinds compare each method with itself. Differences are B - A,
    with 95 % intervals; a verdict is `better` or `worse` where the paired t test, Holm-adjusted over the table, says so at 5 %
    from at least 5 pairs, and `same` where the whole interval lies within 0.5 % of A's mean. What has no partner is listed with
    what differs.

    With --kernels: times of B over times of A, case by case, of implementations (ours, crrelu/ours), commits, days or
    machines; without A and B all implementations of each kernel side by side, in multiples of a copy of the same bytes.

    Exit 4 where nothing can be compared.
    """
    from harness.cli.registry import machine_of, open_registry, say_invalid, say_warnings
    from harness.provenance import machine_id

    refuse_mistakes(names, kernels, machine, wanted, [*tasks, *methods, *metrics])
    opened = open_registry(registry)
    ended = 0
    if not kernels:
        ended = show_results(opened, names, tasks, methods, metrics, as_json=as_json, markdown=markdown)
        say_invalid(opened)
    elif names:
        compare_times(opened, names, wanted, as_json=as_json, markdown=markdown)
    else:
        from harness.cli.kernels import draw_kernel_boards
        from harness.kernelboard import make_kernel_boards

        boards = make_kernel_boards(opened, machine or machine_of(opened, machine_id()))
        draw_kernel_boards([b for b in boards if not wanted or short(b.kernel) in wanted], as_json=as_json, markdown=markdown)
    say_warnings(opened)
    sys.exit(ended)


def refuse_mistakes(
    names: Sequence[str], kernels: bool, machine: str | None, wanted: Sequence[str], of_results: Sequence[str]
) -> None:
    if len(names) != 2 and not (kernels and not names):
        without = ", or --kernels without names" if not names else ""
        raise HarnessError(f"got {len(names)} names; give two, such as `harness compare relu crrelu`{without}")
    if not kernels and (machine or wanted):
        raise HarnessError("--machine and --kernel choose kernels; add --kernels, or name two machines as A and B")
    if kernels and of_results:
        raise HarnessError("--task, --method and --metric choose results; leave out --kernels, or choose kernels with --kernel")


def compare_times(opened: Registry, names: Sequence[str], wanted: Sequence[str], *, as_json: bool, markdown: bool) -> None:
    from harness.cli.kernels import draw_comparison
    from harness.comparing import compare_kernels

    found = compare_kernels(opened, *names)
    kept = tuple(r for r in found.ratios if not wanted or short(r.where["kernel"]) in wanted)
    draw_comparison(dataclasses.replace(found, ratios=kept), as_json, markdown)


def show_results(
    opened: Registry, names: Sequence[str], tasks: Sequence[str], methods: Sequence[str], metrics: Sequence[str], *,
    as_json: bool, markdown: bool,
) -> int:  # fmt: skip
    """The exit code."""
    from harness.comparing import compare_results, read_sides

    a, b = read_sides(opened, *names)
    found = compare_results(opened, a, b, tasks, methods, metrics)
    if as_json:
        click.echo(json.dumps(finite(dataclasses.asdict(found))))
    else:
        draw_contrasts(found, markdown)
    return 0 if found.contrasts else NOTHING


# Drawing --------------------------------------------------------------------------------------------------------------


def draw_contrasts(found: Contrasts, markdown: bool) -> None:
    from harness.cli.tables import console, print_columns, print_markdown_columns, say

    out = console()
    say(out, [*(f"{name}: {one_line(side.given)}, {side.says}" for name, side in (("A", found.a), ("B", found.b))), ""])
    tables: list[tuple[str, list[Column], list[str]]] = []
    if found.packages:
        tables.append(("environments: what differs", package_columns(found), []))
    if found.contrasts:
        tables.append((title_of(found), contrast_columns(found), footnotes(found)))
    for title, columns, lines in tables:
        if markdown:
            print_markdown_columns(title, columns, lines)
        else:
            hidden = print_columns(out, title, columns)
            say(out, [*(f"not shown: {', '.join(names)} (--json has all)" for names in [hidden] if names), *lines])
            out.print()
    if not found.contrasts:
        say(out, ["nothing can be compared", ""])
    if markdown:
        click.echo("\n".join(f"- {line}" for line in apart_lines(found)))
    else:
        say(out, apart_lines(found))


def package_columns(found: Contrasts) -> list[Column]:
    from harness.cli.tables import Column

    names, one, other = ([str(each[i]) or "-" for each in found.packages] for i in range(3))
    return [Column("what", names, right=False), Column("A", one, right=False), Column("B", other, right=False)]


def title_of(found: Contrasts) -> str:
    """What all contrasts share."""
    flat = [flattened(c.where) for c in found.contrasts]
    words = {"device": "{}", "dtype": "{}", "threads": "threads {}", "torch_version": "torch {}", "machine": "machine {}"}
    alike = [name for name in words if name in flat[0] and len({where[name] for where in flat}) == 1]
    metrics = {metric_text(c) for c in found.contrasts}
    subject = f"{metrics.pop()}, B - A" if len(metrics) == 1 else "B - A"
    return " | ".join([subject, *(words[name].format(flat[0][name]) for name in alike)])


def contrast_columns(found: Contrasts) -> list[Column]:
    from harness.cli.tables import Column, bar, interval_cell, number, scale

    rows = found.contrasts
    made = [Column("task", places([c.where for c in rows]), right=False)]
    if found.a.kind != "method":
        made.append(Column("method", [one_line(c.method_a) for c in rows], right=False))
    elif len({(c.method_a, c.method_b) for c in rows}) > 1:
        made.append(Column("A, B", [one_line(f"{c.method_a}, {c.method_b}") for c in rows], right=False))
    one_metric = len({c.metric.name for c in rows}) == 1
    if not one_metric:
        made.append(Column("metric", [metric_text(c) for c in rows], right=False))
    made.append(Column("A", [interval_cell(c.a) for c in rows], drop=3))
    made.append(Column("B", [interval_cell(c.b) for c in rows], drop=3))
    if one_metric:  # on one scale
        low, high = scale([*(c.difference for c in rows), zero()])
        bars = [bar(c.difference, low, high, mark=0.0) for c in rows]
        made.append(Column("95 % of B - A", bars, right=False, drop=5, picture=True))
    made += [
        Column("B - A", [interval_cell(c.difference, signed=True) for c in rows]),
        Column("p flip", [p_cell(c.p_flip) for c in rows], drop=4),
        Column("p Holm", [p_cell(c.p_holm) for c in rows]),
        Column("effect", ["-" if c.effect is None else f"{c.effect:+.2f}" for c in rows], drop=4),
        Column("seeds", [str(c.difference.n) for c in rows], drop=1),
        Column("cost", [number(c.cost_ratio) for c in rows], drop=2),
        Column("B is", [c.verdict for c in rows], right=False),
    ]
    if any(c.failed_a or c.failed_b for c in rows):
        made.insert(-2, Column("failed", [f"{c.failed_a}/{c.failed_b}" for c in rows]))
    return made


def metric_text(contrast: Contrast) -> str:
    return contrast.metric.name + {"higher": " ↑", "lower": " ↓"}[contrast.metric.better]


def zero() -> Any:
    from harness.stats import Interval

    return Interval(0.0, None, None, 0)


def p_cell(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def places(wheres: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tasks by their bare names, with as much of what differs between contrasts on the same one as tells them apart."""
    flat = [flattened(where) for where in wheres]
    made = []
    for own in flat:
        same = [other for other in flat if other["task"] == own["task"]]
        telling: list[str] = []
        apart = len({tuple(other.items()) for other in same})
        for name in own:
            found = len({tuple(other.get(k) for k in (*telling, name)) for other in same})
            if found > len({tuple(other.get(k) for k in telling) for other in same}):
                telling.append(name)
            if found == apart:
                break
        told = ", ".join(f"{name.rpartition('.')[2]}={own[name]}" for name in telling)
        made.append(one_line(short(own["task"]) + (f" ({told})" if told else "")))
    return made


def flattened(where: Mapping[str, Any]) -> dict[str, str]:
    """Objects one level down: "net.width" -> "16"."""
    found = {}
    for name, value in where.items():
        members = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
        found.update({k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in members.items()})
    return found


def footnotes(found: Contrasts) -> list[str]:
    n = len(found.contrasts)
    family = f"adjusted for the {n} comparisons of this table" if n > 1 else "a single one, with nothing to adjust for"
    lines = [f"p Holm: paired t, {family}; p flip: sign flips; effect: in standard deviations of the differences"]
    if any(c.cost_ratio is not None for c in found.contrasts):
        lines.append("cost: median seconds of B over those of A; other trials may have run beside them: indicative")
    if not any(c.failed_a or c.failed_b for c in found.contrasts):
        lines.append("no attempt failed")
    else:
        lines.append(
            "failed: attempts of A/B; they count as the metric's declared worst; where none is declared they are left out"
        )
    lacking = [c for c in found.contrasts if c.only_a or c.only_b]
    lines += [
        f"seeds without a partner: {place}: {lack_of(c)}"
        for c, place in zip(lacking, places([c.where for c in lacking]), strict=True)
    ]
    lines += [f"also different, and perhaps the cause: {what}" for what in found.besides]
    few = min(c.difference.n for c in found.contrasts)
    if few < 5:
        lines.append(
            f"{few} seed{'s' if few > 1 else ''}: intervals are indicative, and below 5 nothing is called better or worse; "
            "`harness run --seeds 10` gives more"
        )
    return lines


def lack_of(contrast: Contrast) -> str:
    from harness.comparing.results import spans

    told = [f"{spans(seeds)} only {side}" for side, seeds in (("A", contrast.only_a), ("B", contrast.only_b)) if seeds]
    return ", ".join(told)


def apart_lines(found: Contrasts) -> list[str]:
    """One line for all methods of a side that lack a partner on one task for one reason."""
    alike: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for each in found.apart:
        net = each.where["net"]
        place = short(each.where["task"]) + (f", {net['arch']}" if net else "")
        seeds = f"{each.seeds} seed{'s' if each.seeds > 1 else ''}"
        alike.setdefault((each.side, f"{place} ({each.side.upper()}, {seeds})", each.because), []).append(each.method)
    lines = [
        one_line(f"not comparable: {', '.join(dict.fromkeys(names))} on {place} because {'; '.join(because)}")
        for (_, place, because), names in alike.items()
    ]
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more (--json has all)"]


COMMANDS = [compare_command]
