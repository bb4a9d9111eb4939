"""`python -m harness.testing FD KIND=NAME...`: examine each, and write its report as a line of JSON to the descriptor FD."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable

import torch

from harness.catalogue import load_catalogue
from harness.testing.findings import Report
from harness.testing.kernels import examine_kernel
from harness.testing.methods import examine_method
from harness.testing.tasks import examine_task


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    out = int(arguments[0])
    os.set_inheritable(out, False)
    catalogue = load_catalogue()
    examine: dict[str, Callable[..., Report]] = {"method": examine_method, "task": examine_task, "kernel": examine_kernel}
    for item in arguments[1:]:
        kind, _, name = item.partition("=")
        try:
            report = examine[kind](name, catalogue=catalogue)
        except Exception as exc:
            traceback.print_exc()
            report = Report(name.rpartition("/")[2])
            report.add("runs", f"{type(exc).__name__}: {exc}", "make it run; `harness run` shows the traceback")
        line = memoryview(json.dumps(report.to_json()).encode() + b"\n")
        while line:
            line = line[os.write(out, line) :]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
