"""Bounds with their evidence as JSON, and back: what `harness certify` saves and what its `--check` reads.

Floats are written so that they are read back exactly. A file that is read is not trusted: `verify` decides what it proves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from harness import HarnessError
from harness_papers.lipsdp.problems import Array, Bound, Evidence, Network

SCHEMA = "harness_papers.lipsdp/certificates/1"
MOST_BYTES = 1 << 28
KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(Evidence)}


@dataclass(frozen=True)
class Certificate:
    """A method's bound with its evidence."""

    method: str
    solution: Bound


def facts_of(network: Network) -> dict[str, Any]:
    """What a reader needs to know which network a certificate is of."""
    return {
        "sizes": [network.weights[0].shape[1], *(weight.shape[0] for weight in network.weights)],
        "activation": network.activation,
        "alpha": network.alpha,
        "beta": network.beta,
        "group": network.group,
        "norm": network.norm,
        "weights_sha256": digest_of(network),
    }


def digest_of(network: Network) -> str:
    """SHA-256 over all numbers; folding may round a last bit differently elsewhere, so another one decides nothing."""
    made = hashlib.sha256()
    for array in (*network.weights, *network.biases, *network.directions):
        made.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


def encode(solution: Any) -> dict[str, Any]:
    """A bound as JSON: bound, kind, evidence with its type and its fields."""
    return {"bound": float(solution.bound), "kind": solution.kind, "evidence": as_json(solution.evidence)}


def as_json(value: Any) -> Any:
    """Arrays as lists, evidence as its fields beside its type, at any depth."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if is_dataclass(value):
        return {"type": type(value).__name__, **{field.name: as_json(getattr(value, field.name)) for field in fields(value)}}
    return [as_json(one) for one in value] if isinstance(value, tuple | list) else value


def decode(data: Any) -> Bound:
    """A bound from what `encode` made. Raises ValueError, which says what is wrong, for anything else."""
    if not isinstance(data, Mapping) or not isinstance(data.get("evidence"), Mapping):
        raise ValueError("a bound with its evidence is wanted")
    bound, kind = data.get("bound"), data.get("kind")
    if kind not in ("upper", "lower") or isinstance(bound, bool) or not isinstance(bound, int | float):
        raise ValueError(f"bound={bound!r}, kind={kind!r}; a number, and 'upper' or 'lower' are wanted")
    return Bound(float(bound), kind, evidence_from(data["evidence"], depth=2))


def evidence_from(data: Mapping[str, Any], depth: int) -> Any:
    """depth: how far evidence may hold evidence, as that of several outputs does."""
    held = dict(data)
    made = KINDS.get(str(held.pop("type", None)))
    if made is None:
        raise ValueError(f"evidence of the type {data.get('type')!r}; one of {sorted(KINDS)} is known")
    wanted = {field.name for field in fields(made)}
    if set(held) != wanted:
        raise ValueError(f"{made.__name__} holds {sorted(held)}; {sorted(wanted)} are wanted")
    hints = get_type_hints(made)
    return made(**{name: from_json(hints[name], value, depth - 1) for name, value in held.items()})


def from_json(hint: Any, value: Any, depth: int) -> Any:
    """An array, or a tuple of arrays or of evidence, as the field's type says. Raises ValueError for anything else."""
    if hint == Array:
        return array_of(value)
    if not isinstance(value, list):
        raise ValueError(f"a list is wanted, not {type(value).__name__}")
    if get_args(hint)[0] == Array:
        return tuple(map(array_of, value))
    if depth < 1 or not all(isinstance(one, Mapping) for one in value):
        raise ValueError("a list of evidence is wanted")
    return tuple(evidence_from(one, depth) for one in value)


def array_of(value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError("numbers are wanted")
    return array.astype(np.float64)


def write_certificates(path: Path, network: Network, certificates: Iterable[Certificate], facts: Mapping[str, Any]) -> None:
    """facts: method -> what else is told of it (what was proved, the smallest eigenvalue). Raises HarnessError for the file."""
    rows = [{"method": one.method, **encode(one.solution), **facts.get(one.method, {})} for one in certificates]
    content = {"schema": SCHEMA, "network": facts_of(network), "certificates": rows}
    try:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as exc:
        raise HarnessError(f"{path}: cannot be written: {exc.strerror or exc}") from exc


def read_certificates(path: Path) -> tuple[dict[str, Any], list[Certificate]]:
    """(facts of the network it was made for, certificates). Raises HarnessError with what is wrong and where."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise HarnessError(f"{path}: {path.stat().st_size} bytes; the limit is {MOST_BYTES}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise HarnessError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise HarnessError(f"{path}: this is no JSON, or a part of it is missing: {exc}") from exc
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise HarnessError(
            f"{path}: no certificates of ours: schema {SCHEMA!r} is wanted; `harness certify NET --certificate` writes it"
        )
    found = []
    rows = content.get("certificates")
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        try:
            found.append(Certificate(str(row.get("method", "unnamed")), decode(row)))
        except (ValueError, AttributeError, TypeError, OverflowError) as exc:
            raise HarnessError(f"{path}: certificates[{index}]: {exc}") from exc
    if not found:
        raise HarnessError(f"{path}: it holds no certificates")
    facts = content.get("network")
    return facts if isinstance(facts, dict) else {}, found
