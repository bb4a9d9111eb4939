"""Outside code under our contract: packages around public libraries, from wheels, in an environment without this checkout."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from invoking import environment_of

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
# package -> (its method, the library that it wraps)
PACKAGES = {
    "entmax-loss": ("entmax-loss", "entmax"),
    "lion-optimizer": ("lion", "lion_pytorch"),
    "pykan-layer": ("pykan-layer", "kan"),
    "snntorch-leaky": ("snntorch-leaky", "snntorch"),
}
OURS = ("paper_harness", "_editable_impl_paper_harness", "__editable__", "harness")  # what a fresh environment must not inherit
BUILD = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]


@dataclass(frozen=True)
class Fresh:
    """A virtual environment with wheels of ours in it. wheels: by distribution."""

    folder: Path
    wheels: dict[str, Path]

    def run(self, *command: str | Path, cwd: Path, timeout_s: float = 280.0) -> subprocess.CompletedProcess[str]:
        """A command of the environment, with no path of this checkout."""
        environment = {k: v for k, v in environment_of({}).items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(self.folder / "bin" / str(command[0])), *map(str, command[1:])], cwd=cwd, env=environment, capture_output=True,
            text=True, timeout=timeout_s, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The harness and the four packages, as wheels that their own build backends make."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = [ROOT, *(EXAMPLES / name for name in PACKAGES)]
    subprocess.run([*BUILD, "-w", str(folder), *map(str, sources)], check=True, timeout=280)
    return {wheel.name.partition("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Fresh:
    """A fresh environment: libraries are borrowed from the one that runs the tests, link by link; of this checkout nothing."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=False)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    for path in {Path(p) for p in sys.path if p.endswith("site-packages")}:
        for entry in path.iterdir():
            if not entry.name.startswith(OURS) and not (borrowed / entry.name).exists():
                (borrowed / entry.name).symlink_to(entry)
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    install(folder / "venv", wheels.values())
    return Fresh(folder / "venv", wheels)


def install(environment: Path, wheels: Sequence[Path]) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", *map(str, wheels)], check=True, timeout=280)


def needs(package: str) -> None:
    library = PACKAGES[package][1]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{package} wraps {library}, which is not installed here: pip install -e '.[examples]' -c constraints.txt")


def test_the_fresh_environment_knows_nothing_of_this_checkout(fresh, tmp_path):
    """Otherwise the tests below would pass on our own files."""
    code = "import harness, sys; print(harness.__file__); print([p for p in sys.path if p.startswith(sys.argv[1])])"
    told = fresh.run("python", "-c", code, ROOT, cwd=tmp_path)

    home, paths = told.stdout.splitlines()
    assert home.startswith(str(fresh.folder))
    assert paths == "[]"


def test_plugins_from_wheels_are_found(fresh, tmp_path):
    """By name, through nothing but the entry point of an installed distribution. Papers of ours are not there."""
    told = fresh.run("harness", "list", "methods", "--json", cwd=tmp_path)

    assert told.returncode == 0, told.stderr
    found = {row["name"]: row["from"] for row in json.loads(told.stdout)}
    for package, (method, _) in PACKAGES.items():
        assert found[method] == f"{package}:{package}"
    assert {plugin.partition(":")[0] for plugin in found.values()} == {"paper-harness", *PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wrapped_library_keeps_the_contract(package, fresh, tmp_path):
    """The library knows nothing of us: its wrapper answers for seeds, dtypes, state and saving."""
    needs(package)
    checked = fresh.run("harness", "plugin", "check", package, cwd=tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "no findings: it keeps the contract" in checked.stdout


@pytest.mark.timeout(900)
def test_they_run_in_one_suite_and_are_shown_in_the_report(fresh, tmp_path):
    """Run, leaderboard and pages from the installed wheel, with two seeds; nothing is read from this checkout but the suite."""
    for package in PACKAGES:
        needs(package)
    suite = tmp_path / "compare.yaml"
    suite.write_text((EXAMPLES / "compare.yaml").read_text())

    budget = ("--set", "budget={samples_seen: 3000}")
    ran = fresh.run("harness", "run", suite, "--seeds", "2", *budget, cwd=tmp_path, timeout_s=840)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = fresh.run("harness", "leaderboard", "--json", cwd=tmp_path)
    pages = fresh.run("harness", "report", "-o", "report", cwd=tmp_path)
    assert pages.returncode == 0, pages.stderr

    ranked = {row["method"]: row for board in json.loads(rows.stdout)["boards"] for row in board["rows"]}
    shown = "".join(page.read_text() for page in (tmp_path / "report").rglob("*.html"))
    for method, _ in PACKAGES.values():
        assert (ranked[method]["n_ok"], ranked[method]["n_failed"]) == (2, 0)
        assert ranked[method]["interval"]["mean"] > 0.2  # it learned: chance is 0.1, and Lion's small steps take longer
        assert method in shown


def test_the_folder_of_examples_is_what_is_tested():
    """A package that is added there is tested here."""
    assert {p.parent.name for p in EXAMPLES.glob("*/pyproject.toml")} == set(PACKAGES)
    assert all(package in (EXAMPLES / "README.md").read_text() for package in PACKAGES)


@pytest.mark.slow
def test_a_package_installs_with_all_its_dependencies_from_nothing(wheels, tmp_path):
    """As a stranger does: an empty environment, pip with the constraints of this release, nothing borrowed. Takes minutes."""
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [str(tmp_path / "venv" / "bin" / "python"), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    wanted = [str(wheels["paper-harness"]), str(wheels["lion-optimizer"])]
    got = subprocess.run([*pip, *wanted], capture_output=True, text=True, timeout=1500, check=False)
    if got.returncode and "ConnectionError" in got.stderr:
        pytest.skip(f"no package index can be reached: {got.stderr.splitlines()[-1]}")
    assert got.returncode == 0, got.stderr
    environment = Fresh(tmp_path / "venv", wheels)
    checked = environment.run("harness", "plugin", "check", "lion-optimizer", cwd=tmp_path)
    torch = environment.run("python", "-c", "import torch; print(torch.__file__)", cwd=tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert torch.stdout.startswith(str(tmp_path))
