"""The tasks of the track `certify`: which network, what is held back, and the score."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Instance, Invalid, Unsupported
from harness_papers.lipsdp.activations import GROUPED
from harness_papers.lipsdp.problems import Array, LipschitzBound, Network, network
from harness_papers.lipsdp.sampling import steepest_pair
from harness_papers.lipsdp.verify import norm_product, pair_quotient, prove

if TYPE_CHECKING:
    from harness_papers.lipsdp.nets import NetParams, RandomNet, TrainedNet


def load_random_net(params: RandomNet, ctx: Any) -> Instance:
    """A net of N(0, 1/inputs) weights and zero biases. draw="card": default_rng(0), points from default_rng(1)."""
    card = params.draw == "card"
    rng = np.random.default_rng(0) if card else ctx.rng("net")
    drawn = orthogonal_weights if params.weights == "orthogonal" else normal_weights
    net = make_network(drawn(params.sizes, rng), None, params)
    points = np.random.default_rng(1) if card else ctx.rng("held/points")
    return instance(net, points.standard_normal((params.samples, params.sizes[0])))


def normal_weights(sizes: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Weights drawn layer by layer, (outputs, inputs) / sqrt(inputs)."""
    return [rng.standard_normal((outputs, inputs)) / np.sqrt(inputs) for inputs, outputs in pairwise(sizes)]


def orthogonal_weights(sizes: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Square orthogonal matrices: the Q of normal ones."""
    return [np.linalg.qr(rng.standard_normal((size, size)))[0] for size in sizes[1:]]


def random_network(sizes: tuple[int, ...], rng: np.random.Generator, activation: str) -> Network:
    return network(normal_weights(sizes, rng), activation=activation)


def make_network(weights: list[Array], biases: list[Array] | None, params: NetParams) -> Network:
    """With the activation, the norm and the outputs that the task's parameters ask for."""
    rows = params.rows or len(weights[-1])
    if rows > len(weights[-1]):
        raise Unsupported(f"rows={params.rows}: the net has {len(weights[-1])} outputs")
    shifts = None if biases is None else [*biases[:-1], biases[-1][:rows]]
    group = params.group if params.activation in GROUPED else None
    if params.activation == "householder" and params.group != 2:
        raise Unsupported("householder: its directions are (1, -1), in groups of 2; use groupsort for larger groups")
    return network([*weights[:-1], weights[-1][:rows]], shifts, params.activation, group=group, norm=params.norm)


def load_trained_net(params: TrainedNet, ctx: Any) -> Instance:
    """An MLP trained on images (`recipes`), once per seed. Held points: N(0, 1), and the same around the training images."""
    made = ctx.derive(
        "harness_papers.lipsdp.recipes:train_mlp",
        data_set=params.data,
        depth=params.depth,
        width=params.width,
        activation=params.activation,
        group=params.group if params.activation in GROUPED else 1,
        epochs=params.epochs,
    )
    arrays = {name: tensor.double().cpu().numpy() for name, tensor in made.items()}
    weights, biases = ([arrays[f"{what}.{k}"] for k in range(params.depth)] for what in ("weight", "bias"))
    net = make_network(weights, biases, params)
    rng = ctx.rng("held/points")
    noise = rng.standard_normal((params.samples, net.weights[0].shape[1]))
    images = arrays["points"][rng.integers(len(arrays["points"]), size=params.samples // 2)]
    noise[: len(images)] = images + 0.5 * noise[: len(images)]
    return instance(net, noise)


def instance(net: Network, points: Array) -> Instance:
    """The network to certify; held: the same network, and the pair of points that no upper bound may contradict."""
    pair = steepest_pair(net, points)
    if pair_quotient(net, pair) == 0.0:
        raise Unsupported("the network does not change on any held point: there is no lower bound to compare with")
    return Instance(problem=net, held={"test": {"network": net, "pair": pair}})


def score(held: dict[str, Any], solution: LipschitzBound, params: Any, ctx: Any) -> dict[str, float]:
    """What the solution's evidence proves, never what it claims.

    bound: the proved upper bound; a solution that proves none is given the norm product, which needs no proof, so a lower
    bound can never lead. lower_bound: the proved lower bound; 0 for a solution that proves none. tightness: bound over the
    slope between the two held points. certified: 1 where an upper bound was proved. repair: by how much the proof missed the
    claim, relative.
    Raises Invalid where the claim contradicts the held points, or where the evidence does not prove it (see `verify.prove`).
    """
    net: Network = held["network"]
    reached = pair_quotient(net, held["pair"])
    proof = prove(net, solution)
    upper = proof.kind == "upper"
    if upper and min(proof.bound, float(solution.bound)) < reached * (1.0 - 1e-9):
        raise Invalid(f"claims the upper bound {float(solution.bound)!r}, but two points have a slope of {reached!r}")
    bound = proof.bound if upper else norm_product(net)
    return {
        "bound": bound,
        "tightness": bound / reached,
        "lower_bound": 0.0 if upper else proof.bound,
        "certified": 1.0 if upper else 0.0,
        "repair": proof.repair,
    }
