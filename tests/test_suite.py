"""Suite files: what may be written, what it means, and what is said about mistakes."""

# ruff: noqa: E501  (in the tables each message stands on one line, as a user sees it)

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator

from harness.catalogue import Broken, Catalogue, Offer, Plugin
from harness.errors import SuiteError
from harness.identity import digest
from harness.nets import Net, Train
from harness.rules import better
from harness.specs import Claim, Component, Learner, Metric, Paper, Params, Probe, Task, Track
from harness.suite import (
    SCHEMA_COMMENT,
    Suite,
    expand,
    find_suite,
    load_suite,
    load_suite_text,
    matches,
    resolve_params,
    shipped_suites,
    suite_schema,
)
from harness.suite.text import MAX_BYTES, read_document

# A catalogue, made of specs alone ---------------------------------------------------------------------------------------


class Slope(Params):
    eps: float = Field(0.01, gt=0, description="slope left of zero")
    steps: int = 3
    mode: str = "a"
    sizes: tuple[int, ...] = (1,)

    @model_validator(mode="after")
    def _check(self) -> Slope:
        if self.mode == "b" and self.steps > 5:
            raise ValueError("mode b takes at most 5 steps; lower steps")
        return self


class Needy(Params):
    rank: int
    either: int | str = 1


class Raising(Params):
    x: int = 0

    @field_validator("x")
    @classmethod
    def _boom(cls, value: int) -> int:
        if value:
            raise RuntimeError("boom")
        return value


class Subset(Params):
    subset: int = Field(1000, ge=1)


def plugin(dist: str, name: str) -> Plugin:
    return Plugin(dist, name, "1.0", None, Path("/nowhere"))


CORE, PAPER, OTHER = plugin("paper-harness", "builtin"), plugin("papers", "crrelu"), plugin("other", "lab")
ACCURACY, NLL = Metric("accuracy", "1", "higher", 0.0), Metric("nll", "nat", "lower")
CLASSIFY = Track(
    "classify", "1", "p:P", "p:S", ("samples_seen", "steps", "flops"), matchable=("params",), learner="l:t", inference="l:i"
)
BOOLEAN = Track("boolean", "1", "p:P", "p:S", ("steps",))


def shape_of(_: Any) -> dict[str, int]:
    return {"inputs": 64, "outputs": 10, "train_items": 1000}


def component(name: str, kind: Any = "activation", params: type[Params] = Params) -> Component:
    return Component(name, kind, "m:B", params)


def task(name: str, track: str = "classify", metrics: tuple[Metric, ...] = (ACCURACY, NLL), **more: Any) -> Task:
    return Task(name, track, metrics, "t:l", "t:s", **more)


CLAIM = Claim("beats-relu", "better than ReLU", better("crrelu", "relu", "digits", "accuracy"), 10, "1 %", "table 1", "arxiv")
METHODS = (
    Offer(component("relu"), CORE),
    Offer(component("gelu"), CORE),
    Offer(component("crrelu", params=Slope), PAPER),
    Offer(component("evonorm-s0", "norm_act"), PAPER),
    Offer(component("needy", params=Needy), PAPER),
    Offer(component("raising", params=Raising), PAPER),
    Offer(component("twice"), CORE),
    Offer(component("twice"), OTHER),
    Offer(Learner("rrr", "boolean", "m:s"), PAPER),
)
CATALOGUE = Catalogue(
    plugins=(CORE, PAPER, OTHER),
    papers=(Offer(Paper("crrelu", "CRReLU", "0", 2024, (CLAIM,)), PAPER),),
    tracks=(Offer(CLASSIFY, CORE), Offer(BOOLEAN, PAPER)),
    tasks=(
        Offer(task("digits", shape=shape_of, params=Subset), CORE),
        Offer(task("wine"), CORE),
        Offer(task("multiplier", "boolean", (Metric("exact", "1", "higher"),)), PAPER),
        Offer(task("homeless", "nowhere"), PAPER),
        Offer(task("adder", "papers/boolean"), OTHER),
    ),
    methods=METHODS,
    probes=(Offer(Probe("sparsity", "classify", (Metric("zeros", "1", "neither"),), "p:m"), CORE),),
)

HEAD = "schema: harness/suite/1\nname: v\n"
PLAIN = HEAD + "tasks: [digits]\nmethods: [relu, crrelu]\nnet: {arch: mlp}\nbudget: {samples_seen: 100}\n"


def load(text: str | bytes, *overrides: str, catalogue: Catalogue = CATALOGUE) -> Suite:
    return load_suite_text(text, "s.yaml", catalogue, overrides=overrides)


def mistakes(text: str | bytes, *overrides: str, catalogue: Catalogue = CATALOGUE) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(SuiteError) as caught:
        load(text, *overrides, catalogue=catalogue)
    return str(caught.value).splitlines()


def refusal(text: str | bytes, *overrides: str) -> list[str]:
    """The lines of the refusal, none where the suite loads; anything but a SuiteError goes through."""
    try:
        load(text, *overrides)
    except SuiteError as error:
        return str(error).splitlines()
    return []


def only(text: str | bytes, *overrides: str, catalogue: Catalogue = CATALOGUE) -> str:
    """The one line of the refusal."""
    lines = mistakes(text, *overrides, catalogue=catalogue)
    assert len(lines) == 1, lines
    return lines[0]


def plain(**keys: str) -> str:
    """The smallest good suite, with keys replaced or added, each on its own line in this order."""
    given = {
        "schema": "harness/suite/1", "name": "v", "tasks": "[digits]", "methods": "[relu, crrelu]",
        "net": "{arch: mlp}", "budget": "{samples_seen: 100}",
    }  # fmt: skip
    return "".join(f"{key}: {value}\n" for key, value in {**given, **keys}.items())


# What a suite means -----------------------------------------------------------------------------------------------------

DESIGN_EXAMPLE = """\
schema: harness/suite/1
name: vision
tasks:    [digits]
methods:
  - {use: relu, role: baseline}
  - crrelu
  - {use: evonorm-s0, role: method}
net:      {arch: cnn, width: 32}      # for components; a learner brings its own
seeds:    10
devices:  [cpu, cuda]                 # cuda is skipped with a note where there is none
dtype:    float32
threads:  1
budget:   {samples_seen: 30000, match: {params: 5%, to: relu}}
measure:  {quality: [accuracy, nll], timing: [train_step, inference], memory: true}
claims:   [crrelu.beats-relu]
"""


def test_the_example_of_the_design_loads_with_every_value_resolved():
    """The page that people read first must be a suite that works."""
    suite = load(DESIGN_EXAMPLE)

    assert [(m.use, m.ref, m.role, m.line) for m in suite.methods] == [
        ("relu", "paper-harness/relu", "baseline", 5),
        ("crrelu", "papers/crrelu", "method", 6),
        ("evonorm-s0", "papers/evonorm-s0", "method", 7),
    ]
    assert [(t.use, t.ref, t.line) for t in suite.tasks] == [("digits", "paper-harness/digits", 3)]
    assert suite.net == (Net(arch="cnn", width=32),)
    assert suite.seeds == tuple(range(10))
    assert suite.devices == ("cpu", "cuda")
    assert suite.budget.units == {"samples_seen": 30000.0}
    assert suite.budget.match is not None
    assert (suite.budget.match.unit, suite.budget.match.tolerance) == ("params", 0.05)
    assert (suite.budget.match.to, suite.budget.match.entry) == ("paper-harness/relu", suite.methods[0])
    assert suite.measure.quality == ("accuracy", "nll")
    assert suite.measure.timing == ("train_step", "inference")
    assert suite.claims == ("crrelu.beats-relu",)


def test_what_is_left_out_has_the_documented_default():
    """A short suite is a complete suite."""
    suite = load(PLAIN)

    assert (suite.title, suite.root_seed, suite.devices, suite.dtype, suite.threads) == ("", 0, ("cpu",), "float32", 1)
    assert suite.seeds == tuple(range(10))
    assert suite.train == (Train(),)
    assert (suite.measure.quality, suite.measure.timing, suite.measure.memory) == (None, (), True)
    assert (suite.limits.timeout_s, suite.limits.memory_bytes) == (1800.0, None)
    assert (suite.exclude, suite.claims, suite.budget.match) == ((), (), None)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"methods": "[relu, crrelu]"}, {"methods": "[{use: relu}, {use: crrelu}]"}),
        ({"tasks": "[digits]"}, {"tasks": "[{use: digits, params: {}}]"}),
        ({"net": "{arch: cnn}"}, {"net": "[{arch: cnn}]"}),
        ({"seeds": "3"}, {"seeds": "[0, 1, 2]"}),
        ({"devices": "cuda"}, {"devices": "[cuda]"}),
        ({"budget": "{samples_seen: 1e3}"}, {"budget": "{samples_seen: 1000}"}),
        ({"budget": "{steps: 1, match: {params: 5%, to: relu}}"}, {"budget": "{steps: 1, match: {params: 0.05, to: relu}}"}),
        ({"limits": "{timeout: 2m, memory: 1GiB}"}, {"limits": "{timeout: 120s, memory: 1024 MiB}"}),
    ],
)
def test_a_shorthand_means_its_long_form(short, long):
    """Two spellings of one suite are one suite; text and line numbers are no part of it."""
    assert load(plain(**short)) == load(plain(**long))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("-1E+2", -100.0), ("017", 17), ("0o17", 15), ("0x1F", 31), ("+3", 3),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("1_000", "1_000"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("=", "="),
        ("true", True), ("False", False), ("~", None), ("", None), ("null", None), ("'1'", "1"), ('"true"', "true"), ("0b1", "0b1"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    """YAML 1.1 made `no` false and `1e-3` text: both have spoiled experiments."""
    read = read_document(f"a: {text}\n".encode())

    assert read.mistakes == []
    assert read.data == {"a": value}
    assert type(read.data["a"]) is type(value)


def test_grid_multiplies_and_zip_aligns():
    """2 x 2 of the grid times 2 rows of zip, over the fixed parameters."""
    entry = "{use: crrelu, params: {eps: 0.5}, grid: {steps: [1, 2]}, zip: {mode: [a, b], sizes: [[1], [2, 3]]}}"

    sets = expand(load(plain(methods=f"[{entry}]")).methods[0])

    assert sets == [
        {"eps": 0.5, "mode": "a", "sizes": [1], "steps": 1},
        {"eps": 0.5, "mode": "a", "sizes": [1], "steps": 2},
        {"eps": 0.5, "mode": "b", "sizes": [2, 3], "steps": 1},
        {"eps": 0.5, "mode": "b", "sizes": [2, 3], "steps": 2},
    ]


def test_parameters_are_resolved_to_the_declared_types_with_their_defaults():
    """eps: 1 and eps: 1.0, and the default written out, must name one trial."""
    full = resolve_params(Slope, {"eps": 1})

    assert full == {"eps": 1.0, "steps": 3, "mode": "a", "sizes": [1]}
    assert digest(full) == digest(resolve_params(Slope, {"mode": "a", "eps": 1.0, "sizes": [1]}))


def test_a_name_of_two_plugins_works_with_its_distribution():
    """The bare name is refused (below); the full one is what the entry keeps."""
    suite = load(plain(methods="[other/twice, paper-harness/twice]"))

    assert [m.ref for m in suite.methods] == ["other/twice", "paper-harness/twice"]


def test_one_of_several_parameter_sets_is_matched_to_by_its_label():
    """`as` names a line; without it `match.to` could mean any of them."""
    methods = "[{use: crrelu, as: base}, {use: crrelu, grid: {eps: [0.1, 0.2]}}]"

    match = load(plain(methods=methods, budget="{steps: 5, match: {params: 1%, to: base}}")).budget.match

    assert match is not None
    assert match.entry.label == "base"
    assert match.entry.grid == {}


def test_one_suite_may_span_tracks():
    """smoke.yaml does: each method is paired with the tasks of its track."""
    suite = load(plain(tasks="[digits, multiplier]", methods="[relu, rrr]"))

    assert [m.use for m in suite.methods] == ["relu", "rrr"]


def test_a_track_may_be_named_with_its_distribution():
    """A third party's task may say whose track it means."""
    suite = load(plain(tasks="[adder]", methods="[rrr]", budget="{steps: 1}"))

    assert [t.ref for t in suite.tasks] == ["other/adder"]


@pytest.mark.parametrize(
    ("value", "pattern", "expected"),
    [
        ("evonorm-s0", "evonorm-*", True), ("relu", "evonorm-*", False), ("relu", "relu", True), ("prelu", "relu", False),
        (0.1, 0.1, True), (1.0, 1, True), (1, True, False), (True, True, True), (None, None, True), (0, None, False),
        (0.25, "0.*", True), (True, "true", True),
    ],
)  # fmt: skip
def test_an_exclude_pattern_matches_text_as_a_glob_and_the_rest_by_value(value, pattern, expected):
    """eps: 1 in a file must find eps = 1.0 in a trial, and never a flag that is on."""
    assert matches(value, pattern) is expected


# Options ----------------------------------------------------------------------------------------------------------------


def test_options_come_after_the_file_and_may_reach_into_shorthands():
    """`--set` writes what the user would have written: also into a bare name, a single net, a key that is absent."""
    suite = load(
        plain(seeds="10"),
        "seeds=3", "net.width=64", "budget.samples_seen=1000", "methods[1].params.eps=0.1", "methods[1].role=ablation",
        "devices=cuda", "measure.quality=[nll]", "title='a = b'",
    )  # fmt: skip

    assert suite.seeds == (0, 1, 2)
    assert suite.net == (Net(arch="mlp", width=64),)
    assert suite.budget.units == {"samples_seen": 1000.0}
    assert (suite.methods[1].use, dict(suite.methods[1].params), suite.methods[1].role) == ("crrelu", {"eps": 0.1}, "ablation")
    assert suite.devices == ("cuda",)
    assert suite.measure.quality == ("nll",)
    assert suite.title == "a = b"


def test_the_last_of_two_options_holds():
    """As with every command line."""
    assert load(PLAIN, "seeds=3", "seeds=[7]").seeds == (7,)


def test_an_option_mends_what_the_file_has_wrong():
    """The value that is replaced is not complained about."""
    assert load(plain(net="{width: '64'}", seeds="-2"), "net.width=64", "seeds=2").net == (Net(width=64),)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("net.widht=64", "--set net.widht=64: net.widht: no such key; did you mean 'width'? (keys here: arch, width,"),
        ("seed=3", "--set seed=3: seed: no such key; did you mean 'seeds'? (keys here: schema,"),
        ("optics.x=3", "--set optics.x=3: optics: no such key (keys here: schema,"),
        ("seeds=many", "--set seeds=many: seeds: got 'many'; write how many seeds (1 to 10000) or a list of seed indices"),
        ("train.lr=true", "--set train.lr=true: train.lr: got True; write a number, without quotes"),
        ("methods[9].use=x", "--set 'methods[9].use=x': methods[9].use: methods has 2 entries, counted from 0; nothing stands at [9]"),
        ("name[0]=x", "--set 'name[0]=x': name[0]: name is no list; nothing stands at [0]"),
        ("methods.use=x", "--set methods.use=x: methods.use: methods is no mapping, so it has no key 'use'; write methods[0].use"),
        ("name.x=3", "--set name.x=3: name.x: name is no mapping, so it has no key 'x'"),
        ("seeds", "--set seeds: write path=value, such as seeds=3 or methods[0].params.eps=0.1"),
        ("=3", "--set =3: write path=value"),
        ("seeds.=3", "--set seeds.=3: write path=value"),
        ("seeds=\x1b[2J\x07\n\ud800", r"--set 'seeds=\x1b[2J\x07 \ud800': seeds: byte 0xed is no UTF-8"),
        ("dtype=*x", "--set 'dtype=*x': dtype: aliases are not read; write the value out instead of *x"),
        ("dtype=!!str x", "--set 'dtype=!!str x': dtype: tags are not read; remove !!str"),
        ("methods[1].params.eps=-1", "--set 'methods[1].params.eps=-1': methods[1].params.eps: got -1; write a number greater than 0 (`harness"),
        ("tasks=[digitz]", "--set 'tasks=[digitz]': tasks[0]: no plugin offers task 'digitz'; did you mean 'digits'?"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_where_a_line_would_stand(option, message):
    """The file is innocent: the message must not point into it."""
    assert only(PLAIN, option).startswith(message)


def test_mistakes_of_options_come_after_those_of_the_file_in_the_order_given():
    """First the lines, then the command line."""
    lines = mistakes(plain(dtype="float8"), "seeds=x", "seed=3", "name=7")

    assert [line.split(": ")[0] for line in lines] == ["s.yaml:7", "--set seeds=x", "--set seed=3", "--set name=7"]


# Mistakes: the text as YAML ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "s.yaml:1: the file is empty; a suite is a mapping with schema, name, tasks and methods"),
        (b"# nothing\n", "s.yaml:1: the file is empty; a suite is a mapping"),
        (b"- a\n", "s.yaml:1: got ['a'] instead of keys; a suite is a mapping"),
        (b"\nword\n", "s.yaml:2: got 'word' instead of keys; a suite is a mapping"),
        (b"a: 1\nb: \xff\n", "s.yaml:2: byte 0xff is no UTF-8; save the file as UTF-8"),
        (b"a: 1\n\nb: \x00\n", r"s.yaml:3: YAML has no character '\x00'; remove it"),
        (b"a: 1\n---\nb: 2\n", "s.yaml:2: a second document starts here; write each suite in a file of its own"),
        (b"%YAML 1.1\n---\na: no\n", "s.yaml:1: YAML directives are not read; remove the lines that start with %"),
        (b"a: [1,\n", "s.yaml:2: this is no YAML (while parsing a flow node expected the node content, but found '<stream end>'); look"),
        (b"a:\n\t- 1\n", r"s.yaml:2: this is no YAML (while scanning for the next token found character '\t' that cannot start"),
        (b"a: b: c\n", "s.yaml:1: this is no YAML (mapping values are not allowed here); look at the indentation"),
        (b'"\\UFFFFFFFF": 1\n', "s.yaml:1: this is no YAML ("),
        (b"a: 1\n" + b"#" * MAX_BYTES, f"s.yaml:1: the file has {MAX_BYTES + 5} bytes; a suite has at most {MAX_BYTES}: split it"),
        (b"[" * 60, "s.yaml:1: nested deeper than 50 levels; a suite needs five"),
        (b"{" * 5000, "s.yaml:1: nested deeper than 50 levels; a suite needs five"),
        (b"? " * 5000, "s.yaml:1: nested deeper than 50 levels; a suite needs five"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_read_is_refused_with_its_line_and_the_mend(text, message):
    """One message, then nothing more: the rest of the file is not known."""
    assert only(text).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seeds: &few 3", "s.yaml:7: seeds: anchors are not read; remove &few"),
        ("seeds: *few", "s.yaml:7: seeds: aliases are not read; write the value out instead of *few"),
        ("seeds: !!int 3", "s.yaml:7: seeds: tags are not read; remove !!int"),
        ("title: ! x", "s.yaml:7: title: tags are not read; remove !"),
        ("train: !!python/object:os.system {}", "s.yaml:7: train: tags are not read; remove !!python/object:os.system"),
        ("name: w", "s.yaml:7: name: the key stands here a second time (first on line 2); remove one"),
        ("<<: {seeds: 3}", "s.yaml:7: merge keys are not read; write the keys out"),
        ("train: {<<: {lr: 1}}", "s.yaml:7: train: merge keys are not read; write the keys out"),
        ("1: 2", "s.yaml:7: a key is a name; got 1"),
        ("[a]: 2", "s.yaml:7: a key is a name, not a list, a mapping or an alias"),
        ("{a: {b: 1}}: 2", "s.yaml:7: a key is a name, not a list, a mapping or an alias"),
        ("&k seeds: 3", "s.yaml:7: anchors and tags are not read; remove the one before the key 'seeds'"),
        ("train: {lr: .nan}", "s.yaml:7: train.lr: '.nan' is not a finite number; write one, or put it in quotes"),
        ("train: {lr: 1e999}", "s.yaml:7: train.lr: '1e999' is not a finite number"),
        ("root_seed: 99999999999999999999", "s.yaml:7: root_seed: '99999999999999999999' has more than 64 bits"),
        (r'title: "\ud800"', r"s.yaml:7: title: '\ud800' holds half a character; remove the escape"),
    ],
)  # fmt: skip
def test_yaml_that_a_suite_does_not_need_is_refused(line, message):
    """Aliases can multiply without bound, tags can build objects, a repeated key hides the first."""
    assert only(PLAIN + line + "\n").startswith(message)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=400), st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_give_a_suite_or_a_suite_error(content):
    """Never a traceback: a suite may be any file that a user names by mistake."""
    assert all(line.startswith("s.yaml:") for line in refusal(content))


PIECES = st.sampled_from(
    ["&a ", "*a", "!!int ", "{", "}", "[", "]", ": ", ", ", "- ", "? ", "'", '"', "|\n", "#", "\n", "\t", "  ", "<<: ", "1e999", ".nan",
     "-1", "null", "true", "99999999999999999999", "seeds: ", "use: ", "grid: {eps: [1, 1]}", "zip: {eps: []}", "\\ud800", "...\n---\n", "%"]
)  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(DESIGN_EXAMPLE)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
def test_a_suite_with_anything_put_anywhere_gives_a_suite_or_a_suite_error(edits):
    """Mutated good suites reach what random bytes never do: both passes over a tree that is almost right."""
    text = DESIGN_EXAMPLE
    for at, length, piece in edits:
        text = text[:at] + piece + text[at + length :]

    assert all(line.startswith("s.yaml:") for line in refusal(text))


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)  # with surrogates: what a shell's odd bytes become


@settings(max_examples=100, deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_any_option_gives_a_suite_or_a_suite_error(path, value):
    """The command line is input too."""
    assert all(line.startswith("--set ") for line in refusal(PLAIN, f"{path}={value}", f"train.lr={value}"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * MAX_BYTES,
        HEAD + "methods:\n" + "- rellu\n" * 30_000,
        "".join(f"tasx{i}: 1\n" for i in range(15_000)),
        HEAD + "tasks: [digits]\nmethods:\n" + "".join(f"- {{use: crrelu, grid: {{eps: [x{i}, y]}}}}\n" for i in range(999)),
        HEAD + "tasks: [digits]\nmethods:\n- {use: crrelu, grid: {" + ", ".join(f"e{i}: [1, 2]" for i in range(99)) + "}}\n",
        PLAIN + "exclude:\n- {method: '" + "*a*" * 60_000 + "'}\n",
    ],
    ids=["depth", "methods", "keys", "values", "product", "pattern"],
)
def test_a_hostile_suite_is_refused_in_bounded_time(text):
    """256 KB cost seconds at most, whatever is in them, and no more than 201 lines."""
    start = time.process_time()

    lines = mistakes(text)

    assert len(lines) <= 201
    assert time.process_time() - start < 20  # about 2 s when measured; the bound is for slow machines


# Mistakes: types, ranges, closed sets -----------------------------------------------------------------------------------


def test_six_different_mistakes_are_shown_at_once_each_with_its_line():
    """A user mends a file once, not six times."""
    lines = mistakes(
        "schema: harness/suite/1\n"
        "name: v\n"
        "tasks: [digits, wine, digits]\n"
        "methods:\n"
        "  - {use: rellu, role: baseline}\n"
        "  - crrelu\n"
        "net: {arch: cnn, width: '32'}\n"
        "seeds: -3\n"
        "devises: [cpu]\n"
        "budget: {sample_seen: 30000}\n"
    )

    assert [line[: line.index(";")] for line in lines] == [
        "s.yaml:3: tasks[2]: task 'digits' with the same parameters is tasks[0] (line 3) already",
        "s.yaml:5: methods[0].use: no plugin offers method 'rellu'",
        "s.yaml:7: net.width: got '32'",
        "s.yaml:8: seeds: got -3",
        "s.yaml:9: devises: no such key",
        "s.yaml:10: budget.sample_seen: track classify has no clock 'sample_seen'",
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", "harness/suite/2", "s.yaml:1: schema: got 'harness/suite/2'; use 'harness/suite/1'"),
        ("schema", "", "s.yaml:1: schema: got nothing; use 'harness/suite/1'"),
        ("name", "12", "s.yaml:2: name: got 12; write text, in quotes if it looks like a number"),
        ("name", "a/b", "s.yaml:2: name: got 'a/b'; write text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        ("title", "x" * 300, "s.yaml:7: title: got 'xxx"),
        ("tasks", "digits", "s.yaml:3: tasks: got 'digits'; write a list, such as [a, b]"),
        ("tasks", "[]", "s.yaml:3: tasks: got []; write at least 1"),
        ("tasks", "[3]", "s.yaml:3: tasks[0]: got 3; write a mapping, such as {key: value}"),
        ("methods", "[relu, {role: baseline}]", "s.yaml:4: methods[1].use: missing; add `use: crrelu`"),
        ("methods", "[{use: relu, role: rival}]", "s.yaml:4: methods[0].role: got 'rival'; use 'method', 'baseline', 'ablation'"),
        ("methods", "[{use: relu, prams: {}}]", "s.yaml:4: methods[0].prams: no such key; did you mean 'params'? (keys here: use, role,"),
        ("methods", "[{use: crrelu, grid: {eps: 0.1}}]", "s.yaml:4: methods[0].grid.eps: got 0.1; write a list, such as [a, b]"),
        ("methods", "[{use: crrelu, grid: {eps: []}}]", "s.yaml:4: methods[0].grid.eps: got []; write at least 1"),
        ("methods", "[{use: crrelu, params: [eps]}]", "s.yaml:4: methods[0].params: got ['eps']; write a mapping"),
        ("net", "{arch: mpl}", "s.yaml:5: net.arch: got 'mpl'; use 'mlp', 'cnn', 'resnet8' or 'vit'"),
        ("net", "[{}, {widht: 1}]", "s.yaml:5: net[1].widht: no such key; did you mean 'width'?"),
        ("net", "{width: 0}", "s.yaml:5: net.width: got 0; write a number greater than 0"),
        ("net", "{width: 1.5}", "s.yaml:5: net.width: got 1.5; write a whole number, without quotes or a point"),
        ("net", "mlp", "s.yaml:5: net: got 'mlp'; write a list, such as [a, b]"),
        ("train", "{lr: '0.1'}", "s.yaml:7: train.lr: got '0.1'; write a number, without quotes"),
        ("train", "{lr: 0}", "s.yaml:7: train.lr: got 0; write a number greater than 0"),
        ("train", "{warmup: 1}", "s.yaml:7: train.warmup: got 1; write a number less than 1"),
        ("train", "{weight_decay: -1}", "s.yaml:7: train.weight_decay: got -1; write a number of at least 0"),
        ("limits", "[lr]", "s.yaml:7: limits: got ['lr']; write a mapping, such as {key: value}"),
        ("seeds", "0", "s.yaml:7: seeds: got 0; write how many seeds (1 to 10000) or a list of seed indices, such as [3, 5]"),
        ("seeds", "true", "s.yaml:7: seeds: got True; write how many seeds"),
        ("seeds", "1000000000", "s.yaml:7: seeds: got 1000000000; write how many seeds"),
        ("seeds", "[]", "s.yaml:7: seeds: got []; write how many seeds (1 to 10000) or a list"),
        ("seeds", "[1, -1]", "s.yaml:7: seeds[1]: got -1; write a number of at least 0"),
        ("seeds", "[1, '2']", "s.yaml:7: seeds[1]: got '2'; write a whole number, without quotes or a point"),
        ("root_seed", "-1", "s.yaml:7: root_seed: got -1; write a number of at least 0"),
        ("devices", "[cpu, gpu]", "s.yaml:7: devices[1]: got 'gpu'; use 'cpu' or 'cuda'"),
        ("devices", "gpu", "s.yaml:7: devices: got 'gpu'; use 'cpu' or 'cuda'"),
        ("dtype", "fp16", "s.yaml:7: dtype: got 'fp16'; use 'float32', 'float64', 'bfloat16' or 'float16'"),
        ("threads", "0", "s.yaml:7: threads: got 0; write a number of at least 1"),
        ("threads", "9999", "s.yaml:7: threads: got 9999; write a number of at most 1024"),
        ("budget", "{samples_seen: lots}", "s.yaml:6: budget.samples_seen: got 'lots'; write a number, without quotes"),
        ("budget", "{samples_seen: -1}", "s.yaml:6: budget.samples_seen: got -1; write a number of at least 0"),
        ("budget", "100", "s.yaml:6: budget: got 100; write a mapping"),
        ("measure", "{memory: 1}", "s.yaml:7: measure.memory: got 1; write true or false"),
        ("measure", "{qualty: [nll]}", "s.yaml:7: measure.qualty: no such key; did you mean 'quality'? (keys here: quality, timing, memory)"),
        ("limits", "{timeout: 30}", "s.yaml:7: limits.timeout: got 30; write a duration with its unit, such as 30m (units: s, m, h, d)"),
        ("limits", "{timeout: 30 min}", "s.yaml:7: limits.timeout: got '30 min'; 'min' is no unit of a duration: use s, m, h, d, such as 30m"),
        ("limits", "{timeout: 0s}", "s.yaml:7: limits.timeout: got '0s'; write a duration greater than 0, such as 30m"),
        ("limits", "{memory: 4Gb}", "s.yaml:7: limits.memory: got '4Gb'; 'Gb' is no unit of a size: use B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        ("exclude", "{method: relu}", "s.yaml:7: exclude: got {'method': 'relu'}; write a list, such as [a, b]"),
        ("claims", "[3]", "s.yaml:7: claims[0]: got 3; write text, in quotes if it looks like a number"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_shown_with_its_line_its_key_and_the_mend(key, value, message):
    """pydantic's own words name no mend; each code that a suite can meet is said in ours."""
    assert only(plain(**{key: value})).startswith(message)


@pytest.mark.parametrize("key", ["schema", "name", "tasks", "methods"])
def test_a_missing_key_is_said_with_what_to_add(key):
    """The four that every suite needs."""
    lines = mistakes("".join(line + "\n" for line in PLAIN.splitlines() if not line.startswith(key)))

    assert lines[0].startswith(f"s.yaml:1: {key}: missing; add `{key}: ")


@pytest.mark.parametrize("share", ["0", "-5%", "five", "150%", "2", "true"])
def test_a_share_is_a_percentage_or_a_fraction(share):
    """`match: {params: 5}` would mean 500 %."""
    message = only(plain(budget=f"{{steps: 1, match: {{params: {share}, to: relu}}}}"))

    assert message.startswith("s.yaml:6: budget.match.params: got ")
    assert message.endswith("write a share above 0 and up to 1, such as 5% or 0.05")


# Mistakes: names, parameters, what must fit together --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tasks": "[digts]"}, "s.yaml:3: tasks[0]: no plugin offers task 'digts'; did you mean 'digits'? (`harness list tasks` lists all)"),
        ({"methods": "[evonrom-s0]"}, "s.yaml:4: methods[0]: no plugin offers method 'evonrom-s0'; did you mean 'evonorm-s0'? (`harness list"),
        ({"methods": "[twice]"}, "s.yaml:4: methods[0]: method 'twice' is offered by several plugins; write one of ['other/twice', 'paper-"),
        ({"tasks": "[homeless]"}, "s.yaml:3: tasks[0]: task 'homeless' of plugin papers:crrelu needs a track: no plugin offers track 'nowhere'"),
        ({"methods": "[relu, rrr]"}, "s.yaml:4: methods[1]: 'rrr' solves track 'boolean' and the tasks here are of classify; add a task of 'boolean'"),
        ({"tasks": "[digits, multiplier]"}, "s.yaml:3: tasks[1]: no method here solves track 'boolean' of task 'multiplier'; add one, or remove"),
        ({"tasks": "[multiplier]", "methods": "[rrr, relu]", "budget": "{steps: 1}"},
         "s.yaml:4: methods[1]: 'relu' is a component and no track here (boolean) trains a net; add a task of a track that does"),
        ({"methods": "[relu, relu]"}, "s.yaml:4: methods[1]: method 'relu' with the same parameters is methods[0] (line 4) already; remove one"),
        ({"methods": "[{use: crrelu, params: {eps: 0.01}}, {use: crrelu, role: baseline}]"}, "s.yaml:4: methods[1]: method 'crrelu' with the same"),
        ({"methods": "[{use: crrelu, grid: {steps: [1, 2]}}, {use: papers/crrelu, params: {steps: 2}}]"}, "s.yaml:4: methods[1]: method 'crrelu' with"),
        ({"methods": "[{use: crrelu, grid: {eps: [1, 1.0]}}]"}, "s.yaml:4: methods[0]: method 'crrelu' gets the same parameters twice from this line"),
        ({"methods": "[{use: crrelu, grid: {eps: [0.1, 0.1]}}]"}, "s.yaml:4: methods[0].grid.eps[1]: 0.1 stands at methods[0].grid.eps[0] already"),
        ({"methods": "[relu, {use: crrelu, as: relu}]"}, "s.yaml:4: methods[1].as: another method of the suite is called 'relu'; pick a name of its own"),
        ({"tasks": "[digits, {use: digits, params: {subset: 1000}}]"}, "s.yaml:3: tasks[1]: task 'digits' with the same parameters is tasks[0]"),
        ({"seeds": "[3, 5, 3]"}, "s.yaml:7: seeds[2]: 3 stands at seeds[0] already; remove one"),
        ({"devices": "[cpu, cpu]"}, "s.yaml:7: devices[1]: 'cpu' stands at devices[0] already; remove one"),
        ({"net": "[{arch: mlp}, {arch: mlp, width: 128}]"}, "s.yaml:5: net[1]: {'arch': 'mlp', 'width': 128} stands at net[0] already; remove one"),
        ({"net": "{activation: rleu}"}, "s.yaml:5: net.activation: no plugin offers method 'rleu'; did you mean 'relu'?"),
        ({"net": "{activation: evonorm-s0}"}, "s.yaml:5: net.activation: 'evonorm-s0' is of kind 'norm_act'; name an activation, such as relu"),
        ({"budget": "{sampels_seen: 9}"}, "s.yaml:6: budget.sampels_seen: track classify has no clock 'sampels_seen'; did you mean 'samples_seen'? (clocks"),
        ({"budget": "{}"}, "s.yaml:6: budget: no amount is given: the net around 'relu' would be trained for ever; add `samples_seen: 30000`, say"),
        ({"budget": "{epochs: 2, samples_seen: 9}"}, "s.yaml:6: budget.epochs: epochs are counted on samples_seen, which stands here too; keep one"),
        ({"budget": "{epochs: 2}", "tasks": "[wine]"}, "s.yaml:6: budget.epochs: no task here says how many items it trains on; use samples_seen"),
        ({"tasks": "[multiplier]", "methods": "[rrr]", "budget": "{epochs: 2}"}, "s.yaml:6: budget.epochs: track boolean has no clock 'epochs'"),
        ({"budget": "{steps: 1, match: {to: relu}}"}, "s.yaml:6: budget.match: got neither params nor flops; write one of them, such as params: 5%"),
        ({"budget": "{steps: 1, match: {params: 5%, flops: 5%, to: relu}}"}, "s.yaml:6: budget.match: got params and flops; write one of them"),
        ({"budget": "{steps: 1, match: {flops: 5%, to: relu}}"}, "s.yaml:6: budget.match.flops: no track here can match flops; use params"),
        ({"budget": "{steps: 1, match: {params: 5%, to: rleu}}"}, "s.yaml:6: budget.match.to: no method of this suite is called 'rleu'; did you mean 'relu'?"),
        ({"budget": "{steps: 1, match: {params: 5%, to: crrelu}}", "methods": "[{use: crrelu, grid: {steps: [1, 2]}}]"},
         "s.yaml:6: budget.match.to: 'crrelu' stands here with 2 sets of parameters; give the one that is meant a line of its own, with `as: NAME`"),
        ({"measure": "{quality: [acuracy]}"}, "s.yaml:7: measure.quality[0]: no task or probe here gives 'acuracy'; did you mean 'accuracy'? (quantities here:"),
        ({"measure": "{quality: [exact]}"}, "s.yaml:7: measure.quality[0]: no task or probe here gives 'exact' (quantities here: accuracy, nll, zeros)"),
        ({"tasks": "[multiplier]", "methods": "[rrr]", "budget": "{steps: 1}", "measure": "{timing: [inference]}"},
         "s.yaml:7: measure.timing[0]: no track here (boolean) can time inference; remove it"),
        ({"claims": "[crrelu.beats-rleu]"}, "s.yaml:7: claims[0]: no paper makes claim 'crrelu.beats-rleu'; did you mean 'crrelu.beats-relu'? (paper.claim;"),
        ({"exclude": "[{metod: relu}]"}, "s.yaml:7: exclude[0].metod: trials have no 'metod'; did you mean 'method'? (names here: method, task,"),
        ({"exclude": "[{method.epz: 1}]"}, "s.yaml:7: exclude[0].method.epz: trials have no 'method.epz'; did you mean 'method.eps'?"),
        ({"exclude": "[{method: rleu}]"}, "s.yaml:7: exclude[0].method: no method matches 'rleu'; did you mean 'relu'? (write a name, or a pattern with *)"),
        ({"exclude": "[{device: gpu}]"}, "s.yaml:7: exclude[0].device: no device matches 'gpu'"),
        ({"exclude": "[{net.arch: [mlp]}]"}, "s.yaml:7: exclude[0].net.arch: got ['mlp']; write one pattern or one value"),
        ({"exclude": "[{}]"}, "s.yaml:7: exclude[0]: an empty item would leave out every trial; write a pattern, such as {method: relu}"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_fit_is_said_with_the_mend(keys, message):
    """Names are checked against the plugins before anything runs."""
    assert only(plain(**keys)).startswith(message)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("params: {epz: 1}", "methods[0].params.epz: 'crrelu' has no parameter 'epz'; did you mean 'eps'? (it takes eps, steps, mode, sizes)"),
        ("grid: {epz: [1]}", "methods[0].grid.epz: 'crrelu' has no parameter 'epz'; did you mean 'eps'?"),
        ("params: {eps: 0}", "methods[0].params.eps: got 0; write a number greater than 0 (`harness describe crrelu` shows the parameters)"),
        ("params: {steps: '3'}", "methods[0].params.steps: got '3'; write a whole number, without quotes or a point (`harness describe"),
        ("params: {sizes: [1, x]}", "methods[0].params.sizes[1]: got 'x'; write a whole number"),
        ("grid: {steps: [1, 2.5]}", "methods[0].grid.steps[1]: got 2.5; write a whole number"),
        ("zip: {mode: [a, b], steps: [1, x]}", "methods[0].zip.steps[1]: got 'x'; write a whole number"),
        ("zip: {mode: [a, b], steps: [1]}", "methods[0].zip: the lists must have one length, but mode has 2, steps has 1; complete them, or use grid"),
        ("params: {eps: 1}, grid: {eps: [2]}", "methods[0].grid.eps: 'eps' stands in params too; keep one of them"),
        ("params: {mode: b, steps: 6}", "methods[0]: got {'mode': 'b', 'steps': 6}; mode b takes at most 5 steps; lower steps (`harness"),
        (f"grid: {{eps: {[i / 1000 for i in range(1, 300)]}, steps: {list(range(60))}}}",
         "methods[0]: the parameters make 17940 combinations; a suite has at most 10000: split it"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_said_at_its_own_place(entry, message):
    """The value in the grid, not the line of the method, and before any trial runs."""
    assert only(plain(methods=f"[{{use: crrelu, {entry}}}]")).startswith(f"s.yaml:4: {message}")


def test_a_net_may_be_without_activations_for_layers_that_have_their_own():
    """A Kolmogorov-Arnold layer bends its inputs itself; no plugin offers `identity`, the laboratory has it."""
    assert load(plain(net="{activation: identity}")).net[0].activation == "identity"


def test_a_parameter_without_a_default_is_asked_for():
    """`needy` is a method whose author gave no default rank."""
    assert only(plain(methods="[needy]")).startswith(
        "s.yaml:4: methods[0].params.rank: missing; add `rank: ...` (`harness describe needy`"
    )


def test_the_branches_of_a_union_are_one_mistake():
    """pydantic reports each branch by itself; a user made one mistake."""
    message = only(plain(methods="[{use: needy, params: {rank: 1, either: [1]}}]"))

    assert message.startswith(
        "s.yaml:4: methods[0].params.either: got [1]; write a whole number, without quotes or a point, or write text"
    )


def test_a_plugin_whose_parameters_raise_is_named():
    """A plugin's bug is the plugin's: no traceback, and its name."""
    message = only(plain(methods="[{use: raising, params: {x: 1}}]"))

    assert message.startswith(
        "s.yaml:4: methods[0]: plugin papers:crrelu: reading the parameters of 'raising' raised RuntimeError: boom"
    )


def test_a_component_without_a_net_is_told_to_add_one():
    """Components have nothing to train on their own."""
    text = PLAIN.replace("net: {arch: mlp}\n", "")

    assert only(text) == "s.yaml:1: net: missing; 'relu' is a component and goes into a net: add `net: {arch: mlp, width: 128}`"


def test_one_unknown_task_does_not_make_its_clocks_and_metrics_mistakes():
    """Follow-up errors bury the one that matters."""
    text = plain(tasks="[digits, multiplyer]", methods="[relu, rrr]", measure="{quality: [exact, accuracy]}")

    assert only(text).startswith("s.yaml:3: tasks[1]: no plugin offers task 'multiplyer'; did you mean 'multiplier'?")


def test_an_unknown_name_beside_a_broken_plugin_says_so():
    """The method may well be the broken plugin's."""
    broken = replace(CATALOGUE, broken=(Broken("kan:kan", "0.2", "kan", "ImportError: no such module"),))

    assert only(plain(methods="[kan]"), catalogue=broken).endswith("; these plugins could not be loaded: kan:kan")


def test_a_mistake_points_at_the_line_of_its_value_in_block_style():
    """Lines are what editors jump to."""
    text = HEAD + (
        "tasks:\n"
        "  - digits\n"
        "methods:\n"
        "  - use: crrelu\n"
        "    grid:\n"
        "      steps:\n"
        "        - 1\n"
        "        - x\n"
        "net:\n"
        "  arch: mlp\n"
        "  width: '3'\n"
        "budget:\n"
        "  samples_seen: 9\n"
    )  # fmt: skip

    assert [line.split(": ")[0] for line in mistakes(text)] == ["s.yaml:10", "s.yaml:13"]


# Files, and what editors read -------------------------------------------------------------------------------------------


def test_a_suite_is_read_from_its_file_and_named_by_it(tmp_path):
    """The path in a message is the path that the user gave."""
    path = tmp_path / "vision.yaml"
    path.write_text(PLAIN + "devices: [gpu]\n", encoding="utf-8")

    with pytest.raises(SuiteError, match=r"vision\.yaml:7: devices\[0\]: got 'gpu'; use 'cpu' or 'cuda'"):
        load_suite(path, CATALOGUE)
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())

    assert load_suite(path, CATALOGUE).path == path
    with pytest.raises(SuiteError, match=r"nowhere\.yaml: cannot be read \(No such file or directory\)"):
        load_suite(tmp_path / "nowhere.yaml", CATALOGUE)
    assert SuiteError.exit_code == 2


def test_a_path_wins_over_a_shipped_name_and_neither_is_an_error(tmp_path, monkeypatch):
    """`harness run vision` works without a checkout; a typo names the suites there are."""
    monkeypatch.setattr("harness.suite.shipped._suite_folder", lambda: tmp_path / "shipped")
    (tmp_path / "shipped" / "asv").mkdir(parents=True)
    for name in ("vision.yaml", "smoke.yml", "suite.schema.json"):
        (tmp_path / "shipped" / name).write_text(PLAIN)
    (tmp_path / "mine.yaml").write_text(PLAIN)

    assert [path.stem for path in shipped_suites()] == ["smoke", "vision"]
    assert find_suite("vision") == tmp_path / "shipped" / "vision.yaml"
    assert find_suite(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    with pytest.raises(SuiteError, match=r"no suite file 'vison'.*; did you mean 'vision'\? \(shipped are smoke, vision\)"):
        find_suite("vison")
    with pytest.raises(SuiteError, match=r"is a folder, not a suite file"):
        find_suite(str(tmp_path))


def test_this_checkout_ships_its_suites_folder():
    """The folder is found beside the package, told from any other `suites` by pyproject.toml."""
    import harness.suite.shipped as shipped

    folder = shipped._suite_folder()

    assert folder is not None
    assert folder.name in ("suites", "_suites")


def test_every_key_of_the_schema_is_described_and_names_come_from_the_catalogue():
    """Editors show the description and complete the names; the file is JSON."""
    schema = json.loads(json.dumps(suite_schema(CATALOGUE)))

    undescribed = [
        f"{place}.{key}"
        for place, form in [("suite", schema), *schema["definitions"].items()]
        for key, field in _own_properties(form)
        if "description" not in field
    ]
    assert undescribed == []
    method = schema["definitions"]["MethodForm"]["anyOf"]
    assert "crrelu" in method[0]["anyOf"][0]["enum"]
    then = next(rule["then"] for rule in method[1]["allOf"] if rule["if"]["properties"]["use"]["const"] == "crrelu")
    assert then["properties"]["params"]["properties"]["eps"]["description"] == "slope left of zero"
    assert schema["definitions"]["BudgetForm"]["additionalProperties"] is False
    assert {"samples_seen", "epochs", "wall_s", "match"} <= set(schema["definitions"]["BudgetForm"]["properties"])
    assert schema["properties"]["claims"]["items"]["enum"] == ["crrelu.beats-relu"]
    assert {"mlp"} <= set(schema["definitions"]["Net"]["properties"]["arch"]["enum"])


def _own_properties(form: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    forms = [form, *(branch for branch in form.get("anyOf", []) if "properties" in branch)]
    return [item for one in forms for item in one.get("properties", {}).items()]


def test_every_reference_of_the_schema_leads_somewhere():
    """A dangling $ref makes an editor drop the whole schema."""
    schema = suite_schema(CATALOGUE)
    text = json.dumps(schema)

    wanted = {part.split('"')[0] for part in text.split('"#/definitions/')[1:]}
    assert wanted
    assert wanted <= set(schema["definitions"])


def test_the_defaults_that_an_editor_inserts_are_accepted_by_the_loader():
    """A default of 1800.0 for the timeout would be refused as soon as it is inserted."""
    schema = suite_schema(CATALOGUE)
    forms = {"train": "Train", "measure": "MeasureForm", "limits": "LimitsForm", "net": "Net"}
    top = {key: field["default"] for key, field in schema["properties"].items() if "default" in field}
    inner = {
        key: {name: field["default"] for name, field in schema["definitions"][form]["properties"].items() if "default" in field}
        for key, form in forms.items()
    }

    suite = load(plain(**{key: json.dumps(value) for key, value in {**top, **inner}.items()}))

    assert suite == load(PLAIN)


def test_the_comment_points_to_a_schema_beside_the_suite():
    """The first line of each shipped suite; a relative path works in a checkout and in an installation."""
    assert SCHEMA_COMMENT == "# yaml-language-server: $schema=./suite.schema.json"
    assert load(SCHEMA_COMMENT + "\n" + PLAIN) == load(PLAIN)


def test_reading_a_suite_imports_no_torch():
    """`harness validate` answers at once."""
    code = (
        "import sys\n"
        "from harness.suite import suite_schema\n"
        "from harness.suite.text import read_document\n"
        "from harness.catalogue import Catalogue\n"
        "read_document(b'a: 1')\n"
        "suite_schema(Catalogue())\n"
        "sys.exit('torch' in sys.modules)\n"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_order_of_keys_and_the_text_change_nothing():
    """Comments, order of keys and quotes are no part of a suite."""
    lines = DESIGN_EXAMPLE.splitlines()
    blocks = ["\n".join(lines[3:7]), *lines[:3], *lines[7:]]
    random.Random(0).shuffle(blocks)

    shuffled, plain_order = load("# a comment\n" + "\n".join(blocks) + "\n"), load(DESIGN_EXAMPLE)

    assert shuffled == plain_order
    assert shuffled.text_sha256 != plain_order.text_sha256
