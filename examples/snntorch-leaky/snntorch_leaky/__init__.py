"""The leaky integrate-and-fire neuron of snntorch in the reference nets: declarations only, the code is in method.py."""

from pydantic import Field

from harness import Component, Params, hookimpl

HARNESS_API = "0.2"


class LeakyParams(Params):
    """Of the neuron, and for how long it is watched."""

    beta: float = Field(0.9, ge=0, le=1, description="share of the membrane potential that is left after a time step")
    threshold: float = Field(1.0, gt=0, description="potential at which it spikes")
    steps: int = Field(8, gt=0, description="time steps for which the input is held")


@hookimpl
def harness_methods():
    return [
        Component(
            "snntorch-leaky",
            kind="activation",
            build="snntorch_leaky.method:build",
            params=LeakyParams,
            summary="share of time steps in which a leaky integrate-and-fire neuron spikes",
            source="https://snntorch.readthedocs.io",
        )
    ]
