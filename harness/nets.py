"""The reference net and the reference training, as data: what a suite writes under `net:` and `train:`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]


class Net(BaseModel):
    """A reference net around a component. Part of the problem, so part of every key that pairs trials."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Literal["mlp", "cnn", "resnet8", "vit"] = Field("mlp", description="mlp, cnn (small), resnet8 or vit (micro)")
    width: Positive = Field(128, description="hidden units; channels of the first stage; token dimension")
    depth: Positive = Field(2, description="hidden layers, or blocks")
    norm: Literal["none", "batch", "group", "layer"] = Field("none", description="norm in front of each activation")
    activation: str = Field("relu", description="the activation where the component is of another kind")
    init: Literal["he", "lecun", "xavier"] = Field("he", description="weight initialisation, unless the component asks for one")
    patch: Positive = Field(4, description="patch side in pixels (vit)")
    heads: Positive = Field(3, description="attention heads (vit)")


class Train(BaseModel):
    """The reference learner's settings, the same for every component of a suite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd has momentum 0.9, Nesterov")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.01, ge=0, description="on tensors with two or more axes only")
    batch: Positive = Field(64, description="samples a step")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the budget in which the rate rises linearly")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    clip: float = Field(0.0, ge=0, description="gradient norm above which gradients are scaled down; 0: never")
    evaluations: Positive = Field(20, description="offers, evenly over the budget; the curve's points")
