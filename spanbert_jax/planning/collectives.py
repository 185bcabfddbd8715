"""The collectives of a compiled program: what is exchanged, between which devices and along which mesh axes."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from spanbert_jax.errors import InputError
from spanbert_jax.planning.hlo import Array, Computation, Instruction, integers

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SEND = "send"  # to the other slices of a TPU, whose runtime sums what all slices send


@dataclass(frozen=True)
class Collective:
    """An exchange between devices: one instruction of the program."""

    kind: str  # one of COLLECTIVES, or SEND
    axes: tuple[str, ...]  # mesh axes that it runs over, in the mesh's order
    group: int  # devices per group; for SEND slices
    dtype: str  # e.g. "bf16"; for a tuple that of its largest array
    bytes: int  # payload of one execution on one device: the larger of input and output
    count: int  # executions per step
    source: str  # op_name of the instruction, or else of the fusion that it is in; "" if unknown


class CollectiveReader:
    """Recognises the collectives of a program that was compiled for a mesh.

    Args:
      mesh_shape: size of each mesh axis, in the mesh's order; partitions number its positions in row-major order.
      partitions: number of partitions of the program, of one slice; 0 if unknown.
    """

    def __init__(self, mesh_shape: Mapping[str, int], partitions: int):
        self.mesh_shape = dict(mesh_shape)
        self.devices = math.prod(mesh_shape.values())
        self.partitions = partitions or self.devices

    def read(self, computation: Computation, instruction: Instruction) -> Collective | None:
        """Returns the collective that an instruction starts, or None if it starts none or moves nothing.

        Raises:
          InputError: the syntax of its groups is unknown, or the program was compiled for a larger mesh.
        """
        kind = instruction.opcode.removesuffix("-start")
        if kind == SEND and "megascale" in instruction.attributes:
            return self._send(instruction)
        if kind not in COLLECTIVES or continues_collective(computation, instruction):
            return None
        groups = self._groups(instruction)
        group_size = max(map(len, groups))
        if group_size < 2:
            return None
        if _keeps_only_a_slice(computation, instruction):
            kind = "reduce-scatter"
        inputs = [array for name in instruction.operands for array in computation.instructions[name].arrays]
        payload = max(inputs, instruction.computed_arrays, key=_total_bytes)
        dtype = max(payload, key=lambda array: array.bytes).dtype
        axes = self._axes(groups)
        return Collective(kind, axes, group_size, dtype, _total_bytes(payload), 1, instruction.op_name)

    def _send(self, instruction: Instruction) -> Collective:
        """Returns what one slice gives to the runtime that joins slices.

        The program is that of one slice, so no other instruction crosses slices.
        """
        [array] = instruction.outputs[0]
        peers = tuple(range(0, self.devices, self.partitions))  # the first device of each slice
        return Collective(SEND, self._axes([peers]), len(peers), array.dtype, array.bytes, 1, instruction.op_name)

    def _groups(self, instruction: Instruction) -> list[tuple[int, ...]]:
        """Returns the groups of devices that exchange data."""
        groups = device_groups(instruction.attributes, self.partitions)
        last = max(map(max, groups))
        if last >= self.devices:
            raise InputError(
                f"the program has a collective of partition {last}, but the mesh {self.mesh_shape} has {self.devices} "
                "positions: pass the mesh that it was compiled for"
            )
        return groups

    def _axes(self, groups: list[tuple[int, ...]]) -> tuple[str, ...]:
        """Returns the mesh axes along which the devices of a group differ."""
        axes, stride = [], self.devices
        for axis, size in self.mesh_shape.items():
            stride //= size
            if any(len({device // stride % size for device in group}) > 1 for group in groups):
                axes.append(axis)
        return tuple(axes)


def continues_collective(computation: Computation, instruction: Instruction) -> bool:
    """Tests whether a collective instruction is a later step of one that a TPU spreads over several fusions."""
    starts = any("AsyncCollectiveStart" in user.attributes for user, _ in computation.users[instruction.name])
    return "chain_id=" in instruction.attributes and not starts


def _keeps_only_a_slice(computation: Computation, instruction: Instruction) -> bool:
    """Tests for a TPU's reduce-scatter: it is written as an all-reduce of whose result each device keeps its slice."""
    users = [user.opcode for user, _ in computation.users[instruction.name]]
    return 'from-cross-replica-sharding="true"' in instruction.attributes and set(users) == {"dynamic-slice"}


def _total_bytes(arrays: Sequence[Array]) -> int:
    return sum(array.bytes for array in arrays)


# The syntaxes of groups, each with one example in tests/planning/test_collectives.py.
_LISTED = re.compile(r"replica_groups=\{(.*?)\}(?!,\{)")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]*))\))? \{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}(?!,\{)")


def device_groups(attributes: str, devices: int) -> list[tuple[int, ...]]:
    """Returns which partitions exchange data with each other, for the attributes of a collective in any syntax.

    For a collective-permute these are the chains and rings that data moves along. A group of one moves nothing.

    Args:
      attributes: attributes of the instruction.
      devices: number of devices of the program; without groups in the attributes all are one group.

    Raises:
      InputError: the syntax is unknown.
    """
    if found := _PAIRS.search(attributes):
        return _chains(integers(found[1]))
    if found := _MESH.search(attributes):
        return _mesh_groups(*found.groups())
    if found := _IOTA.search(attributes):
        order, size = _iota(found[2], found[3]), integers(found[1])[-1]
        return [order[start : start + size] for start in range(0, len(order), size)]
    if found := _LISTED.search(attributes):
        return [integers(group) for group in re.findall(r"\d[\d,]*", found[1])] or [tuple(range(devices))]
    if "replica_groups=" in attributes:
        raise InputError(f"the syntax of a collective's replica_groups is unknown: {attributes[:120]}")
    return [tuple(range(devices))]


def _iota(dims: str, transposed: str | None) -> tuple[int, ...]:
    """Returns 0, 1, 2, ... arranged as an array of these dims, transposed and read in row-major order."""
    sizes = integers(dims)
    strides = _strides(sizes)
    order: tuple[int, ...] = (0,)
    for axis in integers(transposed) if transposed else range(len(sizes)):
        order = tuple(base + step * strides[axis] for base in order for step in range(sizes[axis]))
    return order


def _strides(sizes: tuple[int, ...]) -> list[int]:
    """Returns the row-major strides of an array, in elements."""
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _mesh_groups(
    mesh: str, dims: str | None, transposed: str | None, listed: str | None, over: str
) -> list[tuple[int, ...]]:
    """Returns the groups of the syntax mesh['a'=2,'b'=4], device_ids=(...) {'b'}.

    The devices of a group differ only along the axes `over`; 'b':(m)k there stands for the factor of size k of axis 'b'
    that has a factor of size m before it.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh)}
    total = math.prod(sizes.values())
    if dims:
        devices = _iota(dims, transposed)
    else:
        devices = integers(listed) if listed else tuple(range(total))

    strides = dict(zip(sizes, _strides(tuple(sizes.values()))))
    varying = []  # (stride, size) of each axis, or factor of one, that varies within a group
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", over):
        factor = int(size or sizes[name])
        inner = sizes[name] // (int(before or 1) * factor)  # the size of what comes after this factor
        varying.append((strides[name] * inner, factor))

    groups = defaultdict(list)
    for index in range(total):
        first_index = index - sum(index // stride % size * stride for stride, size in varying)
        groups[first_index].append(devices[index])
    return [tuple(group) for group in groups.values()]


def _chains(pairs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns the chains and rings that data moves along, for source, target, source, target, ..."""
    target_of = dict(zip(pairs[::2], pairs[1::2]))
    targets = set(target_of.values())
    seen = set()

    def walk(device: int | None) -> Iterator[int]:
        while device is not None and device not in seen:
            seen.add(device)
            yield device
            device = target_of.get(device)

    heads = [device for device in target_of if device not in targets]
    chains = [tuple(walk(device)) for device in (*heads, *target_of)]  # chains from their heads, then rings
    return [chain for chain in chains if chain]
