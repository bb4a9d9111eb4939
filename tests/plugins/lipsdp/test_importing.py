"""Networks that users hand in as modules: what is read is the module, and what is not understood is named."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from harness_papers.lipsdp import examples, method, verify
from harness_papers.lipsdp.importing import compared, import_network
from harness_papers.lipsdp.lowering import MOST_ENTRIES, Affine, Elementwise, lower, reshaped
from harness_papers.lipsdp.problems import Bound, PointPair, SlopeVertices, network
from harness_papers.lipsdp.sampling import forward
from harness_papers.lipsdp.verify import pair_quotient, prove
from torch import nn

from harness import HarnessError
from lipsdp.conftest import card_net, normal

ROUNDING = 1e-12  # float64 on nets of a few small layers; only the order of sums differs
MODULES = '''
import torch
from torch import nn
from torch.nn import functional as F

class Halves(nn.Module):
    """MaxMin as many write it: maxima of both halves, then minima."""
    certify_as = "groupsort"
    def forward(self, x):
        a, b = x.chunk(2, 1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)

class Triples(nn.Module):
    """Ascending, three neighbours."""
    def forward(self, x):
        return x.reshape(len(x), -1, 3).sort(-1)[0].reshape(x.shape)

class MaxMin(nn.Module):
    """Says that it sorts, and does not."""
    def forward(self, x):
        return x.abs()

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        self.register_buffer("mean", torch.arange(6.0))
    def forward(self, x):
        x = (x - self.mean) / 2.0
        x = torch.tanh(self.a(x.view(x.size(0), -1)) * 3.0 + 1.0)
        return 1.0 - self.c(torch.tanh(self.b(x)))

class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.two, self.pool, self.sort = nn.Conv2d(6, 4, (1, 3), groups=2, dilation=(1, 2)), nn.AdaptiveAvgPool2d(1), Halves()
        self.end = nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            self.norm.running_mean.normal_(); self.norm.running_var.uniform_(0.5, 2.0); self.norm.weight.normal_()
    def forward(self, x):
        x = self.sort(self.two(self.sort(self.norm(self.one(x)))))
        return self.end(self.pool(x).flatten(1))

class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
    def forward(self, x):
        return x + F.relu(self.a(x))

class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

class Twice(nn.Linear):
    """Computes something else than the class it is made from."""
    def forward(self, x):
        return super().forward(x) * 2

class Computed(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight * self.weight)

def seq(*layers):
    torch.manual_seed(3)
    return nn.Sequential(*layers)

plain = lambda: seq(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 5), nn.Identity(), nn.ReLU(), nn.Linear(5, 3))
leaky = lambda: seq(nn.Linear(4, 6), nn.LeakyReLU(), nn.Linear(6, 5))
ends_bent = lambda: seq(nn.Sigmoid(), nn.Linear(4, 6), nn.Sigmoid())
linear = lambda: seq(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
halves = lambda: seq(nn.Linear(4, 6), Halves(), nn.Linear(6, 6), Halves(), nn.Linear(6, 2))
triples = lambda: seq(nn.Linear(4, 6), Triples(), nn.Linear(6, 6), Triples(), nn.Linear(6, 2))
pooled = lambda: seq(nn.Conv1d(2, 3, 3, padding="same"), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(12, 2))
twice = lambda: seq(nn.Linear(4, 3), nn.ReLU(), Twice(3, 3))
ready = plain()

mixed = lambda: seq(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
steep = lambda: seq(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 2))
maximum = lambda: seq(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
softmax = lambda: seq(nn.Linear(4, 3), nn.Softmax(1))
circular = lambda: seq(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"))
false = lambda: seq(nn.Linear(4, 6), MaxMin(), nn.Linear(6, 2))
large = lambda: seq(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))
computed = lambda: seq(nn.Linear(4, 3), Computed(3, 3))
statistics = lambda: seq(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))

def steep_far_away(x):
    return torch.where(x > 1e4, 100 * (x - 1e4) + 1e4, x)

def hooked(where="1", kind="forward_hook"):
    net = plain()
    change = (lambda m, i, o: steep_far_away(o)) if kind == "forward_hook" else lambda m, i: (steep_far_away(i[0]),)
    getattr(net.get_submodule(where), f"register_{kind}")(change)
    return net

after_relu, before_linear = hooked, lambda: hooked("3", "forward_pre_hook")
after_all, before_all = lambda: hooked(""), lambda: hooked("", "forward_pre_hook")

def replaced(where="1", name="forward", net=None):
    net = net or plain()
    one = net.get_submodule(where)
    was = getattr(one, name)
    setattr(one, name, lambda *given: steep_far_away(was(*given)))
    return net

replaced_relu, replaced_all = replaced, lambda: replaced("")
replaced_conv = lambda: replaced("0", "_conv_forward", pooled())

class Called(nn.Sequential):
    def __call__(self, x):
        return steep_far_away(super().__call__(x))

called = lambda: Called(*plain())
def quietly(make):
    """Without torch's warnings."""
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()

compiled = lambda: quietly(lambda: torch.compile(plain()))
old_weight_norm = lambda: quietly(lambda: seq(nn.utils.weight_norm(nn.Linear(4, 3))))

def pruned():
    from torch.nn.utils import prune
    net = plain()
    prune.l1_unstructured(net[0], "weight", 0.5)
    return net

def made_permanent():
    from torch.nn.utils import prune
    net = pruned()
    prune.remove(net[0], "weight")
    return net

class Counts(nn.Module):
    """A buffer that each call changes, and that no checkpoint keeps."""
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
    def forward(self, x):
        self.calls += 1
        return self.a(x)

class Trains(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)
    def train(self, mode=True):
        return super().train(True)
    def forward(self, x):
        return self.a(x)

class Drops(nn.Linear):
    def forward(self, x):
        return F.dropout(super().forward(x), 1e-12)

class Leaks(nn.Linear):
    def forward(self, x):
        return F.leaky_relu(super().forward(x) + 1e9, x.size(1) / 4)

class Divides(nn.Linear):
    """By whole numbers, whose inverse torch would round to float32."""
    def __init__(self):
        super().__init__(4, 3)
        self.register_buffer("by", torch.tensor([3, 7, 11]))
    def forward(self, x):
        return super().forward(x) / self.by

old_spectral_norm = lambda: seq(nn.utils.spectral_norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2))
parametrised = lambda: seq(
    nn.utils.parametrizations.spectral_norm(nn.Conv1d(2, 3, 3)), nn.ReLU(), nn.Flatten(),
    nn.utils.parametrizations.weight_norm(nn.Linear(18, 2)))
traced = lambda: torch.fx.symbolic_trace(plain())

def tied():
    net = seq(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    net[2].weight = net[0].weight
    return net

def compiled_inside():
    net = plain()
    quietly(net[0].compile)
    return net

def uncopied():
    """A tensor in the middle of a graph, which cannot be copied."""
    net = plain()
    net[0].spare = net[0].weight * 2
    return net

halved = lambda: plain().half()

def cancel():
    """The identity: 1e17 + x - 1e17, whose sum in float64 is 0."""
    net = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1e17], [1.0], [1e17]]))
        net[1].weight.copy_(torch.tensor([[1.0, 1.0, -1.0]]))
    return net

def filled(number, *sizes):
    linear = lambda size: nn.Linear(*size, bias=False, dtype=torch.float64)
    net = quietly(lambda: seq(*(layer for size in sizes for layer in (linear(size), nn.ReLU()))))
    with torch.no_grad():
        net[0].weight.fill_(number)
    return net

tiny, huge, endless = (lambda number=number: filled(number, (2, 3), (3, 2)) for number in (1e-200, 1e200, float("nan")))
empty, silent = lambda: filled(1.0, (2, 3), (3, 0), (0, 1)), lambda: filled(1.0, (2, 3), (3, 0))
nothing_in = lambda: filled(1.0, (0, 2))

drops, leaks = lambda: Drops(4, 3), lambda: Leaks(4, 3)

fails = lambda: 1 / 0
nothing = lambda: 3
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of the user's with a module of networks, as the working folder; the module itself."""
    (tmp_path / "usernets.py").write_text(MODULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    sys.modules.pop("usernets", None)
    with torch.random.fork_rng():
        yield "usernets"
    sys.modules.pop("usernets", None)


@pytest.mark.parametrize(
    ("name", "shape", "hidden", "activation", "group"),
    [
        ("plain", None, (6, 5), "relu", 1),
        ("ready", None, (6, 5), "relu", 1),  # a module, not a function that makes one
        ("twice", None, (3,), "relu", 1),
        ("leaky", None, (6,), "leaky_relu", 1),
        ("ends_bent", (4,), (4, 6), "sigmoid", 1),
        ("linear", None, (), "relu", 1),
        ("halves", None, (6, 6), "groupsort", 2),
        ("pooled", (2, 8), (24,), "relu", 1),
        ("old_spectral_norm", None, (6,), "relu", 1),
        ("parametrised", (2, 8), (18,), "relu", 1),
        ("made_permanent", None, (6, 5), "relu", 1),
        ("traced", (4,), (6, 5), "relu", 1),
        ("tied", None, (4, 4), "relu", 1),
        ("compiled_inside", None, (6, 5), "relu", 1),
        ("halved", None, (6, 5), "relu", 1),
        ("Divides", (4,), (), "relu", 1),
        ("Functional", (6,), (5, 4), "tanh", 1),
        ("Image", (2, 7, 12), (144, 32), "groupsort", 2),
    ],
)
def test_what_is_read_of_a_module_is_the_module(name, shape, hidden, activation, group, nets):
    """Against the module itself in float64, at inputs of this test's own."""
    found = import_network(f"{nets}:{name}", shape=shape)
    net = found.network

    assert (net.hidden, net.activation, net.group, net.norm) == (hidden, activation, group, "l2")
    made = getattr(sys.modules[nets], name)
    torch.manual_seed(3)
    module = (made if isinstance(made, nn.Module) else made()).double().eval()
    x = normal(5, 7, *found.shape)
    if isinstance(made, type):  # its weights are drawn anew: only what is fixed by the shape can be compared
        assert found.difference < ROUNDING
    else:
        expected = module(torch.as_tensor(x)).detach().numpy().reshape(7, -1)
        np.testing.assert_allclose(forward(net, x.reshape(7, -1))[0], expected, rtol=0, atol=ROUNDING * abs(expected).max())


def test_a_class_that_sorts_is_named_or_says_so_itself(nets):
    """Which groups, and in which order, is found out."""
    found = import_network(f"{nets}:triples", sorting=["Triples"])

    assert (found.network.activation, found.network.group) == ("groupsort", 3)
    assert found.difference < ROUNDING
    assert import_network(f"{nets}:triples", sorting=["Triples"], group=3).network.group == 3
    with pytest.raises(HarnessError, match=r"layer '1' \(Triples\): it does not sort groups of 2"):
        import_network(f"{nets}:triples", sorting=["Triples"], group=2)


@pytest.mark.parametrize("name", ["relu_net", "maxmin_net", "convolutional_net"])
def test_the_examples_that_the_help_names_can_be_read(name):
    shape = (1, 6, 6) if name.startswith("conv") else None
    found = import_network(f"harness_papers.lipsdp.examples:{name}", shape=shape, norm="linf")

    assert found.difference < ROUNDING
    assert found.network.norm == "linf"
    assert torch.equal(*(getattr(examples, name)().state_dict()["0.weight"] for _ in range(2)))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mixed", None, r"layer '3' \(Tanh\): tanh .* after layer '1' \(ReLU\), which is relu .*must have one activation"),
        ("steep", None, r"layer '1' \(LeakyReLU\): a leak of 0.2; only 0.01"),
        ("maximum", (1, 6, 6), r"layer '1' \(MaxPool2d\): not supported; a maximum is not affine; use AvgPool2d"),
        ("softmax", None, r"layer '1' \(Softmax\): not supported; leave it out and certify the logits"),
        ("circular", (1, 6, 6), r"layer '0' \(Conv2d\): padding_mode='circular'"),
        ("false", None, r"layer '1' \(MaxMin\): it does not sort groups of one size"),
        ("triples", None, r"torch.fx cannot trace its forward: .*name a class that sorts groups \(--sorting-class\)"),
        ("large", (3, 224, 224), r"150528 x 150528 numbers, and the limit is 67108864; certify a smaller network"),
        ("Skip", (4,), r"layer 'add' \(add\): it joins or leaves the chain of layers; skips and branches are not supported"),
        ("Branches", (4,), r"Branches: torch.fx cannot trace its forward: .*export it to ONNX"),
        ("statistics", None, r"layer '1' \(BatchNorm1d\): it keeps no running statistics"),
        ("pooled", None, r"the input's shape is not known; .*--input-shape 1,28,28"),
        ("pooled", (3, 8), r"it cannot run on an input of shape \(1, \(3, 8\)\)"),
        ("computed", None, r"layer 'mul' \(mul\): it computes weights in forward; keep what it gives as a buffer"),
        ("after_relu", None, r"layer '1' \(ReLU\): a hook that may change what it computes: hooked.<locals>.<lambda>; remove"),
        ("before_linear", None, r"layer '3' \(Linear\): a hook"),
        ("after_all", None, r"Sequential: a hook"),
        ("before_all", None, r"Sequential: a hook"),
        ("replaced_relu", None, r"layer '1' \(ReLU\): its 'forward' was replaced; write it as `forward` of a class"),
        ("replaced_all", None, r"Sequential: its 'forward' was replaced"),
        ("replaced_conv", (2, 8), r"layer '0' \(Conv1d\): its '_conv_forward' was replaced"),
        ("called", None, r"Called: its '__call__' was replaced"),
        ("compiled", None, r"OptimizedModule: compiled; give the module that torch.compile was given"),
        ("old_weight_norm", None, r"layer '0' \(Linear\): a hook .*: WeightNorm; .*use torch.nn.utils.parametrizations"),
        ("pruned", None, r"layer '0' \(Linear\): a hook .*: L1Unstructured; remove it \(prune.remove"),
        ("Counts", None, r"usernets:Counts: its forward changes 'calls'; a network that changes as it is used"),
        ("Trains", None, r"layer '' \(Trains\): it stays in training mode after eval\(\)"),
        ("drops", (4,), r"layer 'dropout' \(dropout\): in training mode; write functional.dropout\(x, p, self.training\)"),
        ("leaks", (4,), r"layer 'leaky_relu' \(leaky_relu\): its negative_slope is computed; write a number"),
        (
            "cancel",
            None,
            r"layer '1' \(Linear\): large numbers cancel where it is folded with the layers before it, and more than 1e-09 of",
        ),
        ("tiny", None, r"layer '0' \(Linear\): its numbers, .* hold 1e-200; 0 and 1e-120 to 1e\+120 can be certified"),
        ("huge", None, r"layer '0' \(Linear\): its numbers, .* hold 1e\+200"),
        ("endless", None, r"layer '0' \(Linear\): its numbers, .* hold nan"),
        ("empty", None, r"layer '2' \(Linear\): shape \(3,\) to \(0,\) holds no number; give each layer at least one unit"),
        ("silent", None, r"layer '2' \(Linear\): shape \(3,\) to \(0,\) holds no number"),
        ("nothing_in", None, r"the input: shape \(0,\) to \(0,\) holds no number"),
        ("uncopied", None, r"usernets:uncopied: RuntimeError: Only Tensors created explicitly .*deepcopy"),
        ("fails", None, r"usernets:fails: ZeroDivisionError: division by zero; it must import"),
        ("nothing", None, r"usernets:nothing: it gave a int; give a torch.nn.Module"),
        ("absent", None, r"usernets:absent: AttributeError"),
    ],
)
def test_what_is_not_understood_is_named_with_the_mend(name, shape, message, nets):
    """The layer by its name in the module, its type, and what to do."""
    with pytest.raises(HarnessError, match=message):
        import_network(f"{nets}:{name}", shape=shape)


def test_a_hook_on_all_modules_is_refused(nets):
    """It would change what is compared, and what is read, or neither, as its author likes."""
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, given, made: made)
    try:
        with pytest.raises(HarnessError, match="a hook on all modules"):
            import_network(f"{nets}:plain")
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module_anywhere:make", "ModuleNotFoundError"),
        ("nowhere", "no such file; name an ONNX file, or module:callable"),
        ("nowhere.onnx", "nowhere.onnx: cannot be read: No such file"),
    ],
)
def test_a_source_that_is_not_there_is_said(source, message):
    with pytest.raises(HarnessError, match=message):
        import_network(source)


def test_a_network_that_differs_from_its_original_is_refused():
    """The comparison sees a sign, a permutation and a shift, also beside a large constant."""
    net = card_net("4-6-3")
    right = lambda x: forward(net, x.reshape(1, -1))[0]  # noqa: E731
    assert compared(net, "net", (4,), right).difference < ROUNDING

    for wrong in (
        network([-net.weights[0], net.weights[1]]),
        network([net.weights[0][[1, 0, 2, 3, 4, 5]], net.weights[1]]),
        network(list(net.weights), [np.zeros(6), np.full(3, 1e-3)]),
    ):
        with pytest.raises(HarnessError, match="what was read of it differs from it at random inputs"):
            compared(wrong, "net", (4,), right)
    large = network(list(net.weights), [np.zeros(6), np.full(3, 1e6)])
    with pytest.raises(HarnessError, match="differs"):
        compared(large, "net", (4,), lambda x: right(x) * 1.01 + 1e6)


def test_a_float32_leak_is_counted_as_what_it_is():
    """0.01 in float32 lies below 0.01: slopes from 0.01 on would not hold for it."""
    net = lower([Elementwise("x", "leaky_relu", float(np.float32(0.01))), reshaped("y", (2,))], (2,))

    assert net.alpha == float(np.float32(0.01)) < 0.01
    pair = PointPair(-np.ones(2), -3 * np.ones(2))
    assert 0.999 * net.alpha < pair_quotient(net, pair) <= net.alpha
    with pytest.raises(HarnessError, match=r"a leak of 0.0100001; only 0.01"):
        lower([Elementwise("x", "leaky_relu", 0.0100001), reshaped("y", (2,))], (2,))


def by(*rows: list[float]) -> Affine:
    weight = torch.tensor(rows, dtype=torch.float64)
    return Affine("by", (len(rows),), nn.functional.linear, weight=weight, products=weight.shape[1])


def exact_product(*factors: list[list[float]]) -> list[list[Fraction]]:
    """The first factor is the last layer."""
    made = [[Fraction(x) for x in row] for row in factors[0]]
    for factor in factors[1:]:
        made = [
            [sum(x * Fraction(y) for x, y in zip(row, column, strict=True)) for column in zip(*factor, strict=True)]
            for row in made
        ]
    return made


@pytest.mark.parametrize("size", [1.0, 30.0, 1e3])
def test_what_folding_rounds_is_told_beside_the_matrix(size):
    """Against rational arithmetic: terms of up to 1e6 that leave about 1."""
    rng = np.random.default_rng(0)
    first, second, third = (rng.standard_normal(shape) * size**0.5 for shape in ((6, 3), (5, 6), (2, 5)))
    second[:, 3:] = -second[:, :3]
    first[3:] = first[:3] + rng.standard_normal((3, 3)) / size
    factors = [matrix.tolist() for matrix in (third, second, first)]

    net = lower([by(*rows) for rows in reversed(factors)], (3,))

    exact = exact_product(*factors)
    missed = sum(
        (Fraction(x) - y) ** 2 for a, b in zip(net.weights[0].tolist(), exact, strict=True) for x, y in zip(a, b, strict=True)
    )
    ((lost, of_bias),) = net.lost
    assert 0 < missed <= Fraction(lost) ** 2
    assert lost < 1e-9 * np.linalg.norm(net.weights[0])
    assert of_bias == 0.0


def test_a_layer_alone_is_what_it_is():
    """Nothing is multiplied, so nothing is lost: bounds of plain networks stay as they are."""
    assert lower([by([0.1, 0.3]), reshaped("y", (1, 1))], (2,)).lost == ((0.0, 0.0),)
    assert import_network("harness_papers.lipsdp.examples:relu_net").network.lost == ((0.0, 0.0),) * 3


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_bounds_of_a_folded_network_hold_for_its_layers(norm):
    """One number to one: the slopes of both sides of 0, in rational arithmetic, lie between what is proved."""
    rng = np.random.default_rng(1)
    shares, ends = rng.standard_normal(40), [rng.standard_normal(2).tolist()]
    first = [[x] for x in (1e3 * shares).tolist()]
    second = [(shares / 1e3).tolist(), rng.standard_normal(40).tolist()]
    second[1][-1] -= exact_sum(second[1], shares) / shares[-1]  # cancels to 1e-13 or so of its terms
    net = lower([by(*first), by(*second), Elementwise("relu", "relu"), by(*ends)], (1,), norm)

    slopes = [row[0] for row in exact_product(second, first)]
    right = sum(Fraction(w) * max(s, 0) for w, s in zip(ends[0], slopes, strict=True))
    left = sum(Fraction(w) * min(s, 0) for w, s in zip(ends[0], slopes, strict=True))
    constant = max(abs(right), abs(left))
    vertices = prove(net, Bound(method.largest_over_patterns(net) * (1 + 1e-12), "upper", SlopeVertices())).bound
    points = [PointPair(np.zeros(1), np.array([x])) for x in (1.0, -1.0)]
    slope = max(prove(net, Bound(pair_quotient(net, pair), "lower", pair)).bound for pair in points)

    assert slope <= constant <= vertices
    assert slope > float(constant) * (1 - 1e-9)
    bare = replace(net, lost=())
    assert slope < max(pair_quotient(bare, pair) for pair in points)
    assert vertices > verify.vertex_maximum(bare, SlopeVertices())


def exact_sum(one, other) -> float:
    return float(sum(Fraction(x) * Fraction(y) for x, y in zip(one, other, strict=True)))


def test_the_limit_is_what_the_message_says():
    assert MOST_ENTRIES == 67108864
