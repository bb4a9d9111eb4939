"""How often a search closes its gap: `python -m harness_papers.boolean_rrr.rates` prints rows of the README's table.

10,000 iterations at most, gapstop 0.01, one search a seed. The median is over all seeds; one that stays open counts as more
than the iterations it had. A circuit is looked for every 500 iterations, as at the offers of a trial.
"""

from __future__ import annotations

import statistics
from types import SimpleNamespace

import numpy as np

from harness_papers.boolean_rrr import AutoencoderParams, MultiplierParams
from harness_papers.boolean_rrr.c_search import CSearch
from harness_papers.boolean_rrr.problem import BooleanProblem, LayeredNet, bit_share
from harness_papers.boolean_rrr.scoring import gate_share
from harness_papers.boolean_rrr.start import Settings, draw_start
from harness_papers.boolean_rrr.tasks import load_autoencoder, load_multiplier

STEPS, LOOK, GAPSTOP = 10_000, 500, 0.01


def main() -> None:
    """Raises NoCompiler where the C code cannot run: in torch this would take an hour."""
    for beta, gamma, sigma, seeds in ((0.2, 1e-3, 3, 40), (0.5, 1e-3, 3, 20), (0.2, 0.0, 3, 20), (0.5, 1e-3, 1000, 20)):
        report("multiplier", Settings(sigma, beta, gamma), seeds)
    for beta in (0.2, 0.5):
        report("autoencoder 8", Settings(3, beta, 1e-3), 20)


def report(task: str, settings: Settings, seeds: int) -> None:
    found = [search(problem_of(task, seed), settings, seed) for seed in range(seeds)]
    closed = [steps for steps, _, _ in found if steps <= STEPS]
    median = statistics.median(steps for steps, _, _ in found)
    shown = f"{median:,.0f}" if median <= STEPS else f"> {STEPS:,}"
    mean = f"{statistics.mean(closed):,.0f}" if closed else ""
    circuits, gates = sum(exact for _, exact, _ in found), statistics.mean(share for _, _, share in found)
    name = f"rrr, beta {settings.beta}, gamma {settings.gamma:g}, sigma {settings.sigma:g}"
    print(
        f"| {task} | {name} | {len(closed)} of {seeds} | {circuits} of {seeds} | {shown} | {mean} | {gates:.2f} |", flush=True
    )


def problem_of(task: str, seed: int) -> BooleanProblem:
    ctx = SimpleNamespace(rng=lambda name: np.random.default_rng([seed, 1]))
    instance = load_multiplier(MultiplierParams(), ctx) if task == "multiplier" else load_autoencoder(AutoencoderParams(), ctx)
    return instance.problem


def search(problem: BooleanProblem, settings: Settings, seed: int) -> tuple[float, bool, float]:
    """The iteration at which the gap closed, or inf; whether the weights gave every bit; the share of gates at the end."""
    found = CSearch(problem, settings, [draw_start(problem, np.random.default_rng([seed, 0]))])
    exact = False
    for done in range(0, STEPS, LOOK):
        below = found.advance(LOOK)[0] < GAPSTOP
        net = LayeredNet(found.weights(0))
        exact = exact or bit_share(net, problem.table) == 1
        if below.any():
            return done + 1 + int(below.argmax()), exact, gate_share(net.weights)
    return float("inf"), exact, gate_share(net.weights)


if __name__ == "__main__":
    main()
