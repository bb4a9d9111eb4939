"""The machines: what they are, what they can do at most, how noisy they are, and the environments that ran on them."""

from __future__ import annotations

from collections.abc import Iterator

from harness.kernels.ceilings import MachineCheck
from harness.report import charts
from harness.report.blocks import Cell, Fact, Figure, Page, Section, Table, to_columns, to_row
from harness.report.collecting import Collected, Machine
from harness.report.words import anchor, command, conditions, plural, rate, seconds, share
from harness.showing import one_line

FACTS_SQL = "SELECT kind, name, facts FROM facts"


def make_page(found: Collected) -> Page:
    lead = (f"{plural(len(found.machines), 'machine')}. Numbers of different machines are never pooled.",)
    sections = [machine_section(machine) for machine in found.machines]
    sections += [environment_section(name, facts) for name, facts in sorted(found.environments.items())]
    if found.data:
        sections.append(data_section(found))
    return Page("machines.html", "machines", "Machines", lead, tuple(sections), contents=len(sections) > 3)


def machine_section(machine: Machine) -> Section:
    facts = [
        Fact(one_line(name).replace("_", " "), Cell(one_line(value)))
        for name, value in sorted(machine.facts.items())
        if value != ""
    ]
    facts += [
        Fact(f"noise floor, {device} {threads} thread{'s' if threads != 1 else ''}", share(floor))
        for (device, threads), floor in sorted(machine.noise.items())
    ]
    text = (
        []
        if machine.checks
        else ["What it can do at most has not been measured: `harness machine check` does it, in about a minute."]
    )
    tables = [table for check in machine.checks for table in check_tables(check)]
    return Section(
        anchor("machine", machine.name), f"Machine {one_line(machine.name)}", tuple(facts), tuple(text), tuple(tables)
    )


def check_tables(check: MachineCheck) -> Iterator[Table]:
    """Ceilings, and A/A agreement, of one check."""
    threads = f"{check.threads} thread{'s' if check.threads != 1 else ''}"
    what = one_line(f"{check.device_name or check.device}, {check.dtype}, {threads}, torch {check.torch_version}")
    id = anchor(check.machine, check.device, check.threads, check.torch_version)
    again = command("harness", "machine", "check", "--device", check.device, "--threads", str(check.threads))
    sql = f"{FACTS_SQL} WHERE {conditions(kind='ceilings')}"
    notes = [f"Checked {check.checked_at[:16].replace('T', ' ')} UTC."]
    if check.contended:
        notes.append(f"Doubtful: other work wanted the same cores; `{again}` on a quiet machine settles it.")
    rows = [
        to_row(
            f"copy of {c.elements:,} elements",
            rate(c.bytes_per_s, "B/s"),
            seconds(c.wall_s),
            seconds(c.cpu_s),
            str(c.samples),
            doubts(c.doubts),
        )
        for c in check.copies
    ] + [
        to_row(
            f"matrix product {p.size:,} × {p.size:,}",
            rate(p.flops_per_s, "FLOP/s"),
            seconds(p.wall_s),
            seconds(p.cpu_s),
            str(p.samples),
            doubts(p.doubts),
        )
        for p in check.matmuls
    ]
    columns = to_columns("ceiling", ">rate", ">wall", ">CPU", ">samples", "doubts")
    yield Table(
        f"ceilings-{id}", columns, tuple(rows), f"Ceilings: {what}", tuple(notes), sql, again, tuple(ceiling_figures(check, id))
    )
    agreed = [
        to_row(
            one_line(a.kernel),
            str(len(a.wall)),
            share(a.sd("wall")),
            share(a.p95("wall")),
            share(a.sd("cpu")),
            share(a.p95("cpu")),
            f"{a.contention:.2f}",
        )
        for a in check.agreements
    ]
    columns = to_columns(
        "the same kernel twice", ">rounds", ">sd wall", ">95 % within", ">sd CPU", ">95 % within, CPU", ">wall / CPU"
    )
    yield Table(f"agreement-{id}", columns, tuple(agreed), f"Noise: {what}", sql=sql, command=again)


def doubts(names: tuple[str, ...]) -> Cell:
    return Cell(", ".join(map(one_line, names)), mark="doubt" if names else "")


def ceiling_figures(check: MachineCheck, id: str) -> Iterator[Figure]:
    copies = [(float(c.elements), c.bytes_per_s, c.bytes_per_s, c.bytes_per_s) for c in check.copies if c.elements > 0]
    if len(copies) > 1:
        best = max(y for _, y, _, _ in copies)
        says = f"Bytes read and written a second by copies of {len(copies)} sizes; at most {rate(best, 'B/s').text}."
        yield Figure(
            f"copy-{id}", "Copy bandwidth by size", says, charts.curves({"copy": copies}, "elements (log)", "bytes/s", log=True)
        )
    products = [(float(p.size), p.flops_per_s, p.flops_per_s, p.flops_per_s) for p in check.matmuls]
    if len(products) > 1:
        best = max(y for _, y, _, _ in products)
        says = f"FLOP/s of square matrix products of {len(products)} sizes; at most {rate(best, 'FLOP/s').text}."
        yield Figure(
            f"matmul-{id}",
            "Matrix product by size",
            says,
            charts.curves({"product": products}, "rows (log)", "FLOP/s", log=True),
        )


def environment_section(name: str, facts: object) -> Section:
    told = facts if isinstance(facts, dict) else {}
    packages = told.get("packages") if isinstance(told.get("packages"), dict) else {}
    rest = [Fact(one_line(k), Cell(one_line(v))) for k, v in sorted(told.items()) if k != "packages"]
    rows = tuple(to_row(one_line(package), one_line(version)) for package, version in sorted((packages or {}).items()))
    sql = f"{FACTS_SQL} WHERE {conditions(kind='environment', name=name)}"
    table = Table(
        f"environment-{anchor(name)}",
        to_columns("package", "version"),
        rows,
        "Packages",
        sql=sql,
        folded=plural(len(rows), "package"),
    )
    return Section(
        anchor("environment", name), f"Environment {one_line(name)[:16]}", tuple(rest), tables=(table,) if rows else ()
    )


def data_section(found: Collected) -> Section:
    rows = []
    for digest, sets in sorted(found.data.items()):
        for name, told in sorted(sets.items()):
            known = told if isinstance(told, dict) else {}
            rows.append(
                to_row(
                    one_line(name),
                    one_line(known.get("licence", "")),
                    one_line(known.get("source", "")),
                    one_line(known.get("digest", ""))[:16],
                    one_line(digest)[:12],
                )
            )
    columns = to_columns("data set", "licence", "source", "SHA-256", "in records as")
    table = Table(
        "data",
        columns,
        tuple(rows),
        "Data sets",
        sql=f"{FACTS_SQL} WHERE {conditions(kind='data')}",
        command="harness data list",
    )
    return Section("data-sets", "Data", tables=(table,))
