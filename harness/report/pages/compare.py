"""Two sides against each other: methods seed by seed on every board that has both, or kernels, commits, days, machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from harness.comparing import Comparison, Contrast, Contrasts
from harness.comparing import Ratio as KernelRatio
from harness.identity import canonical
from harness.leaderboard import Board, Row, settings_of
from harness.report import charts, linking
from harness.report.blocks import Cell, Column, Figure, Page, Section, Table
from harness.report.blocks import Row as Line
from harness.report.collecting import Collected
from harness.report.pages.leaderboard import TIED, best_rows, board_tags, match_notes, standing_cell
from harness.report.words import ARROWS, command, interval, number, plural, seconds, settings, short, signed_word, task_label
from harness.showing import one_line
from harness.stats import Interval, paired_interval


def make_page(found: Collected, compared: tuple[str, str] | None) -> Page:
    sections = []
    if found.contrasts is not None:
        sections = list(contrast_sections(found, found.contrasts))
        lead = [contrast_lead(found.contrasts)]
    elif compared is not None:
        lead = [f"Times of {one_line(compared[1])} over those of {one_line(compared[0])}, case by case."]
    else:
        pairs = list(best_pairs(found))
        lead = [best_lead(pairs)]
        notes = tuple(environment_notes(found))
        sections = [Section("methods", "Methods, seed by seed", text=notes, tables=(methods_table(pairs),))] if pairs else []
    sections += [kernel_section(found.compared)] if found.compared is not None else []
    return Page("compare.html", "compare", "Compare", tuple(lead), tuple(sections), filters=("task", "device", "machine"))


Pair = tuple[Board, Row, Row, "Interval | None"]


def best_pairs(found: Collected) -> Iterator[Pair]:
    """(board, a, b, the paired difference a - b): the best two of each board."""
    for board in found.boards:
        rows = best_rows(board)[:2]
        if len(rows) == 2:
            a, b = rows
            yield board, a, b, paired(a, b)


def paired(a: Row, b: Row) -> Interval | None:
    """Over the scores of the board: a failed attempt counts as the declared worst there, and here."""
    both = [(x, y) for x, y in zip(a.scores, b.scores, strict=True) if math.isfinite(x) and math.isfinite(y)]
    return paired_interval([x for x, _ in both], [y for _, y in both]) if both else None


def best_lead(pairs: list[Pair]) -> str:
    if not pairs:
        return "Nothing to compare yet: a board needs two methods; `harness run vision` makes some."
    tied = sum(1 for _, a, b, _ in pairs if standing_cell(a, b).value == "tied")
    return (
        f"The best two of each of {plural(len(pairs), 'board')}: on {tied} of them they are tied. They were chosen after "
        "looking, so the ranks decide, adjusted for all pairs of the board (Holm), not the interval of the difference; "
        "`harness report --compare A B` compares two of your choice: methods, commits, dates, machines."
    )


def environment_notes(found: Collected) -> Iterator[str]:
    yield "Paired by all but the method: task, net, budget, device, dtype, threads, seed. What differs is never compared."
    torches = sorted({str(b.shared["torch_version"]) for b in found.boards})
    machines = sorted({str(b.shared["machine"]) for b in found.boards})
    for what, names in (("torch versions", torches), ("machines", machines)):
        if len(names) > 1:
            listed = ", ".join(map(one_line, names))
            yield f"Records of {len(names)} {what} are here ({listed}): they stand on boards of their own."


def methods_table(pairs: list[Pair]) -> Table:
    columns = (
        Column("board", "short"),
        Column("A is"),
        Column("metric", "short"),
        Column("A", "short"),
        Column("B", "short"),
        Column("A's result", "right"),
        Column("B's result", "right"),
        Column("A − B", "right", "paired, 95 %"),
        Column("pairs", "right"),
        Column("A's cost ÷ B's", "right", "median seconds of one solve"),
    )
    rows, dots = [], []
    for board, a, b, difference in pairs:
        hrefs = [linking.attempts_href(board, row.method) for row in (a, b)]
        ratio = a.solve_s / b.solve_s if a.solve_s and b.solve_s else None
        verdict = standing_cell(a, b)
        cells = (
            Cell(task_label(board), href=linking.board_href(board), title=settings(board)),
            verdict,
            Cell(f"{one_line(board.metric.name)} {ARROWS[board.metric.better]}"),
            *(Cell(short(row.method), row.method, linking.method_file(row.ref)) for row in (a, b)),
            interval(a.interval, hrefs[0]),
            interval(b.interval, hrefs[1]),
            interval(difference, hrefs[0], signed=True),
            Cell("" if difference is None else str(difference.n), difference.n if difference else None),
            number(ratio),
        )
        rows.append(Line(cells, board_tags(board)))
        if difference is not None and charts.drawable(difference.mean):
            low, high = (difference.mean if end is None else end for end in (difference.low, difference.high))
            label = f"{task_label(board)}: {short(a.method)} − {short(b.method)}"
            word = str(verdict.value or "one seed")
            dots.append(
                (
                    board.metric.name,
                    charts.Dot(label, difference.mean, low, high, word, f"{label}: {interval(difference, signed=True).text}"),
                )
            )
    again = "harness leaderboard"
    columns_of = "task, method, seed, pair_key, quantity, value"
    sql = f"SELECT {columns_of} FROM measurements WHERE part = 'test' AND status = 'ok' ORDER BY pair_key, method"
    return Table(
        "compare-methods",
        columns,
        tuple(rows),
        "Boards that have both",
        (TIED, *dict.fromkeys(line for board, a, b, _ in pairs for line in match_notes(board, a, b))),
        sql=sql,
        command=again,
        figures=tuple(forests(dots, "A − B")),
    )


# Two that were named --------------------------------------------------------------------------------------------------


def contrast_lead(found: Contrasts) -> str:
    """How often B is better, worse or neither, over all that can be compared."""
    words = Counter[str](c.verdict for c in found.contrasts)
    told = ", ".join(f"{words[w]} {w}" for w in ("better", "worse", "same", "ambiguous") if words[w])
    sides = (
        f"A is {one_line(found.a.given)} ({one_line(found.a.says)}), B is {one_line(found.b.given)} ({one_line(found.b.says)})."
    )
    return f"{sides} B against A: {told}." if told else f"{sides} Nothing of them can be compared; below is why."


def contrast_sections(found: Collected, contrasts: Contrasts) -> Iterator[Section]:
    """What differs besides comes first: it is often the cause."""
    if contrasts.packages or contrasts.besides:
        rows = tuple(Line(tuple(Cell(one_line(part) or "–") for part in each)) for each in contrasts.packages)
        table = Table("packages", (Column("package"), Column("A"), Column("B")), rows, "Packages that differ")
        text = tuple(f"Also different, and perhaps the cause: {one_line(what)}." for what in contrasts.besides)
        yield Section("besides", "What else differs", text=text, tables=(table,) if rows else ())
    if contrasts.contrasts:
        text = (*CONTRAST_NOTES, *matches_of(found, contrasts))
        yield Section("contrasts", "Pair by pair", text=text, tables=(contrast_table(contrasts),))
    if contrasts.apart:
        columns = (Column("side"), Column("task"), Column("method"), Column("seeds", "right"), Column("because", "long"))
        lines = tuple(
            Line((
                Cell(each.side.upper()), Cell(short(each.where["task"])), Cell(short(each.method)),
                Cell(str(each.seeds), each.seeds),
                Cell("; ".join(map(one_line, each.because))),
            ))
            for each in contrasts.apart
        )  # fmt: skip
        yield Section("apart", "Not comparable", tables=(Table("apart", columns, lines, "Without a partner"),))


CONTRAST_NOTES = ("p: of the paired t test, adjusted for all comparisons of this table (Holm); it decides. Effect: in standard "
                  "deviations of the differences.",)  # fmt: skip


def matches_of(found: Collected, contrasts: Contrasts) -> Iterator[str]:
    """How nearly what is compared was matched, board by board."""
    ids = {id for c in contrasts.contrasts for side in c.attempts for id in side}
    for board in found.boards:
        yield from match_notes(board, *(row for row in board.rows if not ids.isdisjoint(row.attempts)))


def contrast_labels(contrasts: Sequence[Contrast]) -> list[str]:
    """Task and net, with as many settings as tell those of the same two methods apart; a number where none does."""
    labels = [short(c.where["task"]) + (f", {one_line(c.where['net']['arch'])}" if c.where["net"] else "") for c in contrasts]
    settings = [
        {
            **{f"task.{k}": v for k, v in (c.where.get("task_params") or {}).items()},
            **settings_of(c.where),
            "machine": c.where.get("machine"),
        }
        for c in contrasts
        for c in contrasts
    ]
    for name in dict.fromkeys(name for one in settings for name in one):
        for same in alike(contrasts, labels):
            if len({canonical(settings[at].get(name)) for at in same}) > 1:
                for at in same:
                    labels[at] += one_line(f", {name.rpartition('.')[2]} {settings[at].get(name, '-')}")
    for same in alike(contrasts, labels):
        for nth, at in enumerate(same if len(same) > 1 else (), 1):
            labels[at] += f" #{nth}"
    return labels


def alike(contrasts: Sequence[Contrast], labels: Sequence[str]) -> list[list[int]]:
    """Numbers of those that a reader could not tell apart."""
    found: dict[tuple[str, ...], list[int]] = {}
    for at, (c, label) in enumerate(zip(contrasts, labels, strict=True)):
        found.setdefault((label, c.method_a, c.method_b, c.metric.name), []).append(at)
    return list(found.values())


def contrast_table(found: Contrasts) -> Table:
    columns = (
        Column("task", "short"), Column("B is", "short"), Column("A", "short"), Column("B", "short"),
        Column("metric", "short"),
        Column("A's result", "right"), Column("B's result", "right"), Column("B − A", "right", "paired, 95 %"),
        Column("pairs", "right"), Column("p", "right"),
        Column("effect", "right"), Column("failed A/B", "right"),
        Column("cost", "right", "median seconds of B over those of A"),
    )  # fmt: skip
    rows, dots = [], []
    for c, label in zip(found.contrasts, contrast_labels(found.contrasts), strict=True):
        name = f"{one_line(c.metric.name)} {ARROWS[c.metric.better]}"
        methods = [Cell(short(m)) for m in (c.method_a, c.method_b)]
        cells = (
            Cell(label), signed_word(c.verdict), *methods, Cell(name),
            interval(c.a), interval(c.b), interval(c.difference, signed=True),
            Cell(str(c.difference.n), c.difference.n), number(c.p_holm), number(c.effect), Cell(f"{c.failed_a}/{c.failed_b}"),
            number(c.cost_ratio),
        )  # fmt: skip
        rows.append(Line(cells, {"task": short(c.where["task"]), "device": one_line(c.where["device"])}))
        if charts.drawable(c.difference.mean):
            ends = [c.difference.mean if e is None else e for e in (c.difference.low, c.difference.high)]
            both = f"{label}: {short(c.method_b)} − {short(c.method_a)}"
            tip = f"{both}: {interval(c.difference, signed=True).text}, {c.verdict}"
            dots.append((c.metric.name, charts.Dot(both, c.difference.mean, ends[0], ends[1], c.verdict, tip)))
    sql = "SELECT task, method, seed, pair_key, quantity, value FROM measurements WHERE part = 'test' ORDER BY pair_key, method"
    again = command("harness", "compare", found.a.given, found.b.given)
    return Table(
        "contrasts", columns, tuple(rows), "B against A", sql=sql, command=again, figures=tuple(forests(dots, "B − A"))
    )


def forests(dots: Sequence[tuple[str, charts.Dot]], what: str) -> Iterator[Figure]:
    """One a metric: differences in different units have no axis in common."""
    for at, name in enumerate(dict.fromkeys(metric for metric, _ in dots)):
        of = [dot for metric, dot in dots if metric == name]
        says = "; ".join(dot.tip for dot in of)
        title = f"{one_line(name)}: {what}"
        yield Figure(f"compare-{at}", title, says, charts.forest(of, f"{title}, 95 %", at=0.0))


# Kernels --------------------------------------------------------------------------------------------------------------


def kernel_section(compared: Comparison) -> Section:
    """Times of B over times of A, the largest changes first; what is the same is at the end."""
    words = Counter[str](r.verdict for r in compared.ratios)
    told = ", ".join(f"{words[w]} {w}" for w in ("faster", "slower", "same", "ambiguous") if words[w])
    text = (
        f"B is {one_line(compared.b)}, A is {one_line(compared.a)}. Of {plural(len(compared.ratios), 'case')}: {told}.",
        *(
            f"The two sides differ in {one_line(d)}; times of different machines or torches say little."
            for d in compared.differs
        ),
    )
    ordered = sorted(
        compared.ratios,
        key=lambda r: (r.verdict in ("same", "ambiguous"), -abs(math.log(r.ratio)), sorted(map(str, r.where.items()))),
    )
    columns = (
        Column("kernel", "short"),
        Column("case"),
        Column("region", "short"),
        Column("B is"),
        Column(one_line(compared.a), "right"),
        Column(one_line(compared.b), "right"),
        Column("ratio", "right", "time of B over time of A"),
        Column("95 %", "right"),
        Column("processes", "right"),
    )
    rows = tuple(ratio_row(r) for r in ordered)
    shown = [r for r in ordered if r.low is not None and r.high is not None][:30]
    dots = [
        charts.Dot(ratio_label(r), r.ratio, r.low or 0.0, r.high or 0.0, r.verdict, f"{ratio_label(r)}: {r.ratio:.3f}")
        for r in shown
    ]
    figures: tuple[Figure, ...] = ()
    if dots:
        says = "; ".join(d.tip for d in dots[:10])
        spec = charts.forest(
            dots, f"time of {one_line(compared.b)} over {one_line(compared.a)} (log)", [(0.97, 1.03)], at=1.0, log=True
        )
        figures = (Figure("compare-kernels-f", "Ratios of times", says, spec),)
    again = command("harness", "compare", "--kernels", compared.a, compared.b)
    told = "task, task_params, method, part, seed, value, attempt_id"
    sql = f"SELECT {told} FROM measurements WHERE kind = 'kernel' AND quantity = 'time' AND status = 'ok'"
    table = Table(
        "compare-kernels",
        columns,
        rows,
        f"{one_line(compared.a)} against {one_line(compared.b)}",
        sql=sql,
        command=again,
        figures=figures,
    )
    return Section("kernels", "Kernels, case by case", text=text, tables=(table,))


def ratio_label(r: KernelRatio) -> str:
    from harness.kernelboard import label_of

    return f"{short(r.where['kernel'])} {one_line(label_of(r.where))} {one_line(r.where['region']).replace('_', '+')}"


def ratio_row(r: KernelRatio) -> Line:
    from harness.kernelboard import label_of

    ends = "" if r.low is None or r.high is None else f"{r.low:.3f} to {r.high:.3f}"
    cells = (
        Cell(short(r.where["kernel"])),
        Cell(one_line(label_of(r.where))),
        Cell(one_line(r.where["region"]).replace("_", "+")),
        signed_word(r.verdict),
        seconds(r.a_s),
        seconds(r.b_s),
        Cell(f"{r.ratio:.3f}", r.ratio),
        Cell(ends),
        Cell(f"{r.n_a} / {r.n_b}"),
    )
    return Line(cells, {"device": one_line(r.where["device"])}, faint=r.verdict in ("same", "ambiguous"))
