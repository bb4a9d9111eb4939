"""A against B: results of quality trials (methods, commits, dates, machines, environments), and times of kernels."""

from harness.comparing.kernels import Comparison, Ratio, by_kernel, compare_kernels
from harness.comparing.results import Apart, Contrast, Contrasts, compare_results
from harness.comparing.sides import Side, read_sides

__all__ = ["Apart", "Comparison", "Contrast", "Contrasts", "Ratio", "Side", "by_kernel", "compare_kernels", "compare_results",
           "read_sides"]  # fmt: skip
