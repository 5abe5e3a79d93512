"""One training step as plain data: what `collect` finds, and text, JSON and SVG are drawn from.

Numbers are Python's own, so that `dataclasses.asdict` is ready for JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainer.core.finite_differences import Check
from trainer.trace.equations import Line

Shape = list[int]


@dataclass
class Summary:
    """What a tensor holds, in two numbers: mean and standard deviation over all entries."""

    mean: float
    std: float


@dataclass
class Parameter:
    """Part 1: a parameter before anything has happened."""

    name: str
    shape: Shape
    count: int
    requires_grad: bool
    is_leaf: bool
    grad_fn: str | None
    grad: str | None
    values: Summary


@dataclass
class Saved:
    """A tensor that an operation keeps for its backward; `what` names it where it is one that we know."""

    operation: str
    name: str
    shape: Shape
    what: str | None


@dataclass
class Dropout:
    """The mask of a dropout layer: 1 kept, 0 dropped; what is kept is multiplied by `scale`."""

    rate: float
    scale: float
    kept: int
    count: int
    mask: list[list[int]] | None  # (B, F), where it is small


@dataclass
class BatchNorm:
    """Statistics of a batch norm layer, one a feature; `error`: of running_after against its equation.

    running_after = (1 - momentum) running_before + momentum batch; for the variance, batch is the unbiased one.
    """

    momentum: float
    batch_mean: list[float]
    batch_var: list[float]  # biased: what normalises
    running_mean_before: list[float]
    running_mean_after: list[float]
    running_var_before: list[float]
    running_var_after: list[float]
    error: float


@dataclass
class Layer:
    """Part 2: a layer in the forward pass, in training mode, and the same input in evaluation mode."""

    name: str
    module: str
    shape: Shape
    operations: list[str]  # of the graph, the last one first
    saved: list[Saved]
    training: Summary
    evaluation: Summary | None
    dropout: Dropout | None = None
    batchnorm: BatchNorm | None = None

    @property
    def grad_fn(self) -> str | None:
        return self.operations[0] if self.operations else None


@dataclass
class Node:
    """Part 3: an operation of the graph, and those (by number) that its gradient goes on to."""

    number: int
    name: str
    what: str | None  # the parameter that it accumulates into, or the layer whose output it made
    shape: Shape | None
    next: list[int]


@dataclass
class Gradient:
    """Part 4: a gradient and its check against finite differences."""

    name: str
    kind: str  # parameter or activation
    shape: Shape
    norm: float
    mean: float
    count: int
    check: Check


@dataclass
class ClosedForm:
    """A gradient against its formula: the largest difference."""

    name: str
    formula: str
    error: float


@dataclass
class Step:
    """Part 5: one weight in the optimizer's first step, by torch and by hand."""

    optimizer: str
    settings: dict[str, Any]
    lr: float  # the schedule's factor included
    weight: str
    before: float
    gradient: float  # as backward left it
    used: float  # after clipping
    state_before: dict[str, float]
    state_after: dict[str, float]
    lines: list[Line] | None  # None where we know no equation for this optimizer
    by_hand: float | None
    after: float
    error: float | None  # |after - by_hand|
    error_all: float | None  # the largest over all weights and their optimizer state


@dataclass
class Slice:
    """A parameter's place in the one long vector of all gradients."""

    name: str
    start: int
    stop: int
    norm: float


@dataclass
class After:
    """Part 6: gradients after the step."""

    norm: float  # of what is still in .grad, all parameters as one vector
    cleared: str  # .grad after zero_grad
    next_norm: float  # after a backward on the new weights
    twice_norm: float  # after one more, without zero_grad
    doubled: bool  # every entry is then exactly twice what it was
    vector: list[Slice]
    clip_norm: float | None
    clip_factor: float


@dataclass
class Row:
    """Part 7: one step of the chosen weight."""

    step: int
    loss: float
    norm: float
    lr: float
    before: float
    gradient: float
    state: dict[str, float]
    update: float
    after: float
    error: float | None


@dataclass
class Rival:
    """Part 7: another optimizer from the same start over the same batches."""

    name: str
    settings: dict[str, Any]
    first_update: float  # of the chosen weight
    first_length: float  # of the first step, all weights
    cosine: float  # between the first step and the negative gradient
    after: float  # the chosen weight after all steps
    loss: float  # on the first batch after all steps, in evaluation mode


Numbers = float | list[Any]  # of a tensor: one, or nested lists


@dataclass
class Term:
    """What an operation hands on to one of its inputs: df/d(input) is the sum over all that it is an input of."""

    own: float | None  # the operation's derivative by this input; None where one of them is no single number
    part: Numbers  # df/d(its result) times that


@dataclass
class Operation:
    """Part 8: an operation of a function, in the order in which they ran."""

    name: str  # v1, v2, ...; empty where Python took a number out of a tensor
    expression: str
    inputs: list[str]
    value: Numbers | bool
    grad_fn: str | None  # None: not in the graph
    kind: str  # "", "cut" (no way back to its inputs), "constant" (made of such), "inside" (an operation of the user's
    # own), "branch" (for if and while), "number" (any other for Python)
    version: int = 0  # of its tensor, where it was written in place: how often that has been written to
    is_own: bool = False  # its backward is the user's own
    gradient: Numbers | None = None  # of the function, by the result
    terms: dict[str, Term] = field(default_factory=dict)  # by input


@dataclass
class Derivative:
    """Part 9: a number and its derivative by each coordinate."""

    name: str  # f, f[1], or df/dx
    value: float
    slopes: list[float]
    check: Check


@dataclass
class Function:
    """Parts 8 to 10: a function at a point, without any network or optimizer."""

    name: str
    point: dict[str, float]
    operations: list[Operation]
    result: str  # the operation that f is
    value: Numbers
    gradient: list[Derivative] = field(default_factory=list)  # one for each number that comes out: a Jacobian
    chain_rule: list[float] | None = None  # its gradient by hand; None where several come out, or not all is known
    second: list[Derivative] = field(default_factory=list)  # of each entry of the gradient: a Hessian
    no_second: str | None = None  # why there is none
    gradient_nodes: int = 0  # operations in the graph of the gradient
    refused: str | None = None  # what torch says to backward() where several numbers come out
    summed: list[float] = field(default_factory=list)  # what backward(torch.ones(M)) gives: all rows of the Jacobian
    kept: list[Saved] = field(default_factory=list)  # tensors that the graph keeps for backward
    again: str | None = None  # what torch says to a second backward(); None: nothing
    doubled: bool = False  # with retain_graph, a second one doubles the gradient exactly
    failure: str | None = None  # why there is no way back at all; what stands above is empty then
    faults: list[str] = field(default_factory=list)  # where backward and differences disagree

    @property
    def is_loss(self) -> bool:
        """Whether it is one number with a gradient: what an optimizer can take steps on."""
        return self.failure is None and self.refused is None


@dataclass
class Trace:
    """One training step, taken apart."""

    network: str
    batch: int
    examples: int
    data: str
    loss_name: str
    loss: float
    parameters: list[Parameter]
    input_shape: Shape  # of an example
    input: Summary
    layers: list[Layer]
    graph: list[Node]
    gradients: list[Gradient]
    closed_forms: list[ClosedForm]
    faults: list[str]  # where a gradient goes wrong; empty where all are right
    step: Step
    in_training: dict[str, float]  # loss, gradient norm and the chosen weight of the trainer's own step, in float32
    after: After
    rows: list[Row]
    start_loss: float  # on the first batch, in evaluation mode
    rivals: list[Rival] = field(default_factory=list)
    function: Function | None = None  # where there is no network
