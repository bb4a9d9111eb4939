"""The registry: a folder of append-only, content-named Parquet files that DuckDB reads. `docs/design.md` says why.

Importing this costs neither pyarrow nor duckdb; the first append or read does.
"""

from harness.registry.store import Registry, TrialState

__all__ = ["Registry", "TrialState"]
