"""The fork server: `python -m harness.executors.server FD PARENT FOLDER`, started by `harness.executors.forkserver`.

It imports what trials need, runs no tensor operation and never starts CUDA, then forks one worker for each trial and
watches: time, memory, output, the result. Whatever becomes of a worker, the parent gets an `Outcome`, and no process that it
left behind lives on: the server is a sub-reaper, so orphans of a finished trial become its children, and any child that is no
worker of a running trial is one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import secrets
import selectors
import shutil
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.catalogue import Catalogue, load_catalogue
from harness.executors import errands
from harness.executors.output import CappedOutput
from harness.executors.wire import Frames, Message, pack
from harness.records import Outcome
from harness.worker.environment import recorded
from harness.worker.processes import (
    adopt_orphans,
    descendants,
    die_with_parent,
    has_children,
    is_gone,
    kernel_oom_kills,
    kill,
    kill_children,
    live_without_parent,
    parents,
    private_bytes,
    proportional_bytes,
    use_huge_pages,
)
from harness.worker.trial import WorkerOptions, flush_streams, prepare_process, run_trial, trace_crashes, trial_from_json

CORE_MODULES = ("torch", "torch._dynamo", "torch._inductor.config", "numpy.random", "harness.worker.staging", "harness.lab",
                "harness.data.store")  # fmt: skip
STOPPING = (signal.SIGTERM, signal.SIGHUP)
POLL_S = 0.1  # between readings of the workers' memory
WALK_S = 0.5  # between readings of their children's
TRACEBACK_GRACE_S = 0.3  # for a hung worker to write where it hangs
EXIT_GRACE_S = 5.0  # for a worker to end after its result
ERRAND_TIMEOUT_S = 300.0
CHUNK = 1 << 18


# The server's side of a worker ------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A running child: a trial's, or an errand's (counting costs, probing devices)."""

    id: int
    pid: int
    pidfd: int
    control: socket.socket
    output: int
    nonce: str
    request: Message
    started: float
    started_at: str
    base_bytes: int
    oom_kills: int
    frames: Frames = field(default_factory=Frames)
    printed: CappedOutput = field(default_factory=CappedOutput)
    kept: str = ""  # what the worker keeps outside its memory: the key of its seal
    result: Message | None = None
    killed_for: str = ""
    kill_at: float | None = None
    deadline: float = float("inf")
    polled: int = 0

    @property
    def is_trial(self) -> bool:
        return bool(self.request["op"] == "run")

    @property
    def memory_bytes(self) -> int | None:
        limit = self.request.get("memory_bytes")
        return int(limit) if limit is not None else None


class Server:
    """One loop over the parent's socket and each worker's control socket, output and end."""

    def __init__(self, parent: socket.socket, setup: Message, catalogue: Catalogue) -> None:
        self._parent = parent
        self._options = WorkerOptions.from_json(setup["options"])
        self._execs = setup["isolation"] == "exec"
        self._catalogue = catalogue
        self._frames = Frames()
        self._outgoing = bytearray()
        self._queue: deque[Message] = deque()
        self._workers: dict[int, Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(parent, selectors.EVENT_READ, self._read_parent)
        self._next_poll = self._next_walk = 0.0
        self._open = True
        self._stopped = False

    def stop(self, number: int, frame: object) -> None:
        """Heard where a service manager or a scheduler asks all processes to end: the parent stops us when it has heard it too.

        Until then, a worker that dies of it was stopped, and has not failed.
        """
        self._stopped = True

    def serve(self) -> None:
        """Until the parent closes its end, or dies; then nothing is left running."""
        while self._open:
            for key, events in self._selector.select(self._patience()):
                # A worker that ended in this round took its other descriptors with it.
                if key.fd in self._selector.get_map() and key.data is not None:
                    key.data(events)
            self._start_queued()
            now = time.monotonic()
            for worker in list(self._workers.values()):
                self._enforce_time(worker, now)
            if now >= self._next_poll:
                self._next_poll = now + POLL_S
                self._enforce_memory(now)
        for worker in list(self._workers.values()):
            kill(worker.pid, signal.SIGKILL)
        kill_children(spare=())

    def _patience(self) -> float | None:
        """Seconds until something must be done without being asked."""
        if not self._workers:
            return None
        now = time.monotonic()
        moments = [w.kill_at if w.kill_at is not None else w.deadline for w in self._workers.values()]
        if any(w.memory_bytes is not None for w in self._workers.values()):
            moments.append(self._next_poll)
        soonest = min(moments)
        return None if soonest == float("inf") else max(0.0, soonest - now)

    # The parent

    def _read_parent(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self._parent.recv(CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            self._open = False
            return
        for message in self._frames.feed(data):
            match message["op"]:
                case "run" | "errand":
                    self._queue.append(message)
                case "kill":
                    self._kill_all()

    def _tell(self, message: Message) -> None:
        # Queued: a parent that is busy elsewhere must not keep the server from enforcing limits.
        self._outgoing += pack(message)
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                del self._outgoing[: self._parent.send(self._outgoing, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
        self._selector.modify(self._parent, wanted, self._read_parent)

    def _kill_all(self) -> None:
        for message in self._queue:
            self._tell({"op": "dropped", "id": message["id"]})
        self._queue.clear()
        for worker in self._workers.values():
            self._kill(worker, "interrupted")

    # Starting

    def _start_queued(self) -> None:
        while self._queue:
            message = self._queue[0]
            trials = sum(w.is_trial for w in self._workers.values())
            if message["op"] == "run" and trials >= message["parallel"]:
                return
            self._queue.popleft()
            self._start(message)

    def _start(self, message: Message) -> None:
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        nonce = secrets.token_hex(8)
        server = os.getpid()
        started, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="microseconds")
        oom_kills = kernel_oom_kills()
        pid = os.fork()
        if pid == 0:
            # From here on nothing may return into the server's loop, whatever happens.
            try:
                self._become_worker(server, message, theirs, writer, (ours, reader), nonce)
            finally:
                os._exit(70)
        theirs.close()
        os.close(writer)
        ours.setblocking(False)
        os.set_blocking(reader, False)
        limits = message.get("timeout_s", ERRAND_TIMEOUT_S)
        worker = Worker(
            message["id"], pid, os.pidfd_open(pid), ours, reader, nonce, message, started, started_at,
            base_bytes=private_bytes(server) if message.get("memory_bytes") is not None and not self._execs else 0,
            oom_kills=oom_kills, deadline=started + limits,
        )  # fmt: skip
        self._workers[worker.id] = worker
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda _: self._finish(worker))
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._read_control(worker))
        self._selector.register(reader, selectors.EVENT_READ, lambda _: self._read_output(worker))
        if worker.is_trial:
            self._tell({"op": "started", "id": worker.id})

    def _become_worker(
        self, server: int, message: Message, control: socket.socket, output: int,
        not_mine: tuple[socket.socket, int], nonce: str,
    ) -> None:  # fmt: skip
        """In the child: cut all ties to the server, then run and end. Does not return."""
        os.setsid()
        die_with_parent(server)
        adopt_orphans()
        for number in (signal.SIGINT, *STOPPING):
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for descriptor in (null, output, not_mine[1], self._selector.fileno()):
            os.close(descriptor)
        for worker in self._workers.values():
            worker.control.close()
            os.close(worker.output)
            os.close(worker.pidfd)
        not_mine[0].close()
        self._parent.close()
        if message["op"] == "errand":
            run_errand(message, self._catalogue, control, nonce)
        Path(message["scratch"]).mkdir(mode=0o700, parents=True, exist_ok=True)  # a plugin may have deleted it and all above
        os.chdir(message["scratch"])
        options = replace(
            self._options,
            memory_bytes=message["memory_bytes"],
            scratch=Path(message["scratch"]),
            device_memory_share=self._options.device_memory_share or 1.0 / message["parallel"],
        )
        if self._execs:
            exec_trial(message, options)
        fork_trial(message, self._catalogue, options, control, nonce)

    # Watching

    def _read_control(self, worker: Worker) -> None:
        try:
            data = worker.control.recv(CHUNK)
        except (BlockingIOError, ConnectionError):
            return
        if not data:
            self._selector.unregister(worker.control)
            return
        try:
            messages = worker.frames.feed(data)
        except ValueError as exc:  # a plugin wrote to a descriptor that is not its own
            worker.printed.write(f"\n[the worker's control channel is broken: {exc}]\n".encode())
            self._kill(worker, "")
            return
        for message in messages:
            self._obey(worker, message)

    def _obey(self, worker: Worker, message: Message) -> None:
        match message.get("op"):
            case "put":
                worker.kept = str(message["text"])
            case "get":
                with contextlib.suppress(OSError):  # a worker that does not read its answers gets none
                    worker.control.send(pack({"text": worker.kept}), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            case "result" if message.get("nonce") == worker.nonce and worker.result is None:
                worker.result = message
                worker.deadline = min(worker.deadline, time.monotonic() + EXIT_GRACE_S)

    def _read_output(self, worker: Worker) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(worker.output, CHUNK)
            if data:
                worker.printed.write(data)
            else:
                self._selector.unregister(worker.output)

    def _enforce_time(self, worker: Worker, now: float) -> None:
        if worker.kill_at is not None:
            if now >= worker.kill_at:
                kill(worker.pid, signal.SIGKILL)
                worker.kill_at = float("inf")
        elif now >= worker.deadline:
            worker.killed_for = worker.killed_for or "timeout"
            kill(worker.pid, signal.SIGUSR1)  # faulthandler writes where every thread is
            worker.kill_at = now + TRACEBACK_GRACE_S

    def _enforce_memory(self, now: float) -> None:
        limited = [w for w in self._workers.values() if w.memory_bytes is not None and not w.killed_for]
        by_pid = None
        if limited and now >= self._next_walk:  # over all processes of the machine, so less often
            self._next_walk = now + WALK_S
            by_pid = parents()
        for worker in limited:
            limit = worker.memory_bytes or 0
            mine = max(0, private_bytes(worker.pid) - worker.base_bytes)
            kin = descendants(worker.pid, by_pid) if by_pid is not None else []
            worker.polled = max(worker.polled, mine)
            if mine + sum(map(private_bytes, kin)) <= limit:
                continue
            # Forked children share pages, which the quick sum counts for each of them; this one divides them.
            if not kin or sum(map(proportional_bytes, [worker.pid, *kin])) > limit + worker.base_bytes:
                self._kill(worker, "polled_rss")

    def _kill(self, worker: Worker, why: str) -> None:
        worker.killed_for = worker.killed_for or why
        kill(worker.pid, signal.SIGKILL)

    # Ending

    def _finish(self, worker: Worker) -> None:
        _, status, usage = os.wait4(worker.pid, 0)
        wall_s = time.monotonic() - worker.started
        del self._workers[worker.id]
        # A worker that ended well has looked itself, as the sub-reaper of its own descendants.
        if not (worker.result and worker.result.get("childless")) and has_children():
            kill_children(spare={w.pid for w in self._workers.values()})
        self._drain(worker)
        for descriptor in (worker.pidfd, worker.control, worker.output):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        worker.control.close()
        os.close(worker.output)
        os.close(worker.pidfd)
        if self._stopped and os.WIFSIGNALED(status) and os.WTERMSIG(status) in STOPPING:
            worker.killed_for = worker.killed_for or "interrupted"
        if worker.is_trial:
            outcome = to_outcome(worker, status, usage, wall_s, self._execs)
            self._tell({"op": "done", "id": worker.id, "outcome": outcome})
        else:
            self._tell({"op": "answer", "id": worker.id, **answer(worker, status)})

    def _drain(self, worker: Worker) -> None:
        """What is still in the pipes. All writers are dead, so this ends."""
        with contextlib.suppress(OSError, ValueError):
            while data := worker.control.recv(CHUNK):
                for message in worker.frames.feed(data):
                    self._obey(worker, message)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(worker.output, CHUNK):
                worker.printed.write(data)


def to_outcome(worker: Worker, status: int, usage: resource.struct_rusage, wall_s: float, execs: bool) -> Message:
    """The worker's own outcome, or one that says how it ended; with what only an observer knows."""
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    own = read_out(worker) if execs else worker.result and worker.result.get("outcome")
    log = worker.printed.text()
    outcome = own or how_it_ended(worker, code, number, log).to_json()
    resources = outcome["resources"] | {
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "minor_faults": usage.ru_minflt,
    }
    if resources.get("peak_rss_bytes") is None and worker.polled:
        resources["peak_rss_bytes"] = worker.polled
    return outcome | {
        "exit_code": code, "signal": number, "resources": resources, "log": log,
        "log_dropped_bytes": worker.printed.dropped_bytes, "started_at": outcome.get("started_at") or worker.started_at,
    }  # fmt: skip


def read_out(worker: Worker) -> Message | None:
    try:
        found: Message = json.loads((Path(worker.request["scratch"]) / "out.json").read_text())
    except (OSError, ValueError):
        return None
    return found


def how_it_ended(worker: Worker, code: int | None, number: int | None, log: str) -> Outcome:
    """The outcome of a worker that sent no result."""
    environment = {"settings": recorded()}
    match worker.killed_for:
        case "timeout":
            seconds = f"{worker.request['timeout_s']:g}"
            return Outcome("timeout", f"no result after {seconds} s", limit="timeout", environment=environment)
        case "polled_rss":
            text = f"the trial and its children held more than the limit of {worker.memory_bytes} bytes"
            return Outcome("oom", text, limit="polled_rss", environment=environment)
        case "interrupted":
            return Outcome("interrupted", "killed because the user stopped the run", environment=environment)
    if number == signal.SIGKILL and kernel_oom_kills() > worker.oom_kills:
        return Outcome("oom", "killed by the kernel, which was out of memory", limit="kernel_oom", environment=environment)
    if number == signal.SIGABRT and "std::bad_alloc" in log and worker.memory_bytes is not None:
        return Outcome("oom", "aborted for lack of memory (std::bad_alloc)", limit="rlimit_data", environment=environment)
    if number is not None:
        name = "segfault (SIGSEGV)" if number == signal.SIGSEGV else f"killed by {signal_name(number)}"
        return Outcome("failed", f"{name}; the log holds what it printed", environment=environment)
    return Outcome("failed", f"ended without a result (exit code {code})", environment=environment)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def answer(worker: Worker, status: int) -> Message:
    if worker.result is not None:
        return {name: worker.result[name] for name in ("value", "error") if name in worker.result}
    return {"error": f"the child ended without an answer (wait status {status}): {worker.printed.text()[-2000:]}"}


# The worker's side ------------------------------------------------------------------------------------------------------


class SocketKeeper:
    """The seal's key, held by the server. See `harness.worker.sealing`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._owner = os.getpid()
        self._frames = Frames()

    def put(self, text: str) -> None:
        self._require_owner()
        self._control.sendall(pack({"op": "put", "text": text}))

    def get(self) -> str:
        self._require_owner()
        self._control.sendall(pack({"op": "get"}))
        while True:
            data = self._control.recv(CHUNK)
            if not data:
                raise ConnectionError("the fork server is gone")
            for message in self._frames.feed(data):
                return str(message["text"])

    def _require_owner(self) -> None:
        from harness.worker.sealing import require_owner

        require_owner(self._owner)


def fork_trial(message: Message, catalogue: Catalogue, options: WorkerOptions, control: socket.socket, nonce: str) -> None:
    """In the worker: run the trial, send its outcome, end. Does not return."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    trace_crashes()
    trial = trial_from_json(message["trial"])
    prepare_process(trial, options)
    outcome = run_trial(trial, catalogue, options, SocketKeeper(control))
    flush_streams()
    if has_children():
        kill_children(spare=())
    told = {"op": "result", "nonce": nonce, "outcome": outcome.to_json(), "childless": not has_children()}
    control.sendall(pack(told))
    os._exit(0)


def exec_trial(message: Message, options: WorkerOptions) -> None:
    """In the worker: become `python -m harness.worker`. Does not return."""
    scratch = Path(message["scratch"])
    spec, out = scratch / "spec.json", scratch / "out.json"
    spec.write_text(json.dumps({"trial": message["trial"], "options": options.to_json()}))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "harness.worker", str(spec), str(out)])


def run_errand(message: Message, catalogue: Catalogue, control: socket.socket, nonce: str) -> None:
    """In a throw-away child: answer a question that needs torch, or CUDA, and end. Does not return."""
    try:
        told: Message = {"value": errands.run(message["what"], message["requests"], catalogue)}
    except Exception as exc:
        told = {"error": f"{type(exc).__name__}: {exc}"}
    control.sendall(pack({"op": "result", "nonce": nonce, **told}))
    os._exit(0)


# Setting up -------------------------------------------------------------------------------------------------------------


def main() -> None:
    parent = socket.socket(fileno=int(sys.argv[1]))
    parent_pid = int(sys.argv[2])
    folder = Path(sys.argv[3])
    watched = watch_folder(folder, parent, parent_pid)
    die_with_parent(parent_pid)  # while importing, no one listens at the socket
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    setup = receive(parent)
    catalogue = load_catalogue()
    facts: Message = {}
    if setup["isolation"] == "fork":
        facts = warm_up(parent, setup)
    gc.collect()
    gc.freeze()  # a collection in a worker would write to, and so copy, every page of the server's objects
    facts["huge_pages"] = use_huge_pages()
    parent.sendall(pack({"op": "ready", **facts}))
    live_without_parent()
    os.close(watched.pipe)
    os.waitpid(watched.pid, 0)
    parent.setblocking(False)
    server = Server(parent, setup, catalogue)
    for number in STOPPING:
        signal.signal(number, server.stop)
    server.serve()
    # The parent removes its folder when it ends in order; a parent that was killed left that to us.
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


class Watched(NamedTuple):
    """Who watches, and the end of the pipe that it watches."""

    pid: int
    pipe: int


def watch_folder(folder: Path, parent: socket.socket, parent_pid: int) -> Watched:
    """A child that removes the folder where the parent is killed while this process imports, and so is killed with it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reading)
        return Watched(pid, writing)
    parent.close()  # else the parent would not see the end of a server that dies
    os.close(writing)
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, signal.SIG_IGN)
    os.read(reading, 1)
    if is_gone(parent_pid):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def receive(parent: socket.socket) -> Message:
    """The first message. Ends the process where the parent is gone."""
    frames = Frames()
    while data := parent.recv(CHUNK):
        for message in frames.feed(data):
            return message
    os._exit(0)


def warm_up(parent: socket.socket, setup: Message) -> Message:
    """Import and read what workers would each import and read. The parent is told before each plugin's module, so that it
    knows which one ended the server; one that starts threads or CUDA makes the server unfit, and it says so and ends."""
    for name in CORE_MODULES:
        importlib.import_module(name)
    broken: dict[str, str] = {}
    for name in setup["preload"]:
        parent.sendall(pack({"op": "importing", "module": name}))
        before = thread_count()
        try:
            importlib.import_module(name)
        except BaseException as exc:  # it will fail again in its own trials, and there be recorded
            broken[name] = f"{type(exc).__name__}: {exc}"
        reason = unfit(before)
        if reason:
            parent.sendall(pack({"op": "unfit", "module": name, "reason": reason}))
            os._exit(0)
    parent.sendall(pack({"op": "importing", "module": ""}))
    broken |= read_data(setup)
    return {"broken": broken, "threads": thread_count()}


def read_data(setup: Message) -> dict[str, str]:
    from harness import data

    data_dir = setup["options"].get("data_dir")
    broken = {}
    for name in setup["datasets"]:
        try:
            data.preload([name], data_dir)
        except Exception as exc:  # a task that needs it will say so in its own trial
            broken[f"data {name}"] = f"{type(exc).__name__}: {exc}"
    return broken


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208  (a count, no paths)


def unfit(threads_before: int) -> str:
    """Why a process can no longer be forked safely: a child has only the forking thread, and CUDA cannot be used after it."""
    import torch

    if thread_count() > threads_before:
        return "its import starts threads"
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "its import starts CUDA"
    return ""


if __name__ == "__main__":
    main()
