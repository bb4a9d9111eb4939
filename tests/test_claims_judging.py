"""Claims and a registry in, verdicts out: what counts, what lacks, one look and its extension, machines apart, the command."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from claim_samples import METHODS, PAPER, RULE, SUITE, protocol, record, spread, write_paper, write_suite
from helpers import PluginSite, plugin_site
from invoking import harness, harness_process
from registry_samples import MACHINE

from harness.claims.fixing import fix
from harness.claims.judging import judge_claims
from harness.claims.numbers import ranges
from harness.errors import HarnessError
from harness.registry import Registry

__all__ = ["plugin_site"]

CLAIM = "toypaper.near-wins"
WINS = {"near": spread(0.9), "far": spread(0.8)[::-1]}
LOSES = {"near": spread(0.8), "far": spread(0.9)[::-1]}
OPEN = {"near": spread(0.9), "far": spread(0.9)[::-1]}


@pytest.fixture
def registry(tmp_path):
    return Registry.open(tmp_path / "r")


def fixed(site: PluginSite, registry: Registry, rule: str = RULE, more: str = "", text: str = SUITE):
    """The catalogue with the claim, and its protocol, fixed."""
    catalogue = write_paper(site, rule, more)
    one = protocol(catalogue, text)
    fix([one], registry, "toys")
    return catalogue, one


def verdict(registry, catalogue):
    (one,) = judge_claims(registry, catalogue, [CLAIM], {CLAIM: "toys"})
    return one


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("numbers", "word"), [(WINS, "supported"), (LOSES, "refuted"), (OPEN, "inconclusive")])
def test_a_claim_is_judged_on_the_attempts_of_its_series(plugin_site: PluginSite, registry, numbers, word):
    """Seed by seed, with all that a reader needs to check it."""
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, numbers)
    found = verdict(registry, catalogue)

    assert (found.word, found.n, found.seeds) == (word, 10, 10)
    assert (found.machine, found.device, found.dtype, found.threads, found.torch_version) == (
        MACHINE,
        "cpu",
        "float32",
        1,
        "2.13.0",
    )
    assert len(found.attempts) == len(set(found.attempts)) == 20
    assert (found.protocol, found.suite, found.missing) == (one.digest, "toys", ())
    assert found.decisions[0].estimate == pytest.approx(
        numbers["near"][0] * 0 + sum(numbers["near"]) / 10 - sum(numbers["far"]) / 10
    )
    assert found.cost_ratio == 2.0
    assert (found.value, found.place, found.source) == ("much", "table 1", "https://example.org")


def test_a_claim_that_nothing_ran_for_names_the_command(plugin_site: PluginSite, registry):
    """Before it is fixed, and after."""
    catalogue = write_paper(plugin_site)
    before = verdict(registry, catalogue)
    fix([protocol(catalogue)], registry, "toys")
    after = verdict(registry, catalogue)

    assert (before.word, before.reason) == ("inconclusive", "no run has fixed it yet")
    assert (after.word, after.reason) == ("inconclusive", "nothing has run since it was fixed")
    assert before.command == after.command == "harness run toys"
    assert after.protocol


def test_what_cannot_be_tested_here_names_what_it_would_take(plugin_site: PluginSite, registry):
    catalogue = write_paper(plugin_site, "None", 'missing="a telescope"')
    found = verdict(registry, catalogue)

    assert (found.word, found.missing) == ("not testable here", ("a telescope",))


def test_trials_that_no_machine_here_supports_make_a_claim_not_testable(plugin_site: PluginSite, registry):
    """What they lack is what they said."""
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, {"near": spread(0.9), "far": ["unsupported"] * 10})
    found = verdict(registry, catalogue)

    assert (found.word, found.missing) == ("not testable here", ("it needs a telescope",))


def test_a_cause_without_its_ablation_is_not_supported(plugin_site: PluginSite, registry):
    """That near wins says nothing of why, unless the rule compares with what lacks the cause."""
    catalogue, one = fixed(plugin_site, registry, more='because="breaks"')
    record(registry, one, WINS)
    found = verdict(registry, catalogue)

    assert found.word == "inconclusive"
    assert "does not compare with breaks" in found.reason


# What counts ----------------------------------------------------------------------------------------------------------


def test_an_attempt_from_before_the_fixing_does_not_count(plugin_site: PluginSite, registry):
    """Its number was known when the claim was written."""
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, {"near": WINS["near"], "far": [None] * 10})
    record(registry, one, {"near": [None] * 10, "far": WINS["far"]}, at=datetime.now(UTC) - timedelta(hours=1))
    found = verdict(registry, catalogue)

    assert (found.word, found.command) == ("inconclusive", "harness run toys --force")
    assert found.missing == ("far on signs: seeds 0-9 ran before the claim was fixed",)


def test_a_claim_that_was_edited_after_its_runs_is_judged_on_later_runs_only(plugin_site: PluginSite, registry):
    """A limit that was moved to where the numbers are: the numbers are too old for it."""
    _, one = fixed(plugin_site, registry)
    record(registry, one, LOSES)
    edited = write_paper(plugin_site, 'harness.non_inferior("near", "far", "signs", "accuracy", 0.2)')
    before = verdict(registry, edited)
    again = protocol(edited)
    fix([again], registry, "toys")
    after = verdict(registry, edited)
    record(registry, again, LOSES)

    assert before.word == after.word == "inconclusive"
    assert before.reason.startswith("edited since it was fixed at")
    assert before.command == after.command == "harness run toys --force"
    assert verdict(registry, edited).word == "supported"
    assert verdict(registry, write_paper(plugin_site)).word == "refuted"  # edited back: its own fixing still holds


def test_only_the_series_that_were_fixed_count(plugin_site: PluginSite, registry):
    """The same methods and seeds under another budget are another protocol, with a verdict of its own."""
    catalogue, one = fixed(plugin_site, registry)
    other = protocol(catalogue, SUITE.replace("{steps: 20}", "{steps: 40}"))
    fix([other], registry, "longer")
    record(registry, one, WINS)
    record(registry, other, LOSES)
    found = judge_claims(registry, catalogue, [CLAIM])

    assert [(v.suite, v.word, len(v.attempts)) for v in found] == [("toys", "supported", 20), ("longer", "refuted", 20)]


def test_the_latest_attempt_of_a_seed_counts_and_none_twice(plugin_site: PluginSite, registry):
    """A repaired method runs again; what is annotated as invalid is as if it never was."""
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, LOSES)
    record(registry, one, WINS)
    latest = verdict(registry, catalogue)
    registry.annotate(latest.attempts, "invalid", "a wrong cable", "somebody")
    earlier = verdict(Registry.open(registry.path), catalogue)

    assert (latest.word, earlier.word) == ("supported", "refuted")
    assert latest.reason.endswith("20 of its trials ran again and gave another number, which counts")
    assert len(latest.attempts) == len(earlier.attempts) == 20
    assert not set(latest.attempts) & set(earlier.attempts)


def test_a_failed_attempt_counts_as_the_metrics_worst(plugin_site: PluginSite, registry):
    """Leaving it out would make a method that fails look as good as its lucky seeds."""
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, {"near": ["diverged", "failed", "oom", "timeout", *spread(0.9, 6)], "far": spread(0.8)})
    found = verdict(registry, catalogue)

    assert found.word != "supported"
    assert found.decisions[0].values[0] == pytest.approx(0.0 - spread(0.8)[0])
    assert found.n == 10


BROKEN, DIVERGED = ["failed", "oom", "timeout", *["failed"] * 7], ["diverged"] * 10
NOT_WORSE = 'harness.non_inferior("near", "far", "signs", "accuracy", 0.02)'


@pytest.mark.parametrize(
    ("numbers", "word", "why"),
    [
        ({"near": BROKEN, "far": BROKEN}, "inconclusive", "accuracy of near on signs failed at every seed"),
        ({"near": spread(0.9), "far": BROKEN}, "inconclusive", "accuracy of far on signs failed at every seed"),
        ({"near": BROKEN, "far": spread(0.9)}, "inconclusive", "accuracy of near on signs failed at every seed"),
        ({"near": DIVERGED, "far": DIVERGED}, "inconclusive", "all that is compared failed at seeds 0-9, which is no tie"),
        (
            {"near": spread(0.9), "far": DIVERGED},
            "supported",
            "10 of 10 attempts of far on signs failed (diverged), counted as",
        ),
        ({"near": DIVERGED, "far": spread(0.9)}, "refuted", "10 of 10 attempts of near on signs failed (diverged), counted as"),
        ({"near": spread(0.9), "far": [*["failed"] * 9, 0.9]}, "supported", "9 of 10 attempts of far on signs failed (failed)"),
        ({"near": ["oom", *spread(0.9, 9)], "far": ["failed", *spread(0.8, 9)]}, "inconclusive", "failed at seeds 0, which"),
    ],
)
def test_what_crashed_at_every_seed_or_on_both_sides_decides_nothing(plugin_site: PluginSite, registry, numbers, word, why):
    """Two methods that cannot run here are not equally good. To diverge at every seed is a method's own doing."""
    catalogue, one = fixed(plugin_site, registry, NOT_WORSE)
    record(registry, one, numbers)
    found = verdict(registry, catalogue)

    assert (found.word, why in found.reason) == (word, True), found.reason


def test_every_verdict_names_the_attempts_that_failed(plugin_site: PluginSite, registry):
    """A reader of the table, of the JSON and of the page sees that a win is one over failures."""
    _, one = fixed(plugin_site, registry)
    record(registry, one, {"near": spread(0.9), "far": ["diverged", "oom", *spread(0.5, 8)]})
    shown = harness("claims", CLAIM, "--registry", registry.path)
    (told,) = harness("claims", CLAIM, "--registry", registry.path, "--json").json

    text = "2 of 10 attempts of far on signs failed (1 diverged, 1 oom), counted as the worst"
    assert (told["word"], text in told["reason"], text in shown.out) == ("supported", True, True)


def test_seeds_that_give_no_number_make_no_answer_and_no_second_look(plugin_site: PluginSite, registry):
    """0 / 0 at three seeds: seven pairs are not the ten that were asked for, whatever their power."""
    rule = 'Within(Ratio(Cell("near", "signs", "accuracy"), Cell("far", "signs", "accuracy")), low=0.9)'
    rule = rule.replace("Within", "harness.Within").replace("Ratio", "harness.Ratio").replace("Cell", "harness.Cell")
    catalogue, one = fixed(plugin_site, registry, rule, more="extension=10, effect=5.0")
    record(registry, one, {"near": [0.0] * 3 + spread(0.9, 17), "far": [0.0] * 3 + spread(0.9, 17)[::-1]})
    found = verdict(registry, catalogue)

    assert (found.word, found.n, found.seeds) == ("inconclusive", 7, 10)
    assert found.reason == "seeds 0-2 give no number"


def test_a_failed_attempt_of_a_metric_without_worst_leaves_the_claim_open(plugin_site: PluginSite, registry):
    """No number would be sound, and leaving the seed out neither."""
    text = SUITE.replace("[accuracy]", "[first]")
    catalogue, one = fixed(plugin_site, registry, 'harness.better("near", "far", "signs", "first")', text=text)
    record(registry, one, {"near": ["diverged", *spread(0.9, 9)], "far": spread(0.1)})
    found = verdict(registry, catalogue)

    assert (found.word, found.command) == ("inconclusive", "harness run toys --retry-failed")
    assert found.missing == ("near on signs: seeds 0 diverged, and first declares no worst value to count it as",)


def test_missing_seeds_are_named_and_nothing_is_decided_yet(plugin_site: PluginSite, registry):
    """One look, at the seeds that the claim names."""
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, {"near": WINS["near"], "far": [None, *WINS["far"][1:6], None, None, None, 0.8]})
    found = verdict(registry, catalogue)

    assert (found.word, found.n, found.command) == ("inconclusive", 6, "harness run toys")
    assert found.missing == ("far on signs: seeds 0, 6-8 did not run",)
    assert found.decisions[0].interval_low > 0


def test_machines_and_torch_versions_are_never_pooled(plugin_site: PluginSite, registry):
    """Five seeds here and five there are no ten; each place has a verdict, and names the others."""
    catalogue, one = fixed(plugin_site, registry)
    first = {method: values[:5] for method, values in WINS.items()}
    second = {method: [None] * 5 + values[5:] for method, values in WINS.items()}
    record(registry, one, first)
    record(registry, one, second, machine="m-2")
    record(registry, one, WINS, torch="2.14.0")
    found = judge_claims(registry, catalogue, [CLAIM])

    assert [(v.machine, v.torch_version, v.word, v.n) for v in found] == [
        ("m-1", "2.13.0", "inconclusive", 5), ("m-1", "2.14.0", "supported", 10), ("m-2", "2.13.0", "inconclusive", 5),
    ]  # fmt: skip
    assert found[0].others == ("m-1, torch 2.14.0: supported", "m-2, torch 2.13.0: inconclusive")


def test_seeds_that_ran_under_two_states_of_the_code_are_told(plugin_site: PluginSite, registry):
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, WINS)
    record(registry, one, {"near": [None] * 9 + [WINS["near"][9]], "far": [None] * 10}, code_digest="another")

    assert verdict(registry, catalogue).reason.endswith("its seeds ran under 2 states of the code")


def in_two_parts(registry, one, **second):
    """near now, far later, under what has changed since."""
    record(registry, one, {"near": WINS["near"], "far": [None] * 10})
    record(registry, one, {"near": [None] * 10, "far": WINS["far"]}, **second)


def test_methods_that_ran_on_different_data_are_no_pairs(plugin_site: PluginSite, registry):
    """The file of the task was replaced in between: a difference of data is none of methods."""
    catalogue, one = fixed(plugin_site, registry)
    in_two_parts(registry, one, data_digest="another")
    found = verdict(registry, catalogue)

    assert (found.word, found.command) == ("inconclusive", "harness run toys --force")
    assert found.reason == "its attempts on signs ran on different data, which makes no pairs"


def test_methods_that_ran_at_different_commits_are_told(plugin_site: PluginSite, registry):
    """What they have in common may have changed; their own digests differ anyway."""
    catalogue, one = fixed(plugin_site, registry)
    in_two_parts(registry, one, code_digest="another-plugin")
    alike = verdict(registry, catalogue)
    record(registry, one, {"near": [None] * 10, "far": WINS["far"]}, commit="def")
    apart = verdict(registry, catalogue)

    assert (alike.word, alike.reason) == ("supported", "the interval lies inside the range")
    assert (apart.word, apart.reason) == ("supported", f"{alike.reason}; what it compares ran at different commits")


@pytest.mark.parametrize(
    "change",
    [
        lambda one: {"places": one.places[:1]},
        lambda one: {"seeds": one.seeds[:9], "places": tuple(replace(p, series=p.series[:9]) for p in one.places)},
        lambda one: {"seeds": (0,) * 10, "places": tuple(replace(p, series=p.series[:1] * 10) for p in one.places)},
    ],
)
def test_a_fact_that_lacks_cells_or_seeds_of_its_own_rule_fixes_nothing(plugin_site: PluginSite, registry, change):
    """Whoever wrote it, it was not this program: one seed ten times over is no sample."""
    catalogue = write_paper(plugin_site)
    one = protocol(catalogue)
    fix([replace(one, **change(one))], registry, "toys")
    record(registry, one, WINS)

    assert verdict(registry, catalogue).reason == "no run has fixed it yet"


# Looks and power ------------------------------------------------------------------------------------------------------

LATER = {"near": [None] * 10 + spread(0.906), "far": [None] * 10 + spread(0.9)[::-1]}
SMALL = {"near": spread(0.906), "far": spread(0.9)[::-1]}


def test_an_open_claim_may_be_extended_once_at_half_of_alpha_each(plugin_site: PluginSite, registry):
    """The first look says how; the second has all seeds."""
    catalogue, one = fixed(plugin_site, registry, more="extension=10")
    record(registry, one, SMALL)
    first = verdict(registry, catalogue)
    record(registry, one, LATER)
    second = verdict(registry, catalogue)

    assert (first.word, first.n, first.seeds) == ("inconclusive", 10, 10)
    assert (first.missing, first.command) == ((), "harness run toys --seeds 20")
    assert first.decisions[0].confidence == second.decisions[0].confidence == pytest.approx(0.975)
    assert (second.n, second.seeds, len(second.attempts)) == (20, 20, 40)
    assert second.reason.startswith("open, and it names no effect; 20 seeds find")


def test_an_extension_that_cannot_run_here_leaves_the_first_look_its_word(plugin_site: PluginSite, registry):
    """All ten seeds were there: that later ones lack a telescope does not make the claim untestable."""
    catalogue, one = fixed(plugin_site, registry, more="extension=10")
    record(registry, one, {m: v + ["unsupported"] * 10 for m, v in SMALL.items()})
    found = verdict(registry, catalogue)

    assert (found.word, found.n, found.missing) == ("inconclusive", 10, ())
    assert found.reason.startswith("the first look leaves it open")


def test_a_first_look_that_decides_is_the_last(plugin_site: PluginSite, registry):
    """More seeds change nothing: whoever may look until it fits is right in the end."""
    catalogue, one = fixed(plugin_site, registry, more="extension=10")
    record(registry, one, WINS)
    record(registry, one, {m: [None] * 10 + v for m, v in LOSES.items()})
    found = verdict(registry, catalogue)

    assert (found.word, found.n, len(found.attempts)) == ("supported", 10, 20)


def test_seeds_beyond_those_that_the_claim_names_change_nothing(plugin_site: PluginSite, registry):
    """A suite run with --seeds 20: the ten that were fixed decide."""
    _, one = fixed(plugin_site, registry)
    record(registry, one, OPEN)
    more = protocol(write_paper(plugin_site, more="extension=10"))
    record(registry, more, {m: [None] * 10 + spread(v) for m, v in (("near", 0.99), ("far", 0.1))})
    found = verdict(registry, write_paper(plugin_site))

    assert (found.word, found.n, found.seeds) == ("inconclusive", 10, 10)


def test_inconclusive_is_an_answer_only_with_the_power_for_the_claims_effect(plugin_site: PluginSite, registry, tmp_path):
    """Ten pairs with a spread of 0.02 find 0.05 for sure, and 0.01 hardly ever."""
    catalogue, one = fixed(plugin_site, registry, more="effect=0.05")
    record(registry, one, OPEN)
    answer = verdict(registry, catalogue)
    catalogue, one = fixed(plugin_site, Registry.open(tmp_path / "s"), more="effect=0.01")
    record(Registry.open(tmp_path / "s"), one, OPEN)
    weak = verdict(Registry.open(tmp_path / "s"), catalogue)

    assert answer.power > 0.99
    assert answer.reason.startswith("an answer: an effect of 0.05")
    assert weak.power < 0.5
    assert weak.seeds_needed == 34  # half a standard deviation
    assert "with seeds=34 in its plugin, and run anew, it would have 80 %" in weak.reason
    assert answer.command == weak.command == ""  # no run of this claim settles it


def test_a_claim_without_an_effect_says_what_its_seeds_can_find(plugin_site: PluginSite, registry):
    catalogue, one = fixed(plugin_site, registry)
    record(registry, one, SMALL)
    found = verdict(registry, catalogue)

    assert found.power is None
    assert found.reason.startswith("open, and it names no effect; 10 seeds find 0.02 with 80 %")
    assert found.seeds_needed > 10


@pytest.mark.parametrize(
    ("rule", "fewest"),
    [
        ('harness.Every(harness.Cell("near", "signs", "accuracy"), low=0.5, at_least=8)', 8),
        (RULE, 10),
    ],
)
def test_a_claim_of_too_few_seeds_names_the_fewest_of_its_own_rule(plugin_site: PluginSite, registry, rule, fewest):
    """Single values need as many as their rule says, not the ten of an interval."""
    declared = PAPER.replace("RULE", rule).replace("seeds=10", "seeds=5").replace("MORE", "")
    plugin_site.write_toy(METHODS, ("near", "far", "breaks"), declared=declared)
    catalogue = plugin_site.catalogue()
    one = protocol(catalogue)
    fix([one], registry, "toys")
    record(registry, one, {"near": spread(0.9, 5), "far": spread(0.8, 5)})
    found = verdict(registry, catalogue)

    assert (found.word, found.command) == ("inconclusive", "")
    assert found.reason == f"it names 5 seeds; {fewest} are the fewest for its rule"


# The command ----------------------------------------------------------------------------------------------------------


def test_the_ledger_of_a_real_run(plugin_site: PluginSite, tmp_path):
    """From a suite file to a verdict: `harness run` fixes, runs and records, `harness claims` judges, in words and in JSON."""
    write_paper(plugin_site)
    suite, registry = write_suite(tmp_path), tmp_path / "r"
    only = ("-m", "near", "-m", "far")
    changed = ("--set", "limits.timeout=1m")
    ran = harness_process("run", suite, "--registry", registry, *only, *changed, cwd=tmp_path, **plugin_site.environment)
    table = harness("claims", "toypaper", "--registry", registry)
    full = harness("claims", CLAIM, "--registry", registry)
    (told,) = harness("claims", CLAIM, "--registry", registry, "--json").json

    assert ran.code == 0, ran.err
    assert "✓ supported" in table.out
    assert "1 supported" in table.out
    said = ("near is more accurate than far", "much (table 1)", "https://example.org", "accuracy of near - far on signs")
    assert [text for text in said if text not in full.out] == []
    assert (told["word"], told["n"], told["decisions"][0]["high"]) == ("supported", 10, None)
    assert told["cost_ratio"] > 0
    assert told["command"] == shlex.join(["harness", "run", str(suite), *changed])


def test_the_command_of_a_claim_is_words_to_a_shell_whoever_fixed_it(plugin_site: PluginSite, registry):
    """A stranger's records name the suite: `$(...)` in it must not run when the command is pasted."""
    catalogue = write_paper(plugin_site)
    fix([protocol(catalogue)], registry, "toys; $(touch pwned)")
    (found,) = judge_claims(registry, catalogue, [CLAIM])

    assert found.command == "harness run 'toys; $(touch pwned)'"


def test_a_claim_with_several_verdicts_says_where_each_comes_from(plugin_site: PluginSite, registry):
    """A row each: suite, machine, device, torch and when it was fixed tell them apart."""
    _, one = fixed(plugin_site, registry)
    record(registry, one, WINS)
    record(registry, one, LOSES, machine="m-2")
    shown = harness("claims", "toypaper", "--registry", registry.path)

    assert "1 supported, 1 refuted" in shown.out
    assert [text for text in ("toys, m-1, cpu, torch 2.13.0", "toys, m-2, cpu, torch 2.13.0") if text not in shown.out] == []
    assert shown.out.count("  fixed 20") == 2


def test_the_whole_ledger_tells_in_one_line_what_has_not_run(tmp_path):
    """Dozens of reasons that say the same would hide those that say something."""
    shown = harness("claims", "--registry", tmp_path / "none")
    (line,) = [line for line in shown.out.splitlines() if "have not run" in line]

    assert "`harness run crrelu`" in line
    assert "`harness claims PAPER` says what it would take" in shown.out


def test_the_gate_closes_on_a_refuted_claim_and_only_then(plugin_site: PluginSite, tmp_path, registry):
    """Exit 3: a nightly job then fails."""
    _, one = fixed(plugin_site, registry)
    open_ = harness("claims", "--check", CLAIM, "--registry", registry.path)
    record(registry, one, LOSES)
    refuted = harness("claims", "--check", CLAIM, "--registry", registry.path)
    shown = harness("claims", CLAIM, "--registry", registry.path)

    assert (open_.code, refuted.code, shown.code) == (0, 3, 0)
    assert "✗ refuted" in refuted.out


def test_an_unknown_name_is_refused_with_the_nearest(plugin_site: PluginSite, registry):
    catalogue = write_paper(plugin_site)

    with pytest.raises(HarnessError, match=r"no paper and no claim 'toypapers'; did you mean 'toypaper'\?"):
        judge_claims(registry, catalogue, ["toypapers"])


def test_without_a_registry_every_claim_is_listed_with_what_would_run_it(tmp_path):
    """Whoever has just installed it sees what there is to test."""
    found = harness("claims", "crrelu", "--registry", tmp_path / "none")

    assert found.code == 0
    assert "crrelu.beats-relu: no run has fixed it yet; `harness run crrelu`" in found.out
    assert "ImageNet-1K" in found.out


def test_a_list_of_seeds_is_short():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
