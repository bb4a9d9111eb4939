"""Processes on Linux: limits, children, what is left behind. No torch.

The walk over children reads /proc: `children` files where the kernel has them, else the parent's number in every `stat`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
THREAD_STACK_BYTES = 8 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans(on: bool = True) -> bool:
    """Make this process a sub-reaper: descendants whose parent dies become its children. Returns what held before."""
    before = ctypes.c_int()
    _prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(before))
    _prctl(PR_SET_CHILD_SUBREAPER, int(on))
    return bool(before.value)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends; end at once if it has already."""
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def live_without_parent() -> None:
    """Undo `die_with_parent`."""
    _prctl(PR_SET_PDEATHSIG, 0)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    return text[text.rindex(b")") + 2 :][:1] in b"ZX"


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


# Children ---------------------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The direct children of a process, zombies included; empty where it is gone."""
    tasks = Path(f"/proc/{pid}/task")
    found: list[int] = []
    try:
        for task in tasks.iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        # Either the process has ended meanwhile or this kernel is built without CONFIG_PROC_CHILDREN.
        return [child for child, parent in parents().items() if parent == pid]
    except ProcessLookupError:
        return []
    return found


def descendants(pid: int, by_pid: Mapping[int, int] | None = None) -> list[int]:
    """Children, their children and so on, at one moment. by_pid: what `parents` gave, to walk several trees in it."""
    by_parent: dict[int, list[int]] = {}
    for child, parent in (parents() if by_pid is None else by_pid).items():
        by_parent.setdefault(parent, []).append(child)
    found, to_visit = [], [pid]
    while to_visit:
        mine = by_parent.get(to_visit.pop(), [])
        found += mine
        to_visit += mine
    return found


def parents() -> dict[int, int]:
    """The parent of every process. 0.8 ms where 84 processes run, so without Path."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended since
                descriptor = os.open(f"/proc/{name}/stat", os.O_RDONLY)
                try:
                    text = os.read(descriptor, 1024)
                finally:
                    os.close(descriptor)
                # "PID (NAME) STATE PARENT ...": the name may hold spaces and parentheses.
                found[int(name)] = int(text[text.rindex(b")") + 4 :].split(b" ", 1)[0])
    return found


def has_children() -> bool:
    """Whether this process has any child, running or not reaped. One system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def kill_children(spare: Collection[int], deadline_s: float = 5.0) -> int:
    """Kill and reap all children of this process but `spare`, again and again until none is left. Returns how many.

    Under a sub-reaper the children of a killed child arrive here in turn, so the whole tree goes.
    """
    killed: set[int] = set()
    stop = time.monotonic() + deadline_s
    while (strangers := [pid for pid in children(os.getpid()) if pid not in spare]) and time.monotonic() < stop:
        for pid in strangers:
            kill(pid, signal.SIGKILL)
        for pid in strangers:
            if reaped(pid, stop):
                killed.add(pid)
    return len(killed)


def reaped(pid: int, stop: float) -> bool:
    """Wait for a killed child, until `stop` of the monotonic clock: one that is stuck in the kernel may outlast it."""
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:
            return False
        if time.monotonic() >= stop:
            return False
        time.sleep(0.001)


def kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def marked_processes(name: str, value: str) -> Iterator[int]:
    """Processes whose environment, as it was at their exec, holds name=value; not this one, and none that has ended."""
    wanted = f"{name}={value}".encode()
    for entry in os.listdir("/proc"):  # noqa: PTH208  as in `parents`
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    yield int(entry)


# Memory -----------------------------------------------------------------------------------------------------------------


def limit_data(memory_bytes: int, threads: int) -> int:
    """Let this process's data segment grow by memory_bytes, plus what glibc and threads reserve without using. Returns it.

    RLIMIT_DATA counts address space: malloc takes MALLOC_TOP_PAD_ more than it needs, and each thread has a stack.
    """
    reserved = int(os.environ.get("MALLOC_TOP_PAD_", "0")) + threads * 2 * THREAD_STACK_BYTES
    limit = status_bytes(os.getpid(), "VmData") + memory_bytes + reserved
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def status_bytes(pid: int, *names: str) -> int:
    """The sum of fields of /proc/PID/status, in bytes; 0 where the process is gone."""
    total = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in names:
                total += int(value.split()[0]) * 1024
    return total


def private_bytes(pid: int) -> int:
    """Resident memory that is the process's own affair: anonymous and shared, without mapped files."""
    return status_bytes(pid, "RssAnon", "RssShmem")


def proportional_bytes(pid: int) -> int:
    """The same with each page divided by the number of processes that map it: adds up over forked children. Slower."""
    total = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("Pss_Anon", "Pss_Shmem"):
                total += int(value.split()[0]) * 1024
    return total


def kernel_oom_kills() -> int:
    """How often this machine's kernel has killed for memory since boot."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


MADV_COLLAPSE = 25
HUGE_PAGE = 2 << 20


def use_huge_pages() -> int:
    """Put this process's heap into huge pages, so that a fork copies 500 times fewer page-table entries. Returns how many.

    A fork of a process with torch takes a third of the time. Needs Linux 6.1; elsewhere nothing happens and 0 is returned.
    The pages stay ordinary otherwise: a forked child that writes to one splits it and copies 4 KiB, as before.
    """
    collapsed = tried = 0
    for start, end in _private_heaps():
        for page in range(-(-start // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE, HUGE_PAGE):
            tried += 1
            collapsed += _libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(HUGE_PAGE), MADV_COLLAPSE) == 0
            if not collapsed and tried >= 64:
                return 0
    return collapsed


def _private_heaps() -> Iterator[tuple[int, int]]:
    """Address ranges of writable, private, anonymous memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if fields[1].startswith("rw") and fields[1][3] == "p" and (len(fields) == 5 or fields[5] == "[heap]"):
            start, end = fields[0].split("-")
            yield int(start, 16), int(end, 16)
