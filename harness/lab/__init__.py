"""The laboratory, for plugin authors: reference nets built around components, and the reference learner. Imports torch."""

from harness.errors import Diverged, Invalid, Unsupported
from harness.lab.capture import Moments, layer_moments
from harness.lab.component import ComponentUse, Place
from harness.lab.cost import cost_component, cost_regressor, count_params, count_step, forward_flops, train_flops
from harness.lab.flops import FlopCount
from harness.lab.inference import time_inference
from harness.lab.init import init_net
from harness.lab.layers import ACTIVATIONS, Conv, Linear, PerToken, Slot, make_activation, make_norm
from harness.lab.learner import fit, train_component
from harness.lab.native import NoCompiler
from harness.lab.nets import build_net
from harness.lab.probes import batch_dependence
from harness.lab.problems import Classify, Predictor, Regress, Regressor
from harness.lab.solution import NetSolution, eval_mode
from harness.nets import Net, Train

__all__ = [
    "ACTIVATIONS", "Classify", "ComponentUse", "Conv", "Diverged", "FlopCount", "Invalid", "Linear", "Moments", "Net",
    "NetSolution", "NoCompiler",
    "PerToken", "Place", "Predictor", "Regress", "Regressor", "Slot", "Train", "Unsupported", "batch_dependence", "build_net",
    "cost_component", "cost_regressor", "count_params", "count_step",
    "eval_mode", "fit", "forward_flops", "init_net", "layer_moments", "make_activation",
    "make_norm", "time_inference", "train_component", "train_flops",
]  # fmt: skip
