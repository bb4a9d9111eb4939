"""Every figure of docs/reliability.md: `python -m tests.faults [--quick] [--only PART] [--seed N] [--json] [--write PAGE]`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.faults.page import Ran, commit_here, load_parts, now, render_table, save_page
from tests.faults.tally import Part

ROOT = Path(__file__).parents[2]
PARTS = {
    "crash-states": Part("crash_states:campaign", full=2_000, quick=60),
    "failing-calls": Part("failing_calls:campaign", full=1_000, quick=60),
    "bit-rot": Part("bit_rot:campaign", full=10_000, quick=2_000),
    "writers": Part("writers:campaign", full=64, quick=12),
    "runs": Part("runs:campaign", full=3, quick=1),
    "long-run": Part("long_run:campaign", full=2_000, quick=300),
    "untrusted": Part("untrusted:campaign", full=20_000, quick=1_000),
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few tries of each: minutes, not an hour")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; repeat")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--json", action="store_true", help="the rows as JSON instead of the table")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page too; what did not run stays on it")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # put into the background, a shell would have made it deaf to it
    # Beside the checkout, not in /tmp: that may be memory, where flushing a file costs nothing.
    scratch = ROOT / ".benchmarks"
    scratch.mkdir(exist_ok=True)
    ran: list[Ran] = []
    commit = commit_here()
    for name, part in PARTS.items():
        if args.only and name not in args.only:
            continue
        print(f"breaking: {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            times, pictures = (part.quick if args.quick else part.full), (args.write.parent if args.write else None)
            tallies = part.load()(Path(folder).resolve(), times, args.seed, pictures)
        ran.append(Ran(name, time.monotonic() - started, commit, now(), not args.quick, tuple(tallies)))
    tallies = [tally for one in ran for tally in one.tallies]
    print(json.dumps([asdict(t) for t in tallies]) if args.json else render_table(tallies))
    if args.write:
        whole = load_parts(args.write) | {one.part: one for one in ran}
        save_page(args.write, [whole[name] for name in PARTS if name in whole])
    return 0 if all(t.clean for t in tallies) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
