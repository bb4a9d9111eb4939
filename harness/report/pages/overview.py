"""The first page, the verdict first: what ran, what failed, what changed, and which claims hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.leaderboard import Board
from harness.records import FAILURES
from harness.report import linking
from harness.report.blocks import Card, Cell, Column, Page, Row, Section, Table
from harness.report.collecting import Attempt, Collected
from harness.report.pages.claims import NOT_RUN, WORDS, count_words
from harness.report.pages.leaderboard import TIED, baseline_of, best_rows, board_tags, scale, span_of, standing_cell
from harness.report.words import (
    ARROWS,
    attempt_cell,
    count,
    error_cell,
    interval,
    last_line,
    moment,
    plural,
    seconds,
    settings,
    short,
    signed_word,
    task_label,
)
from harness.showing import one_line

MOST_FAILURES = 100


def make_page(found: Collected) -> Page:
    if found.empty:
        lead: tuple[str, ...] = ("This registry holds no attempt yet. `harness run smoke` makes some in a minute.",)
        return Page("index.html", "index", "Overview", lead, ())
    sections = [boards_section(found), changed_section(found), failed_section(found), ran_section(found)]
    return Page(
        "index.html",
        "index",
        "Overview",
        (verdict(found),),
        tuple(s for s in sections if s is not None),
        cards=tuple(cards(found)),
    )


def verdict(found: Collected) -> str:
    """One sentence; what needs somebody comes first."""
    regressed = sum(len(m.verdicts.regressions) for m in found.machines)
    failed = sum(1 for a in found.failed if a["annotation"] != "expected")
    total = sum(row["n"] for row in found.counts)
    parts = []
    if regressed:
        parts.append(f"{regressed} series regressed")
    if failed:
        parts.append(f"{plural(failed, 'trial')} failed")
    if not parts:
        parts.append("Nothing failed" + (" and nothing regressed" if any(m.verdicts.judged for m in found.machines) else ""))
    words = count_words(found)
    judged = {w: n for w, n in words.items() if w in WORDS[:4]}
    claims = ", ".join(f"{n} {w}" for w, n in sorted(judged.items(), key=lambda item: WORDS.index(item[0])))
    end = f"Claims: {claims}." if judged else ""
    suites = plural(len({row["suite"] for row in found.counts}), "suite")
    ran = f"{plural(total, 'attempt')} of {suites} on {plural(len(found.machines), 'machine')}"
    return f"{'; '.join(parts)}: {ran}. {end}".strip()


def cards(found: Collected) -> Iterator[Card]:
    total = sum(row["n"] for row in found.counts)
    ok = sum(row["ok"] for row in found.counts)
    yield Card("Ran", f"{total:,}", f"attempts, {ok:,} ok", "#ran")
    failed = [a for a in found.failed if a["annotation"] != "expected"]
    known = len(found.failed) - len(failed)
    note = "trials whose last attempt failed" + (f"; {known} more were expected" if known else "")
    yield Card("Failed", str(len(failed)), note, "#failed", "bad" if failed else "good")
    judged = sum(m.verdicts.judged for m in found.machines)
    worse = sum(len(m.verdicts.regressions) for m in found.machines)
    if judged:
        yield Card("Worse", str(worse), f"of {judged:,} series judged", "nightly.html", "bad" if worse else "good")
    else:
        yield Card("Worse", "–", "too few nights to judge yet", "nightly.html", "none")
    words = count_words(found)
    decided = sum(words.get(w, 0) for w in WORDS[:2])
    told = ", ".join(f"{words[w]} {w}" for w in (*WORDS, NOT_RUN) if words.get(w))
    yield Card("Claims decided", f"{decided} of {sum(words.values())}", told, "claims.html", "plain")
    yield Card("Boards", str(len(found.boards)), f"and {plural(len(found.kernels), 'kernel')}", "leaderboard.html", "plain")


def boards_section(found: Collected) -> Section | None:
    if not found.boards:
        return None
    columns = (
        Column("board", "short"),
        Column("metric", "short"),
        Column("best method", "short"),
        Column("best is", "left", "against the baseline"),
        Column("95 % interval", title="on the scale of all rows of its board"),
        Column("result", "right", "mean over seeds, ± half the 95 % t interval"),
        Column("baseline"),
        Column("paired difference", "right"),
        Column("ok/failed", "right"),
    )
    rows = tuple(row for board in found.boards if (row := best_row(found, board)) is not None)
    told = "task, device, quantity, arg_max(method, mean) AS best, max(mean) AS mean"
    sql = f"SELECT {told} FROM v_leaderboard WHERE part = 'test' AND better = 'higher' GROUP BY ALL ORDER BY ALL"
    table = Table(
        "best",
        columns,
        rows,
        "The best of each board",
        (TIED,),
        sql,
        "harness leaderboard",
    )
    return Section("best-of-each", "Best of each board", tables=(table,))


def best_row(found: Collected, board: Board) -> Row | None:
    ranked = best_rows(board)
    if not ranked:
        return None
    best = ranked[0]
    href = linking.attempts_href(board, best.method)
    low, high = scale(board.rows)
    ok, failed = sum(r.n_ok for r in board.rows), sum(r.n_failed for r in board.rows)
    cells = (
        Cell(task_label(board), href=linking.board_href(board), title=settings(board)),
        Cell(f"{one_line(board.metric.name)} {ARROWS[board.metric.better]}"),
        Cell(short(best.method), best.method, linking.method_file(best.ref)),
        standing_cell(best, baseline_of(board)),
        Cell("", None, span=span_of(best.interval, low, high)),
        interval(best.interval, href),
        Cell(one_line(board.baseline) or "–"),
        interval(best.difference, href, signed=True),
        Cell(f"{ok}/{failed}", ok, linking.attempts_file(board), mark="bad" if failed else ""),
    )
    return Row(cells, board_tags(board))


def changed_section(found: Collected) -> Section:
    told = [f"{one_line(m.name)}: {one_line(m.verdicts.verdict)}." for m in found.machines if m.histories]
    rows = []
    for machine in found.machines:
        for r in machine.verdicts.regressions:
            ratio = Cell("" if r.ratio is None else f"×{r.ratio:.3f}", r.ratio)
            todo = r.settle or r.accept
            rows.append(
                Row(
                    (
                        signed_word(r.state),
                        Cell(one_line(r.history.label), href="nightly.html"),
                        ratio,
                        Cell(f"{r.at.at:%Y-%m-%d}"),
                        Cell(todo, copy=todo),
                    )
                )
            )
    columns = (Column("verdict"), Column("series"), Column("ratio", "right"), Column("since"), Column("to settle or accept it"))
    table = Table("changed-t", columns, tuple(rows), "Changed for the worse", command="harness regress")
    return Section(
        "changed", "What changed", text=tuple(told) or ("No night is recorded yet.",), tables=(table,) if rows else ()
    )


def failed_section(found: Collected) -> Section:
    if not found.failed:
        return Section(
            "failed", "What failed", text=("The latest attempt of every trial ended well, or is not supported here.",)
        )
    causes = Counter((str(a["status"]), last_line(a["error"]) or one_line(a["limit_fired"] or "")) for a in found.failed)
    by_cause = tuple(
        Row((signed_word(one_line(s)), Cell(str(n), n), Cell(cause)))
        for (s, cause), n in sorted(causes.items(), key=lambda i: (-i[1], i[0]))
    )
    of = f"FROM v_latest WHERE status IN {FAILURES!r}"
    sql = f"SELECT status, error, limit_fired, count(*) AS n {of} GROUP BY ALL ORDER BY n DESC"
    first = Table(
        "causes",
        (Column("status"), Column("trials", "right"), Column("cause")),
        by_cause,
        "By cause",
        sql=sql,
        command="harness status",
    )
    rows = tuple(failed_row(a) for a in found.failed[:MOST_FAILURES])
    columns = (
        Column("status"),
        Column("method"),
        Column("task"),
        Column("device"),
        Column("seed", "right"),
        Column("attempt: harness logs"),
        Column("error"),
        Column("said of it"),
    )
    notes = (f"{MOST_FAILURES} of {len(found.failed)} are listed.",) if len(found.failed) > MOST_FAILURES else ()
    second = Table(
        "failed-t",
        columns,
        rows,
        "One by one",
        notes,
        f"SELECT * {of} ORDER BY attempt_id",
        "harness status --failed",
    )
    return Section("failed", "What failed", tables=(first, second))


def failed_row(a: Attempt) -> Row:
    said = f"{one_line(a['annotation'])}: {one_line(a['annotation_reason'])}" if a["annotation"] else ""
    cells = (
        signed_word(one_line(a["status"])),
        Cell(short(a["method"])),
        Cell(short(a["task"])),
        Cell(one_line(a["device"])),
        Cell(str(a["seed"]), a["seed"]),
        attempt_cell(a["attempt_id"]),
        error_cell(a["error"]),
        Cell(said),
    )
    return Row(cells, faint=bool(said))


def ran_section(found: Collected) -> Section:
    rows = tuple(
        Row(
            (
                Cell(one_line(one["suite"])),
                Cell(one_line(one["kind"])),
                Cell(one_line(one["machine"]), href=linking.machine_href(str(one["machine"]))),
                count(one["ok"]),
                Cell(f"{one['failed']:,}", one["failed"], mark="bad" if one["failed"] else ""),
                count(one["other"]),
                count(one["invocations"]),
                seconds(one["wall_s"]),
                moment(one["first"]),
                moment(one["last"]),
            )
        )
        for one in found.counts
    )
    columns = (
        Column("suite", "short"),
        Column("kind", "short"),
        Column("machine"),
        Column("ok", "right"),
        Column("failed", "right"),
        Column("other", "right", "unsupported or interrupted"),
        Column("invocations", "right"),
        Column("in trials", "right", "seconds of all trials, one after another"),
        Column("first (UTC)"),
        Column("last (UTC)"),
    )
    sql = "SELECT suite, machine, kind, status, count(*) AS n FROM attempts GROUP BY ALL ORDER BY ALL"
    return Section("ran", "What ran", tables=(Table("ran", columns, rows, "By suite", sql=sql, command="harness status"),))
