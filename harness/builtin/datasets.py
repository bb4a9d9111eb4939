"""The core's data sets, declared in `harness.data`."""

from __future__ import annotations

from harness.data.declared import DATASETS as DECLARED

DATASETS = list(DECLARED.values())
