"""C compiled on first use: what the cache keeps, and what is said where nothing can be compiled."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.lab.native import NoCompiler, find_compiler, load, pointer, why_not

SOURCE = """
#include <stdint.h>
void twice(float *x, int64_t n) { for (int64_t i = 0; i < n; i++) x[i] *= 2; }
int answer(void) { return 42; }
"""

needs_compiler = pytest.mark.skipif(bool(why_not(SOURCE)), reason=f"needs a C compiler: {why_not(SOURCE)}")


@pytest.fixture
def source(tmp_path) -> str:
    """A source that no process has loaded yet."""
    return f"{SOURCE}/* {tmp_path} */"


def start(source: str, env: dict[str, str], flags: tuple[str, ...] = ()) -> Callable[[], str]:
    """Another process asks the library of a source; the result waits for its answer, or for why there is none."""
    here, there = multiprocessing.Pipe()

    def ask() -> None:
        os.environ.update(env)
        find_compiler.cache_clear()
        try:
            there.send(str(load(source, flags=flags).answer()))
        except NoCompiler as exc:
            there.send(str(exc))

    process = multiprocessing.get_context("fork").Process(target=ask)
    process.start()

    def finish() -> str:
        process.join(120)
        assert process.exitcode == 0
        return here.recv()

    return finish


def wrapped_compiler(folder: Path) -> tuple[Path, Path]:
    """A compiler that writes its arguments into a log, and the log."""
    real, log, wrapper = shutil.which("cc") or shutil.which("gcc"), folder / "log", folder / "wrapped-cc"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper, log


@needs_compiler
def test_a_function_works_on_a_tensors_memory():
    """The pointer is the first element's, of a view too."""
    x = torch.arange(6, dtype=torch.float32)

    load(SOURCE).twice(pointer(x[2:]), 3)

    assert x.tolist() == [0, 1, 4, 6, 8, 5]


@needs_compiler
def test_a_process_loads_a_source_once():
    """A kernel asks at each call."""
    assert load(SOURCE) is load(SOURCE)


@needs_compiler
def test_the_second_process_compiles_nothing(source, tmp_path):
    """A tenth of a second, once for a machine; other flags are another library."""
    wrapper, log = wrapped_compiler(tmp_path)
    env = {"HARNESS_CACHE_DIR": str(tmp_path / "cache"), "CC": str(wrapper)}
    for flags in ((), (), ("-DOTHER",)):
        assert start(source, env, flags)() == "42"

    compiled = [line for line in log.read_text().splitlines() if "-shared" in line]

    assert len(compiled) == len(list((tmp_path / "cache" / "native").iterdir())) == 2
    assert ["-DOTHER" in line for line in compiled] == [False, True]


DAMAGES = {
    "empty": lambda whole: b"",
    "its head": lambda whole: whole[:100],
    "its first page": lambda whole: whole[:4096],  # the loader maps what is not there, and the process dies of it
    "a page of zeros": lambda whole: whole[:4096] + bytes(4096) + whole[8192:],
    "no end": lambda whole: whole[:-1],
}


@needs_compiler
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_torn_library_is_made_anew(damage, source, tmp_path):
    """A disk that was full, or a machine that died: the next process repairs the cache instead of failing for ever."""
    env = {"HARNESS_CACHE_DIR": str(tmp_path)}
    assert start(source, env)() == "42"
    (library,) = (tmp_path / "native").iterdir()
    whole = library.read_bytes()
    library.write_bytes(damage(whole))
    assert library.read_bytes() != whole

    assert start(source, env)() == "42"
    assert library.stat().st_size == len(whole)


@needs_compiler
def test_processes_that_compile_at_once_do_not_meet(source, tmp_path):
    """Trials start together; each finds a whole library or makes one, and no rest of the work stays behind."""
    started = [start(source, {"HARNESS_CACHE_DIR": str(tmp_path)}) for _ in range(4)]

    assert [finish() for finish in started] == ["42"] * 4
    assert [path.suffix for path in (tmp_path / "native").iterdir()] == [".so"]


CASES = {
    "CC names none": (
        {"CC": "no-such-compiler"},
        "no C compiler is found (CC='no-such-compiler'); install gcc, or set CC to one",
    ),
    "PATH has none": ({"PATH": "/no-such-folder", "CC": ""}, "no C compiler is found (cc, gcc, clang); install gcc"),
    "CC is no compiler": ({"CC": "false"}, "cannot compile this"),
    "the cache is no folder": ({"HARNESS_CACHE_DIR": "/dev/null"}, "set HARNESS_CACHE_DIR to a folder that can be written"),
}


@pytest.mark.parametrize(("env", "says"), CASES.values(), ids=CASES)
def test_where_nothing_can_be_compiled_the_mend_is_said(env, says, source, tmp_path):
    """The caller shows this text as the reason for running its eager code."""
    if "CC" not in env and why_not(SOURCE):
        pytest.skip("needs a C compiler")

    assert says in start(source, {"HARNESS_CACHE_DIR": str(tmp_path), **env})()


@needs_compiler
def test_a_source_that_does_not_compile_is_refused_in_the_compilers_words(tmp_path, monkeypatch):
    """The author of a kernel needs the line and the complaint, not an exit code."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))

    with pytest.raises(NoCompiler, match=r"(?s)cannot compile this: .*kernel\.c.*no_such_name"):
        load("int f(void) { return no_such_name; }")

    assert list((tmp_path / "native").iterdir()) == []
