"""`harness certify`: what is printed is what was proved, what is saved can be checked elsewhere, what fails is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness_papers.lipsdp import alone, command
from harness_papers.lipsdp.certificate_files import Certificate, decode, encode, facts_of, read_certificates, write_certificates
from harness_papers.lipsdp.importing import import_network
from harness_papers.lipsdp.problems import (
    Bound,
    GroupMultipliers,
    Multipliers,
    NormProduct,
    PerOutput,
    PointPair,
    ResidualMultipliers,
    network,
)
from invoking import harness

from harness import HarnessError
from harness.testing import examine_plugin
from lipsdp.conftest import card_net, normal

NET = "harness_papers.lipsdp.examples:relu_net"
QUICK = ("--method", "norm-product", "--method", "sampled-lower-bound")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a project of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The certificates of a LipSDP solve, of two quick methods, and of what the command printed."""
    folder = tmp_path_factory.mktemp("saved")
    ended = harness("certify", NET, *QUICK, "--method", "lipsdp-neuron", "--json", "--certificate", folder / "net.json")
    assert ended.code == 0, ended.err
    (folder / "printed.json").write_text(ended.out)
    return folder


def test_bounds_are_those_that_the_evidence_proves(saved):
    """Against the network read here, the norm product computed here, and a slope seen here."""
    net = import_network(NET).network
    printed = json.loads((saved / "printed.json").read_text())
    rows = {row["method"]: row for row in printed["methods"]}
    product = np.prod([np.linalg.norm(weight, 2) for weight in net.weights])

    assert rows["norm-product"]["bound"] == pytest.approx(product, rel=1e-12)
    assert rows["sampled-lower-bound"]["kind"] == "lower"
    assert rows["sampled-lower-bound"]["bound"] < rows["lipsdp-neuron"]["bound"] < rows["norm-product"]["bound"]
    assert rows["lipsdp-neuron"]["min_eigenvalue"] > 0
    assert printed["network"]["sizes"] == [8, 16, 16, 4]
    assert printed["network"] == {
        **facts_of(net),
        "source": NET,
        "input_shape": [8],
        "difference": printed["network"]["difference"],
    }


def test_a_saved_certificate_is_proved_anew_without_a_solver(saved, monkeypatch):
    """Same bounds; no method runs."""
    monkeypatch.setattr(alone, "solve_alone", lambda *_: pytest.fail("a method ran"))

    checked = harness("certify", NET, "--check", saved / "net.json", "--json")

    assert (checked.code, checked.err) == (0, "")
    before = {row["method"]: row["bound"] for row in json.loads((saved / "printed.json").read_text())["methods"]}
    assert {row["method"]: row["bound"] for row in checked.json["methods"]} == before


def test_a_certificate_of_another_network_is_refused(saved):
    """The same sizes, other weights: a bound of one says nothing of the other. Exit 3, as every gate."""
    content = json.loads((saved / "net.json").read_text())
    content["certificates"] = [row for row in content["certificates"] if row["method"] != "norm-product"]
    Path("other.json").write_text(json.dumps(content))
    checked = harness("certify", "harness_papers.lipsdp.examples:maxmin_net", "--check", "other.json")

    assert checked.code == 3
    assert "made for a network of another activation, alpha, group;" in checked.err
    assert "lipsdp-neuron: invalid: " in checked.out
    assert "lipsdp-neuron" not in checked.out.splitlines()[-1]


@pytest.mark.parametrize("change", [lambda b: b * 0.9, lambda b: b / 1e3])
def test_a_bound_that_was_lowered_in_the_file_is_refused(change, saved):
    content = json.loads((saved / "net.json").read_text())
    for row in content["certificates"]:
        row["bound"] = change(row["bound"]) if row["kind"] == "upper" else row["bound"] * 2
    Path("forged.json").write_text(json.dumps(content))

    checked = harness("certify", NET, "--check", "forged.json", "--json")

    assert checked.code == 3
    assert {row["method"]: row["status"] for row in checked.json["methods"]} == {
        "lipsdp-neuron": "invalid",
        "norm-product": "invalid",
        "sampled-lower-bound": "invalid",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "this is no JSON, or a part of it is missing"),
        ("[" * 100_000, "this is no JSON"),
        ("{}", "no certificates of ours: schema"),
        ({"certificates": []}, "it holds no certificates"),
        ({"certificates": [{"bound": 1.0, "kind": "upper"}]}, r"certificates[0]: a bound with its evidence is wanted"),
        ({"certificates": [{"bound": 1.0, "kind": "upper", "evidence": {"type": "os.system"}}]}, "'os.system'; one of"),
        ({"certificates": [{"bound": "1", "kind": "upper", "evidence": {"type": "NormProduct"}}]}, "bound='1'"),
        (
            {"certificates": [{"bound": 1.0, "kind": "upper", "evidence": {"type": "Multipliers", "t": [["a"]]}}]},
            "numbers are wanted",
        ),
        (
            {"certificates": [{"bound": 1.0, "kind": "lower", "evidence": {"type": "PointPair", "x": [1]}}]},
            "PointPair holds ['x']",
        ),
        ({"certificates": [3]}, "certificates[0]"),
        ({"certificates": {"a": 1}}, "it holds no certificates"),
    ],
)
def test_a_file_that_is_no_certificate_is_a_mistake_with_its_mend(content, message):
    """Exit 2, one line, no traceback."""
    if isinstance(content, dict):
        content = json.dumps({"schema": "harness_papers.lipsdp/certificates/1", **content})
    Path("c.json").write_text(content)

    checked = harness("certify", NET, "--check", "c.json")

    assert checked.code == 2
    assert message in checked.err
    assert "Traceback" not in checked.err


LAYERS = (normal(6, 2), normal(7, 2))
ROWS = (ResidualMultipliers((abs(normal(5, 4)),)), GroupMultipliers(LAYERS, LAYERS, LAYERS, LAYERS))


@pytest.mark.parametrize(
    "solution",
    [
        Bound(1.5, "upper", Multipliers((normal(1, 6), normal(2, 5)))),
        Bound(0.1 + 0.2, "upper", NormProduct()),
        Bound(1e-300, "lower", PointPair(normal(3, 4), normal(4, 4))),
        Bound(2.0, "upper", PerOutput((normal(1, 3), normal(2, 3)), ROWS)),
    ],
)
def test_evidence_is_read_back_bit_for_bit(solution):
    """A last digit that is lost may be the one that the proof needs; also of evidence that holds evidence."""
    back = decode(json.loads(json.dumps(encode(solution))))

    assert repr(back) == repr(solution)
    for ours, theirs in zip(leaves(back.evidence), leaves(solution.evidence), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, theirs)


def leaves(value):
    """All arrays of evidence, in order."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from leaves(one)
    else:
        for one in vars(value).values():
            yield from leaves(one)


def test_people_read_numbers_rounded_away_from_the_constant():
    """A printed upper bound that was rounded down would be no bound."""
    assert command.rounded(1.23456749, up=True) == "1.234568"
    assert command.rounded(1.23456751, up=False) == "1.234567"
    for value in np.exp(normal(1, 50) * 20):
        assert float(command.rounded(value, up=False)) <= value <= float(command.rounded(value, up=True))


def test_the_table_says_what_was_read_and_what_was_proved():
    """One line of what the network is, one a method, one that sums it up."""
    lines = harness("certify", NET, *QUICK).out.splitlines()

    assert lines[0].startswith(f"{NET}: 8-16-16-4, relu, l2; read to within ")
    assert " ".join(lines[2].split()) == "method upper bound lower bound evidence min eigenvalue seconds checked in"
    assert [line.split()[0] for line in lines[3:5]] == ["norm-product", "sampled-lower-bound"]
    assert lines[-1].startswith("L <= ")
    assert "times apart" in lines[-1]


def test_without_a_name_those_that_may_fit_are_tried(capsys):
    """Slopes of single units say nothing of sorted groups; what is dense in all units waits until it is named."""
    relu, sorting = (import_network(f"harness_papers.lipsdp.examples:{name}") for name in ("relu_net", "maxmin_net"))
    large = replace(sorting, network=network([normal(1, 300, 4), normal(2, 3, 300)], activation="groupsort"))
    rest = ["norm-product", "sampled-lower-bound", "exact-masks"]

    assert command.fitting(relu) == ["lipsdp-neuron", "lipsdp-layer", *rest]
    assert command.fitting(sorting) == ["lipsdp-nsr", "nsr-full", "nsr-null", "lipsdp-rr", *rest]
    assert command.fitting(large) == ["lipsdp-nsr", *rest]
    assert "nsr-null: left out above 256 units; --method nsr-null runs it" in capsys.readouterr().err


def test_a_solver_that_stopped_early_is_said(monkeypatch):
    """The number is proved all the same, and may be the product of norms."""
    bound = Bound(100.0, "upper", NormProduct())
    result = {"status": "ok", "error": "", "seconds": 1.0, "solution": bound, "logged": {"solver_status": "not proved"}}
    monkeypatch.setattr(alone, "solve_alone", lambda *_: result)

    said = harness("certify", NET, "--method", "lipsdp-neuron").out

    assert "lipsdp-neuron: its solver ended as 'not proved'; the bound above is what is proved" in said
    assert "6.379295" in said  # the product, recomputed, not the claim


def test_l_infinity_is_another_bound():
    """The product of the largest row sums."""
    net = import_network(NET).network
    (row,) = harness("certify", NET, "--norm", "linf", "--method", "norm-product", "--json").json["methods"]

    assert row["bound"] == pytest.approx(np.prod([abs(weight).sum(axis=1).max() for weight in net.weights]), rel=1e-12)


def test_a_method_that_does_not_fit_is_left_out_unless_it_is_named():
    """32 units have too many slope patterns."""
    named = harness("certify", NET, "--method", "exact-masks")

    assert named.code == 2
    assert "no bound: exact-masks: unsupported: exact-masks: 32 hidden units" in named.err
    both = harness("certify", NET, "--method", "exact-masks", "--method", "norm-product")
    assert both.code == 0
    assert "exact-masks: unsupported" in both.out


@pytest.mark.parametrize(
    ("solve", "status", "said", "kept"),
    [
        ("offers_and_sleeps", "timeout", "stopped", True),
        ("sleeps", "timeout", "stopped", False),
        ("spends", "timeout", "its time was spent", True),
        ("dies", "failed", "its process ended with 7: last words", False),
        ("raises", "failed", "ValueError: of its own", False),
        ("gives_up", "unsupported", "not this one", False),
        ("diverges", "diverged", "no numbers", False),
        ("good", "ok", "", True),
    ],
)
def test_a_method_is_stopped_and_its_end_is_told(solve, status, said, kept, tmp_path, monkeypatch):
    """Whatever it does, its process ends, and what it offered before stands."""
    (tmp_path / "badly.py").write_text(
        "import os, time\nfrom harness import Diverged, Unsupported\n"
        "from harness_papers.lipsdp import alone\nfrom harness_papers.lipsdp.problems import Bound, NormProduct\n"
        "alone.params_of = lambda solve: dict\nbound = Bound(2.0, 'upper', NormProduct())\n"
        "def good(net, ctx, params): assert net.hidden == (4,); return bound\n"
        "def sleeps(net, ctx, params): time.sleep(60)\n"
        "def offers_and_sleeps(net, ctx, params): ctx.offer(bound); time.sleep(60)\n"
        "def spends(net, ctx, params):\n    ctx.offer(bound)\n    while True: ctx.spend(solver_iterations=1)\n"
        "def dies(net, ctx, params): print('last words', flush=True); os._exit(7)\n"
        "def raises(net, ctx, params): raise ValueError('of its own')\n"
        "def gives_up(net, ctx, params): raise Unsupported('not this one')\n"
        "def diverges(net, ctx, params): raise Diverged('no numbers')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(alone, "GRACE_S", 4.0)
    monkeypatch.setattr(alone, "RUN", f"import badly; {alone.RUN}")
    limit_s = 1.0 if "timeout" in status else 60.0
    ended = alone.solve_alone(f"badly:{solve}", {}, card_net("2-4-2"), tmp_path, limit_s)

    assert ended["status"] == status
    assert said in ended["error"]
    assert (ended["solution"] is not None) == kept


def test_a_network_goes_to_the_method_s_process_and_back_bit_for_bit(tmp_path):
    for net in (card_net("3-4-2", "tanh"), import_network("harness_papers.lipsdp.examples:maxmin_net", norm="linf").network):
        alone.write_network(tmp_path / "net.npz", net)
        back = alone.read_network(tmp_path / "net.npz")

        assert facts_of(back) == facts_of(net)


def test_a_certificate_that_cannot_be_written_is_said(tmp_path):
    net = card_net("2-4-2")
    with pytest.raises(HarnessError, match="cannot be written: No such file"):
        write_certificates(tmp_path / "no" / "c.json", net, [Certificate("m", Bound(1.0, "upper", NormProduct()))], {})
    assert "is the name of a network" in harness("certify", NET, "--certificate", "net.onnx").err
    facts, (one,) = read_after_writing(tmp_path / "c.json", net)
    assert (facts, one.method) == (facts_of(net), "m")


def read_after_writing(path, net):
    write_certificates(path, net, [Certificate("m", Bound(1.0, "upper", NormProduct()))], {})
    return read_certificates(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--timeout", "5"), "write a number above 0 with its unit"),
        (("--timeout", "0s"), "above 0"),
        (("--input-shape", "1,x"), "write sizes above 0 joined by commas"),
        (("--method", "guess"), "'guess' is not one of"),
        (("--norm", "l1"), "'l1' is not one of 'l2', 'linf'"),
        (("--check", "absent.json"), "does not exist"),
    ],
)
def test_mistakes_on_the_command_line_are_2_with_the_mend(arguments, message):
    ended = harness("certify", NET, *arguments)

    assert ended.code == 2
    assert message in ended.err


def test_help_of_the_whole_names_the_command_and_imports_no_torch():
    assert "certify" in harness("--help").out
    (report,) = list(examine_plugin("lipsdp", only=["none"]))
    assert "commands" in report.passed
    assert {"import_cheap", "import_pure"} <= set(report.passed)
