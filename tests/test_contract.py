"""The versioned contract: older minors go on working, what cannot says so for that plugin alone, old ways warn where used."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from helpers import PluginSite, plugin_site  # noqa: F401  (a fixture)
from invoking import harness_process

import harness
from harness.catalogue import Catalogue, load_catalogue
from harness.contract import require_compatible, stated_by, warn_deprecated
from harness.errors import PluginError
from harness.testing import check_method, check_task

# Written by `harness plugin new frozen-KIND --kind KIND` when the API was 0.1, and built by pip. They are never built anew.
WHEELS = sorted((Path(__file__).parent / "data" / "plugins").glob("*.whl"))
SWOOSH = """
    API
    from harness import Component, hookimpl

    @hookimpl
    def harness_methods():
        return [Component("NAME", kind="activation", build="NAME_code:build", summary="of a test")]
"""


def written(site: PluginSite, name: str, api: str) -> Catalogue:
    site.write(name, SWOOSH.replace("API", api.replace("\n", "\n    ")), "")
    points = [p for p in importlib.metadata.entry_points(group="harness") if p.name == name or p.name == "builtin"]
    return load_catalogue(points)


@pytest.mark.parametrize("here", ["0.2", "0.3", "0.99"])
@pytest.mark.parametrize("stated", ['HARNESS_API = "0.1"', 'HARNESS_API = "0.2"', ""])
def test_a_plugin_of_an_older_minor_version_is_loaded(here, stated, plugin_site, monkeypatch):  # noqa: F811
    """Within a major version nothing is taken away. A plugin that states nothing was written for the first version."""
    monkeypatch.setattr(harness, "API_VERSION", here)

    catalogue = written(plugin_site, "swoosh", stated)

    assert [o.name for o in catalogue.methods if o.plugin.name == "swoosh"] == ["swoosh"]
    assert catalogue.plugins[-1].api == ("0.2" if "0.2" in stated else "0.1")


@pytest.mark.parametrize(
    ("stated", "error"),
    [
        ('HARNESS_API = "1.0"', "it was written for harness API 1.0, and this is API 0.2: `pip install -U paper-harness`"),
        ('HARNESS_API = "0.3"', "it was written for harness API 0.3, and this is API 0.2: `pip install -U paper-harness`"),
        ("HARNESS_API = 0.2", 'HARNESS_API = 0.2; write the version that it was written for as text, HARNESS_API = "0.2"'),
        ('HARNESS_API = "soon"', "HARNESS_API = 'soon'; write the version"),
        ('HARNESS_API = "1.0"\nfrom harness import a_name_of_the_next_version', "it was written for harness API 1.0"),
    ],
)
def test_a_plugin_that_cannot_be_served_costs_itself_only(stated, error, plugin_site, monkeypatch):  # noqa: F811
    """Also where it already fails to import: that a name is missing is not the reason to give."""
    monkeypatch.setattr(harness, "API_VERSION", "0.2")

    catalogue = written(plugin_site, "swoosh", stated)

    assert [b.id for b in catalogue.broken] == ["swoosh:swoosh"]
    assert error in catalogue.broken[0].error
    assert catalogue.method("relu").name == "relu"


def test_a_plugin_of_an_older_major_version_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(harness, "API_VERSION", "2.0")

    with pytest.raises(PluginError, match="install a version of the plugin for API 2, or a paper-harness with API 1"):
        require_compatible("1.7")


def test_the_version_that_is_stated_can_be_read_without_importing(plugin_site):  # noqa: F811
    (plugin_site.folder / "unimportable.py").write_text('import nothing_of_this_name\nHARNESS_API = "3.1"\n')
    (plugin_site.folder / "unparsable.py").write_text("this is no python")

    assert stated_by("unimportable") == "3.1"
    assert stated_by("unparsable") is None
    assert stated_by("absent_everywhere") is None
    assert "unimportable" not in sys.modules


# Frozen plugins ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of an older version, unpacked as pip unpacks pure ones."""
    site = tmp_path_factory.mktemp("frozen")
    for wheel in WHEELS:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return site


def test_frozen_plugins_are_older_than_this_version(frozen):
    """Otherwise the test below says nothing of older ones."""
    lines = [line for f in frozen.glob("*/__init__.py") for line in f.read_text().splitlines()]
    stated = {line for line in lines if line.startswith("HARNESS_API")}

    assert len(WHEELS) == 3
    assert stated == {'HARNESS_API = "0.1"'}
    assert tuple(map(int, harness.API_VERSION.split("."))) > (0, 1)


def test_frozen_plugins_run_as_they_did(frozen, tmp_path):
    """A component, a learner and a task of API 0.1, with their claims, in one run of today's harness, without a warning."""
    (tmp_path / "old.yaml").write_text("""schema: harness/suite/1
name: old
tasks: [frozen-task, digits]
methods: [{use: relu, role: baseline}, frozen-activation, frozen-learner]
net: {arch: mlp, width: 16, depth: 1}
seeds: 2
budget: {samples_seen: 2000}
measure: {quality: [accuracy, nll]}
""")
    path = {"PYTHONPATH": str(frozen), "PYTHONWARNINGS": "error::DeprecationWarning"}
    ran = harness_process("run", "old.yaml", "--registry", "registry", cwd=tmp_path, **path)

    assert ran.code == 0, ran.err
    assert "old: 12 ok" in ran.out + ran.err
    assert "Warning" not in ran.err


def test_frozen_plugins_keep_todays_contract(frozen, monkeypatch):
    """What was checked then is checked now: an older plugin is not failed by a newer check."""
    monkeypatch.syspath_prepend(str(frozen))
    try:
        check_method("frozen-activation")
        check_method("frozen-learner")
        check_task("frozen-task")
    finally:
        for name in [n for n in sys.modules if n.startswith("frozen_")]:
            del sys.modules[name]


# Deprecations -----------------------------------------------------------------------------------------------------------


def test_a_name_that_was_renamed_works_and_warns_at_the_plugins_own_line(plugin_site, monkeypatch):  # noqa: F811
    """The file and line of a warning are the plugin's: who reads it sees what to change."""
    monkeypatch.setitem(harness._RENAMED, "Part", ("Component", "1.0"))
    old = '"""Old."""\n\nimport harness\n\nmade = harness.Part("x", "activation", "a:b")\n'
    (plugin_site.folder / "oldnames.py").write_text(old)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        import oldnames  # type: ignore[import-not-found]  # the line that uses the name is in this file

    assert isinstance(oldnames.made, harness.Component)
    (warning,) = [w for w in told if w.category is DeprecationWarning]
    assert (Path(warning.filename).name, warning.lineno) == ("oldnames.py", 5)
    assert str(warning.message) == "harness.Part is deprecated and goes with harness API 1.0; use harness.Component"


def test_a_deprecation_deep_inside_the_harness_warns_at_the_line_outside(monkeypatch):
    """However many of our own frames lie between, the line is that of the caller."""
    inner = {"__name__": "harness.somewhere.deep", "warn": warn_deprecated}
    exec("def old():\n    helper()\ndef helper():\n    warn('x.old', 'x.new', '1.0')\n", inner)  # noqa: S102  (a module of ours, for a test)

    with pytest.warns(DeprecationWarning, match=r"x\.old is deprecated") as told:
        inner["old"]()

    assert Path(told[0].filename).name == Path(__file__).name


def test_plugin_check_shows_the_warnings_of_an_import(plugin_site, tmp_path):  # noqa: F811
    """`harness list` does not print a plugin's warnings; the check, which its author runs, does."""
    warned = 'import warnings\nwarnings.warn("old way", DeprecationWarning, stacklevel=1)'
    plugin_site.write("swoosh", SWOOSH.replace("    API\n", "".join(f"    {line}\n" for line in warned.splitlines())), "")
    ended = harness_process("plugin", "check", "swoosh", "--only", "none", cwd=tmp_path, **plugin_site.environment)

    assert "warning: swoosh.py:3: DeprecationWarning: old way" in ended.out


def test_nothing_is_renamed_to_a_name_that_is_not_there():
    assert all(new in harness._HOME for new, _ in harness._RENAMED.values())


def test_the_version_is_told_without_importing_anything():
    code = "import harness, sys; print(harness.API_VERSION); sys.exit('pydantic' in sys.modules)"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert told.stdout.strip() == harness.API_VERSION
