"""The 1.5-entmax and sparsemax losses of the library entmax: declarations only, the code is in method.py."""

from typing import Literal

from pydantic import Field

from harness import Component, Params, hookimpl

HARNESS_API = "0.2"


class EntmaxParams(Params):
    """Which of the two."""

    mapping: Literal["entmax15", "sparsemax"] = Field("entmax15", description="the mapping to probabilities that it goes with")


@hookimpl
def harness_methods():
    return [
        Component(
            "entmax-loss",
            kind="loss",
            build="entmax_loss.method:build",
            params=EntmaxParams,
            summary="a Fenchel-Young loss whose probabilities can be exactly 0",
            source="https://arxiv.org/abs/1905.05702",
        )
    ]
