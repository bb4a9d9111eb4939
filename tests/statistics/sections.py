"""The parts of docs/statistics.md: each draws its worlds, and says what the figures mean."""

from __future__ import annotations

from harness.stats import power_of_paired_t, seeds_needed
from tests.statistics.ledger import CLAIMS, calls, judged, judged_shares
from tests.statistics.page import Section, Table
from tests.statistics.simulation import (
    DIFFERENCES,
    METHODS,
    Rate,
    Size,
    bootstrap_coverage,
    correlation_coverage,
    coverage,
    extended,
    false_calls,
    family_errors,
    flips_against_t,
    found_power,
    iqm_coverage,
    median_coverage,
    over_tasks,
    pooled_coverage,
    share_coverage,
    watched,
    welch_coverage,
)

SEEDS = (3, 5, 10, 20)
FLIPPED = (3, 5, 10, 15)  # all sign patterns of 20 seeds would take minutes
POWERS = (5, 10, 20)
EFFECTS = (0.5, 1.0, 1.5, 2.0)
TASK_COUNTS = (10, 20, 40)
LIKE_TASKS = {  # worlds of methods, read as differences from task to task
    "normal": "normal",
    "heavy tails (t, 3 df)": "heavy tails (t, 3 df)",
    "accuracy on 20 items": "accuracies on 20 items, with ties",
    "one seed in ten fails": "far off on one task in ten",
}
METHODS_IN_FAMILY, TASKS = 10, 5


def percent(value: float | Rate) -> str:
    return f"{100 * (value.value if isinstance(value, Rate) else value):.1f}"


def draws(count: int, truth: float = 0.05) -> str:
    """And by how much chance alone moves such a figure: two standard errors where this is the truth, or 1 less this."""
    error = 200 * (truth * (1 - truth) / count) ** 0.5
    where = " or ".join(f"{100 * p:.0f}" for p in sorted({truth, 1 - truth}))
    return f"{count:,} draws a figure: ± {error:.1f} at {where}."


def verdicts(size: Size) -> Section:
    seeds = tuple(f"n = {n}" for n in SEEDS)
    same = tuple((name, *(percent(false_calls(name, n, size.samples)) for n in SEEDS)) for name in METHODS)
    held = tuple((name, *(percent(coverage(name, n, size.samples)) for n in SEEDS)) for name in DIFFERENCES)
    text = """\
A method against itself: whatever is seen is false, and 5 % is what was agreed to. The differences are then symmetric, whatever
one method's numbers look like, and the t interval calls too seldom rather than too often.

Two different methods need not differ symmetrically. The interval still holds the true mean as often as promised where the
differences are near to normal or have heavy tails. It does not where they are skewed, and least of all where one method fails
now and then: few seeds then show no failure, and nothing that is computed from them can know of it. More seeds mend that
slowly. A claim about a method that may fail belongs on a share of seeds, a median or an interquartile mean, and a mean is read
together with its single seeds. A claim needs at least 10 seeds; 3 and 5 are here to be seen."""
    return Section(
        "The interval of a verdict",
        text,
        (
            Table(("A against A, a difference is seen, %", *seeds), same, f"Promised: 5. {draws(size.samples)}"),
            Table(("The interval holds the true mean difference, %", *seeds), held, f"Promised: 95. {draws(size.samples)}"),
        ),
    )


def looking_again(size: Size) -> Section:
    names = ("normal", "skewed (exponential)", "one seed in ten fails")
    declared = {(name, n): extended(name, n, size.samples) for name in names for n in SEEDS}
    rows = [(f"declared extension, {name}", *(percent(declared[name, n].called) for n in SEEDS)) for name in names]
    rows.append(
        ("undeclared: both looks at 95 %, normal", *(percent(extended("normal", n, size.samples, False).called) for n in SEEDS))
    )
    rows.append(
        ("a look after each seed until it shows, normal", *(percent(watched("normal", n, size.samples)) for n in SEEDS))
    )
    rows.append(
        ("declared: the last interval holds the truth, normal", *(percent(declared["normal", n].covered) for n in SEEDS))
    )
    text = """\
A claim is looked at once, with the n that it names. Where its card declares an extension, and the first look decides nothing,
the seeds are extended once; both looks then have half of the error rate each. Looking again without saying so before, or after
each seed, calls what is not there far more often."""
    under = (
        f"A against A, %. Promised with a declared extension: at most 5, and at least 95 in the last row. {draws(size.samples)}"
    )
    return Section("Looking again", text, (Table(("", *(f"n = {n}, then {2 * n}" for n in SEEDS)), tuple(rows), under),))


def ledger(size: Size) -> Section:
    samples = size.few // 2
    worlds = [(name, "normal") for name in CLAIMS] + [(name, "one seed in ten fails") for name in list(CLAIMS)[:3]]
    found = [(f"{name}; {world}", calls(judged(name, world, samples))) for name, world in worlds]
    found.append(("more than 30 % of seeds solve it, truly 30 %", calls(judged_shares(0.3, 0.3, samples), 0.3)))
    rows = tuple((name, percent(c.supported), percent(c.refuted), percent(c.covered)) for name, c in found)
    text = """\
The same through the judge itself: attempts of a fixed protocol in, the word of `harness claims` out, ten seeds a claim. What
each claim compares is equal, so it is false by a hair. *Supported* is then an error, and has a chance of 2.5 % at most (half of
5 %, since a condition here has one limit); *refuted* would be one if the claim were true by a hair, and has the same. Several
conditions change nothing: where all have to hold, one must lie further beyond its limit to refute them all, and where some
suffice, further inside to support. A method that is truly worse is supported more seldom still."""
    under = (
        "Promised: at most 2.5, at most 2.5, at least 95. The interval is that of the first condition, wider where some "
        f"suffice. {draws(samples, 0.025)}"
    )
    head = ("The claim; the worlds", "supported, %", "refuted, %", "the interval holds the truth, %")
    return Section("The ledger", text, (Table(head, rows, under),))


def sign_flips(size: Size) -> Section:
    rows = []
    for name, shift in (("normal", 0.0), ("one seed in ten fails", 0.0), ("normal", 1.5), ("one seed in ten fails", 1.5)):
        rates = [flips_against_t(name, n, size.few, shift) for n in FLIPPED]
        world = f"{name}, " + (f"better by {shift:g}" if shift else "no difference")
        rows += [
            (f"{world}: sign flips", *(percent(r[0]) for r in rates)),
            (f"{world}: t interval", *(percent(r[1]) for r in rates)),
        ]
    text = """\
The sign-flip test asks only that differences are symmetric. It cannot say anything at 5 % with five seeds or fewer: the
smallest p that it has is 2 / 2^n. From ten seeds on both find about the same, and where failures are rare the flips keep nearer
to what was promised. The p is shown beside a verdict; the interval decides, since only it says how large a difference is."""
    head = ("Seen at 5 %, %", *(f"n = {n}" for n in FLIPPED))
    return Section(
        "Sign flips and t", text, (Table(head, tuple(rows), f"One unit is a method's standard deviation. {draws(size.few)}"),)
    )


def tasks(size: Size) -> Section:
    def rows(worlds: dict[str, float]) -> tuple[tuple[str, ...], ...]:
        found = {(name, n): over_tasks(name, n, size.few, shift) for name, shift in worlds.items() for n in TASK_COUNTS}
        return tuple(
            (f"{LIKE_TASKS[name]}: {test}", *(percent(found[name, n][at]) for n in TASK_COUNTS))
            for name in worlds
            for at, test in enumerate(("signed ranks", "t interval"))
        )

    text = """\
A claim over tasks has one number a task, the mean over its seeds, and its interval is over the tasks: it is about tasks of
that kind, which no number of seeds on the same tasks can be. Signed ranks are exact whatever the distribution over the tasks,
as long as it is symmetric about its centre; ties make them call too seldom, never too often. They lose little to t where the
differences are normal, and find far more where a few tasks are far off. Fewer than 10 tasks decide nothing."""
    heads = tuple(f"{n} tasks" for n in TASK_COUNTS)
    same = Table(
        ("Seen at 5 %, there is nothing, %", *heads), rows(dict.fromkeys(LIKE_TASKS, 0.0)), f"At most 5. {draws(size.few)}"
    )
    better = {"normal": 1.0, "heavy tails (t, 3 df)": 1.0, "accuracy on 20 items": 0.05, "one seed in ten fails": 1.0}
    seen = Table(
        ("Seen at 5 %, one is better, %", *heads), rows(better),
        f"By one standard deviation of a method without its tails and failures; by one item of 20. {draws(size.few, 0.5)}",
    )  # fmt: skip
    return Section("Tasks as the sample", text, (same, seen))


def bootstrap(size: Size) -> Section:
    names = ("normal", "skewed (exponential)", "heavy tails (t, 3 df)")
    single = tuple((name, *(percent(bootstrap_coverage(name, n, size.few)) for n in SEEDS)) for name in names)
    few = size.few // 4
    pooled = [pooled_coverage(n, TASKS, few) for n in SEEDS]
    text = """\
Why no verdict rests on a bootstrap: resampling a handful of seeds reproduces their spread, and that is too small, by a factor
of (n - 1) / n in the variance and by what the normal quantile lacks against Student's. Over several tasks together there is
more to draw from, and the intervals come nearer to their promise; below 10 runs they are indicative only."""
    return Section(
        "The bootstrap at few seeds",
        text,
        (
            Table(
                ("Percentile bootstrap of a mean holds the truth, %", *(f"n = {n}" for n in SEEDS)),
                single,
                f"Promised: 95. 1,000 resamples each. {draws(size.few)}",
            ),
            Table(
                (f"Stratified bootstrap over {TASKS} tasks holds the truth, %", *(f"{n} runs" for n in SEEDS)),
                (
                    ("interquartile mean", *(percent(mean) for mean, _ in pooled)),
                    ("probability of improvement", *(percent(chance) for _, chance in pooled)),
                ),
                f"Promised: 95. 1,000 resamples each. {draws(few)}",
            ),
        ),
    )


def power(size: Size) -> Section:
    rows = tuple(
        (
            f"{d:g}",
            *(f"{percent(power_of_paired_t(d, 1.0, n) or 0.0)} / {percent(found_power(d, n, size.samples))}" for n in POWERS),
        )
        for d in EFFECTS
    )
    needed = tuple((f"{d:g}", *(str(seeds_needed(d, 1.0, p)) for p in (0.8, 0.9))) for d in (0.2, 0.3, *EFFECTS))
    text = """\
The power comes from the noncentral t distribution. `harness claims` computes it for the effect that a claim's card states, with
the spread that was seen; *inconclusive* is an answer only where it reaches 80 %."""
    return Section(
        "Power, and the seeds needed",
        text,
        (
            Table(
                ("Effect, in standard deviations of the differences", *(f"n = {n}" for n in POWERS)),
                rows,
                f"Power at two-sided 5 %: by the formula / found by simulation, %. {draws(size.samples, 0.5)}",
            ),
            Table(("Effect", "seeds for 80 %", "seeds for 90 %"), needed, "By the formula; nothing is drawn."),
        ),
    )


def families(size: Size) -> Section:
    rates = [family_errors(n, METHODS_IN_FAMILY, size.few) for n in (10, 15)]
    text = f"""\
{METHODS_IN_FAMILY} methods that all equal one baseline: how often at least one of them seems to differ from it at 5 %.
Holm's adjustment keeps that chance within 5 % for the family, and needs no independence: all comparisons share the baseline."""
    rows = (
        ("raw p-values", *(percent(raw) for raw, _ in rates)),
        ("Holm", *(percent(adjusted) for _, adjusted in rates)),
    )
    under = f"Sign-flip p-values. Promised for Holm: at most 5. {draws(size.few)}"
    return Section("Many comparisons", text, (Table(("At least one false call, %", "n = 10", "n = 15"), rows, under),))


def other_intervals(size: Size) -> Section:
    def row(name: str, rates: list[Rate | None]) -> tuple[str, ...]:
        return (name, *("none" if r is None else percent(r) for r in rates))

    samples = size.samples
    rows = (
        row("median, normal", [median_coverage(False, n, samples) if n > 5 else None for n in SEEDS]),
        row("median, exponential", [median_coverage(True, n, samples) if n > 5 else None for n in SEEDS]),
        *(
            row(f"interquartile mean, {name}", [iqm_coverage(name, n, samples) for n in SEEDS])
            for name in ("normal", "heavy tails (t, 3 df)", "skewed (exponential)")
        ),
        *(
            row(
                f"Spearman, normal with correlation {rho:g}",
                [correlation_coverage(rho, n, samples) if n > 3 else None for n in SEEDS],
            )
            for rho in (0.0, 0.6, 0.9)
        ),
        row("Welch, n with deviation 1 against 2 n with 3", [welch_coverage(n, samples) for n in SEEDS]),
    )
    shares = [share_coverage(n) for n in SEEDS]
    exact = (
        ("least over all shares", *(percent(least) for least, _ in shares)),
        ("mean over all shares", *(percent(mean) for _, mean in shares)),
    )
    text = """\
The median and the share have exact intervals: they hold the truth at least as often as promised whatever the distribution, and
pay for it with width where whole numbers leave no choice nearer to 95 %. The interquartile mean's is approximate: a little
short, more so where the values are skewed. Where so few seeds give no interval it says none, and the verdict stays open."""
    seeds = tuple(f"n = {n}" for n in SEEDS)
    return Section(
        "Medians, interquartile means, shares, correlations",
        text,
        (
            Table(("The interval holds the truth, %", *seeds), rows, f"Promised: 95. {draws(samples)}"),
            Table(
                ("A share's interval holds the truth, %", *seeds),
                exact,
                "Promised: at least 95. True shares from 1 to 99 %, summed exactly; nothing is drawn.",
            ),
        ),
    )
