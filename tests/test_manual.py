"""The manual: what it says of the code is what the code says, its examples run, its pages build, link and ask for nothing."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
from invoking import environment_of, harness, query

from harness import errors, hookspecs, specs
from harness.catalogue import load_catalogue
from harness.cli.main import cli
from harness.context import Context
from harness.registry.views import VIEWS
from harness.suite import load_suite, suite_schema

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BY_HAND = sorted(p for p in DOCS.rglob("*.md"))
REFERENCE = ROOT / "registry" / "reference"


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    """docs/generated.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generated: ModuleType) -> dict[str, str]:
    return generated.pages()


# What is generated is what the code says -----------------------------------------------------------------------------------


def test_every_commands_help_is_on_the_page_as_it_is_printed(generated, pages, monkeypatch):
    """A command that is added, or a help text that changes, changes the page."""
    monkeypatch.setenv("COLUMNS", str(generated.COLUMNS))
    paths = [path for path, _ in generated.commands()]

    assert {path[0] for path in paths} == {*cli.commands, *generated.brought()}
    for path in paths:
        assert (
            f"## harness {' '.join(path)}\n\n```text\n{harness(*path, '--help').out.rstrip()}\n```" in pages["reference/cli.md"]
        )


def test_every_hook_stands_with_its_signature_and_every_declaration_with_its_fields(pages):
    """What a plugin's author looks up."""
    page = pages["reference/hooks.md"]
    hooks = [name for name in vars(hookspecs) if name.startswith("harness_")]

    assert len(hooks) >= 7
    for name in hooks:
        function = getattr(hookspecs, name)
        assert f"def {name}{str(inspect.signature(function)).replace(chr(39), '')}: ..." in page
        assert inspect.getdoc(function) in page
    for cls in (specs.Task, specs.Component, specs.Learner, specs.Kernel, specs.Claim, specs.Paper, specs.Dataset):
        section = page.split(f"\n## {cls.__name__}\n")[1].split("\n## ")[0]
        assert [f.name for f in fields(cls)] == re.findall(r"^    (\w+): ", section.split("```")[1], re.MULTILINE)


def test_every_key_of_the_suite_file_is_on_its_page(pages):
    """Against the JSON Schema, which editors use: another way to the same models."""
    page = pages["reference/suite.md"]
    schema = suite_schema(load_catalogue())
    keys = set(schema["properties"]) | {key for name in ("Net", "Train") for key in schema["definitions"][name]["properties"]}

    assert {"tasks", "methods", "tuning", "width", "lr"} <= keys
    assert [key for key in sorted(keys) if f"| `{key}` |" not in page] == []
    assert "| `timeout` | duration (`90s`, `30m`, `2h`) | `1800.0` |" in page
    assert "| required |" in page
    anchors = {heading.replace(".", "").lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= anchors


def test_every_view_stands_with_its_columns(pages):
    """As DuckDB names them."""
    page = pages["reference/tables.md"]

    for view in VIEWS:
        section = page.split(f"\n## {view}\n")[1].split("\n## ")[0]
        columns = [row["column_name"] for row in query(REFERENCE, f"DESCRIBE {view}")]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == columns


def test_every_exit_code_of_the_code_is_on_the_page_and_in_the_help(pages):
    """They are a contract with scripts."""
    page, shown = pages["reference/exit-codes.md"], " ".join(harness("--help").out.split())

    for name, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.HarnessError):
            assert re.search(rf"^\| {cls.exit_code} \|.*`{name}`", page, re.MULTILINE), name
    for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE):
        assert re.search(rf"[ :]{code} ", shown)


def test_every_variable_of_an_option_is_on_the_page(generated, pages):
    """As `--help` names the options."""
    page = pages["reference/variables.md"]
    variables = {
        param.envvar for _, command in generated.commands() for param in command.params if getattr(param, "envvar", None)
    }

    assert {"HARNESS_DATA_DIR", "HARNESS_REGISTRY", "HARNESS_MIRROR"} <= variables
    assert [name for name in sorted(variables) if f"| `{name}` |" not in page] == []


def test_every_paper_has_a_page_with_its_methods_and_claims(generated, pages):
    """From what its plugin registers; one that is added in plugins/ has a page."""
    catalogue = load_catalogue()
    declared = tomllib.loads((ROOT / "plugins/pyproject.toml").read_text())["project"]["entry-points"]["harness"]

    found = {paper.name for paper in generated.papers_of(catalogue)}
    assert found <= set(declared)
    assert {plugin.id.partition(":")[2] for plugin in catalogue.plugins if plugin.id.startswith(generated.PAPERS)} == set(
        declared
    )
    assert len(found) >= 8
    for paper in generated.papers_of(catalogue):
        page = pages[f"papers/{paper.name}.md"]
        assert f"https://arxiv.org/abs/{paper.arxiv}" in page
        for claim in paper.claims:
            section = page.split(f"### {paper.name}.{claim.name}\n")[1].split("\n### ")[0]
            assert generated.escape(claim.says) in section
            assert ("none: it cannot be tested here" in section) == (claim.rule is None)
        for offer in catalogue.methods:
            if offer.plugin.id == f"{generated.PAPERS}:{paper.name}":
                assert f"### {offer.name}\n" in page


def test_a_rule_is_told_in_words(generated):
    """Ranges, conditions, and what is asked of every seed."""
    from harness import All, Cell, Every, better

    rule = All((better("a", "b", task="t", metric="accuracy"), Every(Cell("a", "t", "bound"), low=1.0)))

    assert (
        generated.rule_text(rule)
        == "accuracy of a - b on t \\>= 0 **and** every seed: bound of a on t \\>= 1 (at least 5 of them)"
    )


@pytest.mark.parametrize(
    ("link", "place", "becomes"),
    [
        ("[s](../SECURITY.md)", "registry.md", "[s](security.md)"),
        ("[s](../SECURITY.md#trusted)", "registry.md", "[s](security.md#trusted)"),
        ("[R](../plugins/harness_papers/lipsdp/README.md)", "kernels.md", "[R](papers/lipsdp.md)"),
        ("[k](../lipsdp)", "papers/kan_assessment.md", "[k](../papers/lipsdp.md)"),
        ("[k](../kan)", "papers/kan_assessment.md", "`k`"),  # a room without a paper of its own
        ("[R](../tests/test_data.py)", "registry.md", "`R`"),
        ("[c](docs/claims.md)", "changelog.md", "[c](claims.md)"),
        ("[c](../claims.md)", "howto/data.md", "[c](../claims.md)"),
        ("[x](https://example.org) [y](#here)", "howto/data.md", "[x](https://example.org) [y](#here)"),
        ("[gone](gone.md)", "howto/data.md", "[gone](gone.md)"),  # mkdocs says so
    ],
)
def test_links_into_the_repository_lead_to_pages_or_become_names(generated, link, place, becomes):
    """In a checkout they work as they stand; in the manual there is no file beside it."""
    known = {"security.md", "papers/lipsdp.md", "claims.md", "registry.md"}

    assert generated.relinked(link, place, known) == becomes


def test_all_that_ctx_can_do_is_on_the_page_of_hooks(pages):
    """A method's author has nothing else to ask."""
    shown = set(re.findall(r"^### ctx\.(\w+)$", pages["reference/hooks.md"], re.MULTILINE))
    public = {
        name
        for name, value in vars(Context).items()
        if not name.startswith("_") and (callable(value) or hasattr(value, "fget"))
    }

    assert shown == public
    assert {"spend", "offer", "generator", "save"} <= shown


# Examples ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title, and what is in it."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    for found in re.finditer(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2] or "", found[3])


def script_of(page: Path) -> tuple[str, list[tuple[str, set[int], list[str]]]]:
    """A bash script that writes the page's files and runs its commands; of each its exit codes, and the lines that it shows."""
    lines, asked = [], []
    for block in blocks(page):
        if block.title:
            folder = Path(block.title).parent.as_posix()
            lines.append(f"mkdir -p {folder}\ncat > {block.title} <<'END OF FILE'\n{block.text}END OF FILE")
        elif block.language == "console":
            for line in block.text.splitlines():
                if line.startswith("$ "):
                    command, _, codes = line[2:].partition("   # exit ")
                    asked.append((command, set(map(int, codes.split(" or "))) if codes else {0}, []))
                    lines.append(f"echo '::begin'\n{command}\necho \"::exit $?\"")
                elif re.search("[A-Za-z]", line) and not re.search("[0-9]", line) and line != "...":
                    asked[-1][2].append(" ".join(line.split()))
    return "\n".join(lines), asked


PIP = """#!{python}
# Stands in for pip: writes what an installed package leaves, from its pyproject.toml. No network, no build backend.
import pathlib, sys, tomllib
folder = pathlib.Path(sys.argv[-1]).resolve()
project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
made = pathlib.Path({site!r}) / f"{{project['name']}}-{{project['version']}}.dist-info"
made.mkdir(parents=True, exist_ok=True)
(made / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {{project['name']}}\\nVersion: {{project['version']}}\\n")
points = project["entry-points"]["harness"]
(made / "entry_points.txt").write_text("[harness]\\n" + "".join(f"{{k}} = {{v}}\\n" for k, v in points.items()))
for file in (f for f in folder.iterdir() if f.suffix == ".py" or (f / "__init__.py").is_file()):
    link = made.parent / file.name
    link.unlink(missing_ok=True)
    link.symlink_to(file)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader works: one folder for all pages of the tutorial, which go on from each other."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "bin").mkdir()
    (folder / "site").mkdir()
    (folder / "work").mkdir()
    start = f"#!/bin/sh\nexec {sys.executable} -c 'from harness.cli import main; main()' \"$@\"\n"
    for name, text in (("harness", start), ("pip", PIP.format(python=sys.executable, site=str(folder / "site")))):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return folder


EXAMPLES = ["tutorial/first-run.md", "tutorial/leaderboard.md", "tutorial/first-method.md", "tutorial/first-claim.md",
            "plugins.md", "howto/certify.md", "howto/gpu.md", "howto/data.md", "howto/merging.md"]  # fmt: skip


def test_every_page_with_commands_is_run():
    """A page that gets a console block is put on the list, so that its commands cannot rot."""
    with_commands = {p.relative_to(DOCS).as_posix() for p in BY_HAND if any(b.language == "console" for b in blocks(p))}

    assert with_commands == set(EXAMPLES)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_commands_of_a_page_work_in_this_order(name, place):
    """Each ends with its exit code; lines without figures that the page shows are in what it printed."""
    script, asked = script_of(DOCS / name)
    given = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(place / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(["bash", "-c", script], cwd=place / "work", env=environment_of(given), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip

    printed = done.stdout.split("::begin\n")[1:]
    assert len(printed) == len(asked), done.stdout
    for (command, codes, shown), output in zip(asked, printed, strict=True):
        told, _, code = output.rpartition("::exit ")
        assert int(code.split()[0]) in codes, f"{command}\n{output}"
        lines = {" ".join(line.split()) for line in told.splitlines()}
        assert [line for line in shown if line not in lines] == [], f"{command}\n{output}"


SQL = [(page, block.text) for page in BY_HAND for block in blocks(page) if block.language == "sql"]


@pytest.mark.parametrize(("page", "sql"), SQL, ids=[sql.split("\n")[0][:60] for _, sql in SQL])
def test_every_sql_recipe_runs_on_the_committed_records(page, sql):
    """And finds something there, so that a renamed column or value is seen; nothing failed there, and no night was timed."""
    rows = query(REFERENCE, sql)

    assert rows or "NOT IN ('ok'" in sql


def test_every_suite_on_a_page_is_valid(tmp_path):
    """Also those that are shown and not run; the plugin of the tutorial is not installed here."""
    catalogue, found = load_catalogue(), 0
    for page in BY_HAND:
        for block in blocks(page):
            if block.language == "yaml" and block.text.startswith("schema: harness/suite/1") and "swoosh" not in block.text:
                (tmp_path / "suite.yaml").write_text(block.text)
                load_suite(tmp_path / "suite.yaml", catalogue)
                found += 1

    assert found >= 2


def test_settings_and_workflows_on_pages_are_well_formed(tmp_path, monkeypatch):
    """TOML that the command line takes, YAML that a runner takes, Python that compiles."""
    from ruamel.yaml import YAML

    workflow = next(b for b in blocks(DOCS / "howto/gate.md") if b.title.endswith(".yml"))
    steps = YAML(typ="safe").load(workflow.text)["jobs"]["small"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("harness ")]
    assert all(harness(*command.split()[1:2], "--help").code == 0 for command in commands)
    assert len(commands) == 4

    settings = next(b for b in blocks(DOCS / "howto/data.md") if b.title == "pyproject.toml")
    (tmp_path / "pyproject.toml").write_text(settings.text)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (
        harness("data", "fetch", "kmnist", "--dry-run", "--json")
        .json[0]["addresses"][0]
        .startswith("https://mirror.example.org/")
    )

    for page in BY_HAND:
        for block in blocks(page):
            if block.language == "python" and page.parent.name == "tutorial":
                compile(block.text, f"{page}", "exec")


# The built pages --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual, built as `make docs` does."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment_of({"NO_MKDOCS_2_WARNING": "1"}),
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """What a page names: ids, links, and what a browser would load for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        else:
            self.loads += [given[name] for name in ("src", "href", "srcset", "data", "action", "poster") if name in given]


def test_pages_ask_for_nothing_from_elsewhere(site):
    """No font, no script, no picture: they open from a disk, and tell nobody who reads what."""
    loads = {(page.name, address) for page in site.rglob("*.html") for address in Page(page.read_text()).loads}
    styles = [address for sheet in site.rglob("*.css") for address in re.findall(r"url\(([^)]*)\)", sheet.read_text())]

    assert len(loads) > 100
    assert {
        (page, a) for page, a in loads if urlsplit(a).scheme not in ("", "data", "javascript") or urlsplit(a).netloc
    } == set()
    assert [a for a in styles if urlsplit(a.strip("'\"")).scheme not in ("", "data")] == []


def test_every_link_and_every_anchor_leads_somewhere(site):
    """mkdocs checks what it knows as a link; this checks what stands in the pages."""
    read = {page: Page(page.read_text()) for page in site.rglob("*.html")}
    assert len(read) > 40
    dead = []
    for page, parsed in read.items():
        for link in parsed.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (parts.fragment and target in read and unquote(parts.fragment) not in read[target].ids):
                dead.append((page.relative_to(site).as_posix(), link))

    assert [d for d in dead if d[0] != "404.html"] == []  # 404.html names the root of a server


def test_the_checker_of_links_sees_what_it_looks_for():
    """It proves something only if it finds what is there."""
    page = Page('<a href="x.html#y">x</a><script src="https://unpkg.com/x"></script><img src="a.png"><p id="y">')

    assert (page.links, page.loads, page.ids) == (["x.html#y"], ["https://unpkg.com/x", "a.png"], {"y"})


def test_every_page_is_in_the_navigation_and_can_be_searched(site):
    """A page that nobody finds is not there."""
    import json

    indexed = {
        entry["location"].partition("#")[0] for entry in json.loads((site / "search/search_index.json").read_text())["docs"]
    }
    made = {page.relative_to(site).as_posix() for page in site.rglob("*.html")} - {"404.html"}

    assert {name for name in made if name not in indexed and name != "index.html"} == set()
    home = Page((site / "index.html").read_text()).links
    assert [name for name in sorted(made) if name not in home and name not in ("index.html", "papers/index.html")] == []
