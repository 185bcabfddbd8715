"""What one device does in one execution of a compiled program: operations, memory traffic and collectives, loops times their trips.

A compiler's own count (`cost_analysis()`) is of the text: it takes each loop's body once.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spanbert_jax.errors import InputError
from spanbert_jax.planning.hlo import Array, Computation, Instruction, Module, device_groups, integers, parse

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SEND = "send"  # to the other slices of a TPU, whose runtime adds up what all of them send
_MATMUL_CALLS = ("__cublas$gemm", "__cublas$lt$matmul")
_NOTES = (
    "AllocateBuffer",
    "ConcatBitcast",
    "AssumeGatherIndicesInBound",
)  # calls by which a TPU's compiler speaks to itself
_SLICES = ("dynamic-slice", "slice", "gather")  # read no more of their first operand than they return
_ELEMENTWISE = ("bitcast", "convert", "copy", "reshape", "transpose")  # read of their operand what is read of them
_NO_TRAFFIC = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "async-start",
    "async-update",
    "partition-id",
    "replica-id",
    "after-all",
    "add-dependency",
    "optimization-barrier",
    "domain",
}


@dataclass(frozen=True)
class Collective:
    """An exchange between devices, of which the program has one instruction."""

    kind: str  # one of COLLECTIVES, or SEND
    axes: tuple[str, ...]  # mesh axes it runs over, in the mesh's order
    group: int  # devices in each group; of SEND: slices
    dtype: str  # e.g. "bf16"; of a tuple: that of its largest part
    bytes: int  # payload of one execution on one device: the larger of its input and its output
    count: int  # executions in one step
    source: str  # op_name of the instruction or of the fusion it is in, "" if unknown


@dataclass(frozen=True)
class Costs:
    """Of one execution on one device."""

    flops: (
        int  # of matrix products and convolutions, 2 a multiply-add; a custom call other than a matrix product counts 0
    )
    bytes: int  # read from and written to main memory (HBM), layout's padding not counted
    collectives: tuple[Collective, ...]


def analyse(text: str, mesh_shape: Mapping[str, int]) -> Costs:
    """The costs of a program.

    Fused instructions exchange nothing with memory among themselves: what a fusion takes and gives counts, of an operand that is only sliced
    the slices, of a buffer updated in place the update. A conditional costs what its dearest branch costs; a loop whose trips the text does not
    tell counts once.

    Args:
      text: of one partition's program: `compiled.as_text()`.
      mesh_shape: sizes of the mesh's axes by name, in its order; partitions number its positions row by row.

    Raises:
      InputError: the text is no program, its collectives are written in a way that is not known, or it was compiled for a larger mesh.
    """
    module = parse(text)
    return _Count(module, dict(mesh_shape)).of(module.entry.name)


def _sum(costs: Iterable[Costs]) -> Costs:
    costs = list(costs)
    return Costs(
        sum(cost.flops for cost in costs),
        sum(cost.bytes for cost in costs),
        tuple(collective for cost in costs for collective in cost.collectives),
    )


def _times(cost: Costs, times: int) -> Costs:
    collectives = tuple(
        dataclasses.replace(collective, count=times * collective.count) for collective in cost.collectives
    )
    return Costs(times * cost.flops, times * cost.bytes, collectives if times else ())


class _Count:
    """The costs of a module's computations, each worked out once."""

    def __init__(self, module: Module, mesh_shape: dict[str, int]):
        self.module, self.mesh_shape, self.traffic = module, mesh_shape, _Traffic(module)
        self.devices = math.prod(mesh_shape.values())
        self.of = functools.cache(self.of)
        self.axes_of = functools.cache(self.axes_of)

    def of(self, name: str, fused: bool = False) -> Costs:
        """Of one execution of a computation; inside a fusion nothing goes through memory."""
        computation = self.module.computations[name]
        return _sum(self.of_instruction(computation, one, fused) for one in computation.instructions.values())

    def of_instruction(self, computation: Computation, one: Instruction, fused: bool) -> Costs:
        """Of one execution of an instruction and of all that it calls."""
        own = Costs(
            _flops(computation, one),
            0 if fused else self.traffic.of(computation, one),
            self.collectives(computation, one),
        )
        if one.opcode == "while":
            trips = self.module.trip_count(computation, one)
            trips = 1 if trips is None else trips
            return _sum(
                [_times(self.of(one.called("body")), trips), _times(self.of(one.called("condition")), trips + 1)]
            )
        if one.opcode == "conditional":
            branches = " ".join(re.findall(r"_computations?=(\{[^}]*\}|%[\w.-]+)", one.attributes))
            return max(
                (self.of(branch) for branch in re.findall(r"%([\w.-]+)", branches)),
                key=lambda cost: (cost.flops, cost.bytes),
            )
        if one.opcode == "fusion":
            inner = self.of(one.called("calls"), fused=True)
            named = (dataclasses.replace(each, source=each.source or one.op_name) for each in inner.collectives)
            return Costs(inner.flops, own.bytes, tuple(named))
        called = {"call": "to_apply", "async-start": "calls"}.get(one.opcode)
        return _sum([own, self.of(one.called(called), fused)]) if called else own

    def collectives(self, computation: Computation, one: Instruction) -> tuple[Collective, ...]:
        """The instruction itself, if it is a collective that moves data and is not a later part of one."""
        kind = one.opcode.removesuffix("-start")
        if kind == SEND and "megascale" in one.attributes:
            return self.sent(one)
        if kind not in COLLECTIVES or _goes_on(computation, one):
            return ()
        axes, group = self.axes_of(one.attributes)
        if group < 2:
            return ()
        users = computation.users[one.name]
        if (
            'from-cross-replica-sharding="true"' in one.attributes
            and users
            and all(user.opcode == "dynamic-slice" for user, _ in users)
        ):
            kind = "reduce-scatter"  # a TPU's, written as an all-reduce of which each device keeps its slice
        taken = [array for operand in one.operands for array in computation.instructions[operand].arrays]
        payload = max(taken, _result(one), key=lambda arrays: sum(array.bytes for array in arrays))
        largest = max(payload, key=lambda array: array.bytes)
        return (Collective(kind, axes, group, largest.dtype, sum(array.bytes for array in payload), 1, one.op_name),)

    def sent(self, one: Instruction) -> tuple[Collective, ...]:
        """What an instruction gives the runtime that joins slices: the program is that of one slice, so nothing else in it crosses them."""
        (array,) = one.parts[0]
        first_of_each = tuple(range(0, self.devices, self.module.partitions or self.devices))
        return (
            Collective(SEND, self.along([first_of_each]), len(first_of_each), array.dtype, array.bytes, 1, one.op_name),
        )

    def axes_of(self, attributes: str) -> tuple[tuple[str, ...], int]:
        """The mesh axes along which the devices of a group differ, and how many devices the largest group has."""
        groups = device_groups(attributes, self.module.partitions or self.devices)
        if max(map(max, groups)) >= self.devices:
            raise InputError(
                f"the program has a collective of partition {max(map(max, groups))}, but the mesh {self.mesh_shape} has {self.devices} "
                "positions: give the mesh that it was compiled for"
            )
        return self.along(groups), max(map(len, groups))

    def along(self, groups: list[tuple[int, ...]]) -> tuple[str, ...]:
        """The mesh axes along which the devices of a group differ."""
        axes, stride = [], self.devices
        for axis, size in self.mesh_shape.items():
            stride //= size
            if any(len({device // stride % size for device in group}) > 1 for group in groups):
                axes.append(axis)
        return tuple(axes)


def _goes_on(computation: Computation, one: Instruction) -> bool:
    """Whether this is no new collective but a step of one that a TPU spreads over several fusions."""
    return "chain_id=" in one.attributes and not any(
        "AsyncCollectiveStart" in user.attributes for user, _ in computation.users[one.name]
    )


def _result(one: Instruction) -> tuple[Array, ...]:
    """The arrays that an instruction makes; a start's tuple also holds what it reads and what it waits with."""
    if not one.opcode.endswith("-start") or one.opcode == "all-reduce-start":
        return one.arrays
    return one.parts[0 if one.opcode == "copy-start" else 1]


def _flops(computation: Computation, one: Instruction) -> int:
    """Of a matrix product or convolution: 2 for each element of the result and each product that is summed into it."""
    if one.opcode == "dot":
        left = computation.instructions[one.operands[0]].arrays[0]
        return 2 * one.arrays[0].elements * math.prod(left.dims[axis] for axis in one.numbers("lhs_contracting_dims"))
    if one.opcode == "convolution":
        return _convolution_flops(one, *(computation.instructions[operand].arrays[0].dims for operand in one.operands))
    if one.opcode == "custom-call" and any(f'"{call}' in one.attributes for call in _MATMUL_CALLS):
        left = computation.instructions[one.operands[0]].arrays[0]
        summed = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.config)
        return 2 * one.arrays[0].elements * math.prod(left.dims[axis] for axis in integers(summed[1] if summed else ""))
    return 0


def _convolution_flops(one: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Products with the padding around and between a convolution's inputs are not counted.

    A TPU writes a batched matrix product as a convolution: a batch dimension becomes a spatial one in which, thanks to padding, each place of
    the result meets one place of the kernel.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    window = dict(re.findall(r"(\w+)=([\dx_-]+)", re.search(r"window=\{([^}]*)\}|$", one.attributes)[1] or ""))
    result = one.arrays[0].dims
    flops = 2 * result[labels[3].index("b")] * result[labels[3].index("f")] * right[labels[2].index("i")]
    for place, axis in enumerate(sorted(set(labels[1]) - {"b", "f"})):
        size, stride, left_dilation, right_dilation = (
            int(window[name].split("x")[place]) if name in window else 1
            for name in ("size", "stride", "lhs_dilate", "rhs_dilate")
        )
        before = int(window["pad"].split("x")[place].split("_")[0]) if "pad" in window else 0
        flops *= _meetings(
            left[labels[1].index(axis)],
            result[labels[3].index(axis)],
            size,
            stride,
            before,
            left_dilation,
            right_dilation,
        )
    return flops


@functools.cache
def _meetings(
    inputs: int, outputs: int, size: int, stride: int, before: int, left_dilation: int, right_dilation: int
) -> int:
    """How many pairs of an output and a place in the window have an input under them, along one dimension."""
    real = range(0, inputs * left_dilation, left_dilation)
    starts = (place * right_dilation - before for place in range(size))
    return sum(position in real for start in starts for position in range(start, start + outputs * stride, stride))


class _Traffic:
    """Bytes that go through main memory. What lies in another memory (a TPU's VMEM) costs none."""

    def __init__(self, module: Module):
        self.module = module

    def of(self, computation: Computation, one: Instruction) -> int:
        """Read and written by an instruction that is not fused."""
        if (
            one.opcode in _NO_TRAFFIC
            or one.opcode.endswith("-done")
            or any(f'"{note}"' in one.attributes for note in _NOTES)
        ):
            return 0
        return self.read(computation, one) + self.written(computation, one)

    def read(self, computation: Computation, one: Instruction) -> int:
        """Of its operands."""
        total = 0
        for position, name in enumerate(one.operands):
            arrays = computation.instructions[name].arrays
            whole = sum(array.elements for array in arrays)
            used = min(whole, self.taken(computation, one, position))
            total += sum(array.bytes for array in arrays if not array.memory) * used // max(whole, 1)
        return total

    def taken(self, computation: Computation, one: Instruction, position: int) -> int:
        """Elements of an operand that an instruction looks at."""
        opcode = one.opcode.removesuffix("-start")
        if opcode in _SLICES and position == 0:
            return sum(array.elements for array in _result(one))
        if (
            (opcode == "dynamic-update-slice" and position == 0)
            or opcode == "tuple"
            or "AsyncCollective" in one.attributes
        ):
            return 0
        if opcode == "scatter" and position < len(one.operands) // 2:
            return computation.instructions[one.operands[len(one.operands) // 2 + 1 + position]].arrays[0].elements
        if opcode == "fusion":
            fused = self.module.computations[one.called("calls")]
            return self.looked_at(fused, fused.parameters[position])
        if opcode in COLLECTIVES and _goes_on(computation, one):
            return 0
        return sum(array.elements for array in computation.instructions[one.operands[position]].arrays)

    def looked_at(self, fused: Computation, name: str) -> int:
        """Elements of a value that its users within a fusion look at."""
        total = sum(
            self.looked_at(fused, user.name)
            if user.opcode in _ELEMENTWISE and user is not fused.root
            else self.taken(fused, user, position)
            for user, position in fused.users[name]
        )
        return min(total, sum(array.elements for array in fused.instructions[name].arrays))

    def written(self, computation: Computation, one: Instruction) -> int:
        """Of its result. What a fusion hands through in the operand's own buffer is not written."""
        if one.opcode == SEND:
            return 0
        if one.opcode != "fusion":
            update = _update(computation, one)
            if update is not None and not one.arrays[0].memory:
                return _bytes(update.elements, one.arrays[0])
            return sum(array.bytes for array in _result(one) if not array.memory)
        fused = self.module.computations[one.called("calls")]
        values = fused.root.operands if fused.root.opcode == "tuple" else (fused.root.name,) * len(one.parts)
        aliased = re.search(r"output_to_operand_aliasing=(.*)|$", one.attributes)[1] or ""
        total = 0
        for place, (name, part) in enumerate(zip(values, one.parts)):
            value = _behind(fused, fused.instructions[name])
            kept = f"{{{place}}}: (" in aliased or "{}: (" in aliased
            if part[0].memory or (kept and value.opcode in ("parameter", "custom-call", *COLLECTIVES)):
                continue
            update = _update(fused, value)
            if update is not None and _behind(fused, fused.instructions[value.operands[0]]).opcode == "parameter":
                total += _bytes(update.elements, part[0])
            else:
                total += sum(array.bytes for array in part)
        return total


def _update(computation: Computation, one: Instruction) -> Array | None:
    """What is written into the first operand's buffer, of an instruction that changes a part of it; None of others."""
    position = {"dynamic-update-slice": 1, "scatter": len(one.operands) // 2 + 1}.get(one.opcode)
    return None if position is None else computation.instructions[one.operands[position]].arrays[0]


def _bytes(elements: int, like: Array) -> int:
    return elements * like.bits // 8


def _behind(computation: Computation, one: Instruction) -> Instruction:
    """What bitcasts show in another shape."""
    while one.opcode == "bitcast":
        one = computation.instructions[one.operands[0]]
    return one
