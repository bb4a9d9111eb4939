"""A component as it goes into a net: what is built, with which parameters, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from harness.specs import ComponentKind

Init = Literal["he", "lecun", "xavier"]
Role = Literal["hidden", "residual", "shortcut", "join", "pre"]


@dataclass(frozen=True)
class ComponentUse:
    """A declared Component, resolved: `build` is the function that its declaration names, `params` its validated parameters.

    The signatures of `build` by kind stand at `harness.specs.Component`.
    """

    name: str
    kind: ComponentKind
    build: Callable[..., Any]
    params: Any = None
    init: Init | None = None


@dataclass(frozen=True)
class Place:
    """Where a component of kind activation, norm or norm_act goes.

    features: channels.   dims: 0 for (N, C), 1 for (N, T, C), 2 for (N, C, H, W).
    activated: False in front of a residual addition, where a norm_act must not activate (it normalises, or is an affine map).
    index: the number of the place in its net, in the order of the forward pass.
    role: "hidden" after an inner layer; "residual" and "shortcut" at the end of a residual block's branches (not activated);
    "join" after their addition, where the usual net has an activation without norm; "pre" for a transformer's pre-norm.
    """

    features: int
    dims: int
    activated: bool = True
    index: int = 0
    role: Role = "hidden"
