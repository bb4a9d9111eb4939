"""What a number rests on: one page a board, with every attempt, its seed, its status, its ids and the command for its log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.kernelboard import KernelBoard
from harness.leaderboard import Board
from harness.report import linking
from harness.report.blocks import Cell, Column, Fact, Page, Row, Section, Table
from harness.report.collecting import Attempt, Collected
from harness.report.words import (
    anchor,
    attempt_cell,
    command,
    conditions,
    count,
    last_line,
    moment,
    number,
    seconds,
    settings,
    short,
    signed_word,
    size,
    task_label,
    where,
)
from harness.showing import one_line

LEAD = "What the numbers of this board rest on: the latest attempt of each seed. `harness logs ID` prints one's output."


def make_pages(found: Collected) -> Iterator[Page]:
    for board in found.boards:
        yield board_page(found, board)
    for at, kernel in enumerate(found.kernels):
        yield kernel_page(found, at, kernel)


def board_page(found: Collected, board: Board) -> Page:
    names = [m.name for m in (board.metric, *board.further)]
    sections = []
    for row in board.rows:
        attempts = [found.attempts[id] for id in row.attempts if id in found.attempts]
        table = attempts_table(found, row.method, attempts, names)
        sections.append(
            Section(anchor(row.method), short(row.method), facts=tuple(shared_facts(found, attempts)), tables=(table,))
        )
    lead = (LEAD, settings(board))
    return Page(
        linking.attempts_file(board), "leaderboard", f"Attempts: {task_label(board)}", lead, tuple(sections), contents=True
    )


def kernel_page(found: Collected, at: int, board: KernelBoard) -> Page:
    sections = []
    for row in board.rows:
        attempts = [
            found.attempts[id] for id in found.kernel_ids.get((at, row.case, row.implementation), ()) if id in found.attempts
        ]
        regions = sorted({region for a in attempts for region in found.kernel_times.get(a["attempt_id"], {})})
        rows = tuple(
            Row((*head(a), *(seconds(found.kernel_times.get(a["attempt_id"], {}).get(r)) for r in regions), *tail(a)))
            for a in attempts
        )
        columns = (*HEAD, *(Column(r.replace("_", " "), "right") for r in map(one_line, regions)), *TAIL)
        name = anchor(row.case, row.implementation)
        table = Table(f"t-{name}", columns, rows, title="Fresh processes", sql=sql_of(attempts))
        title = f"{short(row.implementation)} · {one_line(row.case)}"
        sections.append(Section(name, title, facts=tuple(shared_facts(found, attempts)), tables=(table,)))
    title = f"Attempts: kernel {short(board.kernel)}"
    return Page(
        linking.kernel_attempts_file(board), "kernels", title, (LEAD, where(board.shared)), tuple(sections), contents=True
    )


HEAD = (Column("seed", "right"), Column("kind"), Column("status"))
TAIL = (
    Column("wall", "right", "seconds of the whole process"),
    Column("peak memory", "right"),
    Column("started (UTC)"),
    Column("attempt: harness logs"),
    Column("trial"),
    Column("error"),
)


def head(attempt: Attempt) -> tuple[Cell, ...]:
    said = f" ({attempt['annotation']}: {one_line(attempt['annotation_reason'])})" if attempt["annotation"] else ""
    status = one_line(attempt["status"])
    return (Cell(str(attempt["seed"]), attempt["seed"]), Cell(one_line(attempt["kind"])), signed_word(status, status + said))


def tail(attempt: Attempt) -> tuple[Cell, ...]:
    peak = attempt["peak_device_bytes"] or attempt["peak_rss_bytes"]
    return (
        seconds(attempt["wall_s"]),
        size(peak),
        moment(attempt["started_at"]),
        attempt_cell(attempt["attempt_id"]),
        Cell(one_line(attempt["trial_id"])[:16], one_line(attempt["trial_id"])),
        Cell(last_line(attempt["error"])),
    )


def attempts_table(found: Collected, method: str, attempts: Sequence[Attempt], names: Sequence[str]) -> Table:
    known = [n for n in names if any(n in found.values.get(a["attempt_id"], {}) for a in attempts)]
    sized = any(a["params"] is not None for a in attempts)
    columns = [*HEAD, *(Column(one_line(n), "right") for n in known), Column("solve", "right")]
    columns += [Column("params", "right")] if sized else []
    rows = []
    for a in sorted(attempts, key=lambda a: (a["kind"], a["seed"], a["attempt_id"])):
        values = found.values.get(a["attempt_id"], {}) if a["status"] == "ok" else {}
        middle = [number(values.get(n)) for n in known] + [seconds(a["solve_s"])] + ([count(a["params"])] if sized else [])
        rows.append(Row((*head(a), *middle, *tail(a))))
    again = command_of(attempts)
    name = f"t-{anchor(method)}"
    return Table(name, (*columns, *TAIL), tuple(rows), title="Attempts", sql=sql_of(attempts), command=again)


def command_of(attempts: Sequence[Attempt]) -> str:
    """What runs the trials of these attempts again; "" for none."""
    if not attempts:
        return ""
    first = attempts[0]
    return command("harness", "run", str(first["suite"]), "--force", "--method", str(first["method"]).rpartition("/")[2])


def sql_of(attempts: Sequence[Attempt]) -> str:
    """All attempts of these series, not only the latest."""
    if not attempts:
        return ""
    a = attempts[0]
    wanted = conditions(
        machine=a["machine"],
        method=a["method"],
        task=a["task"],
        task_params=a["task_params"],
        device=a["device"],
        dtype=a["dtype"],
        threads=a["threads"],
        kind=a["kind"],
    )
    columns = "attempt_id, trial_id, seed, status, started_at, git_commit, solve_s, wall_s"
    return f"SELECT {columns} FROM attempts WHERE {wanted} ORDER BY started_at"


def shared_facts(found: Collected, attempts: Sequence[Attempt]) -> Iterator[Fact]:
    """Where they ran and on what, told once."""
    if not attempts:
        return

    def told(column: str, length: int = 64) -> str:
        return ", ".join(sorted({one_line(a[column])[:length] for a in attempts if a[column] is not None})) or "–"

    dirty = any(a["git_dirty"] for a in attempts)
    yield Fact("suite", Cell(told("suite")))
    yield Fact("commit", Cell(told("git_commit", 12) + (" with uncommitted changes" if dirty else "")))
    yield Fact("torch", Cell(told("torch_version")))
    machine = str(attempts[0]["machine"])
    yield Fact("machine", Cell(one_line(machine), href=linking.machine_href(machine)))
    yield Fact("environment", Cell(told("environment", 16), href=linking.machine_href(machine)))
    yield Fact("code, data", Cell(f"{told('code_digest', 12)}, {told('data_digest', 12)}"))
    spent = [found.spent.get(a["attempt_id"], {}) for a in attempts]
    clocks = sorted({clock for each in spent for clock in each if clock != "wall_s"})
    if clocks:
        used = [f"{one_line(c)} {max(each.get(c, 0.0) for each in spent):,.0f}" for c in clocks]
        yield Fact("budget used, at most", Cell(", ".join(used)))
