"""The parent's side of the fork server: jobs in, outcomes out as they end. Imports no torch; the server starts when needed.

What is promised of each job: exactly one outcome. Where the server itself dies (a plugin may kill it), it is started again;
what was running then runs once more, alone, and if the server dies again, that job is `failed` and the others go on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from harness.executors.wire import Frames, Message, pack
from harness.records import Outcome, Trial
from harness.worker.environment import worker_environment
from harness.worker.processes import adopt_orphans, kill, marked_processes, reaped
from harness.worker.trial import WorkerOptions

MARK = "HARNESS_EXECUTOR"  # in the environment of the server and all that it starts: whose they are
AHEAD = 2  # jobs that wait in the server, so that a worker follows the last one at once
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
MAX_BARREN = 3
REAP_S = 0.1  # one that is not our child yet is looked at again
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # by which people and machines ask a command to end
CHUNK = 1 << 18


@dataclass(frozen=True)
class Job:
    """A trial to run, and what it may take. memory_bytes: None for no limit."""

    trial: Trial
    timeout_s: float
    memory_bytes: int | None = None


class ServerDied(Exception):
    """The server's end of the socket is closed."""


class ForkServer:
    """Runs jobs in forked workers; a context manager. See the module.

    parallel: workers at once, unless `run` says otherwise. preload: modules that the server imports for all; one that cannot
    be imported, that ends the server or that starts threads is left out and fails, if it fails, in its own trials. datasets:
    data sets of the core that the server reads for all. isolation "exec": fresh interpreters, nothing shared.
    """

    def __init__(
        self,
        parallel: int = 1,
        options: WorkerOptions | None = None,
        preload: Sequence[str] = (),
        datasets: Sequence[str] = (),
        isolation: Literal["fork", "exec"] = "fork",
    ) -> None:
        self.parallel = parallel
        self.options = options or WorkerOptions()
        self.left_out: dict[str, str] = {}  # module -> why the server does not share it
        self._preload = list(preload)
        self._datasets = list(datasets)
        self._isolation = isolation
        self._mark = secrets.token_hex(8)
        self._link: _Link | None = None
        self._scratch: Path | None = None
        self._adopted: bool | None = None
        self._ids = 0
        self._jobs: dict[int, Job] = {}  # in the server: running or queued there
        self._running: set[int] = set()
        self._alone = 0  # the job that must have no company, while it is in the server
        self._begun: deque[Job] = deque()
        self._ended: deque[tuple[int, Job, Outcome]] = deque()
        self._back: deque[Job] = deque()  # queued in a server that was told to stop
        self._lost: deque[Job] = deque()  # running when the server died
        self._answers: dict[int, Message] = {}

    # Running ------------------------------------------------------------------------------------------------------------

    def run(
        self,
        jobs: Sequence[Job],
        *,
        parallel: int | None = None,
        on_start: Callable[[Job], None] | None = None,
    ) -> Generator[tuple[Job, Outcome], None, None]:
        """Each job with its outcome, as they end. The files of an outcome's blobs exist until the next one is asked for.

        On Ctrl-C running trials are killed and yielded as `interrupted`, then the iteration ends; where none was running,
        KeyboardInterrupt is raised. It waits while the caller has an outcome in hand, or a job that starts: neither is lost.
        When the iteration is given up, running trials are killed: `stop` returns them.
        """
        at_once = parallel or self.parallel
        waiting, suspects = deque(jobs), deque[Job]()
        tries = _Tries()
        barren = 0  # deaths of the server in a row that no trial can be blamed for
        self._ended.clear()  # of an iteration that was given up
        try:
            while waiting or suspects or self._jobs or self._ended or self._lost or self._back:
                try:
                    self._dispatch(waiting, suspects, at_once)
                    if self._jobs and not self._ended:
                        self._pump()
                except ServerDied:
                    self._bury()
                    barren = 0 if self._lost or self._ended else barren + 1
                    if barren == MAX_BARREN:
                        raise RuntimeError(
                            f"the fork server died {barren} times in a row before a trial started: {self._last_words()}"
                        ) from None
                suspects += (job for job in self._take_lost() if tries.again(job))
                self._ended.extend((0, job, died_twice()) for job in tries.take_given_up())
                while self._begun:
                    with interrupts_held():
                        job = self._begun.popleft()
                        if on_start is not None:
                            on_start(job)
                yield from self._take_ended()
        except KeyboardInterrupt:
            with interrupts_held():  # who asks twice is heard when all is recorded
                stopped = self._stop_running()
                yield from stopped
            if not any(outcome.status == "interrupted" for _, outcome in stopped):
                raise
        finally:
            if self._jobs:  # given up, or an error of the caller's: what runs must not run on
                self._ended.extend((0, job, outcome) for job, outcome in self._stop_running())

    def stop(self) -> list[tuple[Job, Outcome]]:
        """Kill what is running. Returns every outcome that has not been yielded yet, those of the killed as `interrupted`."""
        return self._stop_running()

    # Errands ------------------------------------------------------------------------------------------------------------

    def cost(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What methods cost, counted in a throw-away child: {"params", "flops", ...} or {"error"} for each request, in order.

        request: {"method", "track": references, "params", "shape", and for components "net", "train"}.
        """
        if not requests:
            return []
        answer = self._ask("cost", [dict(r) for r in requests])
        return answer["value"] if "value" in answer else [{"error": answer["error"]} for _ in requests]

    def probe_devices(self) -> dict[str, Any]:
        """{"cuda": usable or not, "name", "memory_bytes", "reason"}, found in a throw-away child: CUDA starts nowhere else."""
        answer = self._ask("devices", [])
        if "value" in answer:
            found: dict[str, Any] = answer["value"][0]
            return found
        return {"cuda": False, "name": "", "memory_bytes": None, "reason": answer["error"]}

    def _ask(self, what: str, requests: list[dict[str, Any]]) -> Message:
        """One question, asked once more where the server dies over it."""
        for _ in range(2):
            number = self._next_id()
            try:
                self._server().send({"op": "errand", "id": number, "what": what, "requests": requests})
                while number not in self._answers:
                    self._pump()
            except ServerDied:
                self._bury()
                continue
            return self._answers.pop(number)
        return {"error": "the fork server died twice over this question"}

    # The server ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the server and all that it started; remove the scratch folder."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._kill_left_over()
        if self._adopted is not None:
            adopt_orphans(self._adopted)
            self._adopted = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _server(self) -> _Link:
        if self._link is None:
            if self._adopted is None:
                self._adopted = adopt_orphans()
            if self._scratch is None:
                self._scratch = Path(tempfile.mkdtemp(prefix="harness-", dir=self.options.scratch)).resolve()
            self._link = self._start()
        return self._link

    def _start(self) -> _Link:
        """A server that is ready. Each try leaves out what made the last one unfit; the bare core must work."""
        importing = ""
        while True:
            link = _Link(worker_environment(self.options.threads) | {MARK: self._mark}, self._folder() / "server.log")
            left = [name for name in self._preload if name not in self.left_out]
            try:
                link.send({"op": "setup", "options": self.options.to_json(), "isolation": self._isolation,
                           "preload": left, "datasets": self._datasets})  # fmt: skip
                for message in link.messages(START_TIMEOUT_S):
                    match message["op"]:
                        case "importing":
                            importing = message["module"]
                        case "unfit":
                            self.left_out[message["module"]] = message["reason"]
                            break
                        case "ready":
                            self.left_out |= message.get("broken", {})
                            return link
            except ServerDied as exc:
                if importing not in left:
                    raise RuntimeError(f"the fork server does not start: {self._last_words()}") from exc
                self.left_out[importing] = "its import ends the process, or does not end"
            except BaseException:
                link.kill()
                raise
            link.kill()
            self._kill_left_over()

    def _bury(self) -> None:
        """After the server's death: kill what it left, note what was running."""
        if self._link is not None:
            with contextlib.suppress(ServerDied):  # what it said before it died still counts
                while self._link.wait(0):
                    for message in self._link.receive():
                        self._note(message)
            self._link.close()
            self._link = None
        self._kill_left_over()
        for number, job in self._jobs.items():
            (self._lost if number in self._running else self._back).append(job)
        self._jobs.clear()
        self._running.clear()

    def _last_words(self) -> str:
        log = self._folder() / "server.log"
        words = log.read_text(errors="replace").strip()[-4000:] if log.is_file() else ""
        return words or "it said nothing"

    def _kill_left_over(self) -> None:
        """Kill all that carries our mark, wherever it hangs, and again until a look finds none.

        Not our children alone: what a dying worker leaves is not ours yet while it dies.
        """
        stop = time.monotonic() + STOP_TIMEOUT_S
        while (found := list(marked_processes(MARK, self._mark))) and time.monotonic() < stop:
            for pid in found:
                kill(pid, signal.SIGKILL)
            for pid in found:
                reaped(pid, min(stop, time.monotonic() + REAP_S))

    # Traffic ------------------------------------------------------------------------------------------------------------

    def _dispatch(self, waiting: deque[Job], suspects: deque[Job], at_once: int) -> None:
        """Keep the server busy. A suspect, running when a server died, runs when nothing else does."""
        waiting.extendleft(reversed(self._back))
        self._back.clear()
        if self._alone in self._jobs:
            return
        if suspects:
            if not self._jobs:
                self._alone = self._send(suspects.popleft(), 1)
            return
        while waiting and len(self._jobs) < at_once + AHEAD:
            self._send(waiting.popleft(), at_once)

    def _send(self, job: Job, at_once: int) -> int:
        """Hand the job to the server. Returns its number there."""
        try:
            link = self._server()
        except BaseException:
            self._back.append(job)
            raise
        number = self._next_id()
        folder = self._folder() / str(number)  # the worker makes it
        with interrupts_held():  # a job that is noted and never sent would be waited for
            self._jobs[number] = job
            link.send({"op": "run", "id": number, "trial": asdict(job.trial), "timeout_s": job.timeout_s,
                       "memory_bytes": job.memory_bytes, "scratch": str(folder), "parallel": at_once})  # fmt: skip
        return number

    def _pump(self) -> None:
        """Wait for the server and take in what it says. Raises ServerDied."""
        link = self._server()
        link.wait(None)
        # A Ctrl-C between reading a message and noting it would lose an outcome.
        with interrupts_held():
            for message in link.receive():
                self._note(message)

    def _note(self, message: Message) -> None:
        number = message["id"]
        match message["op"]:
            case "started":
                self._running.add(number)
                self._begun.append(self._jobs[number])
            case "dropped":
                self._back.append(self._jobs.pop(number))
            case "done":
                self._running.discard(number)
                self._ended.append((number, self._jobs.pop(number), Outcome.from_json(message["outcome"])))
            case "answer":
                self._answers[number] = message

    def _take_ended(self) -> Iterator[tuple[Job, Outcome]]:
        while self._ended:
            with interrupts_held():
                number, job, outcome = self._ended.popleft()
                yield job, outcome
            if number and self._scratch is not None:
                shutil.rmtree(self._scratch / str(number), ignore_errors=True)

    def _take_lost(self) -> list[Job]:
        lost = list(self._lost)
        self._lost.clear()
        return lost

    def _stop_running(self) -> list[tuple[Job, Outcome]]:
        if self._link is not None and self._jobs:
            stop = time.monotonic() + STOP_TIMEOUT_S
            with contextlib.suppress(ServerDied):
                self._link.send({"op": "kill"})
                while self._jobs and (left := stop - time.monotonic()) > 0:
                    if self._link.wait(left):
                        for message in self._link.receive():
                            self._note(message)
        if self._jobs:  # the server is dead, or deaf
            self._bury()
        killed = [(job, Outcome("interrupted", "killed because the user stopped the run")) for job in self._take_lost()]
        self._begun.clear()
        self._back.clear()
        ended = [(job, outcome) for _, job, outcome in self._ended]
        self._ended.clear()
        return ended + killed

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _folder(self) -> Path:
        """The scratch folder, made anew where a plugin has deleted it."""
        if self._scratch is None:
            raise RuntimeError("the fork server has no scratch folder before it starts")
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._scratch


class _Tries:
    """Which jobs a dead server has cost a run already. Jobs are told apart by identity: two may be equal."""

    def __init__(self) -> None:
        self._seen: list[Job] = []
        self._given_up: list[Job] = []

    def again(self, job: Job) -> bool:
        """Whether to run the job once more; it is given up when the server died under it alone."""
        if any(job is seen for seen in self._seen):
            self._given_up.append(job)
            return False
        self._seen.append(job)
        return True

    def take_given_up(self) -> list[Job]:
        taken, self._given_up = self._given_up, []
        return taken


def died_twice() -> Outcome:
    return Outcome("failed", "the fork server died while this trial ran, and again when it ran alone")


class _Link:
    """One server process and the socket to it."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs, log.open("wb") as printed:
            told = map(str, (theirs.fileno(), os.getpid(), log.parent))
            self._process = subprocess.Popen(
                # -P: no working folder on the path. A session of its own: Ctrl-C is the parent's to hear.
                [sys.executable, "-P", "-m", "harness.executors.server", *told],
                env=dict(environment), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
                start_new_session=True,
            )  # fmt: skip
        self._socket = ours
        self._frames = Frames()

    def send(self, message: Message) -> None:
        try:
            self._socket.sendall(pack(message), socket.MSG_NOSIGNAL)
        except OSError as exc:
            raise ServerDied from exc

    def wait(self, timeout_s: float | None) -> bool:
        """Whether something can be received (the end of the stream counts)."""
        return bool(select.select([self._socket], [], [], timeout_s)[0])

    def receive(self) -> list[Message]:
        try:
            data = self._socket.recv(CHUNK)
        except OSError as exc:
            raise ServerDied from exc
        if not data:
            raise ServerDied
        return self._frames.feed(data)

    def messages(self, timeout_s: float) -> Iterator[Message]:
        """Until the caller has heard enough. Raises ServerDied at the end of the stream, or when it stays silent so long."""
        while self.wait(timeout_s):
            yield from self.receive()
        raise ServerDied

    def kill(self) -> None:
        """For a server that does not listen yet."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """At the end of the stream the server kills its workers and ends; one that does not is killed."""
        self._socket.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """A Ctrl-C (SIGTERM, SIGHUP) meanwhile is delivered afterwards. Only the main thread hears signals: others hold nothing.

    By handlers, not by the signal mask: that holds for one thread, and the system gives the signal to any other (pyarrow's).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: dict[int, None] = {}

    def deliver() -> None:
        for number in heard:
            signal.raise_signal(number)

    with contextlib.ExitStack() as stack:
        stack.callback(deliver)  # after the handlers are back
        for number in STOPPING:
            before = signal.getsignal(number)
            if before is not None:  # None: not Python's, so nothing that could be put back
                stack.callback(signal.signal, number, before)
                signal.signal(number, lambda number, _: heard.setdefault(number))
        yield
