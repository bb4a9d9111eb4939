"""`harness plugin new`: of every kind a package that installs, passes its own tests and keeps the contract at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from invoking import environment_of, harness, harness_process
from ruamel.yaml import YAML

from harness.catalogue import load_catalogue
from harness.cli.plugin import KINDS
from harness.errors import HarnessError
from harness.scaffold import KINDS as MADE
from harness.scaffold import check_name, make_package

TEMPLATES = Path(__file__).parent.parent / "harness" / "scaffold" / "templates"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of each kind, written by the command, and all of them installed into `site`, from wheels that pip builds."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        made = harness("plugin", "new", f"my-{kind}", "--kind", kind, "--into", folder)
        assert made.code == 0, made.err
    sources = [str(folder / f"my-{kind}") for kind in KINDS]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target",
         str(folder / "site"), *sources],
        check=True, timeout=280,
    )  # fmt: skip
    return folder


def site_of(packages: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(packages / "site"), os.environ.get("PYTHONPATH", "")])}


def test_the_command_offers_every_kind_that_there_are_templates_for():
    """The command's list is written out, so that `--help` reads no templates."""
    assert set(KINDS) == set(MADE) == {p.name for p in TEMPLATES.iterdir()} - {"common"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_keeps_the_contract(kind, packages):
    """`harness plugin check FOLDER` on what nobody has touched yet: declarations, claim, suite, and what is declared."""
    checked = harness_process("plugin", "check", f"my-{kind}", cwd=packages, **site_of(packages))

    assert checked.code == 0, checked.out + checked.err
    assert "no findings: it keeps the contract" in checked.out


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_its_own_tests(kind, packages):
    """And its tests do assert: most of them are of the mathematics."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=packages / f"my-{kind}", capture_output=True,
        text=True, timeout=280, env=environment_of(site_of(packages)), check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stdout
    assert "failed" not in ran.stdout


@pytest.mark.parametrize("kind", ["activation", "learner"])
def test_its_suite_runs_as_its_workflow_says(kind, packages, tmp_path):
    """The last step of ci.yml, two seeds; then the leaderboard has its method and the report its page."""
    folder = packages / f"my-{kind}"
    step = workflow_steps(folder)[-1]
    assert step == f"harness run suites/my-{kind}.yaml --seeds 2"
    ran = harness_process(*step.split()[1:], "--registry", tmp_path / "registry", cwd=folder, **site_of(packages))
    assert ran.code == 0, ran.err
    pages = ("report", "-o", tmp_path / "report", "--registry", tmp_path / "registry")
    report = harness_process(*pages, cwd=folder, **site_of(packages))

    assert report.code == 0, report.err
    assert f"my-{kind}" in ran.out
    assert f"my-{kind}" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_its_workflow_runs_the_commands_that_are_tested_here(kind, packages):
    """A CI file that nobody runs is wrong within a month: its steps are those of the tests above."""
    steps = workflow_steps(packages / f"my-{kind}")

    assert steps[-3:] == ["python -m pytest", "harness plugin check .", f"harness run suites/my-{kind}.yaml --seeds 2"]
    assert "-e '.[test]'" in steps[-4]


@pytest.mark.parametrize("kind", KINDS)
def test_its_files_name_it_and_leave_nothing_to_fill_in(kind, packages):
    """No placeholder is left, lines are short, and the entry point is the module's."""
    folder = packages / f"my-{kind}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    texts = {f: f.read_text() for f in folder.rglob("*.*") if f.suffix in (".py", ".md", ".yaml", ".toml", ".yml")}

    assert project["project"]["entry-points"]["harness"] == {f"my-{kind}": f"my_{kind}"}
    assert all("${{" in line or "${" not in line for text in texts.values() for line in text.splitlines())
    assert max(len(line) for f, text in texts.items() if f.suffix == ".py" for line in text.splitlines()) <= 128
    assert not any("TODO" in text for text in texts.values())


def test_the_last_lines_of_the_command_are_the_next_three_commands(tmp_path):
    """Who has just made a package should not have to look for what comes next."""
    made = harness("plugin", "new", "my-thing", "--into", tmp_path)

    assert made.out.splitlines()[-4:] == [
        "Next:",
        f"  cd {tmp_path / 'my-thing'} && pip install -e '.[test]'",
        "  harness plugin check .",
        "  harness run suites/my-thing.yaml",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MyNorm", "use lower-case letters and digits, words joined by '-', 40 at most, such as 'mynorm'"),
        ("my norm", "such as 'my-norm'"),
        ("1norm", "such as 'norm'"),
        ("../norm", "such as 'norm'"),
        ("", "such as 'my-norm'"),
        ("x" * 41, "40 at most"),
        ("json", "a module of its library; take another, such as 'my-json'"),
        ("lambda", "a word of Python"),
        ("relu", "method 'relu' is offered by paper-harness:builtin already"),
        ("digits", "task 'digits' is offered by"),
        ("numpy", "a module 'numpy' is installed here already"),
        ("harness", "a module 'harness' is installed here already"),
        ("tests", "is a folder of the package itself"),
    ],
)
def test_a_name_that_could_not_work_is_refused_with_the_mend(name, text):
    """Each of them would install, and then hide something or not be found."""
    with pytest.raises(HarnessError, match="NAME: ") as refused:
        check_name(name, load_catalogue())

    assert text in str(refused.value)


@pytest.mark.parametrize("there", ["folder", "file", "dangling link"])
def test_nothing_that_is_there_is_written_over(there, tmp_path):
    """A second `new` of the same name would lose an evening's work."""
    target = tmp_path / "my-norm"
    if there == "folder":
        target.mkdir()
        (target / "method.py").write_text("mine")
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")

    with pytest.raises(HarnessError, match="is there already, and is left as it is"):
        make_package("my-norm", "norm", tmp_path, load_catalogue())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my-norm"]


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(HarnessError, match=r"--into: .* is no folder"):
        make_package("my-norm", "norm", tmp_path / "absent", load_catalogue())


def workflow_steps(folder: Path) -> list[str]:
    workflow = YAML(typ="safe").load((folder / ".github" / "workflows" / "ci.yml").read_text())
    return [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
