"""The shape of the house: imports go one way, and the torch-free rooms stay so."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

HOME = Path(harness.__file__).parent
FLOW = [
    "errors", "contract", "showing", "rules", "specs", "nets", "identity", "records", "hookspecs", "catalogue", "data",
    "fetching", "suite", "tuning", "plan", "match", "provenance", "timing", "context", "lab", "kernels", "builtin", "worker",
    "executors", "registry", "stats", "strangers", "run", "leaderboard", "fairness", "pooling", "kernelboard", "comparing",
    "claims", "portrait", "picture", "exporting", "regress", "report", "nightly", "testing", "scaffold", "doctor", "cli",
]  # fmt: skip
# What the core may not reach from: `lab`, `data` and `builtin` stand beside the flow, public for plugin authors.
PUBLIC_FOR_PLUGINS = {"lab", "data", "specs", "rules", "hookspecs", "errors", "testing", "nets"}


def modules() -> Iterator[tuple[str, Path]]:
    """(stage, file) for every module of the core."""
    for file in sorted(HOME.rglob("*.py")):
        parts = file.relative_to(HOME).with_suffix("").parts
        if parts != ("__init__",) and not parts[0].startswith("_"):
            yield parts[0], file


def imported(file: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """The stages of harness that a file imports ("" for the package itself)."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "harness" else [f"harness.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        for name in names:
            if name.split(".")[0] == "harness":
                yield name.partition(".")[2].split(".")[0]


def test_every_module_has_its_place_in_the_flow():
    """A new room is put on the list, so that its direction is decided, not drifted into."""
    assert {stage for stage, _ in modules()} <= set(FLOW)


@pytest.mark.parametrize("stage", FLOW)
def test_data_flows_one_way(stage):
    """No module imports a later stage."""
    allowed = set(FLOW[: FLOW.index(stage) + 1])
    wrong = {(f.name, name) for s, f in modules() if s == stage for name in imported(f) if name in FLOW and name not in allowed}

    assert not wrong


def test_every_public_name_resolves():
    """`__all__` is what type checkers see, the table of homes is what runs: they must agree."""
    assert set(harness.__all__) == {"API_VERSION", "__version__", *harness._HOME}
    assert all(getattr(harness, name) is not None for name in harness.__all__)


def test_papers_use_only_what_is_public():
    """A paper here looks like one outside: it imports `harness`, `harness.lab`, `harness.data`, never the core."""
    papers = Path(__file__).parent.parent / "plugins" / "harness_papers"
    wrong = {
        (f.parent.name, f.name, n)
        for f in papers.rglob("*.py")
        for n in imported(f)
        if n in FLOW and n not in PUBLIC_FOR_PLUGINS
    }

    assert not wrong


def test_the_core_knows_no_paper_by_name():
    """What only a paper needs belongs to its plugin."""
    papers = {p.name for p in (Path(__file__).parent.parent / "plugins" / "harness_papers").iterdir() if p.is_dir()} - {
        "__pycache__"
    }
    found = {(f.name, p) for _, f in modules() for p in papers if f"harness_papers.{p}" in f.read_text()}

    assert papers
    assert not found


@pytest.mark.parametrize("arguments", [["--help"], ["list", "methods"], ["validate", "smoke"]])
def test_commands_that_only_look_import_no_torch(arguments):
    """torch costs more than a second to import; who lists or validates does not wait for it."""
    code = (
        "import sys; from harness.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit(9 if 'torch' in sys.modules else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr
