"""KANLayer of pykan in place of the linear layers of the reference nets: declarations only, the code is in method.py."""

from pydantic import Field

from harness import Component, Params, hookimpl

HARNESS_API = "0.2"


class KanParams(Params):
    """Of the splines."""

    grid: int = Field(5, gt=0, description="intervals of the grid on [-reach, reach]")
    order: int = Field(3, ge=1, description="order of the splines")
    reach: float = Field(3.0, gt=0, description="where the grid ends")


@hookimpl
def harness_methods():
    return [
        Component(
            "pykan-layer",
            kind="linear",
            build="pykan_layer.method:build",
            params=KanParams,
            summary="a learned B-spline on each edge, as pykan implements it",
            source="https://arxiv.org/abs/2404.19756",
        )
    ]
