"""What the tasks of the track `certify` are: nets that are drawn, nets that are trained. Declarations only."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness import Metric, Params, Task

TASKS_CODE = "harness_papers.lipsdp.tasks"
Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "groupsort", "householder"]
GROUPS = ("groupsort", "householder")
INPUTS = {"digits": 64, "mnist": 784}

METRICS = (
    Metric("bound", "1", "lower"),
    Metric("tightness", "1", "lower"),
    Metric("lower_bound", "1", "higher", worst=0.0),  # 0 is a lower bound of every net
    Metric("certified", "1", "higher", worst=0.0),
    Metric("repair", "1", "lower"),
)


class NetParams(Params):
    """What drawn and trained nets have in common."""

    activation: Activation = Field("relu", description="the hidden units' activation; groupsort in groups of 2 is MaxMin")
    group: int = Field(2, ge=2, description="units that groupsort and householder take together; of no meaning for others")
    norm: Literal["l2", "linf"] = Field("l2", description="of input and output")
    rows: int = Field(0, ge=0, description="outputs that are certified, the first ones; 0: all. A row in linf is one program")

    @property
    def hidden(self) -> tuple[int, ...]:
        """Sizes of the hidden layers."""
        raise NotImplementedError

    @model_validator(mode="after")
    def check_groups(self) -> Self:
        if self.activation in GROUPS and any(size % self.group for size in self.hidden):
            raise ValueError(f"{self.activation!r}: hidden layers of {self.hidden} do not divide into groups of {self.group}")
        return self


class RandomNet(NetParams):
    """A net of independent normal weights of variance 1/inputs and zero biases."""

    dims: str = Field("4-8-8-3", description="sizes of input, hidden layers and output, joined by dashes")
    draw: Literal["seed", "card"] = Field(
        "seed", description="seed: a net per seed; card: NumPy's default_rng(0) whatever the seed, for the golden values"
    )
    weights: Literal["normal", "orthogonal"] = Field(
        "normal", description="orthogonal: square layers that change no length, so that the net is as steep as its activation"
    )
    samples: int = Field(20_000, ge=1, description="held points at which the Jacobian is taken, for tightness")

    @field_validator("dims", mode="before")
    @classmethod
    def join(cls, value: Any) -> Any:
        """A tuple or list of sizes is as good as the string."""
        return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    @field_validator("dims")
    @classmethod
    def check_sizes(cls, value: str) -> str:
        parts = value.split("-")
        if len(parts) < 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise ValueError(f"got {value!r}; write at least two positive sizes joined by dashes, as 4-8-8-3")
        return "-".join(str(int(part)) for part in parts)

    @model_validator(mode="after")
    def check_square(self) -> Self:
        if self.weights == "orthogonal" and len(set(self.sizes)) > 1:
            raise ValueError(f"dims {self.dims!r} with orthogonal weights; write equal sizes, as 8-8-8")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.dims.split("-"))

    @property
    def hidden(self) -> tuple[int, ...]:
        return self.sizes[1:-1]


class TrainedNet(NetParams):
    """An MLP trained on images, once per seed."""

    data: Literal["digits", "mnist"] = Field("digits", description="digits: 1,797 images of 8x8; mnist: 60,000 of 28x28")
    depth: int = Field(3, ge=1, description="affine layers")
    width: int = Field(16, ge=1, description="units of each hidden layer")
    epochs: int = Field(20, ge=0, description="passes over the images, batch 64, Adam 2e-3; 0: as initialised")
    samples: int = Field(20_000, ge=2, description="held points at which the Jacobian is taken, half of them around images")

    @property
    def hidden(self) -> tuple[int, ...]:
        return (self.width,) * (self.depth - 1)


def random_net_shape(params: RandomNet) -> dict[str, int]:
    outputs = params.rows or params.sizes[-1]
    return {"inputs": params.sizes[0], "outputs": outputs, "hidden_units": sum(params.hidden)}


def trained_net_shape(params: TrainedNet) -> dict[str, int]:
    return {"inputs": INPUTS[params.data], "outputs": params.rows or 10, "hidden_units": sum(params.hidden)}


TASKS = [
    Task(
        "random-net", "certify", METRICS, f"{TASKS_CODE}:load_random_net", f"{TASKS_CODE}:score", RandomNet, random_net_shape,
        summary="a net of random weights",
    ),
    Task(
        "trained-net", "certify", METRICS, f"{TASKS_CODE}:load_trained_net", f"{TASKS_CODE}:score", TrainedNet,
        trained_net_shape, datasets=lambda params: (params.data,), summary="an MLP trained on digits or on MNIST",
    ),
]  # fmt: skip
