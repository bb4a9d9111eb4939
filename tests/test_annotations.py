"""Annotations: what people say of attempts afterwards is kept for ever, honoured everywhere, and lifted by saying so."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from failing_disk import Stop, each_failure
from hypothesis import given, settings
from hypothesis import strategies as st
from invoking import Ended, harness, query
from registry_samples import MACHINE, WHERE, flip_a_bit, make_attempt, make_trial

from harness.errors import RegistryError
from harness.registry import Registry
from harness.registry.annotations import Annotation, Kind, as_text, decode, encode, in_force, publish_annotation
from harness.registry.files import Layout, content_name, publish
from harness.registry.reading import Reader

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "registry")


def id_of(number: int) -> str:
    return f"{number:032x}"


def said(registry: Registry) -> dict[str, str]:
    """What is in force, as a fresh reader sees it: attempt -> kind."""
    rows = Registry.open(registry.path, create=False).annotations().to_pylist()
    return {row["attempt_id"]: row["annotation"] for row in rows}


def act(kind: Kind, *attempts: str, minutes: float = 0.0, reason: str = "why") -> Annotation:
    return Annotation(tuple(attempts), kind, reason, "somebody", as_text(NOON + timedelta(minutes=minutes)))


# What is in force -------------------------------------------------------------------------------------------------------


def test_the_newest_act_on_each_attempt_is_in_force_and_withdrawing_lifts_it():
    """One act may name many attempts, and a later one some of them."""
    made = [
        ("a", act("invalid", "1", "2", "3")),
        ("b", act("withdrawn", "2", minutes=1)),
        ("c", act("expected", "3", minutes=2)),
        ("d", act("invalid", "2", minutes=3, reason="again")),
        ("e", act("withdrawn", "4")),
    ]

    holding = {one.attempt_id: (one.annotation, one.annotation_reason) for one in in_force(made)}

    assert holding == {"1": ("invalid", "why"), "2": ("invalid", "again"), "3": ("expected", "why")}


KINDS = st.sampled_from(["invalid", "expected", "withdrawn"])
ACTS = st.lists(
    st.builds(act, KINDS, st.sampled_from("123"), minutes=st.sampled_from([0, 0, 1, 2]), reason=st.text(max_size=3)),
    max_size=6,
    unique=True,
)


@given(ACTS, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_what_is_in_force_depends_on_the_acts_and_not_on_the_order_in_which_files_are_met(acts, random):
    """Two registries that merged each other's acts must say the same, also of acts of one and the same moment."""
    named = [(content_name(encode(one)), one) for one in acts]
    shuffled = random.sample(named, len(named))

    assert in_force(named) == in_force(shuffled)
    # Against the plain reading of the rule, one attempt at a time.
    for attempt in "123":
        on_it = [(one.made_at, name, one.kind) for name, one in named if attempt in one.attempts]
        expected = max(on_it)[2] if on_it else "withdrawn"
        held = {one.attempt_id: one.annotation for one in in_force(named)}
        assert held.get(attempt, "withdrawn") == expected


@given(st.builds(Annotation, st.tuples(st.text(), st.text()), KINDS, st.text(), st.text(), st.just(as_text(NOON))))
@settings(max_examples=100, deadline=None)
def test_an_annotation_comes_back_as_it_was(made):
    """A reason is any text, in any script."""
    assert decode(encode(made)) == made


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "deleted"}, {"attempts": "0193"}, {"attempts": [1]}, {"reason": None}, {"made_at": "yesterday"},
        {"made_at": "2026-03-01T12:00:00"}, {"made_at": 5}, {"author": 7},
    ],
)  # fmt: skip
def test_what_is_no_annotation_is_left_out_and_named(registry, change):
    """A file with the right digest for a name and nonsense in it stops no reader."""
    content = json.dumps({**json.loads(encode(act("invalid", id_of(1)))), **change}).encode()
    name = content_name(content, ".json")
    publish(registry._layout, content, registry.path / "annotations" / name)
    registry.annotate([id_of(2)], "expected", "known", "somebody")

    reader = Reader(registry._layout)

    assert reader.annotations()["attempt_id"].to_pylist() == [id_of(2)]
    (warning,) = reader.warnings
    assert name in warning
    assert "none of annotations" in warning


def test_times_of_any_zone_are_compared_as_times():
    """A hand-made file, or another program's, may write its own zone: text alone would order it wrongly."""
    late = act("withdrawn", "1", minutes=30)
    early = decode(json.dumps({**json.loads(encode(act("invalid", "1"))), "made_at": "2026-03-01T17:00:00+05:00"}).encode())

    assert early.made_at == as_text(NOON)
    assert in_force([("b", early), ("a", late)]) == []


# Kept for ever ----------------------------------------------------------------------------------------------------------


def test_each_act_is_a_file_of_its_own_that_is_never_changed(registry):
    """Who said what, and when, stays known after it was withdrawn."""
    registry.annotate([id_of(1)], "invalid", "throttled", "ada")
    first = {f.name: f.read_bytes() for f in (registry.path / "annotations").iterdir()}
    registry.annotate([id_of(1)], "withdrawn", "it was not", "bob")

    after = {f.name: f.read_bytes() for f in (registry.path / "annotations").iterdir()}
    assert first.items() < after.items()
    assert said(registry) == {}
    acts = [made for _, made in Reader(registry._layout).acts()]
    assert {(made.kind, made.author, made.reason) for made in acts} == {
        ("invalid", "ada", "throttled"), ("withdrawn", "bob", "it was not"),
    }  # fmt: skip


def test_an_act_is_newer_than_what_it_answers_whatever_the_clock_says(registry):
    """A clock that was set back must not leave a withdrawn annotation in force."""
    future = as_text(datetime.now(UTC) + timedelta(days=400))
    ahead = Annotation((id_of(1), id_of(2)), "invalid", "why", "somebody", future)
    content = encode(ahead)
    publish(registry._layout, content, registry.path / "annotations" / content_name(content, ".json"))

    registry.annotate([id_of(1)], "withdrawn", "why", "somebody")
    unrelated = registry.annotate([id_of(3)], "expected", "why", "somebody")

    assert said(registry) == {id_of(2): "invalid", id_of(3): "expected"}
    assert unrelated.made_at < future


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Stop()], ids=["full", "killed"])
def test_an_annotation_is_whole_or_not_there_and_the_repeat_makes_it(tmp_path, error):
    """An acknowledged annotation is on the disk; one that failed left nothing that a reader could meet."""

    def prepare(number: int) -> Registry:
        registry = Registry.open(tmp_path / str(number))
        registry.annotate([id_of(7)], "expected", "known", "somebody")
        return Registry(registry.path)

    points = 0
    for registry in each_failure(error, prepare, lambda r: r.annotate([id_of(1)], "invalid", "why", "somebody")):
        points += 1
        assert said(registry) in ({id_of(7): "expected"}, {id_of(7): "expected", id_of(1): "invalid"})
        registry.annotate([id_of(1)], "invalid", "why", "somebody")
        assert said(Registry(registry.path)) == {id_of(7): "expected", id_of(1): "invalid"}
    assert points > 5  # listed, read, created, written, flushed, closed, linked, its folder flushed


def test_a_refusing_disk_is_named(registry, monkeypatch):
    """The user must not believe that it was said."""
    from harness.registry import io

    monkeypatch.setattr(io, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, os.strerror(28))))

    with pytest.raises(RegistryError, match="cannot keep an annotation: No space left on device; free some space"):
        registry.annotate([id_of(1)], "invalid", "why", "somebody")


def test_a_damaged_annotation_is_put_aside_and_named(registry):
    """What was invalid is ranked again then: nobody may have to find that out alone."""
    registry.annotate([id_of(1)], "invalid", "why", "somebody")
    (file,) = (registry.path / "annotations").iterdir()
    flip_a_bit(file, at=20)

    reader = Registry.open(registry.path, create=False)

    assert reader.annotations().num_rows == 0
    assert any("what it says of attempts no longer holds" in text and file.name in text for text in reader.warnings)
    assert not file.exists()


def test_a_registry_from_before_there_were_annotations_reads_and_takes_them(registry):
    """Registries are older than programs."""
    shutil.rmtree(registry.path / "annotations")
    old = Registry.open(registry.path, create=False)

    assert old.annotations().num_rows == 0
    old.annotate([id_of(1)], "expected", "known", "somebody")
    assert said(registry) == {id_of(1): "expected"}


def test_two_that_annotate_at_once_are_both_kept(registry):
    """Names are digests: there is nothing to overwrite."""
    before = [made for _, made in registry._reader.acts()]
    for author in ("ada", "bob"):
        publish_annotation(Layout(registry.path), before, [id_of(1)], "invalid", "why", author)

    assert len(Reader(registry._layout).acts()) == 2
    assert said(registry) == {id_of(1): "invalid"}


# Honoured ---------------------------------------------------------------------------------------------------------------


def test_a_trial_whose_attempt_is_invalid_runs_anew(registry):
    """The state of a trial is what its other attempts say; with none left it was never run."""
    registry.append(make_attempt(1, make_trial(seed=1)))
    registry.append(make_attempt(2, make_trial(seed=2)))
    registry.append(make_attempt(3, make_trial(seed=2), status="failed"))
    registry.annotate([id_of(1), id_of(3)], "invalid", "throttled", "somebody")

    states = Registry.open(registry.path, create=False).states(MACHINE)

    assert {trial: state.attempt_id for trial, state in states.items()} == {make_trial(seed=2).trial_id: id_of(2)}
    assert states[make_trial(seed=2).trial_id].status == "ok"


def test_the_seconds_of_an_invalid_attempt_predict_nothing(registry):
    """A throttled machine is the usual reason, and then it is the time that is wrong."""
    from harness.records import Resources

    for number, seconds in ((1, 2.0), (2, 100.0)):
        registry.append(make_attempt(number, make_trial(seed=1), resources=Resources(wall_s=seconds)))
    registry.annotate([id_of(2)], "invalid", "throttled", "somebody")

    assert registry.wall_times(MACHINE) == {make_trial(seed=1).series_key: 2.0}


def test_an_expected_failure_changes_no_state(registry):
    """It is a word for gates and people; the failure is a result like any other."""
    registry.append(make_attempt(1, status="failed"))
    before = registry.states(MACHINE)
    registry.annotate([id_of(1)], "expected", "known", "somebody")

    assert registry.states(MACHINE) == before


def test_rows_for_people_show_what_is_said_of_them(registry):
    """`harness show` must not show a number without the word that takes it back."""
    for number in (1, 2):
        registry.append(make_attempt(number))
    registry.annotate([id_of(1)], "invalid", "throttled", "somebody")

    shown = {row["attempt_id"]: (row["annotation"], row["annotation_reason"]) for row in registry.attempts(suite="vision")}

    assert shown == {id_of(1): ("invalid", "throttled"), id_of(2): (None, None)}
    (found,) = registry.find(id_of(1))
    assert found["annotation_reason"] == "throttled"


def test_an_annotation_outlives_folding_and_merging(registry, tmp_path):
    """It names the attempt, not the file in which its row happens to be."""
    for number in range(3):
        registry.append(make_attempt(number, make_trial(seed=number)))
    registry.annotate([id_of(1)], "invalid", "throttled", "somebody")
    registry.fold("inv-1")
    other = Registry.open(tmp_path / "other")
    other.append(make_attempt(1, make_trial(seed=1)))

    other.merge(registry.path)

    for one in (registry, other):
        assert said(one) == {id_of(1): "invalid"}
        assert make_trial(seed=1).trial_id not in one.states(MACHINE)


# The command ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """Attempts 10 to 13: two of one trial, one that failed, one of another machine. Their ids begin in the same way."""
    registry.append(make_attempt(0x10, make_trial(seed=1)))
    registry.append(make_attempt(0x11, make_trial(seed=1)))
    registry.append(make_attempt(0x12, make_trial(seed=2), status="oom"))
    registry.append(make_attempt(0x13, make_trial(seed=3), where=replace(WHERE, machine="m-2")))
    return registry


def annotate(registry: Registry, *arguments: str) -> Ended:
    return harness("annotate", *arguments, "--registry", registry.path)


def test_the_command_says_what_it_annotated_and_how_to_lift_it(filled):
    """And the line that it prints works."""
    ended = annotate(filled, id_of(0x12), "--invalid", "the disk was full")

    assert ended.code == 0, ended.err
    assert "relu on digits seed 2: oom" in ended.out
    assert said(filled) == {id_of(0x12): "invalid"}
    (command,) = re.findall(r"to lift it: harness (.*) REASON", ended.err)
    assert harness(*command.split(), "it was not", "--registry", filled.path).code == 0
    assert said(filled) == {}


def test_a_trial_means_all_of_its_attempts(filled):
    """What is wrong with a trial is often wrong with each of its attempts."""
    ended = annotate(filled, make_trial(seed=1).trial_id[:12], "--expected", "known", "--json")

    assert ended.json == {"attempts": [id_of(0x10), id_of(0x11)], "kind": "expected", "reason": "known", "written": True}
    assert said(filled) == {id_of(0x10): "expected", id_of(0x11): "expected"}


def test_unknown_and_ambiguous_beginnings_are_all_named_at_once_and_nothing_is_written(filled):
    """Half of what was asked is worse than nothing: which half?"""
    ended = annotate(filled, id_of(0x12), id_of(0x10)[:31], "zzz", "--invalid", "why")

    assert ended.code == 2
    assert f"'{id_of(0x10)[:31]}' begins 4 ids" in ended.err
    assert "no attempt or trial 'zzz'" in ended.err
    assert said(filled) == {}


def test_a_whole_id_is_never_ambiguous(registry):
    """A forged or foreign id may begin with another one."""
    for attempt_id in ("aa", "aab"):
        registry.append(replace(make_attempt(1, make_trial(seed=len(attempt_id))), attempt_id=attempt_id))

    assert annotate(registry, "aa", "--invalid", "why").code == 0
    assert said(registry) == {"aa": "invalid"}


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--where", "status = 'oom'"], {0x12}),
        (["--where", "machine = 'm-2' OR seed = 1"], {0x10, 0x11, 0x13}),
        (["--where", "seed = 1 -- all of them"], {0x10, 0x11}),
        ([make_trial(seed=1).trial_id, "--where", f"attempt_id > '{id_of(0x10)}'"], {0x11}),
        (["--where", "attempt_id IN (SELECT attempt_id FROM measurements WHERE value = 0.5)"], {0x10, 0x11, 0x13}),
        (["--where", "false) UNION (SELECT 'never seen'"], set()),
    ],
)
def test_a_condition_chooses_among_all_attempts_or_among_those_named(filled, arguments, chosen):
    """Any condition on the view; and a text that is more than a condition names no attempt that is not there."""
    ended = annotate(filled, *arguments, "--invalid", "why")

    assert set(said(filled)) == {id_of(number) for number in chosen}
    assert (ended.code == 0) == bool(chosen)


def test_a_condition_can_only_read(filled, tmp_path):
    """It is SQL from the command line of a job: it gets the same walls as `harness query`."""
    for condition in (f"attempt_id IN (SELECT * FROM read_csv('{tmp_path}/x'))", "true); DROP VIEW attempts; --"):
        ended = annotate(filled, "--where", condition, "--invalid", "why")
        assert ended.code == 2
        assert ended.err.startswith("query: ")
    assert said(filled) == {}


def test_nothing_selected_is_an_exit_code_of_its_own(filled):
    """A nightly job that annotates by condition tells `none today` from a mistake."""
    assert annotate(filled, "--where", "status = 'diverged'", "--expected", "why").code == 4
    assert annotate(filled, id_of(0x10), "--withdraw", "nothing was said of it").code == 4


def test_withdrawing_names_only_attempts_of_which_something_was_said(filled):
    """`--withdraw` of a whole trial lifts what is there, and adds no act about the others."""
    annotate(filled, id_of(0x10), "--invalid", "why")

    ended = annotate(filled, make_trial(seed=1).trial_id, "--withdraw", "it was right", "--json")

    assert ended.json["attempts"] == [id_of(0x10)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([id_of(0x10)], "write exactly one of"),
        ([id_of(0x10), "--invalid", "a", "--expected", "b"], "write exactly one of"),
        ([id_of(0x10), "--invalid", "  "], "the reason has 0 characters"),
        ([id_of(0x10), "--invalid", "x" * 2001], "the reason has 2001 characters; write 1 to 2000"),
        (["--invalid", "why"], "name attempts"),
    ],
)
def test_mistakes_are_told_with_the_mend(filled, arguments, words):
    """Nothing is written then."""
    ended = annotate(filled, *arguments)

    assert ended.code == 2
    assert words in ended.err
    assert said(filled) == {}


def test_a_dry_run_lists_and_writes_nothing(filled):
    """Before a condition takes a thousand attempts out of the rankings."""
    before = sorted(str(p) for p in filled.path.rglob("*") if p.parent.name != "index")

    ended = annotate(filled, "--where", "true", "--invalid", "why", "--dry-run")

    assert ended.code == 0, ended.err
    assert "4 attempts would be invalid: why" in ended.out
    assert sorted(str(p) for p in filled.path.rglob("*") if p.parent.name != "index") == before


def test_annotating_where_there_is_no_registry_makes_none(tmp_path):
    """A mistyped --registry."""
    ended = harness("annotate", "0193", "--invalid", "why", "--registry", tmp_path / "nowhere")

    assert ended.code == 2
    assert not (tmp_path / "nowhere").exists()


def test_the_author_is_who_git_says_or_who_was_named(filled, monkeypatch, tmp_path):
    """An annotation without a name cannot be asked about."""
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\tname = Ada L\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.chdir(tmp_path)

    annotate(filled, id_of(0x10), "--invalid", "why")
    annotate(filled, id_of(0x12), "--invalid", "why", "--author", "Bob")

    authors: dict[str, Any] = {row["attempt_id"]: row["annotated_by"] for row in filled.annotations().to_pylist()}
    assert authors == {id_of(0x10): "Ada L", id_of(0x12): "Bob"}


def test_hostile_text_in_a_reason_stays_text(filled):
    """It is shown on terminals and pages."""
    reason = "<script>alert(1)</script> \x1b[2J [bold]x"
    assert annotate(filled, id_of(0x10), "--invalid", reason).code == 0

    assert filled.annotations()["annotation_reason"].to_pylist() == [reason]
    shown = annotate(filled, id_of(0x10), "--invalid", reason)
    assert "\x1b" not in shown.out


def test_the_views_show_the_annotation(filled):
    """`harness query` sees what is said; the rankings leave out what is invalid."""
    annotate(filled, id_of(0x11), "--invalid", "throttled")

    rows = query(filled.path, "SELECT attempt_id, annotation, annotation_reason FROM attempts WHERE annotation IS NOT NULL")
    latest = query(filled.path, "SELECT attempt_id FROM v_latest WHERE seed = 1")

    assert rows == [{"attempt_id": id_of(0x11), "annotation": "invalid", "annotation_reason": "throttled"}]
    assert [row["attempt_id"] for row in latest] == [id_of(0x10)]
