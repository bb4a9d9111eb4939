"""Pages that open from a disk: the registry in, a folder of static HTML out.

collecting -> pages -> charts, rendering. Nothing here prints; `harness.cli.report` calls `make_report`.
"""

from harness.report.making import Made, make_report

__all__ = ["Made", "make_report"]
