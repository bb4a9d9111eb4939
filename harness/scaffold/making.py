"""A name and a kind in, a folder with a plugin out; nothing that is there is written over. Imports no torch.

The files are `templates/common` and `templates/<kind>`, with `$$` for a dollar and `${name}` for what is filled in; `_module_`
and `_name_` in a path are filled in too.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

import harness
from harness.catalogue import Catalogue
from harness.errors import HarnessError

# kind -> what the package begins with
KINDS: Mapping[str, str] = {
    "activation": "x sigmoid(beta x) with a learned beta (Swish), in the reference nets",
    "norm": "root mean square normalisation in front of each activation of the reference nets",
    "layer": "a linear layer of low rank in place of each one of the reference nets",
    "learner": "softmax regression with its own training loop",
    "task": "rings in the plane, drawn anew for each seed, with the metrics that they are scored by",
    "kernel": "an activation whose forward and backward pass are written by hand, checked and timed against the formula",
}
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
MOST = 40
TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".tmpl"


def module_name(name: str) -> str:
    """The package's import name: distribution names may hold dashes, modules may not."""
    return name.replace("-", "_")


def check_name(name: str, catalogue: Catalogue) -> None:
    """Raises HarnessError, with the mend, for a name that could not be installed, imported or found."""
    module = module_name(name)
    if not NAME.fullmatch(name) or len(name) > MOST:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        mean = f", such as {plain!r}" if NAME.fullmatch(plain) and len(plain) <= MOST else ", such as 'my-norm'"
        raise HarnessError(f"NAME: got {name!r}; use lower-case letters and digits, words joined by '-', {MOST} at most{mean}")
    if keyword.iskeyword(module) or keyword.issoftkeyword(module) or module in sys.stdlib_module_names:
        raise HarnessError(f"NAME: {name!r} is a word of Python or a module of its library; take another, such as 'my-{name}'")
    if module in ("tests", "suites", "test", "src"):
        raise HarnessError(f"NAME: {name!r} is a folder of the package itself; take another, such as 'my-{name}'")
    for kind, offers in (("method", catalogue.methods), ("task", catalogue.tasks), ("kernel", catalogue.kernels)):
        taken = next((o for o in offers if o.name == name), None)
        if taken is not None:
            text = f"NAME: {kind} {name!r} is offered by {taken.plugin.id} already"
            raise HarnessError(f"{text}; take another, such as 'my-{name}': two of one name need `dist/name` in every suite")
    if importable(module):
        raise HarnessError(f"NAME: a module {module!r} is installed here already, and would be hidden; take another name")


def importable(module: str) -> bool:
    """Installed, that is: a folder of that name in the working folder is no module to fear."""
    path = list(sys.path)
    try:
        sys.path[:] = [entry for entry in path if entry not in ("", str(Path.cwd()))]
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
    finally:
        sys.path[:] = path


def make_package(name: str, kind: str, into: Path, catalogue: Catalogue) -> Path:
    """The new folder `into/name`. Raises HarnessError for a wrong name and for a folder that is there: nothing is written over.

    The folder appears whole or not at all.
    """
    check_name(name, catalogue)
    target = into / name
    if target.exists() or target.is_symlink():
        raise HarnessError(f"{target} is there already, and is left as it is; take another name, or move it away")
    if not into.is_dir():
        raise HarnessError(f"--into: {into} is no folder; make it first, or leave the option out")
    given = {
        "name": name, "module": module_name(name), "kind": kind, "api": harness.API_VERSION, "version": harness.__version__,
        "class_": "".join(word.capitalize() for word in re.split(r"[-_]", name)), "what": KINDS[kind],
    }  # fmt: skip
    made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=into))
    try:
        for source in (TEMPLATES / "common", TEMPLATES / kind):
            for file in sorted(source.rglob(f"*{SUFFIX}")):
                write(file, made / destination(file.relative_to(source), given), given)
        made.chmod(0o755)
        made.rename(target)
    except OSError as exc:
        raise HarnessError(f"{target}: cannot be written: {exc}") from exc
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def destination(path: Path, given: Mapping[str, str]) -> Path:
    """Dotfiles are kept as `dot-...`, so that tools which look at this checkout do not take them for its own."""
    parts = [part.replace("_module_", given["module"]).replace("_name_", given["name"]) for part in path.parts]
    return Path(*(f".{part.removeprefix('dot-')}" if part.startswith("dot-") else part for part in parts)).with_suffix("")


def write(template: Path, target: Path, given: Mapping[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(Template(template.read_text(encoding="utf-8")).substitute(given), encoding="utf-8")
