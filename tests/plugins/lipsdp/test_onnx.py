"""ONNX files that users hand in: each node as onnx's own evaluator computes it, and files that are damaged or mean harm."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness_papers.lipsdp import examples
from harness_papers.lipsdp.importing import import_network
from harness_papers.lipsdp.onnx_files import MOST_BYTES
from harness_papers.lipsdp.sampling import forward

from harness import HarnessError
from harness.errors import MissingError
from lipsdp.conftest import normal

onnx = pytest.importorskip("onnx", reason="needs the extra `certify`")
reference = pytest.importorskip("onnx.reference")

ROUNDING = 1e-12  # float64; only the order of sums differs
FLOAT, INT = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
make, make_opset = onnx.helper.make_node, onnx.helper.make_opsetid


def model(nodes, shape=(1, 4), out="y", opset: int = 18, **constants):
    """A model from x to `out`; constants by name, float32 or int64."""
    weights = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", FLOAT, list(shape))],
        [onnx.helper.make_tensor_value_info(out, FLOAT, None)],
        weights,
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)


def w(seed: int, *shape: int) -> Any:
    return normal(seed, *shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


LINE, IMAGE = (1, 4), (1, 2, 5, 6)
# name: (nodes after which y flows, shape of x, constants, hidden sizes, activation)
NODES: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any], tuple[int, ...], str]] = {
    "gemm": ([make("Gemm", ["x", "a", "b"], ["y"])], LINE, {"a": w(1, 4, 3), "b": w(2, 3)}, (), "relu"),
    "gemm-scaled": (
        [make("Gemm", ["x", "a", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        LINE,
        {"a": w(1, 3, 4), "b": w(2, 1, 3)},
        (),
        "relu",
    ),
    "matmul-add-relu": (
        [
            make("MatMul", ["x", "a"], ["h"]),
            make("Add", ["b", "h"], ["i"]),
            make("Relu", ["i"], ["j"]),
            make("MatMul", ["j", "c"], ["y"]),
        ],
        LINE,
        {"a": w(1, 4, 5), "b": w(2, 5), "c": w(3, 5, 2)},
        (5,),
        "relu",
    ),
    "transposed-weight": (
        [make("Transpose", ["a"], ["t"], perm=[1, 0]), make("MatMul", ["x", "t"], ["y"])],
        LINE,
        {"a": w(1, 3, 4)},
        (),
        "relu",
    ),
    "arithmetic": (
        [
            make("Sub", ["x", "m"], ["h"]),
            make("Div", ["h", "s"], ["i"]),
            make("Sub", ["m", "i"], ["j"]),
            make("Mul", ["j", "s"], ["k"]),
            make("Neg", ["k"], ["l"]),
            make("Tanh", ["l"], ["y"]),
        ],
        LINE,
        {"m": w(1, 4), "s": w(2, 1, 4)},
        (4,),
        "tanh",
    ),
    "leaky": ([make("LeakyRelu", ["x"], ["h"]), make("Gemm", ["h", "a"], ["y"])], LINE, {"a": w(1, 4, 3)}, (4,), "leaky_relu"),
    "nothing": (
        [
            make("Identity", ["x"], ["h"]),
            make("Dropout", ["h"], ["i"]),
            make("Cast", ["i"], ["j"], to=FLOAT),
            make("Sigmoid", ["j"], ["y"]),
        ],
        LINE,
        {},
        (4,),
        "sigmoid",
    ),
    "conv": (
        [
            make("Conv", ["x", "a", "b"], ["h"], strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2]),
            make("Relu", ["h"], ["i"]),
            make("Flatten", ["i"], ["j"]),
            make("Gemm", ["j", "c"], ["y"]),
        ],
        IMAGE,
        {"a": w(1, 3, 2, 3, 2), "b": w(2, 3), "c": w(3, 45, 2)},
        (45,),
        "relu",
    ),
    "conv-in-groups": (
        [make("Conv", ["x", "a"], ["y"], group=2, auto_pad="SAME_UPPER", strides=[2, 2])],
        IMAGE,
        {"a": w(1, 4, 1, 3, 4)},
        (),
        "relu",
    ),
    "conv-same-lower": ([make("Conv", ["x", "a"], ["y"], auto_pad="SAME_LOWER")], IMAGE, {"a": w(1, 4, 2, 2, 4)}, (), "relu"),
    "conv-1d": ([make("Conv", ["x", "a"], ["y"], auto_pad="VALID")], (1, 2, 7), {"a": w(1, 3, 2, 3)}, (), "relu"),
    "pool": (
        [make("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])],
        IMAGE,
        {},
        (),
        "relu",
    ),
    "pool-counted": (
        [make("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1)],
        IMAGE,
        {},
        (),
        "relu",
    ),
    "pool-all": (
        [make("GlobalAveragePool", ["x"], ["h"]), make("Squeeze", ["h", "axes"], ["y"])],
        IMAGE,
        {"axes": ints(2, 3)},
        (),
        "relu",
    ),
    "normalised": (
        [make("BatchNormalization", ["x", "g", "s", "m", "v"], ["y"], epsilon=0.1)],
        IMAGE,
        {"g": w(1, 2), "s": w(2, 2), "m": w(3, 2), "v": abs(w(4, 2))},
        (),
        "relu",
    ),
    "reshaped": (
        [make("Reshape", ["x", "to"], ["h"]), make("Unsqueeze", ["h", "axes"], ["i"]), make("Reshape", ["i", "flat"], ["y"])],
        IMAGE,
        {"to": ints(0, 5, -1), "axes": ints(2), "flat": ints(1, 60)},
        (),
        "relu",
    ),
    "shape-computed": (
        [
            make("Shape", ["x"], ["s"]),
            make("Gather", ["s", "zero"], ["n"]),
            make("Unsqueeze", ["n", "axes"], ["u"]),
            make("Concat", ["u", "rest"], ["to"], axis=0),
            make("Reshape", ["x", "to"], ["h"]),
            make("Tanh", ["h"], ["y"]),
        ],
        IMAGE,
        {"zero": np.array(0), "axes": ints(0), "rest": ints(-1)},
        (60,),
        "tanh",
    ),
    "top": (
        [
            make("Reshape", ["x", "to"], ["h"]),
            make("TopK", ["h", "k"], ["i", "unused"], largest=0),
            make("Reshape", ["i", "flat"], ["j"]),
            make("Gemm", ["j", "a"], ["y"]),
        ],
        (1, 6),
        {"to": ints(1, 2, 3), "k": ints(3), "flat": ints(1, 6), "a": w(1, 6, 2)},
        (6,),
        "groupsort",
    ),
    "top-of-channels": ([make("TopK", ["x", "k"], ["y", "unused"], axis=1)], IMAGE, {"k": ints(2)}, (60,), "groupsort"),
    "split-halves": (
        [
            make("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
            make("Max", ["b", "a"], ["c"]),
            make("Min", ["a", "b"], ["d"]),
            make("Concat", ["d", "c"], ["y"], axis=1),
        ],
        LINE,
        {},
        (4,),
        "groupsort",
    ),
    "slice-strides": (
        [
            make("Slice", ["x", "zero", "end", "axis", "two"], ["a"]),
            make("Slice", ["x", "one", "end", "axis", "two"], ["b"]),
            make("Max", ["a", "b"], ["c"]),
            make("Min", ["a", "b"], ["d"]),
            make("Concat", ["c", "d"], ["y"], axis=1),
        ],
        IMAGE,
        {"zero": ints(0), "one": ints(1), "end": ints(99), "axis": ints(1), "two": ints(2)},
        (60,),
        "groupsort",
    ),
}


@pytest.fixture
def written(tmp_path: Path):
    def write(made: Any, name: str = "net.onnx") -> str:
        (tmp_path / name).write_bytes(made.SerializeToString())
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("name", NODES)
def test_each_node_computes_what_onnx_computes(name, written):
    """Against onnx's evaluator in float32, at inputs of this test's own; the comparison at import is in float64."""
    nodes, shape, constants, hidden, activation = NODES[name]
    made = model(nodes, shape, **constants)

    found = import_network(written(made))

    assert (found.network.hidden, found.network.activation) == (hidden, activation)
    assert found.difference < (1e-8 if activation == "leaky_relu" else ROUNDING)  # float32's 0.01
    x = normal(9, *shape)
    (expected,) = reference.ReferenceEvaluator(made).run(None, {"x": x.astype(np.float32)})
    got = forward(found.network, x.reshape(1, -1))[0]
    np.testing.assert_allclose(got.ravel(), expected.ravel(), rtol=0, atol=1e-5 * max(abs(expected).max(), 1))  # float32


@pytest.mark.parametrize("name", ["relu_net", "maxmin_net", "convolutional_net"])
def test_what_torch_exports_is_the_same_network(name, tmp_path):
    """Two ways in, one network: the module, and the file that torch writes of it."""
    module, shape = getattr(examples, name)(), (1, 6, 6) if name.startswith("conv") else (8,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter which needs no further package is an old one
        torch.onnx.export(sorting_as_exported(module), (torch.zeros(1, *shape),), str(tmp_path / "net.onnx"), dynamo=False)

    read, same = (
        import_network(source, shape=shape).network
        for source in (str(tmp_path / "net.onnx"), f"harness_papers.lipsdp.examples:{name}")
    )

    assert (read.activation, read.group, read.hidden) == (same.activation, same.group, same.hidden)
    x = normal(3, 5, int(np.prod(shape)))
    np.testing.assert_allclose(forward(read, x)[0], forward(same, x)[0], rtol=0, atol=1e-12 * 10)


def sorting_as_exported(module):
    """MaxMin as Reshape, TopK, Reshape: what the README tells users to export."""
    for child in [name for name, m in module.named_children() if type(m).__name__ == "MaxMin"]:
        setattr(module, child, Sorting())
    return module


class Sorting(torch.nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], -1, 2).sort(-1, descending=True)[0].reshape(x.shape)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            [make("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], name="p")],
            {},
            r"node 'p' \(MaxPool\): not supported; a maximum is not",
        ),
        (
            [make("Softmax", ["x"], ["y"])],
            {},
            r"node 0 \(Softmax\): not supported; leave it out: export the network that gives logits",
        ),
        ([make("Erf", ["x"], ["y"], name="e")], {}, r"node 'e' \(Erf\): not supported; use Gemm, MatMul"),
        (
            [make("Relu", ["x"], ["h"]), make("Add", ["x", "h"], ["y"], name="skip")],
            {},
            r"node 'skip' \(Add\): .*skips or branches",
        ),
        (
            [make("Mul", ["x", "x"], ["y"])],
            {},
            r"\(Mul\): its input 1 must be a constant; a product of what flows is not affine",
        ),
        ([make("MatMul", ["x", "a"], ["y"])], {"a": w(1, 3, 4)}, r"\(MatMul\): .*only \(..., n\) times \(n, m\)"),
        ([make("Gemm", ["x", "a"], ["y"])], {"a": w(1, 5, 3)}, r"\(Gemm\): 4 numbers times a weight of shape \(5, 3\)"),
        ([make("Gemm", ["x", "a", "b"], ["y"])], {"a": w(1, 4, 3), "b": w(2, 7)}, r"\(Gemm\): its inputs do not fit together"),
        ([make("Div", ["a", "x"], ["y"])], {"a": w(1, 4)}, r"only a division by constants that are not 0"),
        ([make("Add", ["x", "a"], ["y"])], {"a": w(1, 3, 4)}, r"\(1, 4\) with \(3, 4\), which gives another shape"),
        ([make("LeakyRelu", ["x"], ["y"], alpha=0.3)], {}, r"\(LeakyRelu\): a leak of 0.3; only 0.01"),
        ([make("Relu", ["x"], ["h"]), make("Tanh", ["h"], ["y"])], {}, r"node 1 \(Tanh\): tanh .*must have one activation"),
        (
            [make("Dropout", ["x", "r", "t"], ["y"])],
            {"r": np.float32(0.5), "t": np.array(True)},
            r"\(Dropout\): in training mode",
        ),
        ([make("Cast", ["x"], ["y"], to=INT)], {}, r"\(Cast\): to a type that rounds what flows"),
        ([make("Flatten", ["x"], ["y"], axis=0)], {}, r"\(Flatten\): only axis=1 keeps the batch"),
        (
            [make("Reshape", ["x", "to"], ["y"])],
            {"to": ints(2, 2)},
            r"\(Reshape\): gives shape \(2, 2\); a batch of 1 must stay",
        ),
        ([make("Reshape", ["x", "to"], ["y"])], {"to": ints(1, 3)}, r"\(Reshape\): its inputs do not fit together"),
        ([make("TopK", ["x", "k"], ["y", "i"])], {"k": ints(2)}, r"\(TopK\): 2 of \(1, 4\) along axis 1; only a sort of all"),
        (
            [make("TopK", ["x", "k"], ["h", "i"]), make("Add", ["h", "i"], ["y"])],
            {"k": ints(4)},
            r"\(TopK\): its second output is used",
        ),
        (
            [
                make("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
                make("Max", ["a", "b"], ["c"]),
                make("Max", ["a", "b"], ["d"]),
                make("Concat", ["c", "d"], ["y"], axis=1),
            ],
            {},
            r"\(Concat\): not the maxima and the minima of the same pairs",
        ),
        (
            [make("Split", ["x"], ["a", "b"], axis=1, num_outputs=2), make("Relu", ["a"], ["y"])],
            {},
            r"\(Relu\): .*skips or branches",
        ),
        (
            [make("Identity", ["x"], ["a"])],
            {"a": w(1, 4)},
            r"\(Identity\): it gives 'a', a name that is taken",
        ),
        (
            [make("BatchNormalization", ["x", *"gsmv"], ["y", "mean", "var"])],
            dict.fromkeys("gsmv", abs(w(1, 4))),
            r"\(BatchNormalization\): in training mode",
        ),
        ([make("Tanh", ["x"], ["h"], domain="com.example")], {}, r"of the domain 'com.example'"),
        ([make("Relu", ["x"], ["h"])], {}, r"the output 'y' is not what the last node gives"),
        (
            [make("Relu", ["x"], ["y"])],
            {"a": np.array([np.nan], dtype=np.float32)},
            r"weight 'a': it holds numbers that are not finite",
        ),
    ],
)
def test_what_is_not_understood_is_named_with_node_type_and_mend(nodes, constants, message, written):
    """The node by its name, or its number where it has none."""
    path = written(model(nodes, **constants))

    with pytest.raises(HarnessError, match=message) as refused:
        import_network(path)
    assert str(refused.value).startswith(path)


FLAT, STEEP, EDGE = np.diag([1, 1, 0, 0]), np.diag([1, 1, 1000, 1000]), 1000.0


def halves(of: str, to: str) -> list[Any]:
    """MaxMin of the halves of a tensor, in two parts: its Split, and the rest."""
    a, b, c, d = (f"{to}-{i}" for i in range(4))
    last = [make("Max", [a, b], [c]), make("Min", [a, b], [d]), make("Concat", [c, d], [to], axis=1)]
    return [make("Split", [of], [a, b], axis=1, num_outputs=2), *last]


@pytest.mark.parametrize("between", [0, 1, 2, 3])
def test_parts_of_a_tensor_that_flows_no_more_are_not_taken_for_what_flows(between, written):
    """The file sorts h, which is 1000 times as steep where an input is below -1000; to sort i, as flat as it looks, is a lie.

    No random input shows it. Read wrongly, the norm product was 2.
    """
    edge = np.array([0, 0, -EDGE, -EDGE], dtype=np.float32)
    sorting = halves("h", "sorted")
    nodes = [
        make("Gemm", ["x", "wide", "edge"], ["f"]),
        *halves("f", "g"),
        make("Gemm", ["g", "steep", "back"], ["h"]),
        *sorting[: between + 1],
        make("Gemm", ["h", "flat", "edge"], ["i"]),
        *sorting[between + 1 :],
        make("Gemm", ["sorted", "sum"], ["y"]),
    ]
    constants = {"wide": np.eye(2, 4), "edge": edge, "steep": STEEP, "back": -999 * edge, "flat": FLAT, "sum": np.ones((4, 1))}
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    made = model(nodes, (1, 2), **constants)

    run = lambda *x: reference.ReferenceEvaluator(made).run(None, {"x": np.array([x], dtype=np.float32)})[0].item()  # noqa: E731
    assert abs(run(-3000, 0) - run(-2000, 0)) == 1000 * 1000
    with pytest.raises(HarnessError, match="which is not what the node before gives"):
        import_network(written(made))


def test_a_name_for_two_tensors_is_refused(written):
    """Which of the two a node takes is no matter of the file's; a part of what flows could be taken for a constant."""
    nodes = [make("Constant", [], ["k"], value_floats=[0.0]), make("Constant", [], ["k"], value_floats=[1.0])]
    with pytest.raises(HarnessError, match="'k', a name that is taken"):
        import_network(written(model([*nodes, make("Mul", ["x", "k"], ["y"])])))

    twice = model(GOOD, **WEIGHTS)
    twice.graph.initializer.append(twice.graph.initializer[0])
    with pytest.raises(HarnessError, match="a weight that is given twice"):
        import_network(written(twice))


def test_an_attribute_or_an_opset_for_two_is_refused(written):
    """Which of the two counts, a runtime decides."""
    scaled, both = model(GOOD, **WEIGHTS), model(GOOD, **WEIGHTS)
    scaled.graph.node[2].attribute.extend([onnx.helper.make_attribute("alpha", x) for x in (1.0, 1000.0)])
    both.opset_import.append(make_opset("ai.onnx", 7))

    for made, message in (
        (scaled, r"node 2 \(Gemm\): an attribute that is given twice"),
        (both, "opset 18 and 7, whose operators mean something else"),
    ):
        with pytest.raises(HarnessError, match=message):
            import_network(written(made))


def test_operators_that_mean_something_else_are_refused(written):
    """Old opsets, functions under the name of an operator, whole numbers: the types would be read for what they are not."""
    function = onnx.helper.make_function("", "Relu", ["a"], ["b"], [make("Neg", ["a"], ["b"])], [make_opset("", 18)])
    replaced, whole = model(GOOD, **WEIGHTS), model(GOOD, **WEIGHTS)
    replaced.functions.append(function)
    whole.graph.input[0].type.tensor_type.elem_type = INT

    for made, message in (
        (model(GOOD, opset=6, **WEIGHTS), "opset 6, whose operators mean something else; export it with 7"),
        (replaced, r"functions in place of ONNX's own \['Relu'\]"),
        (whole, "input 'x' holds no floating-point numbers"),
    ):
        with pytest.raises(HarnessError, match=message):
            import_network(written(made))


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((1, "n"), None, r"shape \[1, None\] is open; give it without the batch, as in --input-shape"),
        ((5, 4), None, r"a batch of 5; export the network with a batch of 1"),
        ((4,), None, r"a batch of 1 must be its first axis"),
        ((1, 4), (5,), r"of shape \[1, 4\], and \[5\] was asked for"),
        ((1, 1 << 40), None, r"the limit is"),
        ((1, -4), None, r"is open"),
    ],
)
def test_an_input_that_fits_no_network_is_said(shape, given, message, written):
    with pytest.raises(HarnessError, match=message):
        import_network(written(model([make("Relu", ["x"], ["y"])], shape)), shape=given)


def test_an_open_batch_and_a_shape_that_is_given_are_taken(written):
    """As exporters write them."""
    path = written(model([make("Relu", ["x"], ["y"])], ("batch", "features")))

    assert import_network(path, shape=(3,)).shape == (3,)
    assert import_network(written(model([make("Relu", ["x"], ["y"])], (None, 4)))).shape == (4,)


def test_two_inputs_or_outputs_are_refused(written):
    made = model([make("Relu", ["x"], ["y"])])
    made.graph.output.append(onnx.helper.make_tensor_value_info("x", FLOAT, None))

    with pytest.raises(HarnessError, match="1 inputs and 2 outputs; a network with one of each"):
        import_network(written(made))


# Files that are damaged, or mean harm ----------------------------------------------------------------------------------------


GOOD = [make("Gemm", ["x", "a", "b"], ["h"]), make("Relu", ["h"], ["i"]), make("Gemm", ["i", "c"], ["y"])]
WEIGHTS = {"a": w(1, 4, 6), "b": w(2, 6), "c": w(3, 6, 2)}


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path):
    """At every length: no traceback, and no network that is another one. Only the file's tail can be cut away without harm."""
    whole = model(GOOD, **WEIGHTS).SerializeToString()
    path, refused, read = tmp_path / "net.onnx", [], []
    for length in [*range(0, len(whole), 7), len(whole)]:
        path.write_bytes(whole[:length])
        try:
            found = import_network(str(path))
        except HarnessError as exc:
            refused.append(str(exc))
        else:
            read.append(found.network)

    assert len(refused) > 10 * len(read) > 0
    assert all(str(path) in said and "\n" not in said for said in refused)
    assert all(np.array_equal(a, b) for net in read for a, b in zip(net.weights, read[-1].weights, strict=True))


def test_random_damage_never_ends_in_a_traceback(tmp_path):
    """A hundred files with a few bytes turned: refused with a message, or a network of finite numbers."""
    whole = bytearray(model(GOOD, **WEIGHTS).SerializeToString())
    rng, path, read = np.random.default_rng(0), tmp_path / "net.onnx", 0
    for _ in range(100):
        damaged = whole.copy()
        for at in rng.integers(len(whole), size=3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read += all(np.isfinite(a).all() for a in import_network(str(path)).network.weights)
        except HarnessError:
            continue

    assert 0 < read < 100


def external(location: str, **said: object):
    """A model whose first weight is said to lie elsewhere."""
    made = model(GOOD, **WEIGHTS)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **said}.items():
        tensor.external_data.add(key=key, value=str(value))
    return made


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "below/../../secret", "", ".", "link", "a\0b"])
def test_data_outside_of_the_file_s_folder_are_never_read(location, tmp_path):
    """A network from elsewhere must not make this machine read what its sender may not: also not through a link."""
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(w(1, 4, 6).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "net.onnx").write_bytes(external(location, offset=0, length=96).SerializeToString())

    with pytest.raises(HarnessError, match="which is not below"):
        import_network(str(folder / "net.onnx"))


def test_data_beside_the_file_are_read(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "weights").write_bytes(b"12345678" + w(1, 4, 6).tobytes())
    (tmp_path / "net.onnx").write_bytes(external("below/weights", offset=8, length=96).SerializeToString())

    found = import_network(str(tmp_path / "net.onnx"))

    np.testing.assert_array_equal(found.network.weights[0], w(1, 4, 6).T)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"offset": 8, "length": 96}, "96 bytes at 8 of 'weights', which has 96"),
        ({"offset": -1}, "at -1 of"),
        ({"length": 1 << 60}, "which has 96"),
        ({"length": 40}, "its numbers are damaged"),
        ({"offset": "many"}, "cannot be read: invalid literal"),
    ],
)
def test_data_that_are_not_as_said_are_refused(said, message, tmp_path):
    (tmp_path / "weights").write_bytes(w(1, 4, 6).tobytes())
    (tmp_path / "net.onnx").write_bytes(external("weights", **said).SerializeToString())

    with pytest.raises(HarnessError, match=message):
        import_network(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize("dims", [(1 << 40, 4), (1 << 62, 1 << 62), (4, 7), (-4, -6), (0, 6)])
def test_a_weight_that_claims_a_giant_or_a_wrong_shape_takes_no_memory(dims, written):
    made = model(GOOD, **WEIGHTS)
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(dims)

    with pytest.raises(HarnessError, match=r"weight 'a': (shape|its numbers are damaged)|a weight of shape"):
        import_network(written(made))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([make("Conv", ["x", "a"], ["y"], pads=[1 << 30, 0, 0, 0])], {"a": w(1, 1, 1, 1, 1)}),
        ([make("AveragePool", ["x"], ["y"], kernel_shape=[1, 1], pads=[1 << 30, 0, 0, 0])], {}),
        ([make("Conv", ["x", "a"], ["y"])], {"a": w(1, 8, 1, 1, 1)}),
    ],
)
def test_layers_too_large_to_hold_are_refused_before_they_are_made(nodes, constants, written):
    """64 x 64 pixels: the input itself fits."""
    with pytest.raises(HarnessError, match="the limit is 67108864"):
        import_network(written(model(nodes, (1, 1, 64, 64), **constants)))


def test_constants_that_multiply_are_refused_before_they_are_made(written):
    """Twenty nodes that each gather all of the last one for each of a thousand would fill any memory."""
    nodes = [make("Gather", ["a" if i == 0 else f"g{i}", "i"], [f"g{i + 1}"]) for i in range(20)]

    with pytest.raises(HarnessError, match=r"\(Gather\): constants of \[\d+, 1000\] numbers; the limit is"):
        import_network(written(model(nodes, a=w(1, 4), i=np.zeros((10, 100), dtype=np.int64))))


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text(json.dumps({"not": "a network"}))
    (tmp_path / "empty.onnx").write_bytes(b"")
    with (tmp_path / "sparse.onnx").open("wb") as file:
        file.truncate(MOST_BYTES + 1)

    for name, message in (("text", "this is no ONNX file"), ("empty", "it holds no network"), ("sparse", "the limit is")):
        with pytest.raises(HarnessError, match=message):
            import_network(str(tmp_path / f"{name}.onnx"))
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(HarnessError, match="cannot be read: Is a directory"):
        import_network(str(tmp_path / "folder.onnx"))


def test_without_onnx_its_mend_is_said(written, monkeypatch):
    path = written(model(GOOD, **WEIGHTS))
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(MissingError, match=r"pip install 'paper-harness-papers\[certify\]'"):
        import_network(path)
