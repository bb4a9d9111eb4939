"""What Verilog and BLIF mean, as far as circuits are written in them here: texts in, output bits out. Shares no code with
what writes them.
"""

from __future__ import annotations

import re

import numpy as np

Bits = np.ndarray  # (items, bits), bool


def run_verilog(text: str, inputs: Bits) -> Bits:
    """One module with scalar ports and assignments in any order, made of ~ & | and parentheses."""
    ports = {kind: re.findall(rf"^\s*{kind} (\w+);", text, re.M) for kind in ("input", "output", "wire")}
    header = re.search(r"module \w+ \((.*?)\);", text, re.S)
    assert header
    assert [name.strip() for name in header[1].split(",")] == [*ports["input"], *ports["output"]]
    values: dict[str, np.ndarray] = dict(zip(ports["input"], inputs.T, strict=True))
    waiting = dict(re.findall(r"assign (\w+) = (.*?);", text))
    assert set(waiting) == {*ports["output"], *ports["wire"]}
    while waiting:
        ready = [name for name, body in waiting.items() if set(re.findall(r"[xyh]\w*", body)) <= set(values)]
        assert ready, f"a loop, or undeclared names, among {waiting}"
        for name in ready:
            body = waiting.pop(name).replace("1'b1", "ON").replace("1'b0", "OFF")
            constants = {"ON": np.ones(len(inputs), bool), "OFF": np.zeros(len(inputs), bool)}
            # The operators mean the same in NumPy; the text is of names, operators and parentheses, which the next line holds.
            assert re.fullmatch(r"[\w~&|() ]+", body)
            values[name] = eval(body, {"__builtins__": {}}, {**values, **constants})  # noqa: S307
    return np.stack([values[name] for name in ports["output"]], axis=1)


def run_blif(text: str, inputs: Bits) -> Bits:
    """One model of .names with covers of the on-set."""
    lines = [line.split() for line in text.strip().splitlines()]
    assert lines[0][0] == ".model"
    assert lines[-1] == [".end"]
    names = {line[0]: line[1:] for line in lines if line[0] in (".inputs", ".outputs")}
    values: dict[str, np.ndarray] = dict(zip(names[".inputs"], inputs.T, strict=True))
    target, sources = "", []
    for line in lines[3:-1]:
        if line[0] == ".names":
            *sources, target = line[1:]
            assert target not in values
            assert set(sources) <= set(values), "used before it is defined"
            values[target] = np.zeros(len(inputs), bool)
            continue
        cube = line[0] if sources else ""
        assert line[-1] == "1"
        assert len(cube) == len(sources)
        literals = [values[source] == (bit == "1") for source, bit in zip(sources, cube, strict=True) if bit != "-"]
        values[target] = values[target] | np.logical_and.reduce([np.ones(len(inputs), bool), *literals])
    return np.stack([values[name] for name in names[".outputs"]], axis=1)
