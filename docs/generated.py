"""Pages of the manual that say what the code says, made when it is built: nothing of them is written by hand or kept in a file.

A hook of mkdocs (mkdocs.yml names it); `pages()` is what tests/test_manual.py holds against the code. Pages of papers come from
the plugins of this repository alone, whatever else is installed.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import re
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness import errors, hookspecs, specs
from harness.catalogue import Catalogue, load_catalogue
from harness.claims.numbers import shared_given, within, words
from harness.cli.brought import import_command
from harness.cli.main import FAULT_OF_OURS, cli
from harness.cli.run import INTERRUPTED
from harness.context import Context
from harness.data.declared import DATASETS, FACTS
from harness.fetching import downloads_of
from harness.registry import Registry
from harness.registry.views import VIEWS
from harness.rules import All, AtLeast, Every
from harness.suite import schema

ROOT = Path(__file__).resolve().parents[1]
PAPERS = "paper-harness-papers"
COLUMNS = 100
MADE = "*Made from the code when the manual is built.*\n"
# Pages of the repository's root that the manual takes in; other files of the repository are named, not linked.
TAKEN_IN = {"SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}


def pages(catalogue: Catalogue | None = None) -> dict[str, str]:
    """Path below docs/ -> Markdown."""
    catalogue = catalogue or load_catalogue()
    for broken in catalogue.broken:
        if broken.id.startswith(f"{PAPERS}:"):
            raise RuntimeError(f"plugin {broken.id} is broken, so its page cannot be made: {broken.error}")
    return {
        "reference/cli.md": command_line(),
        "reference/suite.md": suite_file(),
        "reference/hooks.md": hooks(),
        "reference/python.md": python_names(),
        "reference/tables.md": tables(),
        "reference/data.md": data_sets(),
        "reference/variables.md": variables(),
        "reference/exit-codes.md": exit_codes(),
        **{target: (ROOT / source).read_text() for source, target in TAKEN_IN.items()},
        "papers/index.md": papers_index(catalogue),
        **{f"papers/{paper.name}.md": paper_page(paper, catalogue) for paper in papers_of(catalogue)},
    }


# The command line -----------------------------------------------------------------------------------------------------------


def brought() -> dict[str, click.Command]:
    """The commands that the plugins of this repository bring."""
    return {o.name: import_command(o) for o in load_catalogue().commands if o.plugin.id.startswith(f"{PAPERS}:")}


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that runs something, with its path, by name; those of this repository's plugins too."""
    for name, command in sorted({**group.commands, **({} if path else brought())}.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def help_of(path: Sequence[str]) -> str:
    """What `harness PATH --help` prints in a terminal of COLUMNS columns; click leaves two of them free."""
    return CliRunner().invoke(cli, [*path, "--help"], prog_name="harness", terminal_width=COLUMNS - 2).stdout.rstrip()


def command_line() -> str:
    parts = ["# The command line", MADE, "Results are on stdout, progress and warnings on stderr.", fenced(help_of(()), "text")]
    for path, _ in commands():
        parts += [f"## harness {' '.join(path)}", fenced(help_of(path), "text")]
    return "\n\n".join(parts) + "\n"


def variables() -> str:
    """Every option with a variable, and the variables that no option has."""
    found: dict[str, list[str]] = {}
    told: dict[str, str] = {}
    for path, command in commands():
        for param in command.params:
            if isinstance(param, click.Option) and isinstance(param.envvar, str):
                found.setdefault(param.envvar, []).append("`" + " ".join(path) + "`")
                told.setdefault(param.envvar, param.help or "")
    rows = [(f"`{name}`", told[name], ", ".join(found[name])) for name in sorted(found)]
    others = [
        ("`HARNESS_MACHINE`", "what this machine is called in records, instead of a digest of its parts", "all"),
        ("`HARNESS_CACHE_DIR`", "what can be made again: decoded images, compiled kernels, matched widths "
         "[XDG_CACHE_HOME/paper-harness]", "all"),
    ]  # fmt: skip
    return "\n\n".join([
        "# Variables and settings", MADE,
        "Every option is also a variable, and a key of `[tool.harness]` in the nearest `pyproject.toml`: `--data-dir` is "
        "`HARNESS_DATA_DIR` and `data-dir`. An option wins over a variable, a variable over the file. Options that may be "
        "given again take several values of a variable, with spaces between them.",
        table(("variable", "what", "commands"), [*others, *rows]),
    ]) + "\n"  # fmt: skip


def exit_codes() -> str:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.HarnessError)]
    names: dict[int, list[str]] = {}
    for one in sorted(classes, key=lambda c: c.__name__):
        names.setdefault(one.exit_code, []).append(f"`{one.__name__}`")
    meaning = {
        0: "all trials ok, or done before; a command that only looks: it has looked",
        1: "finished, and some trials failed; their records are written, `harness status --failed` lists them",
        2: "a mistake that you can mend; the message says what, where and the mend",
        3: "a gate closed: something regressed, a claim is refuted, a file is damaged, data are not the declared ones",
        4: "nothing selected: the filters left no trial",
        5: "something needed is missing: data, a device, a library; `harness doctor` says what",
        FAULT_OF_OURS: "a fault of harness: a traceback, please report it",
        INTERRUPTED: "stopped by Ctrl-C; all that was finished is kept (143 and 129 by SIGTERM and SIGHUP)",
    }
    rows = [(f"{code}", text, ", ".join(names.get(code, []))) for code, text in meaning.items()]
    return "\n\n".join([
        "# Exit codes", MADE, "They are a contract with scripts. Where several things ended differently, the worst counts.",
        table(("code", "meaning", "raised as (`harness.errors`)"), rows),
    ]) + "\n"  # fmt: skip


# The suite file -------------------------------------------------------------------------------------------------------------

CLOCKS = "Besides `match`, any clock of the track (`samples_seen`, `epochs`, `steps`, `flops`, `wall_s`, ...) and its amount."
UNITS = [
    (schema.Duration, "duration (`90s`, `30m`, `2h`)"), (schema.Size, "size (`4GiB`)"),
    (schema.Share, "share (`5%` or `0.05`)"),
    (schema.Seeds, "number of seeds, or list of seed indices"),
    (schema.Index, "whole number from 0"),
]  # fmt: skip


def suite_file() -> str:
    parts = [
        "# The suite file", MADE,
        "YAML 1.2: `1e-3` is a number, `no` a string; no aliases, anchors, tags or duplicate keys. A bare name is short for "
        "`{use: name}`, one value for a list of one. `harness validate FILE` names every mistake with its line and the mend; "
        "`harness schema` prints the JSON Schema, and the first line of each shipped suite lets an editor use it.",
    ]  # fmt: skip
    for model in models():
        title = key_of(model)
        rows = [(f"`{field.alias or name}`", kind(field), default(field), describe(field))
                for name, field in model.model_fields.items()]  # fmt: skip
        extra = CLOCKS if model is schema.BudgetForm else ""
        parts += [
            f"## {title}",
            (inspect.getdoc(model) or "").strip(),
            table(("key", "value", "left out", "what"), rows),
            extra,
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def models() -> list[type[BaseModel]]:
    """The suite's model and all that it names, each once, in the order of the keys."""
    found: list[type[BaseModel]] = []

    def walk(model: type[BaseModel]) -> None:
        if model not in found:
            found.append(model)
            for field in model.model_fields.values():
                for below in named_models(field.annotation):
                    walk(below)

    walk(schema.SuiteForm)
    return found


def named_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from named_models(argument)


def key_of(model: type[BaseModel]) -> str:
    """The key under which a model stands: TaskForm under `tasks`."""
    if model is schema.SuiteForm:
        return "The file"
    for owner in models_before():
        for name, field in owner.model_fields.items():
            if model in named_models(field.annotation):
                inner = f"{key_of(owner)}." if owner is not schema.SuiteForm else ""
                return f"{inner}{field.alias or name}"
    raise AssertionError(model)


def models_before() -> Iterator[type[BaseModel]]:
    yield schema.SuiteForm
    yield from (m for m in vars(schema).values() if isinstance(m, type) and issubclass(m, schema.BaseModel) and m.model_fields)


def kind(field: FieldInfo) -> str:
    return escape(kind_of(field.annotation, tuple(field.metadata)))


def kind_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """The value of a key, as a person would write it."""
    for unit, text in UNITS:
        if annotation == unit or (metadata and typing.get_args(unit)[1:] == metadata):
            return text
        if typing.get_args(unit) and metadata and set(map(repr, typing.get_args(unit)[1:])) <= set(map(repr, metadata)):
            return text
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(arguments[0], arguments[1:])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind_of(a) for a in arguments if a is not type(None))
    if origin is tuple:
        one = kind_of(arguments[0])
        return f"list of {one}" if arguments[-1] is Ellipsis else f"[{', '.join(kind_of(a) for a in arguments)}]"
    if origin is dict:
        return f"map of name to {kind_of(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        title = key_of(annotation)
        return f"[{title}](#{title.replace('.', '').lower()})"
    simple = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    return simple.get(annotation, "any value") if isinstance(annotation, type) else "any value"


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}, "") or isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple) and value and all(isinstance(v, BaseModel) for v in value):
        return ""
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def describe(field: FieldInfo) -> str:
    text = field.description or ""
    return escape(
        f"{text}; such as `{field.examples[0]}`" if field.examples and not isinstance(field.examples[0], list) else text
    )


# Hooks and names --------------------------------------------------------------------------------------------------------------


def hook_functions() -> list[tuple[str, Any]]:
    return [(name, function) for name, function in vars(hookspecs).items() if hasattr(function, f"{hookspecs.PROJECT}_spec")]


def hooks() -> str:
    """Each hook with its signature, and each thing that one returns, with its fields."""
    parts = [
        "# Hooks, and what they declare", MADE,
        "A plugin is a module that an entry point of the group `harness` names; it implements the hooks that it needs, each "
        "marked `@hookimpl`. What they return is frozen data: code is named by string, `package.module:function`, and imported "
        "in a worker only, so importing a plugin imports no torch.",
    ]  # fmt: skip
    for name, function in hook_functions():
        parts += [f"## {name}", fenced(f"@hookimpl\ndef {signature(name, function)}: ...", "python"), doc(function)]
    declared = [cls for cls in vars(specs).values()
                if isinstance(cls, type) and cls.__module__ == specs.__name__ and dataclasses.is_dataclass(cls)]  # fmt: skip
    for cls in declared:
        parts += [f"## {cls.__name__}", fenced(signature_of(cls), "python"), fenced(doc(cls), "text")]
    return "\n\n".join([*parts, *context_page()]) + "\n"


def signature(name: str, function: Any) -> str:
    """As it is written: annotations of a module that postpones them are text."""
    return f"{name}{inspect.signature(function)}".replace("'", "")


def context_page() -> list[str]:
    """What `load`, `solve`, `score` and probes are given as `ctx`."""
    parts = ["## ctx", doc(Context)]
    for name, member in vars(Context).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        call = signature(name, member).replace("(self, ", "(").replace("(self)", "()") if inspect.isfunction(member) else name
        parts += [f"### ctx.{name}", fenced(f"ctx.{call}", "python"), fenced(doc(member), "text")]
    return parts


def signature_of(cls: type) -> str:
    """The fields of a dataclass, one a line, as they are written in its source."""
    lines = [f"{cls.__name__}("]
    for one in dataclasses.fields(cls):
        given = ""
        if one.default is not dataclasses.MISSING:
            given = f" = {one.default.__name__ if isinstance(one.default, type) else repr(one.default)}"
        elif one.default_factory is not dataclasses.MISSING:
            given = " = ..."
        lines.append(f"    {one.name}: {one.type}{given},")
    return "\n".join([*lines, ")"])


PUBLIC = ("harness", "harness.lab", "harness.data", "harness.testing")


def python_names() -> str:
    """What a plugin may import, with signatures; modules that are not there yet are left out."""
    parts = ["# Public names", MADE, "All that a plugin may import. Nothing else is public, and may change in any version."]
    for module_name in PUBLIC:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:
            continue
        rows = []
        for name in sorted(getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])):
            value = getattr(module, name)
            if isinstance(value, types.ModuleType):
                continue
            what = "class" if isinstance(value, type) else "function" if callable(value) else "value"
            said = next(iter(doc(value).splitlines()), "") if what != "value" else ""
            rows.append((f"`{name}`", what, escape(said)))
        parts += [f"## {module_name}", fenced(doc(module), "text"), table(("name", "kind", "what"), rows)]
    return "\n\n".join(parts) + "\n"


# The registry -----------------------------------------------------------------------------------------------------------------


def tables() -> str:
    parts = [
        "# Tables and views", MADE,
        "What `harness query` can ask. Seconds end in `_s`, bytes in `_bytes`; times are UTC; null is *not measured*; NaN and "
        "infinities are values. On disk one attempt is one row ([the registry](../registry.md)); these are views of it.",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.open(Path(folder) / "registry")
        for name, view in VIEWS.items():
            columns = registry.query(f"DESCRIBE {name}").to_pylist()
            rows = [(f"`{column['column_name']}`", f"`{escape(column['column_type'])}`") for column in columns]
            parts += [f"## {name}", f"{view.summary}.", table(("column", "type"), rows)]
    return "\n\n".join(parts) + "\n"


def data_sets() -> str:
    def here(name: str) -> str:
        set_ = DATASETS[name]
        if set_.where != "folder":
            return set_.where
        return "`harness data fetch`" if downloads_of(set_) else "by hand"

    rows = []
    for name, set_ in DATASETS.items():
        if name.startswith("pmlb/"):
            continue
        facts = FACTS.get(name)
        shape = f"{facts.items:,} x {'x'.join(map(str, facts.inputs))}" if facts else ""
        rows.append((f"`{name}`", escape(set_.summary), shape, here(name), escape(set_.licence), escape(set_.source)))
    collection = sum(name.startswith("pmlb/") for name in DATASETS)
    return "\n\n".join([
        "# Data sets", MADE,
        f"And {collection} tables of the Penn Machine Learning Benchmarks, `pmlb/NAME` (`harness data list`), for the task "
        "`table`. Each is used only where its files have the declared SHA-256. How to get them: [Data](../howto/data.md).",
        table(("name", "what", "size", "where from", "licence", "source"), rows),
    ]) + "\n"  # fmt: skip


# Papers -----------------------------------------------------------------------------------------------------------------------


def papers_of(catalogue: Catalogue) -> list[specs.Paper]:
    return sorted((o.spec for o in catalogue.papers if o.plugin.id.startswith(f"{PAPERS}:")), key=lambda paper: paper.name)


def papers_index(catalogue: Catalogue) -> str:
    rows = []
    for paper in papers_of(catalogue):
        testable = sum(claim.rule is not None for claim in paper.claims)
        rows.append((f"[{paper.name}]({paper.name}.md)", escape(paper.title), f"[{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})",
                     str(paper.year), f"{testable} of {len(paper.claims)}"))  # fmt: skip
    return "\n\n".join([
        "# Papers", MADE, "What was found out about their claims stands in [Results](../results.md).",
        table(("paper", "title", "arXiv", "year", "claims that can be tested here"), rows),
    ]) + "\n"  # fmt: skip


def paper_page(paper: specs.Paper, catalogue: Catalogue) -> str:
    """From what its plugin registers: the paper, its methods with their parameters, kernels, tasks, claims; then its README."""
    (offer,) = [o for o in catalogue.papers if o.spec is paper]
    plugin = offer.plugin
    parts = [
        f"# {paper.title}", MADE,
        f"{paper.authors + ', ' if paper.authors else ''}{paper.year}, "
        f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}); "
        f"plugin `{plugin.id}` {plugin.version}. `harness claims {paper.name}` says which claims hold.",
        *(f"**{escape(key)}**: {escape(str(value))}" for key, value in paper.notes.items()),
    ]  # fmt: skip
    methods = [o.spec for o in catalogue.methods if o.plugin is plugin]
    if methods:
        parts.append("## Methods")
    for method in methods:
        kind_ = getattr(method, "kind", None) or f"learner of the track `{getattr(method, 'track', '')}`"
        parts += [
            f"### {method.name}",
            f"{kind_}. {escape(method.summary)} {escape(method.source)}".strip(),
            parameters(method.params),
        ]
    for title, offers in (("Tasks", catalogue.tasks), ("Kernels", catalogue.kernels)):
        own = [o.spec for o in offers if o.plugin is plugin]
        if own:
            parts += [f"## {title}", table(("name", "what"), [(f"`{one.name}`", escape(one.summary)) for one in own])]
    if paper.claims:
        parts.append("## Claims")
    for claim in paper.claims:
        parts += [f"### {paper.name}.{claim.name}", claim_text(claim)]
    readme = plugin_folder(paper.name) / "README.md"
    if readme.is_file():
        parts += ["## From the paper's folder", demoted(readme.read_text())]
    return "\n\n".join(part for part in parts if part) + "\n"


def plugin_folder(name: str) -> Path:
    return ROOT / "plugins" / "harness_papers" / name


def parameters(params: type[BaseModel]) -> str:
    rows = [(f"`{name}`", escape(kind_of(field.annotation, tuple(field.metadata))), default(field) or "`None`", describe(field))
            for name, field in params.model_fields.items()]  # fmt: skip
    return table(("parameter", "value", "default", "what"), rows) if rows else "It has no parameters."


def claim_text(claim: specs.Claim) -> str:
    more = f", and {claim.extension} more once, where the first look is inconclusive" if claim.extension else ""
    rows = [
        ("says", escape(claim.says)),
        ("the paper", f"{escape(claim.value)} ({escape(claim.place)}, <{claim.source}>)"),
        ("rule", rule_text(claim.rule) if claim.rule is not None else "none: it cannot be tested here"),
        ("seeds", f"{claim.seeds}{more}" if claim.rule is not None else ""),
        ("it would take", escape(claim.missing)),
        ("smaller here", escape(claim.scaled_down)),
        ("effect to find", f"{claim.effect:g}" if claim.effect is not None else ""),
        ("because of", f"without it: `{claim.because}`" if claim.because else ""),
        ("unverified", "; ".join(map(escape, claim.unverified))),
    ]  # fmt: skip
    return table(("", ""), [(key, value) for key, value in rows if value])


def rule_text(rule: Any) -> str:
    """A rule as a sentence, with the ranges that decide."""
    if isinstance(rule, All):
        return " **and** ".join(rule_text(one) for one in rule.rules)
    if isinstance(rule, AtLeast):
        return f"at least {rule.k} of: " + "; ".join(rule_text(one) for one in rule.rules)
    asked = f"{words(rule.node, shared_given(rule))} {within(rule.low, rule.high)}"
    if isinstance(rule, Every):
        return escape(f"every seed: {asked} (at least {rule.at_least} of them)")
    slack = f", refuted beyond that by more than {rule.slack:g}" if rule.slack and math.isfinite(rule.slack) else ""
    return escape(asked + slack)


def demoted(text: str) -> str:
    """A README below a page's own headings: its title goes, its headings go down by one. Code keeps its #."""
    lines, in_code = [], False
    for line in text.splitlines():
        in_code ^= line.lstrip().startswith("```")
        if not in_code and re.match(r"# ", line):
            continue
        lines.append(f"#{line}" if not in_code and re.match(r"#{2,5} ", line) else line)
    return "\n".join(lines).strip()


# Markdown ---------------------------------------------------------------------------------------------------------------------


def doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |" for row in rows)])


def escape(text: str) -> str:
    """Words of declarations in a table: no cell ends early, nothing becomes markup. Code spans stay."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if i % 2 else re.sub(r"([*_<>|])", r"\\\1", part) for i, part in enumerate(parts)).replace(
        "\\|", "&#124;"
    )


LINK = re.compile(r"\[([^\]]*)\]\(((?!https?://|#|mailto:)[^)]+)\)")


def relinked(markdown: str, place: str, known: Mapping[str, object] | set[str]) -> str:
    """Links to files of the repository: to their pages where the manual has them, else plain names."""
    folder = Path(place).parent

    def mended(found: re.Match[str]) -> str:
        text, (target, _, anchor) = found[1], found[2].partition("#")
        repository = _normal(home_of(place) / target)
        page = repository.removeprefix("docs/") if repository.startswith("docs/") else TAKEN_IN.get(repository)
        if page is None and (paper := re.fullmatch(r"plugins/harness_papers/(\w+)(/README\.md|/)?", repository)):
            page = f"papers/{paper[1]}.md"
        if not (ROOT / repository).exists():
            return found[0]  # dead: mkdocs says so, and --strict refuses it
        if page is not None and page in known:
            up = "../" * len(folder.parts)
            return f"[{text}]({up}{page}{'#' + anchor if anchor else ''})"
        return text if "`" in text else f"`{text}`"

    return LINK.sub(mended, markdown)


def home_of(place: str) -> Path:
    """The folder of the repository that a page's links start from: a README's own, where the page shows one."""
    if paper := re.fullmatch(r"papers/(\w+)\.md", place):
        return Path() if paper[1] == "index" else Path("plugins/harness_papers") / paper[1]
    return Path() if place in TAKEN_IN.values() else Path("docs") / Path(place).parent


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


# mkdocs -----------------------------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """The papers' pages at the end of the navigation."""
    config["nav"].append({"Papers": ["papers/index.md", *(f"papers/{paper.name}.md" for paper in papers_of(load_catalogue()))]})
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return relinked(markdown, page.file.src_uri, {file.src_uri for file in files})


if __name__ == "__main__":
    for name, text in pages().items():
        print(f"{name}: {len(text):,} characters")
