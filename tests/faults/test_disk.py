"""The campaigns against the registry's disk: clean on this code, and not clean on code that is made worse on purpose."""

from __future__ import annotations

import contextlib
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.faults`

from harness.registry import Registry, files, io  # noqa: E402
from harness.registry.collecting import Garbage  # noqa: E402
from harness.registry.reading import Reader  # noqa: E402
from tests.faults import bit_rot, crash_states, failing_calls, scenario, writers  # noqa: E402
from tests.faults.simulated_disk import CUTS, Cut, Recorder, intercepted, replay  # noqa: E402
from tests.faults.tally import Tally  # noqa: E402


def assert_clean(tallies: list[Tally], tried: int) -> None:
    """Nothing lost, nothing wrong, nothing left, and it was tried as often as was asked for."""
    assert [t for t in tallies if not t.clean] == []
    assert sum(t.tried for t in tallies if not t.skipped) >= tried


def collected_by(act: Callable[[], None]) -> list[Garbage]:
    """What `Registry.collect` deleted meanwhile."""
    found: list[Garbage] = []
    real = Registry.collect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "collect", lambda self, grace_s: found.extend(real(self, grace_s)))
        act()
    return found


# The campaigns -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path, times):
    """What was not flushed may be gone, torn or reordered: the next command reads all the rest, and writes on."""
    assert_clean(crash_states.campaign(tmp_path, times, seed=1), times)


def test_the_script_collects_garbage_of_every_kind_that_a_run_leaves(tmp_path):
    """A campaign over a `gc` that finds nothing to delete would show nothing."""
    bench = scenario.prepare(tmp_path)
    for scene in scenario.SCENES[:-1]:
        scene(bench)
    with_litter = {one.kind: one for one in collected_by(lambda: scenario.a_gc(bench))}

    assert with_litter.keys() >= {"replaced", "manifest", "blob", "facts"}
    assert scenario.judge(Registry.open(bench.path, create=False), bench.ledger) == scenario.Verdict()


@pytest.mark.parametrize("times", [40, pytest.param(1_000, marks=pytest.mark.slow)])
def test_whichever_call_fails_the_records_stay_the_error_can_be_mended_and_the_command_repeated(tmp_path, times):
    """A full disk, an error, a lost reply, a death, at every n-th call; and a small file system that is really full."""
    assert_clean(failing_calls.campaign(tmp_path, times, seed=1), times)


@pytest.mark.parametrize("times", [150, pytest.param(2_000, marks=pytest.mark.slow)])
def test_every_flipped_bit_and_cut_file_is_found_and_none_is_read(tmp_path, times):
    """Most flips in JSON and some in Parquet read back as other values without an error: only the name can tell."""
    tallies = bit_rot.campaign(tmp_path, times, seed=1)

    assert_clean(tallies, 2 * times)
    spread = tallies[0].notes[0]
    assert all(kind in spread for kind in ("loose", "folded", "compacted", "manifests", "facts", "blobs", "annotations"))


@pytest.mark.parametrize("times", [3, pytest.param(64, marks=pytest.mark.slow)])
def test_many_writers_and_some_killed_and_all_that_they_acknowledged_is_there_once(tmp_path, times):
    """No lock to wait for, none to be left behind by the dead; readers meanwhile miss and double nothing."""
    (tally,) = writers.campaign(tmp_path / "yard", times, seed=1)

    assert_clean([tally], times)
    assert not tally.notes[0].startswith("0 killed")
    assert not tally.notes[1].startswith("0 whole reads")


# They can fail -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["fsync", "fsync_dir"])
def test_a_registry_that_does_not_flush_is_found_out(tmp_path, operation):
    """A campaign that is always clean shows nothing."""

    def forget(name: str, real: Any) -> Any:
        return (lambda *_: None) if name == operation else real

    assert not crash_states.cut_power("", tmp_path, 12, 1, forget).clean


def test_a_registry_that_swallows_an_error_is_found_out(tmp_path, monkeypatch):
    """An append that returns although its file got no name has acknowledged what is not there."""
    real = files.give_name

    def careless(tmp: Path, final: Path) -> None:
        with contextlib.suppress(OSError):
            real(tmp, final)

    stage = failing_calls.play(tmp_path / "stages")[0]
    links = [n for n, name in enumerate(failing_calls.calls_of(stage, tmp_path / "count"), 1) if name == "link"]
    points = [(stage, number) for number in links[-8:]]
    monkeypatch.setattr(files, "give_name", careless)

    assert failing_calls.fail_at("", failing_calls.Broken, points, len(points), tmp_path / "live").lost > 0


def test_a_reader_that_believes_any_content_is_found_out(tmp_path, monkeypatch):
    """Without the check of the name, damage is read as rows."""
    healthy, dice, found = bit_rot.build(tmp_path / "healthy"), random.Random(1), bit_rot.Found()
    monkeypatch.setattr(Reader, "has_its_name", lambda self, entry: True)

    bit_rot.check_fresh(healthy, bit_rot.draw(healthy, dice, 60), dice, tmp_path / "fresh", found)

    assert found.wrong != []


def test_an_acknowledged_attempt_that_is_missing_or_doubled_or_changed_is_counted(tmp_path):
    """The judge of the writers knows what they acknowledged, not what the registry says."""
    yard = writers.Yard(tmp_path)
    registry = Registry.open(yard.registry)
    for number in (0, 1, 3):
        registry.append(writers.sample(0, number)[0])
    yard.acknowledgements(0).write_text("".join(f"{number:032x}\n" for number in (0, 1, 2)) + "torn")

    found = writers.judge_writers(yard, 1, killed=[0])

    assert {text.split()[1] for text in found.lost} == {f"{2:032x}"}
    assert found.wrong == []  # the attempt after the last acknowledged one may be there
    registry.append(writers.sample(0, 5)[0])
    assert any(f"{5:032x} is" in text for text in writers.judge_writers(yard, 1, killed=[0]).wrong)


# The simulated disk --------------------------------------------------------------------------------------------------------

NOTHING, EVERYTHING = Cut(0.0, ("dropped",), random.Random(0)), Cut(1.0, ("whole",), random.Random(0))
WRITTEN = [("create", ("x", 3)), ("write", (3, b"abcd"))]


@pytest.mark.parametrize(
    ("calls", "left"),
    [
        (WRITTEN, {}),
        ([*WRITTEN, ("fsync", (3,))], {}),
        ([*WRITTEN, ("fsync_dir", ("",))], {"x": b""}),
        ([*WRITTEN, ("fsync", (3,)), ("fsync_dir", ("",))], {"x": b"abcd"}),
        ([*WRITTEN, ("fsync", (3,)), ("fsync_dir", ("",)), ("unlink", ("x",))], {"x": b"abcd"}),
        ([*WRITTEN, ("fsync", (3,)), ("fsync_dir", ("",)), ("rename", ("x", "y"))], {"x": b"abcd"}),
        ([*WRITTEN, ("fsync", (3,)), ("link", ("x", "y")), ("fsync_dir", ("",))], {"x": b"abcd", "y": b"abcd"}),
        ([("mkdir", ("d",)), ("create", ("d/x", 3)), ("fsync_dir", ("d",))], {}),
        ([("mkdir", ("d",)), ("fsync_dir", ("",)), ("create", ("d/x", 3)), ("fsync_dir", ("d",))], {"d": None, "d/x": b""}),
    ],
)
def test_the_simulated_disk_keeps_what_was_flushed_and_nothing_else(calls, left):
    """A name needs its folder flushed, content its file, and a file in a new folder needs both folders."""
    assert replay(calls).found(NOTHING) == left


def test_the_simulated_disk_draws_every_mixture_of_what_was_not_flushed():
    """Names in any subset, data dropped, halved, zeroed or whole: a bug that one mixture shows must not hide behind another."""
    calls = [*WRITTEN, ("link", ("x", "y")), ("unlink", ("x",))]
    dice = random.Random(0)

    drawn = {tuple(sorted(replay(calls).found(Cut(*cut, dice)).items())) for cut in CUTS.values() for _ in range(50)}

    contents = (b"", b"ab", b"abcd", b"\0\0\0\0")
    assert {(), *((("x", c),) for c in contents), *((("y", c),) for c in contents)} <= drawn
    assert any(len(names) == 2 for names in drawn)


@pytest.mark.parametrize(
    ("operations", "named"),
    [((*io.OPERATIONS, "truncate"), "truncate"), (tuple(n for n in io.OPERATIONS if n != "link"), "link")],
    ids=["listed and unknown", "called and not listed"],
)
def test_an_operation_that_the_campaigns_do_not_know_stops_them(monkeypatch, operations, named):
    """Else a new way to write would neither fail nor be replayed, and the page would say that all is well."""
    monkeypatch.setattr(io, "OPERATIONS", operations)

    with pytest.raises(AssertionError, match=rf"\['{named}'\]: add it to io.OPERATIONS and to READING or WRITING"):
        intercepted(lambda name, real: real).__enter__()


def test_a_write_past_the_module_of_all_disk_calls_stops_them(tmp_path):
    """The model of the disk must be the disk."""
    recorder = Recorder(tmp_path)
    with intercepted(recorder.wrap):
        io.close(io.create(tmp_path / "seen"))
    recorder.check()
    (tmp_path / "unseen").write_text("x")

    with pytest.raises(AssertionError, match=r"\['unseen'\]: on the disk otherwise than harness.registry.io wrote it"):
        recorder.check()
    with intercepted(recorder.wrap), pytest.raises(AssertionError, match=r"unseen: was written past harness.registry.io"):
        io.rename(tmp_path / "unseen", tmp_path / "elsewhere")


def test_nothing_remains_of_an_interception():
    """The next test needs the real disk."""
    before = {name: getattr(io, name) for name in io.OPERATIONS}
    with contextlib.suppress(ZeroDivisionError), intercepted(lambda name, real: lambda *_: None):
        assert io.read is not before["read"]
        raise ZeroDivisionError

    assert {name: getattr(io, name) for name in io.OPERATIONS} == before


def test_all_disk_calls_of_the_registry_are_operations():
    """No module of the registry opens, renames or deletes by itself: such a call could not be failed or replayed."""
    modules = [path for path in (ROOT / "harness" / "registry").glob("*.py") if path.name != "io.py"]

    found = [f"{path.name}: {call}" for path in modules for call in PAST_IO.findall(path.read_text())]

    assert len(modules) > 10
    assert found == []


PAST_IO = re.compile(
    r"\.write_bytes\(|\.write_text\(|(?<!io)\.touch\(|shutil\.|tempfile|(?<![\w.])open\((?!self|path: Path)|\.open\(['\"]"
    r"|os\.(?:open|link|rename|replace|unlink|remove|mkdir|makedirs|fsync|truncate|fdopen)\("
)
