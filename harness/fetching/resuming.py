"""One file by HTTP, into a part file that a later attempt goes on with. A downloader as pooch asks for it.

No more than the declared bytes are ever written; a server that falls silent or trickles is left; content is asked for as it
lies there, not packed anew for the way.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from harness import __version__
from harness.errors import HarnessError

if TYPE_CHECKING:
    from requests import Response

CHUNK = 64 << 10
MAX_REDIRECTS = 10
SLOWEST = 1024  # bytes a second, over the time that a server may be silent: below that it counts as stalled


class Trouble(Exception):
    """Why bytes did not come. again: whether the same address may do better at the next attempt."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class Resuming:
    """Called by pooch with (url, where to put it, None). What came before a break is kept in `part`; its length is the state.

    size: the bytes to expect; exact: whether there must be so many, or that is the most. stall_s: seconds of silence to bear.
    advance: told the number of bytes that the part has. clock: monotonic seconds.
    Raises Trouble.
    """

    def __init__(
        self,
        part: Path,
        size: int,
        exact: bool,
        stall_s: float,
        advance: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.part, self.size, self.exact = part, size, exact
        self.stall_s, self.advance, self.clock = stall_s, advance, clock

    def __call__(self, url: str, output_file: str | Path, pooch: Any, check_only: bool = False) -> None:
        have = self.held()
        if not (self.exact and have == self.size):
            if urlsplit(url).scheme == "file":
                self._copy(Path(unquote(urlsplit(url).path)))
            else:
                self._get(url, have)
        self.part.replace(output_file)

    def held(self) -> int:
        """Bytes that are here already. A part that is longer than the whole is no part of it."""
        try:
            have = self.part.stat().st_size
        except FileNotFoundError:
            return 0
        if have > self.size:
            self.part.unlink()
            return 0
        return have

    def _copy(self, file: Path) -> None:
        """From a folder that serves as a mirror."""
        from harness.data.files import open_regular

        try:
            with open_regular(file) as source, self.part.open("wb") as target:
                self._take(iter(lambda: source.read(CHUNK), b""), target, 0)
        except OSError as exc:
            raise refused(exc, self.part) or Trouble(f"{file}: {exc.strerror or exc}", again=False) from exc

    def _get(self, url: str, have: int) -> None:
        import requests
        from urllib3.exceptions import HTTPError

        headers = {"Accept-Encoding": "identity", "User-Agent": f"paper-harness/{__version__}"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with requests.Session() as session:
                session.max_redirects = MAX_REDIRECTS
                with session.get(url, headers=headers, stream=True, timeout=self.stall_s) as answer:
                    self._write(answer, have)
        except requests.TooManyRedirects as exc:
            raise Trouble(f"sends from address to address, more than {MAX_REDIRECTS} times", again=False) from exc
        except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as exc:
            raise Trouble(f"sends to an address that is none of the web: {exc}", again=False) from exc
        except requests.Timeout as exc:
            raise Trouble(f"no word for {self.stall_s:g} s", again=True) from exc
        except (requests.RequestException, HTTPError) as exc:
            raise Trouble(reason_of(exc, self.stall_s), again=True) from exc
        except OSError as exc:
            raise refused(exc, self.part) or Trouble(str(exc.strerror or exc), again=True) from exc

    def _write(self, answer: Response, have: int) -> None:
        if answer.status_code == 416:  # the server has no such bytes: what is here is no beginning of what it has
            self.part.unlink(missing_ok=True)
            raise Trouble("has fewer bytes than came before; from the start again", again=True)
        if answer.status_code not in (200, 206):
            raise Trouble(f"answered {answer.status_code} {answer.reason}", again=answer.status_code >= 500)
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise Trouble("sent a web page in place of the file", again=False)
        start = have if answer.status_code == 206 else 0
        if answer.status_code == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            self.part.unlink(missing_ok=True)
            raise Trouble("sent another piece than it was asked for; from the start again", again=True)
        with self.part.open("r+b" if start else "wb") as target:
            target.seek(start)
            target.truncate()
            # Undecoded: `Content-Encoding: gzip` on a .gz file would be taken for packing on the way. `read1`: a server that
            # sends a byte a second would hold `stream` until a whole chunk is there.
            chunks = iter(lambda: answer.raw.read1(CHUNK, decode_content=False), b"")
            self._take(chunks, target, start)

    def _take(self, chunks: Iterator[bytes], target: BinaryIO, start: int) -> None:
        """All of them into the file. Raises Trouble for too many bytes, too few, or too slow."""
        total, window, in_window = start, self.clock(), 0
        for chunk in chunks:
            total += len(chunk)
            if total > self.size:
                target.close()
                self.part.unlink()
                raise Trouble(f"sent more than the {self.size:,} bytes that it should have", again=False)
            target.write(chunk)
            self.advance(total)
            in_window += len(chunk)
            if (waited := self.clock() - window) >= self.stall_s:
                if in_window < SLOWEST * waited:
                    raise Trouble(f"sent {in_window} bytes in {waited:.0f} s", again=True)
                window, in_window = self.clock(), 0
        target.flush()
        os.fsync(target.fileno())
        if self.exact and total < self.size:
            raise Trouble(f"broke off after {total:,} of {self.size:,} bytes", again=True)


def reason_of(exc: Exception, stall_s: float) -> str:
    """What a library's exception says of the cause, in a line."""
    text = f"{type(exc).__name__} {exc}"
    if "timed out" in text:
        return f"no word for {stall_s:g} s"
    if "IncompleteRead" in text or "Connection aborted" in text or "Connection broken" in text or "reset by peer" in text:
        return "broke off"
    if "NameResolution" in text or "Name or service not known" in text or "name resolution" in text:
        return "the name of the server cannot be resolved: no network here, or a proxy is needed (HTTPS_PROXY)"
    if "refused" in text:
        return "refused the connection"
    if "CERTIFICATE" in text.upper():
        return "shows a certificate that is not trusted; another one's authority is named by REQUESTS_CA_BUNDLE"
    return " ".join(text.split())[:200]


def refused(exc: OSError, part: Path) -> HarnessError | None:
    """The mistake that the user can mend where it is the disk, not the net, that failed."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return HarnessError(f"{part.parent}: no room is left on the disk; free some, or name another folder by --data-dir")
    if exc.errno in (errno.EACCES, errno.EROFS, errno.EPERM) and str(exc.filename or "") == str(part):
        return HarnessError(
            f"{part} cannot be written ({exc.strerror}); make its folder writable, or name another by --data-dir"
        )
    return None
