"""The text of a compiled XLA program, parsed into computations of instructions, and the trip counts of its loops.

The text is one partition's program, as `compiled.as_text()` prints it for TPU, GPU or CPU. It names operands without
their shapes, so an instruction can be understood only within its computation.
"""

import functools
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from spanbert_jax.errors import InputError

# A bracket, or one array of a shape: dtype[dims]{layout}. A layout may contain round brackets, but no curly ones.
_SHAPE_TOKEN = re.compile(r"[()]|([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) .*\{$")
_NAME = re.compile(r"%([\w.-]+)")

# Instructions that leave the value of a scalar as it is.
_SAME_SCALAR = ("bitcast", "convert", "copy", "reshape", "copy-start", "copy-done")
# The comparison that holds after the two sides are swapped.
_SWAPPED_DIRECTION = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}
# What to add to the bound of a loop to get the end of a Python range.
_RANGE_END = {"LT": 0, "LE": 1, "GT": 0, "GE": -1, "NE": 0}


@dataclass(frozen=True)
class Array:
    """One array of a shape, as one device stores it."""

    dtype: str
    dims: tuple[int, ...]
    memory: int  # memory space: 0 is main memory (HBM), 1 a TPU's VMEM, 5 the host's memory

    @functools.cached_property
    def elements(self) -> int:
        """Number of elements, without the padding of the layout."""
        return math.prod(self.dims)

    @functools.cached_property
    def bits(self) -> int:
        """Bits of one element; 0 for types without data (XLA's "token")."""
        width = re.search(r"\d+", self.dtype)
        return int(width[0]) if width else 8 * (self.dtype == "pred")

    @property
    def bytes(self) -> int:
        """Bytes of all elements, without the padding of the layout."""
        return -(-self.elements * self.bits // 8)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    outputs: tuple[tuple[Array, ...], ...]  # a tuple's elements, nested ones flattened; one element if not a tuple
    operands: tuple[str, ...]
    literal: str  # the text between the brackets: the value of a constant, the number of a parameter
    attributes: str  # the text after the operands, up to the metadata
    op_name: str  # the operation in the traced Python program, "" if unknown
    config: str  # the backend_config

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays of the result."""
        return tuple(array for output in self.outputs for array in output)

    @property
    def computed_arrays(self) -> tuple[Array, ...]:
        """The arrays that the instruction computes: all but the operands and semaphores in the tuple of a "-start"."""
        if not self.opcode.endswith("-start") or self.opcode == "all-reduce-start":
            return self.arrays
        return self.outputs[0 if self.opcode == "copy-start" else 1]

    def called(self, attribute: str) -> str:
        """Returns the name of the computation in an attribute ("calls", "body", ...), "" if there is none."""
        found = re.search(rf"\b{attribute}=%([\w.-]+)", self.attributes)
        return found[1] if found else ""

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """Returns the numbers in an attribute such as dimensions={0,1}; () if there is none."""
        found = re.search(rf"\b{attribute}=\{{?([\d,]*)", self.attributes)
        return integers(found[1]) if found else ()


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in program order: operands come before their users."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, by their number."""
        found = [each for each in self.instructions.values() if each.opcode == "parameter"]
        return tuple(each.name for each in sorted(found, key=lambda each: int(each.literal)))

    @functools.cached_property
    def users(self) -> dict[str, list[tuple[Instruction, int]]]:
        """For each name the instructions that take it, with the index of the operand."""
        users = defaultdict(list)
        for instruction in self.instructions.values():
            for index, operand in enumerate(instruction.operands):
                users[operand].append((instruction, index))
        return users

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """Returns the instruction that computes an operand."""
        return self.instructions[instruction.operands[index]]

    def scalar_source(self, name: str) -> Instruction:
        """Returns the instruction that a scalar originates from, behind copies, conversions and tuples made here."""
        instruction = self.instructions[name]
        if instruction.opcode in _SAME_SCALAR:
            return self.scalar_source(instruction.operands[0])
        if instruction.opcode == "get-tuple-element":
            source = self.operand(instruction, 0)
            if source.opcode == "tuple":
                return self.scalar_source(source.operands[instruction.numbers("index")[0]])
        return instruction


class _Binary(NamedTuple):
    """An instruction of two scalars, and the instructions that they originate from."""

    instruction: Instruction
    left: Instruction
    right: Instruction


@dataclass(frozen=True)
class Module:
    """A program: its computations by name and the one that runs first.

    For several TPU slices it is the program of each slice.
    """

    computations: dict[str, Computation]
    entry: Computation
    partitions: int = 0  # of one slice; 0: the text does not say

    def trip_count(self, computation: Computation, loop: Instruction) -> int | None:
        """Returns how often the body of a while loop runs, or None if the text does not say.

        The compiler's note is used if there is one. Otherwise the loop must be a counting one: the trip count follows
        from the comparison in its condition, the counter's initial value and the step that its body adds.
        """
        noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.config)
        if noted:
            return int(noted[1])
        comparison = self._binary(self.computations[loop.called("condition")])
        initial = computation.scalar_source(loop.operands[0])
        direction = comparison and re.search(r"direction=(\w+)", comparison.instruction.attributes)
        if not comparison or not direction or direction[1] not in _RANGE_END or initial.opcode != "tuple":
            return None

        counter, bound, order = comparison.left, comparison.right, direction[1]
        if counter.opcode == "constant":
            counter, bound, order = bound, counter, _SWAPPED_DIRECTION[order]
        if counter.opcode != "get-tuple-element":
            return None
        counter_index = counter.numbers("index")[0]
        if bound.opcode == "get-tuple-element":  # the bound is an element of the loop's state
            bound = computation.scalar_source(initial.operands[bound.numbers("index")[0]])

        first = _constant(computation.scalar_source(initial.operands[counter_index]))
        last = _constant(bound)
        step = self._step(self.computations[loop.called("body")], counter_index)
        if first is None or last is None or not step:
            return None
        return len(range(first, last + _RANGE_END[order], step))

    def _binary(self, computation: Computation, name: str = "") -> _Binary | None:
        """Returns the instruction of two operands that computes a scalar, also one inside a fusion.

        Args:
          computation: where the scalar is used.
          name: of the scalar; "" for the root.
        """
        instruction = computation.scalar_source(name or computation.root.name)
        if instruction.opcode == "fusion":
            inner = self._binary(self.computations[instruction.called("calls")])
            if inner is None:
                return None
            outer_operands = (
                computation.scalar_source(instruction.operands[int(side.literal)])
                if side.opcode == "parameter"
                else side
                for side in (inner.left, inner.right)
            )
            return _Binary(inner.instruction, *outer_operands)
        if len(instruction.operands) != 2:
            return None
        return _Binary(instruction, *map(computation.scalar_source, instruction.operands))

    def _step(self, body: Computation, index: int) -> int | None:
        """Returns the constant that the body of a loop adds to an element of the loop's state, None if it does not."""
        if body.root.opcode != "tuple":
            return None
        change = self._binary(body, body.root.operands[index])
        if not change or change.instruction.opcode not in ("add", "subtract"):
            return None
        left, right = _constant(change.left), _constant(change.right)
        step = right if left is None else left
        return -step if step and change.instruction.opcode == "subtract" else step


def parse(text: str) -> Module:
    """Parses the text of a compiled program.

    Raises:
      InputError: it is not the text of a compiled program.
    """
    computations: dict[str, Computation] = {}
    name, entry = "", ""
    instructions: dict[str, Instruction] = {}
    root: Instruction | None = None
    for line in text.splitlines():
        if line.startswith("}") and root:
            computations[name] = Computation(name, instructions, root)
            root = None
        elif line.startswith((" ", "\t")):
            head = _INSTRUCTION.match(line)
            if head:
                instruction = _instruction(head[2], line[head.end() :])
                instructions[instruction.name] = instruction
                root = instruction if head[1] else root
        elif line.endswith("{") and (head := _COMPUTATION.match(line)):
            name, instructions, root = head[2], {}, None
            entry = name if head[1] else entry
    if entry not in computations:
        raise InputError(
            "the text of a compiled program has no ENTRY computation: pass the whole text of compiled.as_text()"
        )
    partitions = re.search(r"^HloModule .*\bnum_partitions=(\d+)", text, re.MULTILINE)
    return Module(computations, computations[entry], int(partitions[1]) if partitions else 0)


def _instruction(name: str, text: str) -> Instruction:
    """Parses "shape opcode(operands), attributes, metadata={...}, backend_config={...}"."""
    outputs, shape_end = _shape(text)
    opening = text.index("(", shape_end)
    closing = _closing_bracket(text, opening)
    opcode, literal, rest = text[shape_end:opening].strip(), text[opening + 1 : closing], text[closing + 1 :]
    rest, _, config = rest.partition(", backend_config=")
    attributes, _, metadata = rest.partition(", metadata={")
    operands = () if opcode == "constant" else tuple(_NAME.findall(literal))
    op_name = re.search(r'op_name="([^"]*)"', metadata)
    return Instruction(name, opcode, outputs, operands, literal, attributes, op_name[1] if op_name else "", config)


def _shape(text: str) -> tuple[tuple[tuple[Array, ...], ...], int]:
    """Returns the arrays of the shape at the start of a text, see Instruction.outputs, and where the shape ends."""
    outputs: list[list[Array]] = []
    depth = 0
    for token in _SHAPE_TOKEN.finditer(text):
        bracket, is_array = token[0], token[1] is not None
        if bracket == "(":
            depth += 1
        if (bracket == "(" and depth == 2) or (is_array and depth < 2):
            outputs.append([])  # the next element of the outermost tuple begins
        if bracket == ")":
            depth -= 1
        if is_array:
            outputs[-1].append(_array(token[1], token[2], token[3] or ""))
        if not depth:
            return tuple(map(tuple, outputs)), token.end()
    raise InputError(f"the text of a compiled program has an instruction without a shape: {text[:80]!r}")


@functools.lru_cache(maxsize=1 << 14)
def _array(dtype: str, dims: str, layout: str) -> Array:
    memory = re.search(r"S\((\d+)\)", layout)
    return Array(dtype, integers(dims), int(memory[1]) if memory else 0)


def _closing_bracket(text: str, opening: int) -> int:
    """Returns the index of the bracket that closes the one at `opening`."""
    depth = 0
    for bracket in re.finditer(r"[()]", text[opening:]):
        depth += 1 if bracket[0] == "(" else -1
        if not depth:
            return opening + bracket.start()
    return len(text)


def integers(text: str) -> tuple[int, ...]:
    """Returns all integers of a text in order: (0, 1, 2, 3) for "{{0,1},{2,3}}"."""
    return tuple(map(int, re.findall(r"\d+", text)))


def _constant(instruction: Instruction) -> int | None:
    """Returns the value of an integer constant, None for all other instructions."""
    is_integer = instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.literal)
    return int(instruction.literal) if is_integer else None
