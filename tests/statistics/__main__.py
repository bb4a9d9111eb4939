"""Every figure of docs/statistics.md: `python -m tests.statistics [--quick] [--write PAGE]`.

This folder has no `__init__.py`: pytest puts `tests` on the path, where a package of this name would hide Python's own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tests.statistics import sections
from tests.statistics.page import Section, render_page
from tests.statistics.simulation import FULL, QUICK, Size

# In the order of the page. A further part is a function Size -> Section, put on this list.
SECTIONS: list[Callable[[Size], Section]] = [
    sections.verdicts,
    sections.looking_again,
    sections.ledger,
    sections.sign_flips,
    sections.tasks,
    sections.bootstrap,
    sections.power,
    sections.families,
    sections.other_intervals,
]


def make_page(size: Size) -> str:
    made = []
    for section in SECTIONS:
        print(f"simulating: {section.__name__}", file=sys.stderr)
        made.append(section(size))
    return render_page(made)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.statistics", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws; for a look")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page; not with --quick")
    args = parser.parse_args(argv)
    if args.write and args.quick:
        parser.error("--write needs all draws: drop --quick")
    page = make_page(QUICK if args.quick else FULL)
    if args.write:
        args.write.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
