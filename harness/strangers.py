"""Records that no harness writes: a registry may be merged from anybody, and what is ranked must have the shape of a record.

One such record is left out and named; it never hides the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.identity import canonical

TEXTS = ("task", "method", "role", "kind", "device", "dtype", "torch_version", "machine")
OBJECTS = ("method_params", "task_params", "net", "train", "budget", "matched")  # kept as JSON text
BETTER = ("higher", "lower", "neither")
MAX_SHOWN = 100  # characters of what a stranger wrote


def read_json(text: str) -> Any:
    """The value, with finite numbers only; the text itself where it is nothing that a harness writes."""
    try:
        value = json.loads(text)
        canonical(value).encode()
    except (ValueError, RecursionError):
        return text
    return value


def strangeness(texts: Mapping[str, Any]) -> str:
    """What of a record's texts (JSON read by `read_json`) no harness writes; "" where all have their shape."""
    for name in TEXTS:
        if not isinstance(texts[name], str):
            return f"{name} is {texts[name]!r:.{MAX_SHOWN}}"
    if not isinstance(texts["threads"], int):
        return f"threads is {texts['threads']!r:.{MAX_SHOWN}}"
    for name in OBJECTS:
        if not isinstance(texts[name], dict | None):
            return f"{name} is no JSON object"
    if not all(is_number(amount) for amount in (texts["budget"] or {}).values()):
        return "budget holds an amount that is no number"
    return strange_net("net", texts["net"]) or strange_match(texts["matched"]) or strange_metrics(texts["declared"])


def strange_net(name: str, net: Mapping[str, Any] | None) -> str:
    return f"{name} names no arch" if net and not isinstance(net.get("arch"), str) else ""


def strange_match(matched: Mapping[str, Any] | None) -> str:
    if not matched:
        return ""
    if not isinstance(matched.get("where"), str) or not is_number(matched.get("mismatch")) or "to" not in matched:
        return "matched lacks where, to or mismatch"
    if not all(isinstance(matched.get(name, ""), dict | None) for name in ("net", "train")):
        return "matched lacks net or train"
    return strange_net("matched.net", matched["net"])


def strange_metrics(declared: Any) -> str:
    for metric in declared or []:
        named = metric and all(isinstance(metric[name], str) for name in ("quantity", "unit"))
        if not named or metric["better"] not in BETTER:
            return f"it declares {metric!r:.{MAX_SHOWN}}"
    return ""


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
