"""`suites/asv`: the benchmarks that asv finds are made of the plugins that are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from harness.catalogue import Broken, Catalogue, load_catalogue

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "suites" / "asv"


def load(name: str) -> ModuleType:
    """A module of the suite; not as package "asv", which the tool itself is."""
    spec = importlib.util.spec_from_file_location(f"asv_suite_{name}", SUITE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def no_compiler(inputs: object, case: object) -> str:
    """A kernel's `fallback`: why eager code would run."""
    return "no gcc"


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return load("kernels")


def test_every_kernel_has_a_class_of_its_own_with_a_version_of_its_own(kernels):
    """asv's default version is the source text of a method, which generated classes share."""
    catalogue = load_catalogue()
    classes = list(kernels.benchmark_classes(catalogue))

    assert len(classes) == len(catalogue.kernels) + len(catalogue.broken) > 0
    assert len({made.__name__ for made in classes}) == len({made.version for made in classes}) == len(classes)
    assert all(made.__name__ == made.__qualname__ and made.__name__.isidentifier() for made in classes)


def test_a_broken_plugin_fails_alone(kernels):
    """One that raised at discovery would take the benchmarks of all the others with it."""
    broken = Broken("dist:name", "1", "dist.module", "ImportError: no module named 'x'")
    (made,) = kernels.benchmark_classes(Catalogue(broken=(broken,)))

    with pytest.raises(RuntimeError, match="plugin dist:name: ImportError: no module named 'x'"):
        made().setup()


def test_kernels_of_one_name_from_two_plugins_are_told_apart(kernels):
    """Both classes would be one name in the module, and one of them lost."""
    offer = load_catalogue().kernels[0]
    other = replace(offer, plugin=replace(offer.plugin, dist="other-dist"))
    names = [made.__name__ for made in kernels.benchmark_classes(Catalogue(kernels=(offer, other)))]

    assert len(set(names)) == 2
    assert f"other_dist_{kernels.slug(offer.name)}" in names


def test_eager_code_is_not_timed_under_the_name_of_ours(kernels):
    """Where there is no compiler the benchmark is skipped, not slower."""
    offer = load_catalogue().kernel("gelu")
    eager = replace(offer.spec.implementations[0], name="ours", kind="ours", fallback=f"{__name__}:no_compiler")
    made = kernels.kernel_class("gelu", replace(offer, spec=replace(offer.spec, implementations=(eager,))))()

    with pytest.raises(NotImplementedError, match="no gcc"):
        made.setup("ours", 100)


@pytest.mark.parametrize("what", ["track_time", "track_error", "track_roofline_gap"])
def test_what_is_tracked_is_a_number_of_which_less_is_better(kernels, what):
    """Through our own timing path, of one small kernel."""
    made = kernels.kernel_class("gelu", load_catalogue().kernel("gelu"))()
    made.setup("eager", 1000)
    value = getattr(made, what)("eager", 1000)

    assert 0 <= value < 1
    assert getattr(made, what).unit


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout: asv asks git for commits")
def test_asv_runs_a_benchmark_here_and_publishes_a_point(tmp_path):
    """With the asv.conf.json of the repository, its folders moved: check, run --set-commit-hash, publish."""
    conf = json.loads((ROOT / "asv.conf.json").read_text())
    conf |= {"repo": str(ROOT), "benchmark_dir": str(SUITE), "results_dir": "results", "html_dir": "html"}
    (tmp_path / "asv.conf.json").write_text(json.dumps(conf))
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout

    def asv(*arguments: str) -> str:
        command = [sys.executable, "-m", "asv", *arguments]
        env = {**os.environ, "HOME": str(tmp_path)}  # asv keeps what it knows of machines there
        ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert "No problems found" in asv("check", "-E", "existing:same")
    asv("machine", "--yes", "--machine", "here")
    name = "overhead.time_load_catalogue"
    where = ("-E", "existing:same", "--machine", "here", "--set-commit-hash", commit.strip())
    asv("run", *where, "--quick", "--bench", name)
    asv("publish")

    (graph,) = [
        p for p in (tmp_path / "html" / "graphs").rglob(f"{name}.json") if "summary" not in p.relative_to(tmp_path).parts
    ]
    ((_, seconds),) = json.loads(graph.read_text())
    assert seconds > 0
