"""What one device does in one execution of a compiled program: FLOPs, memory traffic and collectives.

A compiler's own count (`cost_analysis()`) takes the body of each loop once; here it counts as often as the loop runs.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spanbert_jax.planning.collectives import Collective, CollectiveReader
from spanbert_jax.planning.hlo import Computation, Instruction, Module, integers, parse
from spanbert_jax.planning.traffic import Traffic
from spanbert_jax.training.step import OPTIMIZER

_MATMUL_CALLS = ('"__cublas$gemm', '"__cublas$lt$matmul')


@dataclass(frozen=True)
class Costs:
    """The costs of one execution on one device."""

    # Of matrix products and convolutions, 2 per multiply-add. Custom calls count 0 unless they are matrix products.
    flops: int
    # Read from and written to main memory (HBM), without the padding of layouts.
    bytes: int
    collectives: tuple[Collective, ...]
    optimizer_flops: int = 0  # those of `flops` that are the optimiser's


def analyse(text: str, mesh_shape: Mapping[str, int]) -> Costs:
    """Returns the costs of a program.

    A conditional costs as much as its most expensive branch. A loop counts once if the text does not say how often it
    runs. For what counts as memory traffic see traffic.py.

    Args:
      text: the program of one partition, `compiled.as_text()`.
      mesh_shape: size of each mesh axis, in the mesh's order; partitions number its positions in row-major order.

    Raises:
      InputError: the text is no program, the syntax of its collectives is unknown, or its mesh was a larger one.
    """
    module = parse(text)
    return _Counter(module, mesh_shape).computation_costs(module.entry.name)


def is_optimizer(op_name: str) -> bool:
    """Returns whether an operation of a train step is the optimiser's."""
    return f"/{OPTIMIZER}/" in op_name


def _sum(costs: Iterable[Costs]) -> Costs:
    costs = list(costs)
    return Costs(
        sum(cost.flops for cost in costs),
        sum(cost.bytes for cost in costs),
        tuple(collective for cost in costs for collective in cost.collectives),
        sum(cost.optimizer_flops for cost in costs),
    )


def _repeated(cost: Costs, times: int) -> Costs:
    """Returns the costs of several executions."""
    if times == 0:
        return Costs(0, 0, ())
    repeated = (dataclasses.replace(collective, count=times * collective.count) for collective in cost.collectives)
    return Costs(times * cost.flops, times * cost.bytes, tuple(repeated), times * cost.optimizer_flops)


class _Counter:
    """Adds up the costs of a module's computations, each of which is counted once."""

    def __init__(self, module: Module, mesh_shape: Mapping[str, int]):
        self.module = module
        self.traffic = Traffic(module)
        self.collectives = CollectiveReader(mesh_shape, module.partitions)
        self.counted: dict[tuple[str, bool], Costs] = {}

    def computation_costs(self, name: str, fused: bool = False) -> Costs:
        """Returns the costs of one execution of a computation; a fused one has no memory traffic of its own."""
        if (name, fused) not in self.counted:
            computation = self.module.computations[name]
            instructions = computation.instructions.values()
            self.counted[name, fused] = _sum(self._costs(computation, each, fused) for each in instructions)
        return self.counted[name, fused]

    def _costs(self, computation: Computation, instruction: Instruction, fused: bool) -> Costs:
        """Returns the costs of one execution of an instruction and of all that it calls."""
        own = self._own_costs(computation, instruction, fused)
        match instruction.opcode:
            case "while":
                return self._loop_costs(computation, instruction)
            case "conditional":
                return self._branch_costs(instruction)
            case "fusion":
                inside = self._fusion_costs(instruction)
            case "call":
                inside = self.computation_costs(instruction.called("to_apply"), fused)
            case "async-start":
                inside = self.computation_costs(instruction.called("calls"), fused)
            case _:
                return own
        return _sum([own, inside])

    def _own_costs(self, computation: Computation, instruction: Instruction, fused: bool) -> Costs:
        """Returns the costs of an instruction without those of the computations that it calls."""
        traffic = 0 if fused else self.traffic.bytes_moved(computation, instruction)
        collective = self.collectives.read(computation, instruction)
        flops = _flops(computation, instruction)
        collectives = (collective,) if collective else ()
        return Costs(flops, traffic, collectives, flops if is_optimizer(instruction.op_name) else 0)

    def _loop_costs(self, computation: Computation, loop: Instruction) -> Costs:
        trips = self.module.trip_count(computation, loop)
        trips = 1 if trips is None else trips
        body = self.computation_costs(loop.called("body"))
        condition = self.computation_costs(loop.called("condition"))
        return _sum([_repeated(body, trips), _repeated(condition, trips + 1)])

    def _branch_costs(self, conditional: Instruction) -> Costs:
        """Returns the costs of the most expensive branch."""
        # branch_computations={%a, %b}, or true_computation=%a, false_computation=%b
        lists = re.findall(r"_computations?=(\{[^}]*\}|%[\w.-]+)", conditional.attributes)
        branches = re.findall(r"%([\w.-]+)", " ".join(lists))
        return max(map(self.computation_costs, branches), key=lambda cost: (cost.flops, cost.bytes))

    def _fusion_costs(self, fusion: Instruction) -> Costs:
        """Returns the costs inside a fusion; collectives without an op_name get that of the fusion."""
        inside = self.computation_costs(fusion.called("calls"), fused=True)
        named = (dataclasses.replace(each, source=each.source or fusion.op_name) for each in inside.collectives)
        return Costs(inside.flops, 0, tuple(named), inside.optimizer_flops)


def _flops(computation: Computation, instruction: Instruction) -> int:
    """Returns the FLOPs of a matrix product or convolution; 0 for all other instructions."""
    opcode, attributes = instruction.opcode, instruction.attributes
    if opcode == "dot":
        return _matmul_flops(computation, instruction, instruction.numbers("lhs_contracting_dims"))
    if opcode == "custom-call" and any(call in attributes for call in _MATMUL_CALLS):
        contracting = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.config)
        return _matmul_flops(computation, instruction, integers(contracting[1]) if contracting else ())
    if opcode == "convolution":
        left, kernel = (computation.operand(instruction, index).arrays[0].dims for index in (0, 1))
        return _convolution_flops(instruction, left, kernel)
    return 0


def _matmul_flops(computation: Computation, product: Instruction, contracting: tuple[int, ...]) -> int:
    """Returns 2 FLOPs for each element of the result and each product that is summed into it."""
    left = computation.operand(product, 0).arrays[0]
    return 2 * product.arrays[0].elements * math.prod(left.dims[axis] for axis in contracting)


def _convolution_flops(convolution: Instruction, left: tuple[int, ...], kernel: tuple[int, ...]) -> int:
    """Returns 2 FLOPs per product, without the products with the padding around and between inputs.

    A TPU's compiler writes a batched matrix product as a convolution: a batch dimension becomes a spatial one that is
    padded such that each position of the result meets one position of the kernel.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.attributes)
    assert labels, "every convolution has dim_labels"
    left_labels, kernel_labels, result_labels = labels.groups()  # b: batch, f: features, i: input features, 0, 1, ...
    result = convolution.arrays[0].dims
    flops = 2 * result[result_labels.index("b")] * result[result_labels.index("f")] * kernel[kernel_labels.index("i")]
    for index, label in enumerate(sorted(set(left_labels) - {"b", "f"})):
        inputs, outputs = left[left_labels.index(label)], result[result_labels.index(label)]
        flops *= _products_along(inputs, outputs, _window(convolution.attributes, index))
    return flops


@dataclass(frozen=True)
class _Window:
    """The window of a convolution along one spatial dimension."""

    size: int
    stride: int
    padding_before: int
    input_dilation: int
    kernel_dilation: int


def _window(attributes: str, index: int) -> _Window:
    """Reads a spatial dimension of an attribute such as window={size=3x1x12 pad=0_0x2_2x11_11 lhs_dilate=1x2x1}."""
    text = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(re.findall(r"(\w+)=([\dx_-]+)", text[1] if text else ""))

    def field(name: str, default: str = "1") -> str:
        return fields[name].split("x")[index] if name in fields else default

    return _Window(
        size=int(field("size")),
        stride=int(field("stride")),
        padding_before=int(field("pad", "0_0").split("_")[0]),
        input_dilation=int(field("lhs_dilate")),
        kernel_dilation=int(field("rhs_dilate")),
    )


@functools.cache
def _products_along(inputs: int, outputs: int, window: _Window) -> int:
    """Returns how many pairs of an output and a window position meet an input, along one dimension."""
    input_positions = range(0, inputs * window.input_dilation, window.input_dilation)
    count = 0
    for window_position in range(window.size):
        start = window_position * window.kernel_dilation - window.padding_before
        met_positions = range(start, start + outputs * window.stride, window.stride)
        count += sum(position in input_positions for position in met_positions)
    return count
