"""Claims on the command line: what a suite fixes, before it runs and in its plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.claims.evidence import Standing
    from harness.claims.fixing import Fixing, Protocol, Unfixed
    from harness.registry import Registry

SHORT = 8  # hex digits of a digest, for people


@dataclass(frozen=True)
class Told:
    """A claim of a suite on a device: what would be or is fixed, and how far it has come."""

    protocol: Protocol
    fixing: Fixing | None
    standing: Standing

    @property
    def line(self) -> str:
        p, s = self.protocol, self.standing
        size = f"{len(p.places)} cells x {len(p.seeds)} seeds on {p.device}"
        when = f"fixed {self.fixing.fixed_at:%Y-%m-%d %H:%M} UTC" if self.fixing else "not fixed yet: `harness run` fixes it"
        state = "complete" if s.counting == s.wanted else f"{s.counting} of {s.wanted} trials have an attempt since"
        state = f"; {state}" if self.fixing else ""
        older = f"; {s.older} ran before and do not count: `harness run --force` runs them again" if s.older else ""
        return f"claim {p.claim}: {p.digest[:SHORT]}, {size}, {when}{state}{older}"


def tell(found: Sequence[Protocol | Unfixed], registry: Registry, machine: str, torch: str) -> list[Told | Unfixed]:
    """What the suite's claims have come to, in its order."""
    from harness.claims.evidence import standing
    from harness.claims.fixing import Unfixed, fixings

    known = {fixing.protocol.digest: fixing for fixing in fixings(registry)} if found else {}
    fixed = [(p, known.get(p.digest)) for p in found if not isinstance(p, Unfixed)]
    told = iter([Told(p, f, s) for (p, f), s in zip(fixed, standing(registry, fixed, machine, torch), strict=True)])
    return [p if isinstance(p, Unfixed) else next(told) for p in found]


def lines(told: Iterable[Told | Unfixed]) -> Iterator[str]:
    for one in told:
        if isinstance(one, Told):
            yield one.line
        else:
            where = f" on {one.device}" if one.device else ""
            yield f"claim {one.claim}: cannot be fixed{where}: {'; '.join(one.reasons)}"


def to_json(told: Iterable[Told | Unfixed]) -> list[dict[str, object]]:
    """For `harness plan --json`."""
    return [
        {
            "claim": one.protocol.claim, "device": one.protocol.device, "protocol": one.protocol.digest,
            "cells": len(one.protocol.places), "seeds": one.protocol.seeds, "extension": one.protocol.extension,
            "fixed_at": one.fixing.fixed_at.isoformat() if one.fixing else None, **asdict(one.standing),
        }
        if isinstance(one, Told) else asdict(one)
        for one in told
    ]  # fmt: skip


def fix_claims(found: Sequence[Protocol | Unfixed], registry: Registry, suite: str, machine: str, torch: str) -> None:
    """Fix what the suite's claims are judged on, and say so on stderr."""
    from harness.claims.fixing import Unfixed, fix

    fix([p for p in found if not isinstance(p, Unfixed)], registry, suite)
    for line in lines(tell(found, registry, machine, torch)):
        click.echo(line, err=True)
