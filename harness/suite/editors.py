"""The JSON Schema of a suite file, with which editors complete and check it while it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import PydanticUserError

from harness.catalogue import Catalogue
from harness.specs import Params
from harness.suite.schema import DEFAULT_SEEDS, DEFAULT_TIMEOUT, SuiteForm

SCHEMA_FILE = "suite.schema.json"
SCHEMA_COMMENT = f"# yaml-language-server: $schema=./{SCHEMA_FILE}"  # the first line of each shipped suite


def suite_schema(catalogue: Catalogue) -> dict[str, Any]:
    """JSON Schema (draft 7) of a suite file: every key described, shorthands allowed, names from the catalogue."""
    schema = SuiteForm.model_json_schema(ref_template="#/definitions/{model}")
    forms = schema.pop("$defs")
    keys = schema["properties"]
    forms["TaskForm"] = _entry_schema(forms["TaskForm"], {o.name: o.spec.params for o in catalogue.tasks})
    forms["MethodForm"] = _entry_schema(forms["MethodForm"], {o.name: o.spec.params for o in catalogue.methods})
    forms["KernelForm"] = _entry_schema(forms["KernelForm"], {o.name: o.spec.params for o in catalogue.kernels})
    one_or_many = (("net", {"$ref": "#/definitions/Net"}), ("train", {"$ref": "#/definitions/Train"}))
    for key, item in (*one_or_many, ("devices", keys["devices"]["items"])):
        about = {name: keys[key].pop(name) for name in ("title", "description", "default") if name in keys[key]}
        keys[key] = {**about, "anyOf": [item, keys[key]]}
    keys["claims"]["items"] = {"type": "string", "enum": sorted(catalogue.claims)} if catalogue.claims else {"type": "string"}
    metrics = {m.name for o in catalogue.tasks for m in o.spec.metrics} | {
        m.name for o in catalogue.probes for m in o.spec.metrics
    }
    forms["MeasureForm"]["properties"]["quality"]["examples"] = [sorted(metrics)]
    clocks = sorted({clock for o in catalogue.tracks for clock in o.spec.clocks} | {"wall_s", "epochs"})
    for clock in clocks:
        about_clock = {"type": "number", "minimum": 0, "description": f"the most {clock} that a trial may spend"}
        forms["BudgetForm"]["properties"].setdefault(clock, about_clock)
    forms["BudgetForm"]["additionalProperties"] = False
    _write_defaults_as_users_would(keys, forms)
    schema["anyOf"] = [{"required": ["tasks", "methods"]}, {"required": ["kernels"]}]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "definitions": forms}


def _write_defaults_as_users_would(keys: dict[str, Any], forms: dict[str, Any]) -> None:
    """An editor inserts defaults as they stand: none may be a value that the suite file would refuse."""
    for properties in (keys, *(form.get("properties", {}) for form in forms.values())):
        for field in properties.values():
            if "$ref" in field or field.get("default") in (None, []):
                field.pop("default", None)
    keys["train"].pop("default")  # its keys have theirs, and a list of one mapping is not how one writes it
    keys["seeds"]["default"] = DEFAULT_SEEDS
    forms["LimitsForm"]["properties"]["timeout"]["default"] = DEFAULT_TIMEOUT


def _entry_schema(form: dict[str, Any], params: Mapping[str, type[Params]]) -> dict[str, Any]:
    """A bare name, or the mapping whose parameters are those of the name under `use`."""
    about = form["properties"]["use"]["description"]
    name = {
        "description": about,
        "anyOf": [{"type": "string", "enum": sorted(params)}, {"type": "string", "pattern": "^[^/]+/.+$"}],
    }
    form["properties"]["use"] = name
    form["allOf"] = [
        {
            "if": {"properties": {"use": {"const": method}}, "required": ["use"]},
            "then": {"properties": _parameter_schemas(params[method])},
        }
        for method in sorted(params)
    ]
    return {"description": form.pop("description"), "anyOf": [name, form]}


def _parameter_schemas(model: type[Params]) -> dict[str, Any]:
    """What may stand under params, grid and zip for one method or task."""
    one = {name: _field_schema(model, name) for name in model.model_fields}
    many = {name: {"type": "array", "minItems": 1, "items": field} for name, field in one.items()}
    closed = {"type": "object", "additionalProperties": False}
    return {
        "params": {**closed, "properties": one},
        "grid": {**closed, "properties": many},
        "zip": {**closed, "properties": many},
    }


def _field_schema(model: type[Params], name: str) -> dict[str, Any]:
    """A parameter's schema; only its description where the type needs definitions of its own or has no JSON Schema."""
    field = model.model_fields[name]
    try:
        schema = model.model_json_schema()
    except PydanticUserError:
        schema = {}
    if not schema or "$defs" in schema:
        return {"description": field.description} if field.description else {}
    found = schema["properties"][field.alias or name]
    return {key: value for key, value in found.items() if key != "title"}
