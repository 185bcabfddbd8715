"""The main memory traffic of a compiled program: bytes that one instruction reads from it and writes to it.

Instructions inside a fusion do not use memory to exchange data among themselves, so only the inputs and outputs of a
fusion count: of an operand that is sliced the slices, of a buffer that is updated in place the update. Arrays in other
memories than the main one, such as a TPU's VMEM, cost nothing.
"""

import re
from collections.abc import Iterable

from spanbert_jax.planning.collectives import COLLECTIVES, SEND, continues_collective
from spanbert_jax.planning.hlo import Array, Computation, Instruction, Module

# Instructions that read no more of their first operand than they return.
_SLICES = ("dynamic-slice", "slice", "gather")
# Instructions that read of their operand what their users read of them.
_ELEMENTWISE = ("bitcast", "convert", "copy", "reshape", "transpose")
# Instructions that move nothing: names for data, calls of computations that are counted themselves, and markers.
_NAMES = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id")
_CALLS = ("while", "conditional", "call", "async-start", "async-update")
_MARKERS = ("after-all", "add-dependency", "optimization-barrier", "domain")
_NO_TRAFFIC = frozenset((*_NAMES, *_CALLS, *_MARKERS))
# Custom calls that are annotations for a TPU's compiler.
_ANNOTATIONS = ('"AllocateBuffer"', '"ConcatBitcast"', '"AssumeGatherIndicesInBound"')
# What a fusion may return in the buffer of an operand without writing it.
_PASSED_THROUGH = ("parameter", "custom-call", *COLLECTIVES)


class Traffic:
    """Counts the main memory traffic of the instructions of a module."""

    def __init__(self, module: Module):
        self.module = module

    def bytes_moved(self, computation: Computation, instruction: Instruction) -> int:
        """Returns the bytes that one execution of an instruction outside fusions reads and writes."""
        is_annotation = any(annotation in instruction.attributes for annotation in _ANNOTATIONS)
        if instruction.opcode in _NO_TRAFFIC or instruction.opcode.endswith("-done") or is_annotation:
            return 0
        return self._bytes_read(computation, instruction) + self._bytes_written(computation, instruction)

    def _bytes_read(self, computation: Computation, instruction: Instruction) -> int:
        total = 0
        for index in range(len(instruction.operands)):
            arrays = computation.operand(instruction, index).arrays
            elements = _elements(arrays)
            read = min(elements, self._elements_read(computation, instruction, index))
            total += _main_memory_bytes(arrays) * read // max(elements, 1)
        return total

    def _elements_read(self, computation: Computation, instruction: Instruction, index: int) -> int:
        """Returns how many elements of an operand an instruction reads; may be more than it has."""
        opcode = instruction.opcode.removesuffix("-start")
        if opcode in _SLICES and index == 0:
            return _elements(instruction.computed_arrays)
        if opcode == "dynamic-update-slice" and index == 0:
            return 0  # overwritten in place
        if opcode == "tuple" or "AsyncCollective" in instruction.attributes:
            return 0
        if opcode == "scatter" and index < _scatter_indices(instruction):
            # It adds to as many elements as the update of this operand has.
            return _updates(computation, instruction, index).elements
        if opcode == "fusion":
            fused = self.module.computations[instruction.called("calls")]
            return self._elements_used(fused, fused.parameters[index])
        if opcode in COLLECTIVES and continues_collective(computation, instruction):
            return 0
        return _elements(computation.operand(instruction, index).arrays)

    def _elements_used(self, fused: Computation, name: str) -> int:
        """Returns how many elements of a value its users within a fusion read."""
        total = 0
        for user, index in fused.users[name]:
            if user.opcode in _ELEMENTWISE and user is not fused.root:
                total += self._elements_used(fused, user.name)
            else:
                total += self._elements_read(fused, user, index)
        return min(total, _elements(fused.instructions[name].arrays))

    def _bytes_written(self, computation: Computation, instruction: Instruction) -> int:
        if instruction.opcode == SEND:
            return 0
        if instruction.opcode == "fusion":
            return self._bytes_written_by_fusion(instruction)
        if _updates_in_place(instruction) and instruction.arrays[0].memory == 0:
            return _update_bytes(computation, instruction, instruction.arrays[0])
        return _main_memory_bytes(instruction.computed_arrays)

    def _bytes_written_by_fusion(self, fusion: Instruction) -> int:
        fused = self.module.computations[fusion.called("calls")]
        root = fused.root
        names = root.operands if root.opcode == "tuple" else (root.name,) * len(fusion.outputs)
        aliasing = re.search(r"output_to_operand_aliasing=(.*)", fusion.attributes)
        aliases = (
            aliasing[1] if aliasing else ""
        )  # such as {{0}: (2, {}), {1}: (0, {})}, or {{}: (0, {})} without a tuple
        total = 0
        for index, (name, output) in enumerate(zip(names, fusion.outputs)):
            value = _behind_bitcasts(fused, fused.instructions[name])
            is_alias = f"{{{index}}}: (" in aliases or "{}: (" in aliases
            if output[0].memory or (is_alias and value.opcode in _PASSED_THROUGH):
                continue
            if _updates_in_place(value) and _first_operand_is_parameter(fused, value):
                total += _update_bytes(fused, value, output[0])
            else:
                total += sum(array.bytes for array in output)
        return total


def _elements(arrays: Iterable[Array]) -> int:
    return sum(array.elements for array in arrays)


def _main_memory_bytes(arrays: Iterable[Array]) -> int:
    return sum(array.bytes for array in arrays if array.memory == 0)


def _updates_in_place(instruction: Instruction) -> bool:
    """Tests whether an instruction changes a part of its first operand's buffer and leaves the rest."""
    return instruction.opcode in ("dynamic-update-slice", "scatter")


def _updates(computation: Computation, instruction: Instruction, index: int = 0) -> Array:
    """Returns the array that an in-place update writes into the operand at `index`."""
    first = 1 if instruction.opcode == "dynamic-update-slice" else _scatter_indices(instruction) + 1
    return computation.operand(instruction, first + index).arrays[0]


def _scatter_indices(scatter: Instruction) -> int:
    """Returns which operand of a scatter has the indices: the buffers come before it, their updates after it."""
    return len(scatter.operands) // 2


def _update_bytes(computation: Computation, instruction: Instruction, result: Array) -> int:
    """Returns the bytes that an in-place update writes into a result of this dtype."""
    return _updates(computation, instruction).elements * result.bits // 8


def _first_operand_is_parameter(fused: Computation, instruction: Instruction) -> bool:
    return _behind_bitcasts(fused, fused.operand(instruction, 0)).opcode == "parameter"


def _behind_bitcasts(computation: Computation, instruction: Instruction) -> Instruction:
    """Returns the instruction whose value bitcasts show in another shape."""
    while instruction.opcode == "bitcast":
        instruction = computation.operand(instruction, 0)
    return instruction
