"""Where suites are: a path that the user names, or one of those shipped with this installation."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from harness.catalogue import did_you_mean
from harness.errors import SuiteError

SUFFIXES = (".yaml", ".yml")


def find_suite(name: str) -> Path:
    """The file of a suite: a path that exists, or the name of a shipped suite. Raises SuiteError with the mend."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = {suite.stem: suite for suite in shipped_suites()}
    if name in shipped:
        return shipped[name]
    what = (
        f"{name!r} is a folder, not a suite file" if path.is_dir() else f"no suite file {name!r}, and none shipped of that name"
    )
    known = f"shipped are {', '.join(sorted(shipped))}" if shipped else "no suite is shipped with this installation"
    raise SuiteError(f"{what}{did_you_mean(path.stem, shipped)} ({known})")


def shipped_suites() -> list[Path]:
    """The suites of this installation, each named by its stem: those in the wheel, else those of the checkout."""
    folder = _suite_folder()
    return [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES] if folder else []


def suites_of_claims() -> dict[str, str]:
    """claim -> the shipped suite that lists it, the first by name. The files are read, not checked."""
    from harness.suite.text import read_document

    found: dict[str, str] = {}
    for path in shipped_suites():
        data = read_document(path.read_bytes()).data
        listed = data.get("claims") if isinstance(data, dict) else None
        for claim in listed if isinstance(listed, list) else ():
            found.setdefault(str(claim), path.stem)
    return found


def _suite_folder() -> Path | None:
    package = Path(str(resources.files("harness")))
    checkout = package.parent
    if (package / "_suites").is_dir():
        return package / "_suites"
    # pyproject.toml beside it tells a checkout from a site-packages that holds some other `suites`.
    if (checkout / "pyproject.toml").is_file() and (checkout / "suites").is_dir():
        return checkout / "suites"
    return None
