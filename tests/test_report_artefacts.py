"""What trials saved, as a report shows it: pictures and texts that can do nothing, of the trial in the middle."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.registry import Registry
from harness.report import artefacts, make_report
from harness.report.artefacts import ATTRIBUTES, COPY, ELEMENTS, Unfit, clean_svg, fit, kind_of
from harness.report.collecting import collect
from tests.report_samples import HOSTILE, board, quality, save, with_artefacts
from tests.test_report import Parsed

XMLNS = 'xmlns="http://www.w3.org/2000/svg"'
CIRCLE = f'<svg {XMLNS} width="20" height="20"><circle cx="10" cy="10" r="8" fill="red"/></svg>'
HARMFUL = {
    "script": (f'<svg {XMLNS}><script>alert(1)</script></svg>', "<script>"),
    "handler": (f'<svg {XMLNS} onload="alert(1)"/>', "attribute onload"),
    "html": (f"<svg {XMLNS}><foreignObject><body/></foreignObject></svg>", "<foreignObject>"),
    "link": (f'<svg {XMLNS}><a href="javascript:alert(1)"><text>x</text></a></svg>', "<a>"),
    "image": (f'<svg {XMLNS}><image href="https://example.org/x.png"/></svg>', "<image>"),
    "use": (f'<svg {XMLNS} xmlns:xlink="http://www.w3.org/1999/xlink"><use xlink:href="#a"/></svg>', "<use>"),
    "stylesheet": (f"<svg {XMLNS}><style>@import url(https://example.org/x.css)</style></svg>", "<style>"),
    "animation": (f'<svg {XMLNS}><animate attributeName="href" to="javascript:alert(1)"/></svg>', "<animate>"),
    "fill from elsewhere": (f'<svg {XMLNS}><rect fill="url(https://example.org/x#y)"/></svg>', "fill refers"),
    "style from elsewhere": (f'<svg {XMLNS}><rect style="fill:URL( //example.org/x )"/></svg>', "style refers"),
    "escaped style": (f'<svg {XMLNS}><rect style="fill:u\\72l(x)"/></svg>', "style refers"),
    "other namespace": ('<svg xmlns="http://www.w3.org/2000/svg"><rect xmlns="http://www.w3.org/1999/xhtml"/></svg>', "<rect>"),
    "html root": ('<html xmlns="http://www.w3.org/1999/xhtml"><script>alert(1)</script></html>', "no SVG"),
    "entities": (f'<!DOCTYPE svg [<!ENTITY a "&b;&b;">]><svg {XMLNS}><text>&a;</text></svg>', "DOCTYPE"),
    "half": (f"<svg {XMLNS}><g>", "no well-formed SVG"),
    "deep": (f"<svg {XMLNS}>" + "<g>" * 5000 + "</g>" * 5000 + "</svg>", "nested deeper"),
}  # fmt: skip


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def report_of(opened: Registry, folder: Path) -> dict[str, bytes]:
    make_report(opened, folder)
    return files_of(folder)


def method_page(files: Mapping[str, bytes], start: str = "method-better") -> str:
    return next(text.decode() for name, text in files.items() if name.startswith(start))


def figures(page: str) -> list[str]:
    return re.findall(
        r"<figure>(?:(?!</figure>).)*</figcaption>\s*</figure>", page.partition('<div class="exhibits">')[2], re.DOTALL
    )


# On the page ------------------------------------------------------------------------------------------------------------


def test_a_method_shows_what_its_trial_in_the_middle_saved(tmp_path):
    """Not the best: of five seeds the third by the board's metric. A picture as an image, a text escaped and to be saved."""
    opened = with_artefacts(tmp_path / "registry")
    files = report_of(opened, tmp_path / "pages")
    page, (shown,) = method_page(files), collect(opened).artefacts.values()
    (picture, text), parsed = figures(page), Parsed(page)
    copies = [name for name in files if COPY.fullmatch(name)]

    assert "What seed 2 saved, of those that saved something the one in the middle, accuracy 0.97" in page
    images = [a for tag, a in parsed.elements if tag == "img"]
    assert images == [{"src": copies[0 if copies[0].endswith("svg") else 1], "alt": "curves.svg"}]
    assert "image/svg+xml" in picture
    assert "if (a &lt; b) then &#34;seed 2&#34;" in text
    assert sorted(name.rpartition(".")[2] for name in copies) == ["svg", "txt"]
    assert {a.file.partition(".")[0] for a in shown} == {f"artefact-{a.sha256[:16]}" for a in shown}
    assert all(hashlib.sha256(saved_text(2, a.name)).hexdigest() == a.sha256 for a in shown)
    assert {name for name in files if not name.endswith((".html", ".css", ".js"))} == {a.file for a in shown} == set(copies)
    assert sum(map(len, files.values())) < 2e6


def saved_text(seed: int, name: str) -> bytes:
    return next(content for given, content, _ in save(seed) if given == name)


def test_a_merged_registry_gives_the_same_bytes_artefacts_too(tmp_path):
    """Whichever way its files came."""
    first = with_artefacts(tmp_path / "a")
    merged = Registry.open(tmp_path / "elsewhere" / "b")
    merged.merge(tmp_path / "a")

    assert report_of(first, tmp_path / "one") == report_of(Registry.open(merged.path, create=False), tmp_path / "two")


def test_a_report_with_artefacts_may_be_replaced_and_one_with_other_files_not(tmp_path):
    """Our own copies are no strangers; somebody's picture is."""
    opened = with_artefacts(tmp_path / "registry")
    first = report_of(opened, tmp_path / "pages")
    assert report_of(opened, tmp_path / "pages") == first

    (tmp_path / "pages" / "artefact-mine.svg").write_text("<svg/>")
    with pytest.raises(Exception, match="holds what is no report"):
        make_report(opened, tmp_path / "pages")


def test_what_is_missing_or_damaged_is_named_and_costs_nothing_else(tmp_path):
    """A registry that was copied in part."""
    opened = with_artefacts(tmp_path / "registry")
    blobs = sorted((tmp_path / "registry" / "blobs").iterdir())
    by_content = {hashlib.sha256(saved_text(2, name)).hexdigest(): name for name in ("curves.svg", "circuit.v")}
    for blob in blobs:
        if by_content.get(blob.name) == "curves.svg":
            blob.unlink()
        elif by_content.get(blob.name) == "circuit.v":
            blob.chmod(0o644)
            blob.write_bytes(blob.read_bytes()[:-3] + b"xyz")
    page = method_page(report_of(opened, tmp_path / "pages"))

    assert "not shown: its file is not in this registry; merge the one where it was made" in page
    assert "not shown: its file is damaged; `harness verify` names it" in page
    assert "<img" not in page
    assert str(tmp_path) not in page


def test_copies_have_a_budget_of_their_own(tmp_path, monkeypatch):
    """Pages of many methods must stay light; what is left out is named with its place in the registry."""
    monkeypatch.setattr(artefacts, "WHOLE_BYTES", 200)
    monkeypatch.setattr(artefacts, "BOARD_BYTES", 0)
    page = method_page(report_of(with_artefacts(tmp_path / "registry"), tmp_path / "pages"))

    assert "not shown: the copies of this report have 0 kB" in page
    assert 'data-copy="blobs/' in page


UNFIT = [
    ("big.svg", CIRCLE.encode() + b" " * 150_000, "image/svg+xml", "larger than 150 kB"),
    ("big.txt", b"x" * 60_001, "text/plain", "larger than 60 kB"),
    ("weights", b"\x00", "application/octet-stream", "neither text nor a picture that is shown here (SVG, PNG)"),
    ("page", b"\xff\xfe", "text/plain", "not UTF-8"),
    ("x.svg", HARMFUL["script"][0].encode(), "image/svg+xml", "an SVG with &lt;script&gt;"),
]


def test_what_is_not_shown_says_why_and_where_it_lies(tmp_path):
    opened = with_artefacts(tmp_path / "registry", lambda seed: [saved[:3] for saved in UNFIT])
    files = report_of(opened, tmp_path / "pages")
    page = method_page(files)

    assert [why for *_, why in UNFIT if f"not shown: {why}" not in page] == []
    assert page.count('data-copy="blobs/') == len(UNFIT)
    assert not any(COPY.fullmatch(file) for file in files)


def test_a_failed_trial_and_one_that_saved_nothing_stand_for_no_method(tmp_path):
    attempts = [replace(a, blobs=()) for a in board()]

    assert collect(with_artefacts(tmp_path / "registry", lambda seed: [], attempts)).artefacts == {}


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_the_trial_in_the_middle_is_of_an_even_number_the_lower_one(count):
    attempts = {str(i): {"seed": i} for i in range(count)}
    values = {str(i): {"accuracy": 0.1 * i} for i in range(count)}

    assert artefacts.representative(reversed(list(attempts)), "accuracy", attempts, values) == str((count - 1) // 2)


def test_a_trial_without_a_number_comes_last():
    attempts = {str(i): {"seed": i} for i in range(3)}
    values = {"0": {"accuracy": float("nan")}, "1": {"accuracy": 0.2}}

    assert artefacts.representative(attempts, "accuracy", attempts, values) == "0"  # 1, then 0 and 2 by seed
    assert artefacts.representative([], "accuracy", attempts, values) is None


# Strangers' pictures and texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("svg", "why"), HARMFUL.values(), ids=HARMFUL)
def test_an_svg_with_more_than_a_drawing_is_refused(svg, why):
    """What could run, load, grow or hang: by name, so that its author can mend it."""
    with pytest.raises(Unfit, match=re.escape(why)):
        clean_svg(svg)


def test_a_drawing_keeps_its_shapes_and_nothing_that_could_load():
    """Gradients of its own are fine; comments, processing instructions and xml:space go."""
    svg = (
        f'<?xml version="1.0"?><?xml-stylesheet href="https://example.org/x.css"?><!-- c --><svg {XMLNS} xml:space="preserve" '
        'viewBox="0 0 9 9" style="font:12px sans-serif"><defs><linearGradient id="g"><stop offset="0" stop-color="red"/>'
        '</linearGradient></defs><path d="M0 0L9 9" fill="url(#g)"/><text>a &lt; b\u202e</text></svg>'
    )
    made = clean_svg(svg)
    root = ElementTree.fromstring(made)

    assert [e.tag.rpartition("}")[2] for e in root.iter()] == ["svg", "defs", "linearGradient", "stop", "path", "text"]
    assert 'fill="url(#g)"' in made
    assert "\u202e" not in made
    assert "a &lt; b" in made
    assert "stylesheet" not in made
    assert clean_svg(made) == made


def test_the_drawings_of_our_own_papers_are_shown_as_they_are():
    """A circuit, or a graph of curves, loses nothing on its way: all that it is drawn with is let through."""
    import numpy as np
    from harness_papers.boolean_rrr.circuit import Circuit, Gate, to_svg
    from harness_papers.kan_assessment.graph import Edges, draw_graph

    circuit = Circuit(2, (Gate((1, 0), ((0, 0), (0, 1)), (False, True), ((0, 1),)),), ((1, 0),))
    graph = draw_graph([Edges(np.eye(3), np.ones((3, 2, 3)) * np.arange(3)[:, None, None])])

    for drawn in (to_svg(circuit), graph):
        before, after = (list(ElementTree.fromstring(text).iter()) for text in (drawn, clean_svg(drawn)))
        assert [(e.tag, e.attrib, e.text) for e in before] == [(e.tag, e.attrib, e.text) for e in after]


def test_nothing_that_loads_or_runs_is_on_the_lists():
    """Who adds an element or an attribute has to take one of these off here first."""
    assert not ELEMENTS & {
        "script",
        "style",
        "foreignObject",
        "a",
        "image",
        "use",
        "animate",
        "set",
        "iframe",
        "feImage",
        "filter",
    }
    assert not [
        name for name in ATTRIBUTES if name.startswith("on") or "href" in name or name in ("src", "filter", "mask", "cursor")
    ]


def test_a_png_is_known_by_its_beginning_and_its_size():
    """A page with the suffix of a picture is none; one of a gigapixel would eat the reader's memory."""
    head = artefacts.PNG + (13).to_bytes(4, "big") + b"IHDR"
    small = head + (8).to_bytes(4, "big") * 2 + zlib.compress(b"")

    assert fit("png", small) == small
    for wrong in (b"<html>", artefacts.PNG, head + (100_000).to_bytes(4, "big") * 2, head + bytes(8)):
        with pytest.raises(Unfit, match="no PNG"):
            fit("png", wrong)


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("IMAGE/SVG+XML; charset=utf-8", ("picture", "svg")),
        ("text/html", ("text", "txt")),
        ("application/json", ("text", "txt")),
    ],
)
def test_a_copy_has_a_suffix_of_ours_whatever_a_plugin_says(media_type, kind):
    """HTML is text: its copy ends in .txt."""
    assert kind_of(media_type) == kind


def test_a_strangers_artefacts_stay_text(tmp_path):
    """Names, media types and texts in a stranger's words, and digests that name other files."""
    opened = with_artefacts(
        tmp_path / "registry",
        lambda seed: [(HOSTILE, HOSTILE.encode(), "text/html"), (f"{HOSTILE}.svg", CIRCLE.encode(), "image/svg+xml")],
    )
    files = report_of(opened, tmp_path / "pages")
    parsed = Parsed(method_page(files))

    (image,) = (a for tag, a in parsed.elements if tag == "img")
    assert set(image) == {"src", "alt"}
    assert COPY.fullmatch(str(image["src"]))
    assert "onerror" in str(image["alt"])
    assert not parsed.wrong
    assert all(COPY.fullmatch(name) or name.endswith((".html", ".css", ".js")) for name in files)


def test_a_digest_that_names_another_file_is_not_followed(tmp_path):
    """A record from elsewhere may hold any text where a digest should be."""
    from harness.records import Blob

    (tmp_path / "secret").write_text("secret")
    attempts = [replace(quality(s, "better", s, 0.9), blobs=(Blob("x", "text/plain", "../../secret", 6),)) for s in range(3)]
    opened = with_artefacts(tmp_path / "registry", lambda seed: [], attempts)
    files = report_of(opened, tmp_path / "pages")

    assert "its file is not in this registry" in method_page(files)
    assert not any(b"secret\n" in text for text in files.values())
