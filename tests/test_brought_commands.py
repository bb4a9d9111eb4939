"""Commands that plugins bring: found, listed without their code, never in the way of the core's, faults named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import PluginSite, plugin_site
from invoking import harness

from harness.testing import examine_plugin

__all__ = ["plugin_site"]

ROOT = Path(__file__).parents[1]
DECLARED = """
    import harness

    HARNESS_API = "0.3"

    @harness.hookimpl
    def harness_commands():
        return [harness.Command("WORD", run="NAME_code:command", summary="Says what it was given.")]
"""
CODE = r"""
    import click
    import harness
    import sys

    @click.command(epilog="\b\nExample:\n  harness WORD --times 2")
    @click.option("--times", type=int, default=1, show_default=True, help="How often.")
    @click.option("--mood", envvar="MOOD", default="calm")
    @click.option("--end", default="")
    def command(times, mood, end):
        "Say it."
        if end == "mistake":
            raise harness.HarnessError("this can be mended")
        if end == "fault":
            raise KeyError("lost")
        click.echo(f"{mood} NAME " * times)
        sys.exit(3 if end == "gate" else 0)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a project of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def bring(site: PluginSite, name: str, word: str, declared: str = DECLARED, code: str = CODE) -> None:
    site.write(name, declared.replace("WORD", word), code.replace("WORD", word))


def test_a_command_is_listed_by_its_summary_before_any_of_its_code_is_imported(plugin_site):
    """`harness --help` must stay cheap whatever a command needs."""
    bring(plugin_site, "heavy", "utter", code="raise RuntimeError('imported')")
    shown = harness("--help").out

    assert re.search(r"^Commands of plugins:\n(?:  .*\n)*  utter +Says what it was given\.$", shown, re.MULTILINE)
    assert shown.index("Commands:") < shown.index("  run ") < shown.index("Commands of plugins:")


def test_a_command_of_a_plugin_runs_as_ours_do(plugin_site, tmp_path, monkeypatch):
    """Arguments, help, a variable for each long option, settings of the project, and the exit code that it asks for."""
    bring(plugin_site, "voice", "utter")

    assert harness("utter", "--times", "2").out == "calm voice calm voice \n"
    assert harness("utter", "--help").out.splitlines()[-1].strip() == "harness utter --times 2"
    assert harness("utter", "--end", "gate").code == 3
    (tmp_path / "here" / "pyproject.toml").write_text("[tool.harness]\ntimes = 4\n")
    assert harness("utter").out.count("voice") == 4
    monkeypatch.setenv("HARNESS_TIMES", "3")
    monkeypatch.setenv("MOOD", "glad")  # a variable of the option's own is kept
    assert harness("utter").out == "glad voice glad voice glad voice \n"
    assert harness("list", "methods").code == 0, "a setting of a plugin's command is no mistake"


def test_a_project_s_setting_that_no_command_reads_is_refused_with_plugins_asked(plugin_site, tmp_path):
    bring(plugin_site, "voice", "utter")
    (tmp_path / "here" / "pyproject.toml").write_text("[tool.harness]\ntimess = 4\n")

    answer = harness("list", "methods")

    assert answer.code == 2
    assert "no command has the option --timess; did you mean 'times'?" in answer.err


def test_two_plugins_of_one_command_are_called_by_their_full_names(plugin_site):
    """Neither wins in silence."""
    bring(plugin_site, "one", "utter")
    bring(plugin_site, "two", "utter")

    answer = harness("utter")

    assert answer.code == 2
    assert "command 'utter' is offered by several plugins; write one of ['one/utter', 'two/utter']" in answer.err
    assert harness("two/utter").out == "calm two \n"
    assert re.findall(r"^  (\S+/utter) ", harness("--help").out, re.MULTILINE) == ["one/utter", "two/utter"]


def test_a_command_of_the_core_cannot_be_replaced(plugin_site):
    """An installed package must not change what `harness status` does; its own stays within reach."""
    bring(plugin_site, "grab", "status")

    assert harness("status", "--help").out == harness("status", "--help").out != harness("grab/status", "--help").out
    assert "latest attempts" in harness("status", "--help").out
    assert harness("grab/status").out == "calm grab \n"


def test_no_plugin_is_asked_for_a_command_of_the_core(monkeypatch):
    """A plugin that hangs at import must not take `harness verify` with it."""
    monkeypatch.setattr("harness.catalogue.load_catalogue", lambda: pytest.fail("plugins were loaded"))

    assert harness("completion", "bash").code == 0


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import nothing_of_this_name", " cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("", " names 'broken_code:command', but broken_code has no 'command'"),
        ("command = print", ": 'broken_code:command' is a builtin_function_or_method; name a click.Command or a click.Group"),
    ],
)
def test_a_command_whose_code_is_broken_is_named_with_its_plugin(code, error, plugin_site, tmp_path):
    """A mistake of an installed package, with whose it is; nothing else is stopped, and its settings are no mistake of ours."""
    bring(plugin_site, "broken", "utter", code=code)

    answer = harness("utter")

    assert answer.code == 2
    assert f"command 'utter' of the plugin broken:broken{error}" in answer.err
    assert harness("--help").code == harness("list", "commands").code == 0


@pytest.mark.parametrize(
    ("declared", "error"),
    [
        (DECLARED.replace("WORD", "Utter it"), "harness_commands offers 'Utter it'"),
        (DECLARED.replace("WORD", "a.b"), "harness_commands offers 'a.b'; use lower-case letters, digits and '-' only"),
        (DECLARED.replace('harness.Command("WORD", run="NAME_code:command", summary="Says what it was given.")', "'utter'"),
         "harness_commands returned 'utter'"),
        (DECLARED.replace("harness_commands", "harness_comands"), "harness_comands"),
        (DECLARED.replace('"0.3"', '"0.99"'), "written for harness API 0.99"),
    ],
)  # fmt: skip
def test_a_plugin_that_declares_nonsense_is_named_and_left_out(declared, error, plugin_site):
    """As with every hook: its own commands are gone, all others are there."""
    bring(plugin_site, "wrong", "WORD", declared=declared)
    bring(plugin_site, "voice", "utter")

    answer = harness("--help")

    assert answer.code == 0
    assert "warning: plugin wrong:wrong 1.0 is left out" in answer.err
    assert error in answer.err
    assert "  utter " in answer.out


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [("mistake", 2, "this can be mended\n"), ("fault", 70, "This is a fault of the plugin voice:voice;")],
)
def test_what_a_command_raises_is_told_by_whose_mistake_it_is(end, code, said, plugin_site):
    """The user's own is one message; the plugin's a traceback with its name, and not called a fault of ours."""
    bring(plugin_site, "voice", "utter")

    answer = harness("utter", "--end", end)

    assert answer.code == code
    assert said in answer.err
    assert ("Traceback" in answer.err, "KeyError: 'lost'" in answer.err) == (end == "fault",) * 2
    assert "fault of harness" not in answer.err


def test_a_command_is_listed_and_described_like_all_that_plugins_offer(plugin_site):
    bring(plugin_site, "voice", "utter")
    rows = [row for row in harness("list", "commands", "--json").json if row["from"] == "voice:voice"]

    assert rows == [{"name": "utter", "from": "voice:voice", "summary": "Says what it was given."}]
    assert "command voice/utter" in harness("describe", "utter").out


def test_completion_offers_a_command_whose_code_is_broken(plugin_site):
    """The Tab key never ends in an error; the words are what the declarations say."""
    from click.shell_completion import ShellComplete

    from harness.cli.main import cli

    bring(plugin_site, "broken", "utter", code="raise RuntimeError('imported')")
    offered = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE").get_completions([], "ut")

    assert [item.value for item in offered] == ["utter"]


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        (CODE, None),
        (CODE.replace("Example:", "Instead:"), "ends with no example"),
        ("import nothing_of_this_name", "ends with 2: command 'utter' of the plugin voice:voice"),
    ],
)
def test_the_contract_s_check_asks_for_help_with_an_example(code, finding, plugin_site):
    """`harness plugin check` sees a command that cannot be imported, and one that shows no example."""
    bring(plugin_site, "voice", "utter", code=code)
    (report,) = list(examine_plugin("voice"))

    assert ("commands" in report.passed) == (finding is None)
    assert [finding in str(found) for found in report.findings if found.check == "commands"] == ([True] if finding else [])


def test_the_manual_s_example_works(plugin_site):
    """As it stands on the page, installed as a package would be."""
    page = (ROOT / "docs" / "plugins.md").read_text()
    files = dict(re.findall(r'^```python title="([\w.]+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL))
    plugin_site.write("a_plugin", files["a_plugin.py"], "")
    (plugin_site.folder / "a_plugin_cli.py").write_text(files["a_plugin_cli.py"])

    assert harness("greet", "you", "--loud").out == "HELLO YOU\n"
    assert harness("greet", "r2d2").code == 2
    (report,) = list(examine_plugin("a_plugin"))
    assert "commands" in report.passed
