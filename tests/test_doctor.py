"""`harness doctor`: each check finds what is planted and says the mend; `--version --json`; completion at the Tab key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import PluginSite, plugin_site
from invoking import COMMAND, environment_of, harness, harness_process

import harness as package
from harness.catalogue import load_catalogue
from harness.cli.main import cli
from harness.doctor import examining
from harness.doctor.examining import Finding
from harness.registry import Registry

__all__ = ["plugin_site"]

TORCH = {"version": "2.13.0", "import_s": 1.0, "cuda_build": None, "capability": "AVX2", "devices": [], "reason": "",
         "compiler": "cc 12", "native": ""}  # fmt: skip


def machine(root: Path, files: Mapping[str, str]) -> Path:
    """A folder that looks like /proc, /sys and /dev."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def judge(finding: Finding, state: str, found: str, mend: str = "") -> None:
    assert (finding.state, found in finding.found, mend in finding.mend) == (state, True, True), finding
    assert bool(finding.mend) == (state != "ok"), "what is not in order has its mend, and nothing else has one"


# What is told of torch ------------------------------------------------------------------------------------------------------


def test_torch_and_a_c_kernel_are_tried_in_a_process_of_their_own():
    """Nothing of a device starts in the command's own process; the kernel is really compiled and called."""
    told = examining.probe_torch()

    assert told["version"] == __import__("torch").__version__
    assert told["native"] == ""
    judge(examining.torch_build(told), "ok", told["version"])
    judge(examining.c_compiler(told), "ok", "a C kernel was compiled, loaded and called")


@pytest.mark.parametrize(
    ("code", "said"),
    [("raise ImportError('libcudart.so.13: no such file')", "libcudart.so.13"), ("import os; os._exit(9)", "ended with 9"),
     ("print('no JSON')", "ended with 0")],
)  # fmt: skip
def test_a_torch_that_cannot_be_imported_fails_with_its_own_words(code, said):
    """Also one that takes its process with it."""
    told = examining.probe_torch((sys.executable, "-c", code))

    judge(examining.torch_build(told), "fail", said, "pip install")
    judge(examining.cuda(told, Path("/nowhere")), "warn", "torch cannot be imported", "see torch")
    judge(examining.c_compiler(told), "warn", "not tried", "see torch")


@pytest.mark.parametrize(
    ("files", "told", "state", "found", "mend"),
    [
        ({}, {}, "ok", "no NVIDIA GPU here", ""),
        ({"dev/nvidia0": ""}, {}, "warn", "this torch is built for the CPU", "install a CUDA build"),
        ({"proc/driver/nvidia/version": "x"}, {"cuda_build": "13.0", "reason": "driver too old"}, "warn", "driver too old",
         "nvidia-smi"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_used_is_a_warning_with_the_reason(tmp_path, files, told, state, found, mend):
    """Without one there is nothing to mend."""
    judge(examining.cuda({**TORCH, **told}, machine(tmp_path, files)), state, found, mend)


def test_a_gpu_whose_clocks_cannot_be_read_is_said(monkeypatch):
    """Throttling would go unseen."""
    monkeypatch.setattr(examining.importlib.util, "find_spec", lambda name: None)

    judge(examining.cuda({**TORCH, "devices": ["H200"]}, Path("/")), "warn", "H200; clocks", "paper-harness[cuda]")


# Compilers ------------------------------------------------------------------------------------------------------------------


def test_the_cxx_compiler_is_tried(monkeypatch, tmp_path):
    """Whatever is called g++ must compile what torch.compile writes."""
    monkeypatch.delenv("CXX", raising=False)
    judge(examining.cxx_compiler(), "ok", "compiles C++20 with OpenMP")

    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'try.cpp:3: error: span: no such header' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    judge(examining.cxx_compiler(), "warn", "span: no such header", "install a g++")

    broken.write_text("#!/bin/sh\necho 'fatal error: Python.h: no such file' >&2\nexit 1\n")
    judge(examining.cxx_compiler(), "warn", "Python.h", "python3-dev")

    monkeypatch.setenv("CXX", "no-such-compiler")
    judge(examining.cxx_compiler(), "warn", "CXX='no-such-compiler'", "apt install g++")


def test_no_c_compiler_is_a_warning(monkeypatch):
    """The real message of the real probe, with a CC that is not there."""
    monkeypatch.setenv("CC", "no-such-compiler")

    judge(
        examining.c_compiler(examining.probe_torch()),
        "warn",
        "fall back to eager code: no C compiler is found",
        "apt install gcc",
    )


# Folders --------------------------------------------------------------------------------------------------------------------


def test_a_registry_is_proved_by_writing_and_nothing_is_left(tmp_path):
    """There, to be made, and of this format."""
    judge(examining.registry(tmp_path / "new" / "registry"), "ok", "made by the first run")
    assert list(tmp_path.iterdir()) == []

    Registry.open(tmp_path / "there")
    before = sorted(p.name for p in (tmp_path / "there").rglob("*"))
    judge(examining.registry(tmp_path / "there"), "ok", "writable")
    assert sorted(p.name for p in (tmp_path / "there").rglob("*")) == before


def test_a_registry_that_cannot_take_records_fails(tmp_path, monkeypatch):
    """A file, a folder of other things, a disk without hard links."""
    (tmp_path / "file").write_text("x")
    judge(examining.registry(tmp_path / "file"), "fail", "is a file", "--registry")

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    judge(examining.registry(tmp_path / "photos"), "fail", "has no FORMAT file", "--registry")

    def no_links(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    judge(examining.registry(tmp_path / "new"), "fail", "Operation not supported", "--registry")


def test_a_registry_of_a_newer_format_fails_with_its_own_words(tmp_path):
    """It would be refused by the first run."""
    opened = Registry.open(tmp_path / "r")
    opened._layout.format.write_text('{"format": 99, "min_reader": 99}')
    judge(examining.registry(tmp_path / "r"), "fail", "needs a harness that reads format 99", "name another folder")

    opened._layout.format.write_text("damaged")
    judge(examining.registry(tmp_path / "r"), "fail", "its FORMAT file is damaged", "harness verify")


def test_the_data_folder_is_told_by_what_is_in_it(tmp_path):
    """None, a wrong one, an empty one, one with something in it."""
    catalogue = load_catalogue()
    judge(examining.data_folder(None, catalogue), "warn", "none is named", "HARNESS_DATA_DIR")
    judge(examining.data_folder(tmp_path / "none", catalogue), "fail", "is no folder", "HARNESS_DATA_DIR")
    judge(examining.data_folder(tmp_path, catalogue), "warn", ": 0 of ", "harness data fetch")

    (tmp_path / "pmlb").mkdir()
    (tmp_path / "pmlb" / "irish.tsv.gz").write_text("x")
    judge(examining.data_folder(tmp_path, catalogue), "ok", ": 1 of ")


def test_a_cache_in_a_file_is_a_warning(tmp_path, monkeypatch):
    """Work goes on without it, more slowly."""
    judge(examining.cache(tmp_path / "new"), "ok", "new")
    monkeypatch.setattr(examining, "cannot_write", lambda folder: "Read-only file system")

    judge(examining.cache(tmp_path), "warn", "Read-only file system", "HARNESS_CACHE_DIR")


@pytest.mark.parametrize(("free", "state"), [(50e9, "ok"), (1e9, "warn"), (50e6, "fail")])
def test_the_smallest_disk_decides(tmp_path, monkeypatch, free, state):
    """The registry's may be large and the cache's full."""
    usage = {tmp_path: 100e9, tmp_path / "small": free}
    (tmp_path / "small").mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, usage[folder]))

    judge(examining.disk({"registry": tmp_path, "cache": tmp_path / "small", "data folder": None}), state, "cache")


def test_a_broken_plugin_fails_by_name(plugin_site: PluginSite):
    """With its error, and how to get rid of it."""
    plugin_site.write("broken", "raise RuntimeError('bad day')", "")

    judge(examining.plugins(load_catalogue()), "fail", "broken:broken 1.0: RuntimeError: bad day", "pip uninstall broken")


# Clock, cores, memory ---------------------------------------------------------------------------------------------------------

CLOCK = "sys/devices/system/clocksource/clocksource0"


@pytest.mark.parametrize(
    ("files", "state", "found", "mend"),
    [
        ({f"{CLOCK}/current_clocksource": "tsc\n"}, "ok", "tsc", ""),
        ({f"{CLOCK}/current_clocksource": "hpet\n", f"{CLOCK}/available_clocksource": "tsc hpet acpi_pm\n"}, "warn", "hpet",
         f"echo tsc > /{CLOCK}/current_clocksource"),
        ({f"{CLOCK}/current_clocksource": "xen\n", f"{CLOCK}/available_clocksource": "xen\n"}, "warn", "xen", "no better one"),
        ({}, "warn", "does not tell", "machine check"),
    ],
)  # fmt: skip
def test_the_kernels_clock(tmp_path, files, state, found, mend):
    """A slow clock source makes small kernels look slow, and its mend is one line."""
    judge(examining.clock_source(machine(tmp_path, files)), state, found, mend)


def test_what_a_reading_costs_is_measured(monkeypatch):
    """A real clock first; then one that takes 2 us a reading."""
    assert examining.clock_reading().found.startswith("a reading of perf_counter costs")
    ticks = iter(range(0, 10**9, 2000))
    monkeypatch.setattr(examining.time, "perf_counter_ns", lambda: next(ticks))

    judge(examining.clock_reading(), "warn", "costs 2000 ns", "see clock source")


@pytest.mark.parametrize(
    ("governors", "state", "found"),
    [((), "ok", "virtual machine"), (("performance",) * 2, "ok", "performance on 2 CPUs"),
     (("performance", "powersave"), "warn", "performance, powersave: the clock changes")],
)  # fmt: skip
def test_the_cpu_governor(tmp_path, governors, state, found):
    """One CPU that saves power is enough for a warning."""
    files = {f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor": f"{name}\n" for i, name in enumerate(governors)}

    judge(examining.governor(machine(tmp_path, files)), state, found, "cpupower" if state == "warn" else "")


@pytest.mark.parametrize(
    ("files", "state", "found", "mend"),
    [
        ({"proc/loadavg": "0.02 0.1 0.1 1/99 5"}, "ok", "load 0.0", ""),
        ({"proc/loadavg": "64.0 1 1 1/99 5"}, "warn", "other work uses them", "quiet machine"),
        ({"proc/loadavg": "0.0 0 0 1/9 5", "sys/fs/cgroup/cpu.max": "50000 100000"}, "warn", "a quota of 0.5 CPUs", "-j 1"),
        ({"proc/loadavg": "0.0 0 0 1/9 5", "sys/fs/cgroup/cpu.max": "max 100000"}, "ok", "usable", ""),
    ],
)  # fmt: skip
def test_cores_that_others_use_or_a_quota_cuts(tmp_path, files, state, found, mend):
    """Both make timings doubtful."""
    judge(examining.cores(machine(tmp_path, files)), state, found, mend)


@pytest.mark.parametrize(
    ("files", "state", "found"),
    [
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   8000000 kB\n"}, "ok", "8.2 GB"),
        ({"proc/meminfo": "MemAvailable: 1000000 kB\n"}, "warn", "1.0 GB"),
        ({"proc/meminfo": "MemAvailable: 8000000 kB\n", "sys/fs/cgroup/memory.max": "1000000000"}, "warn", "1.0 GB"),
        ({"proc/meminfo": "MemAvailable: 8000000 kB\n", "sys/fs/cgroup/memory.max": "max"}, "ok", "8.2 GB"),
        ({}, "warn", "does not tell"),
    ],
)
def test_memory_is_what_this_process_may_have(tmp_path, files, state, found):
    """A container's limit counts, not the machine's size."""
    judge(examining.memory(machine(tmp_path, files)), state, found)


# Python and packages ----------------------------------------------------------------------------------------------------------


def test_an_old_python_and_another_system_fail(monkeypatch):
    """Said, not run into."""
    judge(examining.python(), "ok", "CPython")
    monkeypatch.setattr(examining, "PYTHON", (9, 9))
    judge(examining.python(), "fail", "CPython", "install Python 9.9")
    monkeypatch.setattr(sys, "platform", "darwin")
    judge(examining.python(), "fail", "on darwin", "use Linux")


def test_packages_are_compared_with_what_the_distribution_asks_for(monkeypatch):
    """Missing, too old, not installed at all; what belongs to an extra is not asked for."""
    judge(examining.packages(), "ok", "requirements of paper-harness are met")
    monkeypatch.setattr(examining.importlib.metadata, "requires", lambda name: ["nope>=1", "click>=99", "x; extra == 'dev'"])

    found = examining.packages()
    judge(found, "fail", "nope is missing; click is", "pip install --upgrade paper-harness")
    assert "x is missing" not in found.found
    monkeypatch.undo()
    judge(examining.packages("no-such-distribution"), "fail", "without being installed", "pip install")


def test_extras_and_git_that_are_not_there_are_warnings(monkeypatch):
    """Each with what lacks without it."""
    judge(examining.git(), "ok", "commit")
    monkeypatch.setattr(examining.importlib.util, "find_spec", lambda name: None if name in ("PIL", "altair") else "there")
    monkeypatch.setattr(shutil, "which", lambda name: None)

    judge(examining.extras(), "warn", "not here: PIL, altair", "paper-harness[images,report]")
    judge(examining.git(), "warn", "no commit", "apt install git")


# The command ------------------------------------------------------------------------------------------------------------------


def test_the_command_shows_each_check_and_its_mend_and_ends_with_0(monkeypatch, tmp_path):
    """Warnings are no failure: runs work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    monkeypatch.setattr(examining, "probe_torch", lambda: TORCH)

    answer = harness("doctor")
    told = harness("doctor", "--json").json

    assert answer.code == 0, answer.out
    names = [check["check"] for check in told["checks"]]
    assert names == ["python", "packages", "torch", "cuda", "g++", "gcc", "registry", "data folder", "cache", "disk", "plugins",
                     "clock source", "clock reading", "cpu governor", "cores", "memory", "extras", "git"]  # fmt: skip
    assert all(
        any(line.split("  ")[0].startswith(("ok", "warn")) and name in line for line in answer.out.splitlines())
        for name in names
    )
    assert "-> set HARNESS_DATA_DIR" in answer.out
    assert told["ok"]
    assert told["warned"] == sum(check["state"] == "warn" for check in told["checks"])


def test_the_command_ends_with_5_where_something_failed(monkeypatch, tmp_path, plugin_site: PluginSite):
    """For a container's health check; text of a plugin is shown, not obeyed."""
    plugin_site.write("broken", "raise RuntimeError('bad\\x1b[2J day')", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examining, "probe_torch", lambda: TORCH)

    answer = harness("doctor", "--registry", tmp_path / "r")

    assert answer.code == 5
    assert "fail  plugins        broken:broken 1.0" in answer.out
    assert "\x1b" not in answer.out
    assert harness("doctor", "--json").json["failed"] == 1


def test_the_version_as_json_names_what_a_report_of_a_fault_needs(plugin_site: PluginSite):
    """Without importing torch."""
    plugin_site.write("broken", "raise RuntimeError('bad day')", "")

    told = harness("--version", "--json").json

    assert (told["harness"], told["api_version"]) == (package.__version__, package.API_VERSION)
    assert told["torch"] == __import__("torch").__version__
    assert told["plugins"]["paper-harness:builtin"] == package.__version__
    assert told["broken_plugins"] == {"broken:broken": "RuntimeError: bad day"}
    assert harness("--version").out == f"harness, version {package.__version__}\n"


def test_json_without_a_command_is_a_mistake():
    """It stands after the command."""
    answer = harness("--json", "doctor")

    assert answer.code == 2
    assert "--json stands after a command, or with --version" in answer.err


def test_the_version_as_json_imports_no_torch(tmp_path):
    """It is asked for by scripts."""
    code = ("import sys; from harness.cli import main\ntry: main(['--version', '--json'])\nexcept SystemExit: pass\n"
            "sys.exit(9 if 'torch' in sys.modules else 0)")  # fmt: skip

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, check=False).returncode == 0


# Completion -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "offered", "not_offered"),
    [
        (["har", "da"], {"data"}, {"run"}),
        (["harness", "data", ""], {"list", "fetch", "verify"}, set()),
        (["harness", "data", "fetch", "cifar"], {"cifar10", "cifar100"}, {"cifar10-jpeg"}),
        (["harness", "data", "verify", "cifar"], {"cifar10-jpeg"}, {"digits"}),
        (["harness", "run", "vis"], {"vision", "vision-full"}, {"smoke"}),
        (["harness", "run", "suites/vis"], {"suites/vision.yaml"}, {"vision"}),
        (["harness", "describe", "evo"], {"evonorm-s0"}, {"relu"}),
        (["harness", "show", "re"], {"relu"}, {"registry"}),
        (["harness", "list", "m"], {"methods"}, {"tasks"}),
        (["harness", "run", "--da"], {"--data-dir"}, {"--registry"}),
        (["harness", "completion", ""], {"bash", "zsh", "fish"}, set()),
    ],
)
def test_the_tab_key_offers_what_fits(words, offered, not_offered):
    """As a shell asks for it."""
    asked = {"_HARNESS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(COMMAND, env=environment_of(asked), cwd=Path(__file__).parents[1], capture_output=True, text=True,
                          check=False)  # fmt: skip

    found = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert offered <= found, (done.stdout, done.stderr)
    assert not not_offered & found
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_bash_script_completes_in_a_real_bash(tmp_path):
    """The script is sourced, its function called as readline would."""
    made = harness_process("completion", "bash", cwd=tmp_path)
    (tmp_path / "harness").write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from harness.cli import main; main()' \"$@\"\n")
    (tmp_path / "harness").chmod(0o755)
    (tmp_path / "completion").write_text(made.out)
    script = (f"source {tmp_path}/completion; COMP_WORDS=(harness data ver); COMP_CWORD=2; "
              "$(complete -p harness | sed 's/.*-F \\([^ ]*\\) .*/\\1/') harness; echo \"${COMPREPLY[@]}\"")  # fmt: skip

    done = subprocess.run(["bash", "-c", script], env=environment_of({"PATH": f"{tmp_path}:{os.environ['PATH']}"}),
                          capture_output=True, text=True, check=False)  # fmt: skip

    assert done.stdout.strip() == "verify", done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_each_shell_has_its_script(shell):
    """click's, under our name."""
    made = harness("completion", shell)

    assert made.code == 0
    assert "_HARNESS_COMPLETE" in made.out


def test_every_command_is_offered():
    """A command that the group does not know cannot be completed."""
    assert {"doctor", "completion", "data"} <= set(cli.commands)
    json.dumps(sorted(cli.commands))
