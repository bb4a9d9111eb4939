"""A net of threshold functions read as a circuit of gates, and the circuit as Verilog, as BLIF and as a drawing (SVG).

Each node's function of all its inputs is found exactly, in whole numbers: not rounded, and not only for the given items. A
weight that can never change the sign drops out of it, so a node with three weights that count and thirty near 0 becomes a gate
of three inputs. Nodes that no output depends on are left out. A tie of w.x counts as -1, as everywhere here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from typing import Any

from harness_papers.boolean_rrr.problem import LayeredNet

MAX_DIAGRAM = 5_000  # nodes of the decision diagram of one threshold function
MAX_CUBES = 2_000  # products of one function: enough for any of 13 inputs (13 choose 6)
MAX_ALL_CUBES = 10_000  # of a circuit: some megabytes of text
Signal = tuple[int, int]  # layer (0: the inputs), number in it


class TooWide(ValueError):
    """A node whose function is too large to write down."""


@dataclass(frozen=True)
class Gate:
    """A node and its exact function.

    inputs: what it depends on. inverted: which of them lower it. cubes: sets of positions in `inputs`; it is on where, for one
    of the cubes, all of the cube's inputs (inverted where `inverted` says so) are on. No cube: never; the empty cube: always.
    """

    signal: Signal
    inputs: tuple[Signal, ...]
    inverted: tuple[bool, ...]
    cubes: tuple[tuple[int, ...], ...]

    @property
    def kind(self) -> str:
        """ "0", "1", "copy", "and", "or", "majority", else "threshold"; inversions do not change it."""
        count, lengths = len(self.inputs), [len(cube) for cube in self.cubes]
        if count == 0:
            return "1" if self.cubes else "0"
        if count == 1:
            return "copy"
        if lengths == [count]:
            return "and"
        if lengths == [1] * count:
            return "or"
        return "majority" if count == 3 and lengths == [2, 2, 2] else "threshold"


@dataclass(frozen=True)
class Circuit:
    """inputs: how many; gates: those that an output depends on, by layer; outputs: the signals of the last layer."""

    inputs: int
    gates: tuple[Gate, ...]
    outputs: tuple[Signal, ...]

    def counts(self) -> str:
        """ "9 gates: 5 and, 3 or, 1 copy"."""
        kinds = Counter(gate.kind for gate in self.gates).most_common()
        return f"{len(self.gates)} gates: {', '.join(f'{count} {kind}' for kind, count in kinds)}"


# Nets to circuits -------------------------------------------------------------------------------------------------------


def read_circuit(net: LayeredNet) -> Circuit:
    """The net's weights run as threshold functions, whatever its activation. Raises TooWide, naming the node or layers."""
    last = len(net.weights)
    outputs = tuple((last, number) for number in range(len(net.weights[-1])))
    needed, gates = set(outputs), []
    for layer in range(last, 0, -1):
        for number, row in enumerate(net.weights[layer - 1].tolist()):
            if (layer, number) in needed:
                gates.append(read_gate((layer, number), row))
                needed.update(gates[-1].inputs)
                if sum(len(gate.cubes) for gate in gates) > MAX_ALL_CUBES:
                    raise TooWide(f"layers {layer} to {last} are ors of more than {MAX_ALL_CUBES} ands together")
    return Circuit(net.weights[0].shape[1] - 1, tuple(sorted(gates, key=lambda gate: gate.signal)), outputs)


def read_gate(signal: Signal, row: Sequence[float]) -> Gate:
    """The function sgn(w.x) of one node; row[0] is the weight of the source that is always -1."""
    bias, *weights = whole_numbers(row)
    order = sorted((number for number, w in enumerate(weights) if w), key=lambda number: -abs(weights[number]))
    cubes = products([abs(weights[number]) for number in order], -bias, signal)
    used = sorted({position for cube in cubes for position in cube}, key=lambda position: order[position])
    place = {position: number for number, position in enumerate(used)}
    return Gate(
        signal,
        tuple((signal[0] - 1, order[position]) for position in used),
        tuple(weights[order[position]] < 0 for position in used),
        tuple(sorted(tuple(sorted(place[position] for position in cube)) for cube in cubes)),
    )


def whole_numbers(row: Sequence[float]) -> list[int]:
    """The numbers times the power of two that makes all of them whole: nothing is rounded."""
    exact = [Fraction(value) for value in row]
    scale = max(value.denominator for value in exact)
    return [int(value * scale) for value in exact]


def products(sizes: Sequence[int], constant: int, signal: Signal) -> list[tuple[int, ...]]:
    """Sum over i of sizes[i] * (+1 or -1) + constant > 0 as an or of ands of positions that are +1.

    sizes are positive, largest first. A decision diagram over them, in which all partial sums that decide alike share a node
    (Abio et al. 2012, A new look at BDDs for pseudo-Boolean constraints). The function grows with each position, so the branch
    of -1 implies the one of +1, and a product need not say which positions are -1. Raises TooWide.
    """
    left = [sum(sizes[position:]) for position in range(len(sizes) + 1)]
    known: list[list[tuple[float, float, Any]]] = [[] for _ in sizes]  # by position: (low, high, node) for low < sum <= high
    made = 0

    def build(position: int, total: int) -> tuple[float, float, Any]:
        nonlocal made
        if total > left[position]:
            return left[position], math.inf, True
        if total <= -left[position]:
            return -math.inf, -left[position], False
        for low, high, node in known[position]:
            if low < total <= high:
                return low, high, node
        size = sizes[position]
        up, down = build(position + 1, total + size), build(position + 1, total - size)
        low, high = max(up[0] - size, down[0] + size), min(up[1] - size, down[1] + size)
        made += 1
        if made > MAX_DIAGRAM:
            raise TooWide(f"node {signal[1]} of layer {signal[0]} has no decision diagram of {MAX_DIAGRAM} nodes or fewer")
        node = up[2] if up[2] is down[2] else (position, up[2], down[2])
        known[position].append((low, high, node))
        return low, high, node

    cubes: list[tuple[int, ...]] = []
    for cube in walk(build(0, constant)[2]):
        cubes.append(cube)
        if len(cubes) > MAX_CUBES:
            raise TooWide(f"node {signal[1]} of layer {signal[0]} is an or of more than {MAX_CUBES} ands")
    return cubes


def walk(node: Any, taken: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The products below a node of the diagram."""
    if node is True:
        yield taken
    elif node is not False:
        position, up, down = node
        yield from walk(up, (*taken, position))
        yield from walk(down, taken)


# Circuits to text ---------------------------------------------------------------------------------------------------------


def to_verilog(circuit: Circuit) -> str:
    """A module `circuit` of scalar ports x0, x1, ... and y0, y1, ...; on is 1."""
    inputs, outputs = port_names(circuit)
    lines = [f"module circuit ({', '.join([*inputs, *outputs])});", *(f"  input {name};" for name in inputs)]
    lines += [*(f"  output {name};" for name in outputs)]
    hidden = [name_of(gate.signal, circuit) for gate in circuit.gates if gate.signal not in circuit.outputs]
    lines += [*(f"  wire {name};" for name in hidden)]
    for gate in circuit.gates:
        literals = [f"{'~' * low}{name_of(source, circuit)}" for source, low in zip(gate.inputs, gate.inverted, strict=True)]
        terms = [" & ".join(literals[place] for place in cube) or "1'b1" for cube in gate.cubes]
        body = " | ".join(f"({term})" if len(terms) > 1 and "&" in term else term for term in terms) or "1'b0"
        lines.append(f"  assign {name_of(gate.signal, circuit)} = {body};  // {gate.kind}")
    return "\n".join([*lines, "endmodule", ""])


def to_blif(circuit: Circuit) -> str:
    """Berkeley logic interchange format: a cover of each gate, one product a row."""
    inputs, outputs = port_names(circuit)
    lines = [".model circuit", f".inputs {' '.join(inputs)}", f".outputs {' '.join(outputs)}"]
    for gate in circuit.gates:
        lines.append(" ".join([".names", *(name_of(source, circuit) for source in gate.inputs), name_of(gate.signal, circuit)]))
        for cube in gate.cubes:
            row = "".join("-" if place not in cube else "01"[not low] for place, low in enumerate(gate.inverted))
            lines.append(f"{row} 1".strip())
    return "\n".join([*lines, ".end", ""])


def port_names(circuit: Circuit) -> tuple[list[str], list[str]]:
    return [f"x{number}" for number in range(circuit.inputs)], [f"y{number}" for number in range(len(circuit.outputs))]


def name_of(signal: Signal, circuit: Circuit) -> str:
    layer, number = signal
    if layer == 0:
        return f"x{number}"
    return f"y{number}" if signal in circuit.outputs else f"h{layer}_{number}"


# Circuits to drawings -------------------------------------------------------------------------------------------------------

COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT, EDGE = 150, 40, 62, 26, 24
LABELS = {"and": "AND", "or": "OR", "majority": "MAJ", "copy": "=", "0": "0", "1": "1"}
FILLS = {"and": "#dbe9f6", "or": "#fde7cf", "majority": "#e3f1dc", "threshold": "#f3dbe8"}
STYLE = "font:12px sans-serif;text-anchor:middle;dominant-baseline:central"


def to_svg(circuit: Circuit, title: str = "circuit") -> str:
    """Layers from left to right; a ring at a gate's left side inverts that input. T5 is a threshold function of five inputs."""
    rows = arrange(circuit)
    lefts = {layer: EDGE + COLUMN * layer for layer in rows}
    places = {signal: (lefts[layer] + BOX_WIDTH / 2, row) for layer in rows for signal, row in rows[layer].items()}
    width = 2 * EDGE + COLUMN * max(rows) + BOX_WIDTH + EDGE
    height = 2 * EDGE + max(row for column in rows.values() for row in column.values())
    shapes = [line for gate in circuit.gates for line in draw_inputs(gate, places)]
    for number in range(circuit.inputs):
        if (0, number) in places:
            shapes += draw_box(places[0, number], f"x{number}", "#ffffff")
    for gate in circuit.gates:
        x, y = places[gate.signal]
        shapes += draw_box((x, y), LABELS.get(gate.kind, f"T{len(gate.inputs)}"), FILLS.get(gate.kind, "#f2f2f2"))
        if gate.signal in circuit.outputs:
            shapes.append(f'<text x="{x + BOX_WIDTH / 2 + EDGE / 2:g}" y="{y:g}">y{gate.signal[1]}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    described = f"<title>{escape(title)}</title><desc>{escape(circuit.counts())}</desc>"
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([f'{head} role="img" style="{STYLE}">', described, background, *shapes, "</svg>", ""])


def arrange(circuit: Circuit) -> dict[int, dict[Signal, float]]:
    """By layer the height of each signal: columns are centred, and ordered by the mean height of what they read."""
    used = sorted({source for gate in circuit.gates for source in gate.inputs if source[0] == 0})
    columns: dict[int, list[Signal]] = {0: used}
    for gate in circuit.gates:
        columns.setdefault(gate.signal[0], []).append(gate.signal)
    reads = {gate.signal: gate.inputs for gate in circuit.gates}
    tallest = max(map(len, columns.values()))
    rows: dict[int, dict[Signal, float]] = {}
    heights: dict[Signal, float] = {}
    for layer in sorted(columns):
        signals = columns[layer]
        if 0 < layer < max(columns):  # inputs and outputs keep their order
            signals = sorted(signals, key=lambda signal: (mean([heights[source] for source in reads[signal]]), signal))
        first = EDGE + ROW * (tallest - len(signals)) / 2
        rows[layer] = {signal: first + ROW * number for number, signal in enumerate(signals)}
        heights |= rows[layer]
    return rows


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def draw_inputs(gate: Gate, places: dict[Signal, tuple[float, float]]) -> Iterator[str]:
    """Lines into a gate, in the order of their sources' heights so that they do not cross at its side."""
    x, y = places[gate.signal]
    right = x - BOX_WIDTH / 2
    wires = sorted(zip(gate.inputs, gate.inverted, strict=True), key=lambda wire: places[wire[0]][1])
    for number, (source, low) in enumerate(wires):
        from_x, from_y = places[source][0] + BOX_WIDTH / 2, places[source][1]
        at = y + BOX_HEIGHT * ((number + 0.5) / len(wires) - 0.5)
        end, bend = right - 6 * low, (right - from_x) / 2
        curve = f"M{from_x:g},{from_y:g} C{from_x + bend:g},{from_y:g} {right - bend:g},{at:g} {end:g},{at:g}"
        yield f'<path d="{curve}" fill="none" stroke="#555555" stroke-width="1"/>'
        if low:
            yield f'<circle cx="{right - 3:g}" cy="{at:g}" r="3" fill="#ffffff" stroke="#555555"/>'


def draw_box(centre: tuple[float, float], label: str, fill: str) -> list[str]:
    x, y = centre
    corner = f'x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
    return [f'<rect {corner} rx="5" fill="{fill}" stroke="#555555"/>', f'<text x="{x:g}" y="{y:g}">{escape(label)}</text>']


# Circuits as artefacts ------------------------------------------------------------------------------------------------------


def save_circuit(ctx: Any, net: LayeredNet) -> None:
    """Keep the circuit with the record as circuit.v, circuit.blif and circuit.svg; or log why it is too wide to be written."""
    try:
        circuit = read_circuit(net)
    except TooWide as exc:
        ctx.log(circuit=f"not written: {exc}")
        return
    ctx.log(circuit=circuit.counts())
    ctx.save("circuit.v", to_verilog(circuit).encode(), "text/plain")
    ctx.save("circuit.blif", to_blif(circuit).encode(), "text/plain")
    ctx.save("circuit.svg", to_svg(circuit).encode(), "image/svg+xml")
