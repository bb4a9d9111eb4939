"""`harness data fetch` against a server here that cuts, corrupts, stalls, redirects and lies; archives that try to leave."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import harness
from rich.console import Console
from rich.progress import Progress

from harness import data
from harness.cli.data import Drawn
from harness.data import declared, store
from harness.data.declared import DATASETS, FACTS, FILES, Facts, File
from harness.errors import DataError, HarnessError, MissingError
from harness.fetching import Download, Settings, bringing, downloads_of, fetch, sources
from harness.fetching.archives import take_members
from harness.specs import Dataset

CONTENT = np.random.default_rng(7).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
HALF = len(CONTENT) // 2


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# The server ---------------------------------------------------------------------------------------------------------------

Answer = Callable[["Handler", bytes, int], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's list says, one answer a request; the last one stays."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        served: Server = self.server.served  # type: ignore[attr-defined]
        asked = self.headers.get("Range", "")
        served.requests.append((self.path, asked))
        answers = served.answers.get(self.path, [missing])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            answer(self, served.content.get(self.path, CONTENT), start)

    def head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not into the test's output."""


def piece(handler: Handler, content: bytes, start: int) -> bytes:
    """The headers of a good answer to a request from `start` on; the bytes that should follow."""
    rest = content[start:]
    told = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
    handler.head(206 if start else 200, len(rest), **told)
    return rest


def good(handler: Handler, content: bytes, start: int) -> None:
    handler.wfile.write(piece(handler, content, start))


def cut(handler: Handler, content: bytes, start: int) -> None:
    """Promises all, sends half of it, and hangs up."""
    rest = piece(handler, content, start)
    handler.wfile.write(rest[: len(rest) // 2])


def stall(handler: Handler, content: bytes, start: int) -> None:
    """Sends half, then nothing, and holds the line."""
    rest = piece(handler, content, start)
    handler.wfile.write(rest[: len(rest) // 2])
    handler.wfile.flush()
    handler.server.served.released.wait(20)  # type: ignore[attr-defined]


def trickle(handler: Handler, content: bytes, start: int) -> None:
    """Never silent for long, and never done."""
    rest = piece(handler, content, start)
    for i in range(1000):
        handler.wfile.write(rest[i : i + 1])
        handler.wfile.flush()
        if handler.server.served.released.wait(0.05):  # type: ignore[attr-defined]
            return


def silent(handler: Handler, content: bytes, start: int) -> None:
    """Takes the request, and never answers."""
    handler.server.served.released.wait(20)  # type: ignore[attr-defined]


def corrupt(handler: Handler, content: bytes, start: int) -> None:
    """One bit is another."""
    changed = bytearray(content)
    changed[len(changed) // 3] ^= 1
    handler.wfile.write(piece(handler, bytes(changed), start))


def corrupt_and_cut(handler: Handler, content: bytes, start: int) -> None:
    rest = piece(handler, content, start)
    handler.wfile.write(bytes([rest[0] ^ 1]) + rest[1 : len(rest) // 2])


def no_ranges(handler: Handler, content: bytes, start: int) -> None:
    good(handler, content, 0)


def other_range(handler: Handler, content: bytes, start: int) -> None:
    """206, with another piece than it was asked for."""
    handler.head(206, len(content) - 1, Content_Range=f"bytes 1-{len(content) - 1}/{len(content)}")
    handler.wfile.write(content[1:])


def range_beyond(handler: Handler, content: bytes, start: int) -> None:
    handler.head(416, 0)


def endless(handler: Handler, content: bytes, start: int) -> None:
    """More and more of it, without a length."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(content)


def encoded(handler: Handler, content: bytes, start: int) -> None:
    """The bytes as they lie there, under a header that makes clients unpack them."""
    handler.head(200, len(content), Content_Encoding="gzip")
    handler.wfile.write(content)


def web_page(handler: Handler, content: bytes, start: int) -> None:
    handler.head(200, 19, Content_Type="text/html; charset=utf-8")
    handler.wfile.write(b"<html>log in</html>")


def busy(handler: Handler, content: bytes, start: int) -> None:
    handler.head(503, 0)


def missing(handler: Handler, content: bytes, start: int) -> None:
    handler.head(404, 0)


def sends_to(place: str) -> Answer:
    def redirect(handler: Handler, content: bytes, start: int) -> None:
        handler.head(302, 0, Location=place)

    return redirect


@dataclass
class Server:
    """answers: by path, in order; content: by path, else CONTENT; requests: (path, Range) as they came."""

    address: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    served = Server(f"http://127.0.0.1:{http.server_address[1]}")
    http.served = served  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    served.released.set()
    http.shutdown()
    thread.join()
    http.server_close()


SET = Dataset("mine", "folder", sha256(CONTENT), "", "CC0", "https://example.org", "set/set.bin", len(CONTENT))


class Told:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = 0

    def begin(self, name: str, total: int) -> None:
        self.lines.append(f"begin {name} {total}")

    def advance(self, done: int) -> None:
        self.done = done

    def say(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Bringing:
    """`fetch` of one made-up set, from addresses of the server."""

    folder: Path
    server: Server
    monkeypatch: pytest.MonkeyPatch
    told: Told = field(default_factory=Told)
    waits: list[float] = field(default_factory=list)

    def __call__(self, *paths: str, known: bool = True, size: int | None = None, **settings: Any) -> list[Path]:
        urls = tuple(path if "://" in path else self.server.address + path for path in paths)
        file = File(SET.path, SET.digest, SET.size_bytes)
        size = (len(CONTENT) if known else len(CONTENT) + 100) if size is None else size
        download = Download("set/set.bin", urls, SET.digest if known else "", size, {"": file})
        self.monkeypatch.setattr(bringing, "downloads_of", lambda set_: (download,))
        return fetch(SET, self.folder, Settings(**{"stall_s": 0.5, **settings}), self.told, self.waits.append)

    def is_whole(self) -> bool:
        return (self.folder / SET.path).read_bytes() == CONTENT

    def leftovers(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())


@pytest.fixture
def bring(tmp_path, server, monkeypatch) -> Bringing:
    return Bringing(tmp_path / "data", server, monkeypatch)


# What arrives ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["digest of the bytes", "digest of the content alone"])
def test_a_file_that_arrives_whole_stands_under_its_name_and_nothing_else_is_left(bring, server, known):
    """The data folder is made where it is not there yet."""
    server.answers["/a"] = [good]

    assert bring("/a", known=known) == [bring.folder / "set/set.bin"]
    assert bring.is_whole()
    assert bring.leftovers() == ["set/set.bin"]
    assert not (bring.folder / bringing.STAGING).exists()
    assert bring.told.done == len(CONTENT)


def test_what_is_here_and_whole_asks_no_server(bring, server):
    """The second call costs a hash."""
    server.answers["/a"] = [good]
    bring("/a")
    server.requests.clear()

    assert bring("/a") == []
    assert server.requests == []


def test_what_is_here_and_damaged_is_replaced_once_the_new_one_is_right(bring, server):
    """Until then the old one stays."""
    (bring.folder / "set").mkdir(parents=True)
    (bring.folder / SET.path).write_bytes(b"damaged")
    server.answers |= {"/bad": [corrupt], "/a": [good]}

    with pytest.raises(MissingError):
        bring("/bad")
    assert (bring.folder / SET.path).read_bytes() == b"damaged"

    bring("/a")
    assert bring.is_whole()


# What goes wrong ------------------------------------------------------------------------------------------------------------


def test_a_download_that_breaks_off_goes_on_where_it_was(bring, server):
    """Of each byte no more than one copy is sent."""
    server.answers["/a"] = [cut, good]

    bring("/a")

    assert bring.is_whole()
    assert server.requests == [("/a", ""), ("/a", f"bytes={HALF}-")]
    assert bring.waits == [1.0]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(bring, server):
    """Also at another address: which bytes are right, the digest says."""
    server.answers |= {"/a": [cut, missing], "/b": [good]}

    with pytest.raises(MissingError, match=r"could not be fetched:\n  http://.*/a: answered 404 .*\n.*\n.*same command again"):
        bring("/a")
    assert bring.leftovers() == [".fetching/set+set.bin.part"]

    bring("/b")
    assert server.requests[-1] == ("/b", f"bytes={HALF}-")
    assert bring.is_whole()


def test_a_server_that_always_cuts_is_left_for_the_next_address(bring, server):
    """After three attempts that bring less than a MiB each."""
    server.answers |= {"/a": [cut], "/b": [good]}

    bring("/a", "/b")

    assert bring.is_whole()
    assert [path for path, _ in server.requests] == ["/a"] * 3 + ["/b"]


def test_bytes_that_are_not_the_published_ones_never_get_the_name(bring, server):
    """One flipped bit; the message names the address and what it did."""
    server.answers["/a"] = [corrupt]

    with pytest.raises(MissingError, match=r"/a: sent other bytes than were published"):
        bring("/a")

    assert bring.leftovers() == []
    assert len(server.requests) == 1  # it would send the same again


def test_content_that_is_not_the_declared_one_never_gets_the_name(bring, server):
    """Where nobody publishes a digest of the packed bytes, the content's decides."""
    server.answers |= {"/a": [corrupt], "/b": [good]}

    bring("/a", "/b", known=False)

    assert bring.is_whole()
    assert any("/a: sent another content than the declared one" in line for line in bring.told.lines)


def test_a_wrong_beginning_is_thrown_away_and_all_is_fetched_anew(bring, server):
    """The part was corrupt; going on with it would be wrong for ever."""
    server.answers["/a"] = [corrupt_and_cut, good]

    bring("/a")

    assert bring.is_whole()
    assert [asked for _, asked in server.requests] == ["", f"bytes={HALF}-", ""]


@pytest.mark.parametrize("answer", [stall, silent, trickle])
def test_a_server_that_stalls_is_left_after_the_given_silence(bring, server, answer):
    """Silence in the middle, silence from the start, and a trickle that is never silent for long."""
    server.answers |= {"/a": [answer], "/b": [good]}
    began = time.monotonic()

    bring("/a", "/b", stall_s=0.2)

    assert bring.is_whole()
    assert time.monotonic() - began < 15
    assert any("/a: no word for 0.2 s" in line or "/a: sent " in line for line in bring.told.lines)


def test_redirects_are_followed(bring, server):
    """To another path, and to another host."""
    server.answers |= {
        "/a": [sends_to("/b")],
        "/b": [sends_to(server.address.replace("127.0.0.1", "localhost") + "/c")],
        "/c": [good],
    }

    bring("/a")

    assert bring.is_whole()


@pytest.mark.parametrize(
    ("place", "message"),
    [("/a", "from address to address, more than 10 times"), ("file:///etc/passwd", "none of the web"),
     ("ftp://127.0.0.1/x", "none of the web")],
)  # fmt: skip
def test_redirects_in_circles_or_out_of_the_web_are_refused(bring, server, place, message):
    """A server must not make us read our own files."""
    server.answers["/a"] = [sends_to(place)]

    with pytest.raises(MissingError, match=message):
        bring("/a")
    assert bring.leftovers() == []


@pytest.mark.parametrize("answer", [no_ranges, other_range, range_beyond])
def test_a_server_that_cannot_go_on_is_asked_for_all_of_it(bring, server, answer):
    """It ignores the range, sends another one, or has none."""
    server.answers["/a"] = [cut, answer, good]

    bring("/a")

    assert bring.is_whole()


def test_no_more_than_the_declared_bytes_are_taken(bring, server):
    """A server without end fills no disk."""
    server.answers["/a"] = [endless]

    with pytest.raises(MissingError, match="sent more than the 300,000 bytes"):
        bring("/a")
    assert bring.leftovers() == []


def test_a_file_is_taken_as_it_lies_whatever_the_header_says_of_its_packing(bring, server):
    """Many servers call a .gz file `Content-Encoding: gzip`; its digest is of the file."""
    server.answers["/a"] = [encoded]

    bring("/a")

    assert bring.is_whole()


def test_a_web_page_in_place_of_the_file_is_said(bring, server):
    """The log-in page of a hotel."""
    server.answers["/a"] = [web_page]

    with pytest.raises(MissingError, match="/a: sent a web page in place of the file"):
        bring("/a")


def test_a_busy_server_is_asked_again_and_an_absent_file_is_not(bring, server):
    """503 may pass, 404 will not."""
    server.answers |= {"/a": [busy, busy, good], "/b": [missing]}

    bring("/b", "/a")

    assert [path for path, _ in server.requests] == ["/b", "/a", "/a", "/a"]
    assert bring.waits == [1.0, 2.0]


def test_a_server_that_is_not_there_is_said(bring):
    """A port that nobody listens on."""
    with pytest.raises(MissingError, match="refused the connection"):
        bring("http://127.0.0.1:9/a")


def test_a_disk_that_is_too_small_is_said_before_anything_comes(bring, server):
    """With how much it lacks."""
    with pytest.raises(MissingError, match=r"set/set.bin needs .* MB, .* MB are free; .*--data-dir"):
        bring("/a", size=1 << 60)
    assert server.requests == []


def test_two_at_once_do_not_write_into_one_folder(bring, server):
    """The second is told to wait; it would go on with the same part."""
    with bringing.staging(bring.folder), pytest.raises(HarnessError, match="another `harness data fetch` writes into"):
        bring("/a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(bring, tmp_path):
    """With the mend."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(HarnessError, match=r"cannot be written .* --data-dir"):
            bring("/a")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_folder_is_said(bring):
    """With the mend; this one holds for root too."""
    bring.folder.write_text("in the way")

    with pytest.raises(HarnessError, match=r"cannot be written .* --data-dir"):
        bring("/a")


# Mirrors, and no network ----------------------------------------------------------------------------------------------------


def test_mirrors_are_asked_first_under_the_downloads_name(bring, server):
    """In the order given; the published address comes last."""
    server.answers |= {"/m/set/set.bin": [missing], "/n/set/set.bin": [good]}

    bring("/a", mirrors=(f"{server.address}/m/", f"{server.address}/n"))

    assert [path for path, _ in server.requests] == ["/m/set/set.bin", "/n/set/set.bin"]
    assert bring.is_whole()


def test_offline_asks_no_server_and_says_what_to_bring(bring, server):
    """Address, digest and the command that takes the file in."""
    with pytest.raises(
        MissingError, match=rf"asks no server; the mend:\n.*/a \(SHA-256 {SET.digest}\).*--mirror FOLDER --offline"
    ):
        bring("/a", offline=True, mirrors=(server.address,))
    assert server.requests == []


def test_offline_takes_files_from_a_folder_and_checks_them(bring, server, tmp_path):
    """A USB stick; a wrong file on it is no better than one from the net."""
    stick = tmp_path / "a stick"
    (stick / "set").mkdir(parents=True)
    (stick / "set/set.bin").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(MissingError, match="sent other bytes than were published"):
        bring("/a", offline=True, mirrors=(str(stick),))

    (stick / "set/set.bin").write_bytes(CONTENT)
    bring("/a", offline=True, mirrors=(str(stick),))

    assert bring.is_whole()
    assert server.requests == []


def test_a_mirror_that_is_neither_address_nor_folder_is_refused(bring):
    """A typing mistake in a setting must not fall through to the published address in silence."""
    with pytest.raises(HarnessError, match=r"--mirror 'htps://x': no folder here, and no address; write https://"):
        bring("/a", mirrors=("htps://x",))


# Archives -------------------------------------------------------------------------------------------------------------------


def packed(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


ONE, TWO = b"one" * 1000, b"two" * 1000
MEMBERS = {f"inside/{n}.bin": File(f"inside/{n}.bin", sha256(c), len(c)) for n, c in (("one", ONE), ("two", TWO))}


def take(folder: Path, content: bytes) -> list[Path]:
    """`take_members` of an archive beside the folder."""
    folder.mkdir(exist_ok=True)
    archive = folder.parent / "a.tar.gz"
    archive.write_bytes(content)
    return take_members(archive, MEMBERS, folder)


def all_files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def test_members_go_where_the_project_says_and_nothing_else_is_written(tmp_path):
    """Whatever else an archive holds."""
    content = packed(
        ("../out.bin", b"x"), ("/tmp/out.bin", b"x"), ("inside/one.bin", ONE), ("inside/other.bin", b"x"),
        special("inside/link", tarfile.SYMTYPE, "/etc/passwd"), special("dev", tarfile.CHRTYPE), ("inside/two.bin", TWO),
    )  # fmt: skip

    take(tmp_path / "data", content)

    assert all_files(tmp_path) == ["a.tar.gz", "data/inside/one.bin", "data/inside/two.bin"]
    assert (tmp_path / "data/inside/two.bin").read_bytes() == TWO


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([special("inside/one.bin", tarfile.SYMTYPE, "/etc/passwd")], "is no plain file of 3,000 bytes"),
        ([special("inside/one.bin", tarfile.LNKTYPE, "../../a.tar.gz")], "is no plain file of 3,000 bytes"),
        ([special("inside/one.bin", tarfile.FIFOTYPE)], "is no plain file of 3,000 bytes"),
        ([special("inside/one.bin", tarfile.DIRTYPE)], "is no plain file of 3,000 bytes"),
        ([("inside/one.bin", ONE + b"!")], "is no plain file of 3,000 bytes"),
        ([("inside/one.bin", ONE[:-1] + b"!")], "inside/one.bin in the archive: SHA-256 is"),
        ([("inside/one.bin", ONE)], "lacks inside/two.bin"),
        ([("./inside/one.bin", ONE), ("inside/../inside/two.bin", TWO)], "lacks inside/one.bin, inside/two.bin"),
        ([special("inside", tarfile.SYMTYPE, "/tmp"), ("inside/one.bin", ONE[:5])], "is no plain file"),
    ],
)  # fmt: skip
def test_an_archive_that_is_not_the_declared_one_is_refused(tmp_path, members, message):
    """Links, pipes, other sizes, other content, other names: and nothing is left under a declared name but what is right."""
    with pytest.raises(DataError, match=message):
        take(tmp_path / "data", packed(*members))

    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert set(all_files(tmp_path)) <= {"a.tar.gz", "data/inside/one.bin"}


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", packed(("inside/one.bin", ONE))[:60], gzip.compress(b"no tar" * 200)],
    ids=["empty", "text", "cut", "no tar"],  # gzip writes the time: workers would collect tests of different names
)
def test_what_is_no_archive_is_a_data_error(tmp_path, content):
    """Cut, empty, or of another kind."""
    with pytest.raises(DataError):
        take(tmp_path / "data", content)


def test_a_bomb_beside_the_members_is_not_unpacked_onto_the_disk(tmp_path):
    """200 MB of zeros in an unexpected member; what is expected comes first, so the rest is not even read."""
    content = packed(("inside/one.bin", ONE), ("inside/two.bin", TWO), ("bomb", bytes(200 << 20)))

    take(tmp_path / "data", content)

    assert all_files(tmp_path) == ["a.tar.gz", "data/inside/one.bin", "data/inside/two.bin"]


# The sets -------------------------------------------------------------------------------------------------------------------


def test_every_download_has_an_address_and_every_file_of_its_set_comes_with_it():
    """What `harness data list` calls fetchable can be fetched whole."""
    fetchable = {name: downloads_of(set_) for name, set_ in DATASETS.items() if downloads_of(set_)}

    assert {"mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "pmlb/adult"} <= set(fetchable)
    for name, downloads in fetchable.items():
        assert sorted(f.path for d in downloads for f in d.files.values()) == sorted(f.path for f in FILES[name])
        assert all(url.startswith(("http://", "https://")) for d in downloads for url in d.urls)
        assert all(d.urls and (len(d.sha256) == 64 or name.startswith("pmlb/")) for d in downloads)
        assert "python" not in " ".join(url for d in downloads for url in d.urls)  # CIFAR's pickled archives


def idx(shape: tuple[int, ...], rng: np.random.Generator, top: int) -> bytes:
    head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    return head + rng.integers(0, top, shape, dtype=np.uint8).tobytes()


def declare(monkeypatch: pytest.MonkeyPatch, name: str, files: tuple[File, ...], facts: Facts) -> None:
    monkeypatch.setitem(FILES, name, files)  # type: ignore[arg-type]
    monkeypatch.setitem(FACTS, name, facts)  # type: ignore[arg-type]
    monkeypatch.setattr(store, "_loaded", {})


@pytest.fixture
def small_kmnist(monkeypatch, server) -> dict[str, bytes]:
    """A set of kmnist's form, with 20 + 10 images, at a mirror."""
    rng = np.random.default_rng(1)
    contents = [idx((20, 28, 28), rng, 256), idx((20,), rng, 10), idx((10, 28, 28), rng, 256), idx((10,), rng, 10)]
    # every label once, so that the codes are the labels
    contents[1] = contents[1][:8] + bytes(range(10)) * 2
    packed_ = {file.path: gzip.compress(content) for file, content in zip(FILES["kmnist"], contents, strict=True)}
    files = tuple(File(path, sha256(p), len(c), len(p)) for (path, p), c in zip(packed_.items(), contents, strict=True))
    declare(monkeypatch, "kmnist", files, Facts(30, (1, 28, 28), 10, test_items=10))
    server.answers |= {f"/{path}": [good] for path in packed_}
    server.content |= {f"/{path}": content for path, content in packed_.items()}
    return packed_


def test_a_set_of_idx_files_is_fetched_and_read(small_kmnist, server, tmp_path):
    """The whole way: the command, the four files, the arrays."""
    answer = harness("data", "fetch", "kmnist", "--data-dir", tmp_path / "d", "--mirror", server.address, "--json")

    assert answer.code == 0, answer.err
    assert [row["state"] for row in answer.json] == ["fetched"]
    arrays = data.load("kmnist", tmp_path / "d")
    assert (arrays.x.shape, arrays.test_items, arrays.classes) == ((30, 1, 28, 28), 10, 10)
    train = gzip.decompress(small_kmnist["kmnist/train-images-idx3-ubyte.gz"])[16:]
    assert arrays.x[:20].tobytes() == train
    again = harness("data", "fetch", "kmnist", "--data-dir", tmp_path / "d", "--offline")
    assert (again.code, again.out.split()) == (0, ["kmnist", "here"])
    assert harness("data", "verify", "kmnist", "--data-dir", tmp_path / "d").code == 0


def test_where_the_packed_files_digest_is_declared_another_packing_is_another_file(small_kmnist, tmp_path):
    """Nobody publishes a digest of what is inside, so nothing vouches for it; verify says so and names the command."""
    for path, content in small_kmnist.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(gzip.compress(gzip.decompress(content), 1, mtime=5))

    answer = harness("data", "verify", "kmnist", "--data-dir", tmp_path)

    assert answer.code == 3
    assert "SHA-256 of the file is" in answer.out
    assert "`harness data fetch kmnist` does" in answer.out


@pytest.mark.parametrize(("name", "labels"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_comes_from_its_binary_archive(monkeypatch, server, tmp_path, name, labels):
    """The whole way: archive, members, records of labels and pixels, the fine label of CIFAR-100's two."""
    rng = np.random.default_rng(2)
    paths = [file.path for file in FILES[name]]
    images = rng.integers(0, 256, (len(paths), 10, 3072), dtype=np.uint8)
    codes = np.tile(np.arange(10, dtype=np.uint8), (len(paths), 1))
    records = [np.hstack([*([codes[i][:, None] // 5] if labels == 2 else []), codes[i][:, None], images[i]]).tobytes()
               for i in range(len(paths))]  # fmt: skip
    archive = packed(("cifar/readme.html", b"hello"), *zip(paths, records, strict=True))
    files = tuple(File(path, sha256(content), len(content)) for path, content in zip(paths, records, strict=True))
    declare(monkeypatch, name, files, Facts(10 * len(paths), (3, 32, 32), 10, test_items=10))
    told = sources._ARCHIVES[name][0]
    monkeypatch.setitem(sources._ARCHIVES, name, (told, sha256(archive), len(archive)))
    server.answers[f"/{told}"], server.content[f"/{told}"] = [cut, good], archive
    monkeypatch.setattr(time, "sleep", lambda _: None)

    answer = harness("data", "fetch", name, "--data-dir", tmp_path, "--mirror", server.address)

    assert answer.code == 0, answer.err
    assert all_files(tmp_path) == sorted(paths)
    arrays = data.load(name, tmp_path)
    np.testing.assert_array_equal(arrays.x, images.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(arrays.y, codes.reshape(-1))
    assert arrays.test_items == 10


def test_an_archive_with_a_wrong_digest_is_never_opened(monkeypatch, server, tmp_path):
    """The hash is the first check, not the last."""
    monkeypatch.setattr(bringing, "take_members", lambda *_: pytest.fail("it was opened"))
    archive = packed(("cifar-100-binary/train.bin", b"x"))
    monkeypatch.setitem(sources._ARCHIVES, "cifar100", ("cifar-100-binary.tar.gz", "0" * 64, len(archive)))
    server.answers["/cifar-100-binary.tar.gz"], server.content["/cifar-100-binary.tar.gz"] = [good], archive
    monkeypatch.setattr(sources, "CIFAR", server.address + "/")

    answer = harness("data", "fetch", "cifar100", "--data-dir", tmp_path)

    assert answer.code == 5
    assert "sent other bytes than were published" in answer.err
    assert all_files(tmp_path) == []


def test_one_set_that_cannot_be_brought_stops_no_other(small_kmnist, server, tmp_path):
    """Exit 5, and the healthy one is here."""
    answer = harness("data", "fetch", "fashion-mnist", "kmnist", "--data-dir", tmp_path, "--offline",
                     "--mirror", tmp_path, "--json")  # fmt: skip
    assert [row["state"] for row in answer.json] == ["missing", "missing"]

    for path, content in small_kmnist.items():
        (tmp_path / "stick" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stick" / path).write_bytes(content)
    answer = harness("data", "fetch", "fashion-mnist", "kmnist", "--data-dir", tmp_path / "d", "--offline",
                     "--mirror", tmp_path / "stick", "--json")  # fmt: skip

    assert answer.code == 5
    assert [row["state"] for row in answer.json] == ["missing", "fetched"]
    assert "is in none of the folders" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["digits"], 2, "data set 'digits' is embedded: it is always here"),
        (["fsdd"], 2, "cannot be fetched: no published address has audio/fsdd.parquet as it is declared; place it"),
        (["kmnits"], 2, "did you mean 'kmnist'?"),
        (["kmnist"], 2, "no data folder is named; give --data-dir FOLDER, or set HARNESS_DATA_DIR"),
        (["xyz*"], 4, "no data set that can be fetched fits 'xyz*'"),
        (["kmnist", "--stall", "soon"], 2, "write a number with its unit"),
    ],
)
def test_mistakes_are_said_with_the_mend(monkeypatch, arguments, code, message):
    """Before anything is asked of a server."""
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)

    answer = harness("data", "fetch", *arguments)

    assert answer.code == code
    assert message in answer.err


def test_mirrors_and_offline_are_settings_too(monkeypatch, small_kmnist, server, tmp_path):
    """A site sets them once: by variables, or in [tool.harness]."""
    monkeypatch.setenv("HARNESS_MIRROR", f"{tmp_path} {server.address}")
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path / "d"))
    assert harness("data", "fetch", "kmnist").code == 0

    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    assert "cifar-10-binary.tar.gz is in none of the folders" in harness("data", "fetch", "cifar10").err


def test_a_dry_run_says_what_to_bring_and_asks_nobody(server):
    """For a machine without a network: what someone else has to download."""
    answer = harness("data", "fetch", "cifar*", "--dry-run", "--mirror", server.address, "--json")

    rows = {row["set"]: row for row in answer.json}
    assert set(rows) == {"cifar10", "cifar100"}
    assert rows["cifar10"]["addresses"] == [
        f"{server.address}/cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ]  # fmt: skip
    assert len(rows["cifar10"]["files"]) == 6
    assert server.requests == []


def test_what_a_server_says_is_shown_and_not_obeyed(monkeypatch, server, tmp_path):
    """Its words for a status reach the terminal."""

    def hostile(handler: Handler, content: bytes, start: int) -> None:
        handler.send_response(404, "gone\x1b[2J [red]away[/red]")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers["/cifar-10-binary.tar.gz"] = [hostile]

    monkeypatch.setattr(sources, "CIFAR", server.address + "/")
    answer = harness("data", "fetch", "cifar10", "--data-dir", tmp_path)
    assert answer.code == 5
    assert "answered 404 gone\\x1b[2J [red]away[/red]" in answer.err
    assert "\x1b" not in answer.err

    drawn = io.StringIO()
    with Progress(console=Console(file=drawn, force_terminal=True, width=200, highlight=False)) as bar:
        watcher = Drawn(bar)
        watcher.begin("a", 100)
        watcher.advance(50)
        watcher.begin("a", 100)  # the second attempt goes on with the same bar
        watcher.say("answered 404 gone\x1b[2J [red]away[/red]")

    assert "gone\\x1b[2J [red]away[/red]" in drawn.getvalue()
    assert [(task.description, task.completed, task.total) for task in bar.tasks if task.visible] == [("a", 50, 100)]


@pytest.mark.data
def test_the_data_folders_tables_arrive_through_a_server(server, data_dir, tmp_path):
    """Real files, by their declared digests: ten tables of PMLB."""
    names = [name for name in DATASETS if name.startswith("pmlb/") and DATASETS[name].size_bytes < 50_000][:10]
    for name in names:
        path = FILES[name][0].path
        server.answers[f"/{path}"], server.content[f"/{path}"] = [good], (data_dir / path).read_bytes()

    answer = harness("data", "fetch", *names, "--data-dir", tmp_path, "--mirror", server.address, "--json")

    assert answer.code == 0, answer.err
    assert {row["state"] for row in answer.json} == {"fetched"}
    assert all(data.verify(name, tmp_path).state == "ok" for name in names)


def test_declared_is_the_module_that_the_fetcher_reads():
    """The patches above reach what the command uses."""
    assert FILES is declared.FILES
