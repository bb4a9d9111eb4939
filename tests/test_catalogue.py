"""Discovery: every entry point in its own try, names that are clear."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from harness.catalogue import load_catalogue
from harness.errors import HarnessError

GOOD = """
from harness import Component, hookimpl

@hookimpl
def harness_methods():
    return [Component({name!r}, kind="activation", build="nowhere:build")]
"""


WORST = """
from harness import Metric, Task, hookimpl

@hookimpl
def harness_tasks():
    return [Task("t", "toy", (Metric("m", "1", "lower", worst=float("inf")),), load="x:y", score="x:y")]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a module with an entry point where importlib.metadata finds it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def put(dist: str, module: str, code: str) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[harness]\n{module} = {module}\n")
        made.append(module)

    yield put
    for module in made:
        sys.modules.pop(module, None)


def load(*modules):
    """The catalogue of the test's own entry points."""
    points = [p for p in importlib.metadata.entry_points(group="harness") if p.name in modules]
    return load_catalogue(points)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import not_a_module_of_anyone", "ModuleNotFoundError"),
        ("this is no python", "SyntaxError"),
        ("from harness import hookimpl\n@hookimpl\ndef harness_methods(): return ['relu']", "returned 'relu'"),
        ("from harness import hookimpl\n@hookimpl\ndef harness_metods(): return []", "harness_metods"),
        (GOOD.format(name="a/b"), "offers 'a/b'; use letters"),
        (WORST, "metric 'm': worst=inf; give a finite number"),
        (GOOD.format(name="a") + "\n@hookimpl\ndef harness_papers(): raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_a_broken_plugin_is_named_and_stops_nothing(install, code, error):
    """One bad package must not take the other thirty with it."""
    install("bad-dist", "bad_plugin", code)
    install("good-dist", "good_plugin", GOOD.format(name="swoosh"))

    catalogue = load("bad_plugin", "good_plugin")

    assert [b.id for b in catalogue.broken] == ["bad-dist:bad_plugin"]
    assert error in catalogue.broken[0].error
    assert [o.ref for o in catalogue.methods] == ["good-dist/swoosh"]


def test_two_offers_of_one_name_need_the_full_name(install):
    """Neither wins in silence; the full name chooses."""
    install("one-dist", "plugin_one", GOOD.format(name="swoosh"))
    install("two-dist", "plugin_two", GOOD.format(name="swoosh"))

    catalogue = load("plugin_one", "plugin_two")

    with pytest.raises(HarnessError, match=r"several plugins; write one of \['one-dist/swoosh', 'two-dist/swoosh'\]"):
        catalogue.method("swoosh")
    assert catalogue.method("two-dist/swoosh").plugin.dist == "two-dist"


def test_an_unknown_name_gets_a_suggestion(install):
    """The message names the near miss and where to look."""
    install("one-dist", "plugin_one", GOOD.format(name="evonorm"))

    with pytest.raises(
        HarnessError, match=r"no plugin offers method 'evonrom'; did you mean 'evonorm'\? \(`harness list methods`"
    ):
        load("plugin_one").method("evonrom")


def test_a_name_given_twice_by_one_plugin_is_refused(install):
    """A plugin that offers a name twice would leave to chance which one runs."""
    code = GOOD.format(name="a").replace("return [", "return [Component('a', kind='activation', build='x:y'), ")
    install("one-dist", "plugin_one", code)

    assert "offers ['a'] twice" in load("plugin_one").broken[0].error


def test_editing_one_plugin_leaves_the_digest_of_the_others(install, tmp_path):
    """Results of a paper are orphaned by its own code only."""
    install("one-dist", "plugin_one", GOOD.format(name="a"))
    install("two-dist", "plugin_two", GOOD.format(name="b"))
    first = load("plugin_one", "plugin_two")
    before = [first.home_digest(p) for p in first.plugins]
    with (tmp_path / "plugin_one.py").open("a") as file:
        file.write("# a thought\n")

    second = load("plugin_one", "plugin_two")
    after = [second.home_digest(p) for p in second.plugins]

    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_room_that_papers_share_is_code_of_each_that_imports_it(tmp_path, monkeypatch):
    """An edit of it orphans the results of those papers, also where one room leads to the next, and of no others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    texts = {"one": "from house.shared import value", "two": "", "shared": "import house.deeper", "deeper": ""}
    for name, text in texts.items():
        (tmp_path / "house" / name).mkdir(parents=True)
        (tmp_path / "house" / name / "__init__.py").write_text("value = 1\n")
        (tmp_path / "house" / name / "method.py").write_text(text + "\n")
    points = [importlib.metadata.EntryPoint(name, f"house.{name}", "harness") for name in ("one", "two")]
    first = load_catalogue(points)
    before = [first.home_digest(p) for p in first.plugins]
    (tmp_path / "house" / "deeper" / "method.py").write_text("# a thought\n")

    second = load_catalogue(points)
    after = [second.home_digest(p) for p in second.plugins]

    assert before[0] != after[0]
    assert before[1] == after[1]
