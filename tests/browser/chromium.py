"""A published folder in, the page as headless Chromium shows it out.

asv's pages load jquery, flot and others from CDNs. Here the server hands out the same files from npm (`package.json`), five
of them under the page's own integrity hashes; of flot and stupidtable npm has no minified copy of that version, so theirs
are taken off. The pages on the disk stay as asv wrote them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODULES = Path(__file__).parent / "node_modules"
SCRIPTS = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}
OTHER_BYTES = ("flot/", "stupid-table-plugin/")
REMOTE = re.compile(r'(src|href)="https://[^"]+/([^/"]+\.(?:js|css))" integrity="([^"]+)"')


def lacking() -> str:
    """What is not here that these tests need, with the mend; "" where all is."""
    if shutil.which("chromium") is None:
        return "needs Chromium: apt-get install chromium"
    return "" if MODULES.is_dir() else "needs asv's scripts: npm ci --prefix tests/browser"


def dump_page(folder: Path, address: str, profile: Path) -> str:
    """The DOM of a page after its scripts ran. address: "index.html#regressions", say. profile: an empty folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
            f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom",
            f"http://127.0.0.1:{server.server_port}/{address}",
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; in HTML, addresses of CDNs lead to /vendor."""

    def do_GET(self) -> None:
        if self.path.startswith("/vendor/"):
            self.answer((MODULES / SCRIPTS[self.path.rpartition("/")[2]]).read_bytes())
        elif self.path.partition("?")[0] == "/index.html":
            page = (Path(self.directory) / "index.html").read_text()
            self.answer(REMOTE.sub(local, page).encode())
        else:
            super().do_GET()

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(self.path.partition("?")[0]))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Silent: what a browser asks for is no output of a test."""


def local(found: re.Match[str]) -> str:
    attribute, name, integrity = found.groups()
    kept = "" if SCRIPTS[name].startswith(OTHER_BYTES) else f' integrity="{integrity}"'
    return f'{attribute}="/vendor/{name}"{kept}'
