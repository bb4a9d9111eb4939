"""Which folded files stand for which other files, as manifests tell it.

A chain of folds is a path: loose -> folded -> folded again. A file need not be read if a file further along a path from it is
there and healthy. Files may also stand for one another in a ring: two versions of pyarrow write the same rows as different
bytes, and each may fold the other's file. No file of a ring vouches for another one of it, or none of them would be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Standing:
    """The manifests of a registry (or of two that are merged) as a graph."""

    def __init__(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        self._by: dict[str, list[str]] = {}
        self._folded: set[str] = set()
        self._above: dict[str, frozenset[str]] = {}
        for manifest in manifests:
            self._folded.add(manifest["folded"])
            for name in manifest["replaces"]:
                self._by.setdefault(name, []).append(manifest["folded"])

    def keepers(self, name: str) -> list[str]:
        """The folded files that stand for this one if they are there and healthy; what was folded last comes first."""
        found = [fold for fold in self.above(name) if name not in self.above(fold)]
        return sorted(found, key=lambda fold: (len(self.above(fold)), fold))

    def above(self, name: str) -> frozenset[str]:
        """All folded files to which a path leads; in a ring the file itself is among them."""
        if name not in self._above:
            found: set[str] = set()
            waiting = list(self._by.get(name, ()))
            while waiting:
                fold = waiting.pop()
                if fold not in found:
                    found.add(fold)
                    waiting += self._by.get(fold, ())
            if name not in self._folded:
                return frozenset(found)  # of loose files there are many, and each is asked for once
            self._above[name] = frozenset(found)
        return self._above[name]

    def replaced(self, is_healthy: Callable[[str], bool]) -> set[str]:
        """All names for which a healthy file stands. is_healthy: whether a folded file is there and what its name says."""
        healthy = {fold for fold in self._folded if is_healthy(fold)}
        found = {name for name in self._folded if not healthy.isdisjoint(self.keepers(name))}
        # A loose file is no fold, so it is in no ring: it is enough to ask once for all that a manifest names.
        stands: dict[tuple[str, ...], bool] = {}
        for name, folds in self._by.items():
            if name not in self._folded:
                together = tuple(folds)
                if together not in stands:
                    stands[together] = any(fold in healthy or not healthy.isdisjoint(self.above(fold)) for fold in folds)
                if stands[together]:
                    found.add(name)
        return found
