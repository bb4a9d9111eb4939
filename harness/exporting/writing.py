"""Writing a file whole or not at all: under another name beside it, which it changes for its own when all is written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import HarnessError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path to write to; it becomes `path` when the block ends well, and is gone when it does not.

    Makes the folder where there is none. Raises HarnessError where the disk refuses.
    """
    aside = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as exc:
        raise HarnessError(f"{path}: cannot be written ({exc.strerror or exc}); name another file") from exc
    finally:
        with suppress(OSError):  # it bears its name already, or never was
            aside.unlink()
