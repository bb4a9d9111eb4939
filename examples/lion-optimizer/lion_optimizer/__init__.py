"""Lion, the sign-momentum optimizer, from lion-pytorch: declarations only, the code is in method.py."""

from pydantic import Field

from harness import Component, Params, hookimpl

HARNESS_API = "0.2"


class LionParams(Params):
    """Its own rate and decay: they hold in place of the suite's `train`."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate; a third to a tenth of AdamW's is usual")
    weight_decay: float = Field(0.01, ge=0, description="on tensors with two or more axes")
    beta1: float = Field(0.9, ge=0, lt=1, description="share of the momentum in the direction of a step")
    beta2: float = Field(0.99, ge=0, lt=1, description="share of the momentum that is kept")


@hookimpl
def harness_methods():
    return [
        Component(
            "lion",
            kind="optimizer",
            build="lion_optimizer.method:build",
            params=LionParams,
            summary="the sign of a moving average of gradients",
            source="https://arxiv.org/abs/2302.06675",
        )
    ]
