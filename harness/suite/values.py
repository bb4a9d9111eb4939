"""The first pass over a suite's raw tree: shorthands are written out, then strict models check types, ranges, closed sets.

pydantic's errors are said in our words, each with what was got and the mend. The pass over names goes on from the same tree,
whether or not this one found mistakes, so that a user sees all of them at once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.catalogue import did_you_mean
from harness.suite.schema import SuiteForm
from harness.suite.text import Document, Loc, Value, shown

MAX_FINDINGS = 200  # a pass; nobody reads more, and each costs time
Finding = tuple[Loc, str]  # where in the normalised tree, and what with its mend


@dataclass
class Raw:
    """The tree with shorthands written out. shorthands: locations, as written, that stand one level higher in the file."""

    data: dict[str, Value]
    document: Document
    shorthands: set[Loc] = field(default_factory=set)

    def written(self, loc: Loc) -> Loc:
        """The location as the user wrote it: net[0].width is net.width where net is one mapping."""
        if loc[:1] in self.shorthands:
            return (*loc[:1], *loc[2:])
        return loc[:2] if loc[:2] in self.shorthands and loc[2:] == ("use",) else loc

    def get(self, *loc: str | int) -> Any:
        """The value at a location; None where there is none or something else stands on the way."""
        node: Any = self.data
        for step in loc:
            if isinstance(node, dict):
                node = node.get(step)
            elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                node = node[step]
            else:
                return None
        return node

    def list_at(self, *loc: str | int) -> list[Any]:
        found = self.get(*loc)
        return found if isinstance(found, list) else []

    def dict_at(self, *loc: str | int) -> dict[str, Any]:
        found = self.get(*loc)
        return found if isinstance(found, dict) else {}


def normalise(document: Document) -> Raw:
    """Write the shorthands out: `digits` is {use: digits}, one net is a list of one, one device too."""
    assert isinstance(document.data, dict), "a document without a mapping is refused before this"
    raw = Raw(dict(document.data), document)
    for key in ("tasks", "methods", "kernels"):
        if isinstance(entries := raw.data.get(key), list):
            raw.shorthands |= {(key, i) for i, entry in enumerate(entries) if isinstance(entry, str)}
            raw.data[key] = [{"use": entry} if isinstance(entry, str) else entry for entry in entries]
    for key, short in (("net", dict), ("train", dict), ("devices", str)):
        if isinstance(value := raw.data.get(key), short):
            raw.shorthands.add((key,))
            raw.data[key] = [value]
    return raw


def check_values(raw: Raw) -> tuple[SuiteForm | None, list[Finding]]:
    """Read the tree with the strict models. JSON in between: there a list is a tuple and an int a float, but "10" no int."""
    try:
        return SuiteForm.model_validate_json(json.dumps(raw.data), strict=True), []
    except ValidationError as exc:
        return None, explain(exc, SuiteForm, raw.data)


def explain(exc: ValidationError, model: type[BaseModel], data: Mapping[str, Any]) -> list[Finding]:
    """pydantic's errors in our words, one a location; the branches of a union are joined by "or"."""
    texts: dict[Loc, list[str]] = {}
    for error in itertools.islice(filter(_is_real, exc.errors(include_url=False)), MAX_FINDINGS):
        loc = _loc_in(data, error)
        text = _explain_one(error, loc, model)
        if text not in texts.setdefault(loc, []):
            texts[loc].append(text)
    return [(loc, _join(parts)) for loc, parts in texts.items()]


def _is_real(error: ErrorDetails) -> bool:
    """pydantic counts only the valid items of a list: one wrong item alone would be "too short" as well."""
    return error["type"] != "too_short" or len(error["input"]) < error["ctx"]["min_length"]


def _loc_in(data: Any, error: ErrorDetails) -> Loc:
    """The error's location as far as the tree goes: pydantic adds the branch of a union, and what is missing."""
    node, loc = data, error["loc"]
    for depth, step in enumerate(loc):
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return loc[: depth + (error["type"] == "missing")]
    return loc


def _join(texts: Sequence[str]) -> str:
    """`got 3; write a string` and `got 3; write a list` are `got 3; write a string, or write a list`."""
    heads = {text.partition("; ")[0] for text in texts}
    if len(heads) > 1 or not all("; " in text for text in texts):
        return "; or ".join(texts)
    return f"{heads.pop()}; {', or '.join(text.partition('; ')[2] for text in texts)}"


MENDS: Mapping[str, str] = {
    "int_type": "write a whole number, without quotes or a point",
    "int_from_float": "write a whole number",
    "int_parsing_size": "write a smaller whole number",
    "float_type": "write a number, without quotes",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "string_type": "write text, in quotes if it looks like a number",
    "string_pattern_mismatch": "write text that matches {pattern}",
    "string_too_short": "write at least {min_length} characters",
    "string_too_long": "write at most {max_length} characters",
    "list_type": "write a list, such as [a, b]",
    "tuple_type": "write a list, such as [a, b]",
    "set_type": "write a list, such as [a, b]",
    "frozen_set_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping, such as {{key: value}}",
    "model_type": "write a mapping, such as {{key: value}}",
    "model_attributes_type": "write a mapping, such as {{key: value}}",
    "dataclass_type": "write a mapping, such as {{key: value}}",
    "greater_than": "write a number greater than {gt:g}",
    "greater_than_equal": "write a number of at least {ge:g}",
    "less_than": "write a number less than {lt:g}",
    "less_than_equal": "write a number of at most {le:g}",
    "multiple_of": "write a multiple of {multiple_of:g}",
    "literal_error": "use {expected}",
    "enum": "use {expected}",
    "none_required": "leave it empty",
    "too_short": "write at least {min_length}",
    "too_long": "write at most {max_length}",
    "value_error": "{error}",
    "assertion_error": "{error}",
}


def _explain_one(error: ErrorDetails, loc: Loc, model: type[BaseModel]) -> str:
    """What was got and the mend, for every code that a suite can meet; pydantic's own words for a plugin's other types."""
    code, context = error["type"], error.get("ctx", {})
    if code == "mend":
        return error["msg"]
    if code == "extra_forbidden":
        known = _keys_of(model, loc[:-1])
        return f"no such key{did_you_mean(str(loc[-1]), known)} (keys here: {', '.join(known)})"
    if code == "missing":
        return f"missing; add {_example(model, loc)}"
    got = f"{len(error['input'])} of them" if code == "too_long" else shown(error["input"])
    if code in MENDS:
        return f"got {got}; {MENDS[code].format(**context)}"
    return f"got {got}; {error['msg'][:1].lower()}{error['msg'][1:]}"


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model that reads what stands at a location."""
    for step in loc:
        if isinstance(step, int):
            continue  # an item is read by the model that its list names
        fields = {f.alias or name: f for name, f in model.model_fields.items()}
        found = next(_models_in(fields[step].annotation), None) if step in fields else None
        if found is None:
            return None
        model = found
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _keys_of(model: type[BaseModel], loc: Loc) -> list[str]:
    found = _model_at(model, loc)
    return [f.alias or name for name, f in found.model_fields.items()] if found else []


def missing(loc: Loc) -> str:
    """What is said of a key of the suite that has to be there."""
    return f"missing; add {_example(SuiteForm, loc)}"


def _example(model: type[BaseModel], loc: Loc) -> str:
    """How the missing key is written."""
    found = _model_at(model, loc[:-1])
    examples = [f.examples for name, f in found.model_fields.items() if (f.alias or name) == loc[-1]] if found else []
    value = examples[0][0] if examples and examples[0] else "..."
    return f"`{loc[-1]}: {'[' + ', '.join(value) + ']' if isinstance(value, list) else value}`"
