"""What the registry holds for a protocol: of each series the attempts that started after the claim was fixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.claims.fixing import Fixing, Protocol
from harness.registry import Registry

SAYS_NOTHING = ("interrupted", "unsupported")


@dataclass(frozen=True)
class Standing:
    """How far a protocol has come on a machine. wanted: trials of the first look; counting: those with an attempt that counts.

    older: trials that only have attempts from before the claim was fixed.
    """

    wanted: int
    counting: int
    older: int


def standing(registry: Registry, fixed: Sequence[tuple[Protocol, Fixing | None]], machine: str, torch: str) -> list[Standing]:
    """Of each protocol; None: it is not fixed yet, and nothing counts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = sorted({key for protocol, _ in fixed for place in protocol.places for key in place.series})
    table = registry.table({"series_key", "machine", "torch_version", "started_at", "status", "attempt_id"})
    mine = pc.and_(pc.equal(table["machine"], machine), pc.equal(table["torch_version"], torch))
    table = table.filter(pc.and_(mine, pc.is_in(table["series_key"], pa.array(keys, pa.string()))))
    invalid = {row["attempt_id"] for row in registry.annotations().to_pylist() if row["annotation"] == "invalid"}
    latest = {
        row["series_key"]: row["started_at"]
        for row in table.sort_by([("started_at", "ascending")]).to_pylist()
        if row["status"] not in SAYS_NOTHING and row["started_at"] is not None and row["attempt_id"] not in invalid
    }
    found = []
    for protocol, fixing in fixed:
        series = [key for place in protocol.places for key in place.series[: len(protocol.seeds)]]
        counting = [key for key in series if fixing is not None and key in latest and latest[key] > fixing.fixed_at]
        found.append(Standing(len(series), len(counting), sum(key in latest for key in series) - len(counting)))
    return found
