"""The fork server seen by its caller: order, limits on how many, interruption, death, errands; and its small parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from helpers import PluginSite, marked_processes, open_plugin_site, plugin_site, trial  # noqa: F401  (plugin_site is a fixture)

from harness.executors import ForkServer, Job, SubprocessExecutor, WorkerOptions
from harness.executors.output import CappedOutput
from harness.executors.wire import Frames, pack
from harness.worker import run_trial
from harness.worker.environment import worker_environment
from harness.worker.processes import children, descendants, has_children, kill_children, parents

MARK = "HARNESS_TEST_MARK"
METHODS = """
import os, signal, subprocess, time

def naps(problem, ctx, params):
    begin = time.monotonic()
    time.sleep(0.3)
    ctx.log(begin=begin, end=time.monotonic(), cwd=os.getcwd(), pid=os.getpid(), cuda=os.environ["CUDA_VISIBLE_DEVICES"],
            threads=torch.get_num_threads(), started_cuda=str(torch.cuda.is_initialized()))
    ctx.save("note", b"kept", "text/plain")
    return Threshold(0.0)

def sleeps(problem, ctx, params):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    time.sleep(1000)

def slow(problem, ctx, params):
    time.sleep(1.0)
    return Threshold(0.0)

def kills_the_server(problem, ctx, params):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)

def cost(shape, params):
    if params.scale == 99:
        os._exit(9)
    return {"params": shape["inputs"] + int(params.scale), "flops": 2.0}
"""
NAMES = ("naps", "sleeps", "slow", "kills_the_server")


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """A value that everything started in this module carries in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        value = uuid.uuid4().hex
        patch.setenv(MARK, value)
        yield value


@pytest.fixture(scope="module")
def site(mark: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginSite]:
    """The toy track with methods that look around, sleep and kill."""
    with open_plugin_site(tmp_path_factory.mktemp("executors") / "site") as made:
        made.write_toy(METHODS, NAMES)
        yield made


@pytest.fixture(scope="module")
def executor(site: PluginSite) -> Iterator[ForkServer]:
    """One server for the tests that can share it: starting it takes seconds, and it must survive them all anyway."""
    with ForkServer(2, preload=["toyplug_code"]) as made:
        yield made


def left_behind(mark: str, executor: ForkServer) -> list[int]:
    """Processes of this module's trials that still run: all that carry the mark but the server."""
    return [pid for pid in marked_processes(MARK, mark) if pid != executor._link._process.pid]


def jobs(*methods: str, timeout_s: float = 30.0) -> list[Job]:
    return [Job(trial(method, seed=number), timeout_s) for number, method in enumerate(methods)]


def name_of(job: Job) -> str:
    return job.trial.method.rpartition("/")[2]


# Running --------------------------------------------------------------------------------------------------------------


def test_a_forked_trial_gives_the_same_bits_as_a_call_and_as_a_fresh_interpreter(site, executor, tmp_path):
    """Where a trial runs is no part of its identity, so it must not change a bit of its result."""
    here = run_trial(trial(seed=4), site.catalogue(), WorkerOptions(scratch=tmp_path))
    told = [outcome for _, outcome in executor.run([Job(trial(seed=4), 60.0)])]
    with SubprocessExecutor(1, WorkerOptions(scratch=tmp_path)) as fresh:
        told += [outcome for _, outcome in fresh.run([Job(trial(seed=4), 60.0)])]

    for outcome in told:
        assert outcome.status == "ok", outcome.error
        assert outcome.measurements == here.measurements
        assert outcome.diagnostics == here.diagnostics
        assert [p.value for p in outcome.curve] == [p.value for p in here.curve]


def test_trials_run_in_processes_of_their_own_so_many_at_once_and_their_files_last_until_the_next(executor):
    """-j 2 is two and not three; a blob can be read while its outcome is in hand, and is gone afterwards."""
    started, seen = [], []
    for job, outcome in executor.run(jobs(*["naps"] * 6), parallel=2, on_start=started.append):
        assert outcome.status == "ok", outcome.error
        assert job in started
        assert Path(outcome.blobs[0]["path"]).read_bytes() == b"kept"
        seen.append(outcome)

    facts = [o.diagnostics for o in seen]
    assert len({f["pid"] for f in facts}) == len({f["cwd"] for f in facts}) == 6
    assert {(f["cuda"], f["threads"], f["started_cuda"]) for f in facts} == {("", 1.0, "False")}
    assert max(sum(f["begin"] <= g["begin"] < f["end"] for f in facts) for g in facts) == 2
    assert not any(Path(o.blobs[0]["path"]).exists() for o in seen)


def test_the_settings_that_malloc_reads_at_exec_are_recorded(executor):
    """They change times by a factor of five: a record must say which held."""
    ((_, outcome),) = executor.run(jobs("good"))

    settings = outcome.environment["settings"]
    assert settings["MALLOC_TOP_PAD_"] == "268435456"
    assert settings["OMP_NUM_THREADS"] == "1"
    assert settings["PYTHONHASHSEED"] == "0"


def test_the_users_own_malloc_settings_stay():
    """They are defaults, no decree; threads and the hash seed belong to the trial."""
    made = worker_environment(2, {"MALLOC_TOP_PAD_": "7", "OMP_NUM_THREADS": "9", "HOME": "/h"})

    assert (made["MALLOC_TOP_PAD_"], made["OMP_NUM_THREADS"], made["HOME"]) == ("7", "2", "/h")
    assert made["MALLOC_MMAP_THRESHOLD_"] == "1000000000"


def test_a_job_list_that_is_empty_starts_nothing():
    """A suite that is done costs no import of torch."""
    before = children(os.getpid())
    with ForkServer(1) as idle:
        assert list(idle.run([])) == []
        assert children(os.getpid()) == before


# Interruption ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_kills_what_runs_and_yields_it_as_interrupted(executor, mark):
    """What is finished is kept, what was cut has a record that says so, and nothing runs on."""
    ended = []
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for job, outcome in executor.run(jobs("good", "sleeps", "sleeps", "good", "good")):
            ended.append((name_of(job), outcome.status))
            if len(ended) == 1:  # from here on both workers sleep
                signal.setitimer(signal.ITIMER_REAL, 1.5)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0)

    assert sorted(ended) == [("good", "ok"), ("sleeps", "interrupted"), ("sleeps", "interrupted")]
    assert left_behind(mark, executor) == []


def test_ctrl_c_with_nothing_running_is_not_swallowed(executor):
    """There is no interrupted outcome to tell by: the exception must."""

    def interrupt(job: Job) -> None:
        while len(executor._ended) == 0:
            executor._pump()
        raise KeyboardInterrupt

    iteration = executor.run(jobs("good"), on_start=interrupt)

    assert next(iteration)[1].status == "ok"  # what had ended comes first
    with pytest.raises(KeyboardInterrupt):
        next(iteration)


def test_stop_kills_what_an_abandoned_iteration_left_running(executor, mark):
    """A caller that breaks out (its disk is full, say) must not leave trials running."""
    for _, outcome in executor.run(jobs("good", "sleeps", "sleeps")):
        assert outcome.status == "ok"
        break

    stopped = executor.stop()

    assert {outcome.status for _, outcome in stopped} <= {"interrupted"}
    assert left_behind(mark, executor) == []
    assert [o.status for _, o in executor.run(jobs("good"))] == ["ok"]  # and it goes on to serve


# Death ----------------------------------------------------------------------------------------------------------------


def test_a_trial_that_kills_the_server_fails_and_the_others_finish(executor, mark):
    """What ran beside it is run again; the guilty one is found by running alone."""
    todo = jobs("slow", "kills_the_server", "slow", "good", "good")

    ended = {(name_of(job), job.trial.seed): outcome for job, outcome in executor.run(todo)}

    guilty = ended.pop(("kills_the_server", 1))
    assert guilty.status == "failed"
    assert "the fork server died while this trial ran, and again when it ran alone" in guilty.error
    assert {o.status for o in ended.values()} == {"ok"}
    assert len(ended) == 4
    assert left_behind(mark, executor) == []


def test_a_server_that_cannot_fork_is_given_up(site, tmp_path, monkeypatch):
    """Restarted for ever, a run would hang without a word."""
    (site.folder / "no_forks.py").write_text("import os\nos.register_at_fork(before=lambda: os._exit(3))\n")
    options = WorkerOptions(scratch=tmp_path)

    with (
        ForkServer(1, options, preload=["no_forks"]) as executor,
        pytest.raises(RuntimeError, match="died 3 times in a row before a trial started"),
    ):
        list(executor.run(jobs("good")))


def test_when_the_parent_is_killed_nothing_lives_on(site, tmp_path, monkeypatch):
    """kill -9 of `harness run`: the server sees its socket end, kills all workers and what they started, and ends."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from helpers import trial
        from harness.executors import ForkServer, Job
        jobs = [Job(trial("sleeps", seed=i), 1000.0) for i in range(2)]
        with ForkServer(2) as executor:
            list(executor.run(jobs, on_start=lambda job: print("started", flush=True)))
        """)
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert [parent.stdout.readline() for _ in range(2)] == ["started\n"] * 2
    wait_until(lambda: len(marked_processes(MARK, mark)) == 6)  # parent, server, two workers, two grandchildren

    parent.kill()
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not marked_processes(MARK, mark))


def wait_until(condition, timeout_s: float = 20.0) -> None:
    stop = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < stop, "it did not happen in time"
        time.sleep(0.05)


IMPORTS = {
    "raises": "raise ImportError('no such library')",
    "exits": "import os\nos._exit(3)",
    "starts_a_thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
}


def test_a_module_that_spoils_the_server_is_left_out_and_fails_only_its_own_trials(plugin_site):  # noqa: F811
    """One broken paper must not stop a suite of forty, not even by ending the process that imports it."""
    plugin_site.write_toy()
    for name, line in IMPORTS.items():
        declared = f'''
        import harness

        @harness.hookimpl
        def harness_methods():
            return [harness.Learner("{name}", "toy", solve="NAME_code:solve")]
        '''
        code = (
            f"{line}\n\ndef solve(problem, ctx, params):\n    from toyplug_code import Threshold\n    return Threshold(0.0)\n"
        )
        plugin_site.write(f"bad_{name}", declared, code)
    preload = ["toyplug_code", *(f"bad_{name}_code" for name in IMPORTS)]
    todo = jobs("good", "good") + [Job(replace(trial(), method=f"bad_{name}/{name}"), 30.0) for name in IMPORTS]

    with ForkServer(2, preload=preload) as executor:
        ended = {job.trial.method: outcome for job, outcome in executor.run(todo)}
        left_out = dict(executor.left_out)

    assert ended["toyplug/good"].status == "ok"
    assert "no such library" in ended["bad_raises/raises"].error
    assert ended["bad_exits/exits"].exit_code == 3
    assert ended["bad_starts_a_thread/starts_a_thread"].status == "ok"  # alone in its worker it may start what it likes
    assert set(left_out) == {f"bad_{name}_code" for name in IMPORTS}
    assert left_out["bad_starts_a_thread_code"] == "its import starts threads"


# Errands --------------------------------------------------------------------------------------------------------------


ASK = {"method": "toyplug/good", "track": "toyplug/toy", "params": {"scale": 4}, "shape": {"inputs": 3}}


def test_costs_are_counted_in_a_child_one_bad_request_beside_good_ones(executor):
    """`match` asks for many at once; each is answered in its place."""
    told = executor.cost([ASK, {**ASK, "method": "toyplug/none"}, {**ASK, "params": {"scale": 1.0}}])

    assert told[0] == {"params": 7.0, "flops": 2.0}
    assert "no plugin offers method 'toyplug/none'" in told[1]["error"]
    assert told[2] == {"params": 4.0, "flops": 2.0}
    assert executor.cost([]) == []


def test_a_count_that_ends_its_process_is_an_error_not_a_hang(executor):
    """`cost` is a plugin's code too."""
    (told,) = executor.cost([{**ASK, "params": {"scale": 99}}])

    assert "ended without an answer" in told["error"]
    assert [o.status for _, o in executor.run(jobs("good"))] == ["ok"]


def test_devices_are_probed_without_starting_cuda_in_the_server(executor):
    """A forked child of a process that has started CUDA cannot use it."""
    found = executor.probe_devices()
    ((_, outcome),) = executor.run(jobs("naps"))

    assert set(found) == {"cuda", "name", "memory_bytes", "reason"}
    assert found["cuda"] == (found["reason"] == "")
    assert outcome.diagnostics["started_cuda"] == "False"


# Small parts ----------------------------------------------------------------------------------------------------------


def test_capped_output_keeps_both_ends_and_counts_the_rest():
    """Whatever the size of the pieces, the kept bytes are the first and the last."""
    for piece in (1, 7, 64, 1000):
        capped = CappedOutput(head_bytes=10, tail_bytes=20)
        text = "".join(str(i % 10) for i in range(1000))
        for start in range(0, len(text), piece):
            capped.write(text[start : start + piece].encode())

        assert capped.text() == text[:10] + "\n[... 970 bytes dropped ...]\n" + text[-20:]
        assert capped.dropped_bytes == 970


def test_output_that_fits_is_kept_whole():
    """No note where nothing is missing, and bytes that are no text do not stop the record."""
    capped = CappedOutput(head_bytes=4, tail_bytes=8)
    capped.write(b"caf\xc3\xa9 \xff ok")

    assert capped.dropped_bytes == 0
    assert capped.text().endswith(" ok")


def test_messages_survive_any_cutting_of_the_stream():
    """A socket gives bytes as it likes."""
    sent = [{"op": "a", "text": "ü" * 50}, {"op": "b"}, {"op": "c", "values": [1.5, None]}]
    stream = b"".join(map(pack, sent))
    for size in (1, 3, 10, len(stream)):
        frames, got = Frames(), []
        for start in range(0, len(stream), size):
            got += frames.feed(stream[start : start + size])

        assert got == sent


def test_a_stream_of_rubbish_is_refused_before_it_fills_memory():
    """A length of 4 GiB is no message of ours."""
    with pytest.raises(ValueError, match="the limit is"):
        Frames().feed(b"\xff" * 8)


def test_the_walk_over_processes_agrees_with_psutil():
    """Where the kernel has no `children` files the walk reads every stat; both must see the same."""
    sleeper = subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000; true"])
    try:
        wait_until(lambda: len(psutil.Process(sleeper.pid).children()) == 2)

        assert sorted(children(os.getpid())) == sorted(p.pid for p in psutil.Process().children())
        assert set(descendants(os.getpid())) == {p.pid for p in psutil.Process().children(recursive=True)}
        assert parents()[sleeper.pid] == os.getpid()
        assert has_children()
    finally:
        for pid in descendants(sleeper.pid):
            os.kill(pid, signal.SIGKILL)
        sleeper.kill()
        sleeper.wait()


def test_killing_children_spares_those_that_are_named():
    """Another trial's worker is a child of the server too."""
    spared, other = (subprocess.Popen(["sleep", "1000"]) for _ in range(2))
    elsewhere = set(children(os.getpid())) - {other.pid}
    try:
        assert kill_children(spare=elsewhere) == 1
        assert other.poll() is not None
        assert spared.poll() is None
    finally:
        spared.kill()
        spared.wait()


def test_jobs_reach_the_server_as_plain_json():
    """What crosses to a scheduler must be text: no pickle anywhere."""
    assert json.loads(json.dumps(asdict(trial()))) == {**asdict(trial()), "measure": []}
