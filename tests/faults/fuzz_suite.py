"""Coverage-guided fuzzing of the suite loader: `python -m tests.faults.fuzz_suite [libFuzzer's options] [CORPUS]`.

Needs atheris (`pip install -e '.[fuzz]'`, CPython 3.11). Stops at the first input that is answered by anything but a suite or
an error with a place, or that takes more than a second; `-max_total_time=60` ends it after a minute, `-runs=N` after N inputs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harness.suite", "ruamel"]):
    import ruamel.yaml  # noqa: F401

    import harness.suite.load  # noqa: F401
    from harness.catalogue import load_catalogue

from tests.faults.untrusted import ROOT, judged_load

OPTIONS_AT = b"\0--set "  # what follows in an input is one option after the other; a suite itself holds no NUL


def main(argv: list[str]) -> None:
    catalogue = load_catalogue()

    def try_one(data: bytes) -> None:
        content, *options = data.split(OPTIONS_AT)
        wrong, _ = judged_load(catalogue, content, [option.decode("utf-8", "surrogateescape") for option in options])
        if wrong:
            raise AssertionError(wrong)

    # Without a corpus of the caller's: the shipped suites, which reach both passes from the first input on.
    given = [argument for argument in argv[1:] if not argument.startswith("-")]
    corpus = [] if given else [str(ROOT / "suites")]
    atheris.Setup([*argv, *(f"-seed_inputs={','.join(files_of(corpus))}" for _ in corpus), "-max_len=65536"], try_one)
    atheris.Fuzz()


def files_of(folders: list[str]) -> list[str]:
    return [str(file) for folder in folders for file in sorted(Path(folder).glob("*.yaml"))]


if __name__ == "__main__":
    main(sys.argv)
