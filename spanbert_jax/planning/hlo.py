"""The text of a compiled XLA program, parsed: computations of instructions, how often a loop runs, who takes part in a collective.

The text is one partition's program, as `compiled.as_text()` prints it for TPU, GPU or CPU. It names operands without their shapes, so an
instruction means something only within its computation.
"""

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from spanbert_jax.errors import InputError

# A bracket, or one array of a shape: dtype[dims]{layout}. A layout holds round brackets too, but never curly ones.
_SHAPE = re.compile(r"[()]|([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) .*\{$")
_NAME = re.compile(r"%([\w.-]+)")
_TRANSPARENT = ("bitcast", "convert", "copy", "reshape", "copy-start", "copy-done")  # of a scalar: the same number
_FLIPPED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}
_PAST_BOUND = {"LT": 0, "LE": 1, "GT": 0, "GE": -1, "NE": 0}  # where the range of a loop ends, after its bound


@dataclass(frozen=True)
class Array:
    """One array of a shape, as one device holds it."""

    dtype: str
    dims: tuple[int, ...]
    memory: int  # its space: 0 is main memory (HBM); a TPU's VMEM is 1, a host's memory 5

    @functools.cached_property
    def elements(self) -> int:
        """Their number, padding of the layout not counted."""
        return math.prod(self.dims)

    @functools.cached_property
    def bits(self) -> int:
        """Of one element; 0 of a token."""
        width = re.search(r"\d+", self.dtype)
        return int(width[0]) if width else 8 * (self.dtype == "pred")

    @property
    def bytes(self) -> int:
        """Of the whole, padding not counted."""
        return -(-self.elements * self.bits // 8)


@dataclass(frozen=True)
class Instruction:
    """One line. `parts` holds the arrays of its result: one part of one array, or of a tuple a part for each element, its arrays flat."""

    name: str
    opcode: str
    parts: tuple[tuple[Array, ...], ...]
    operands: tuple[str, ...]
    literal: str  # what stands between the brackets: of a constant its value, of a parameter its number
    attributes: str  # the text after the operands, up to the metadata
    op_name: str  # where the program's author asked for it, "" if unknown
    config: str  # the backend's notes

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays of the result."""
        return tuple(array for part in self.parts for array in part)

    def called(self, attribute: str) -> str:
        """The computation that an attribute names, "" if there is none.

        Args:
          attribute: "calls", "to_apply", "body", "condition", ...
        """
        found = re.search(rf"\b{attribute}=%([\w.-]+)", self.attributes)
        return found[1] if found else ""

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """The numbers of an attribute like dimensions={0,1}; () if there is none."""
        found = re.search(rf"\b{attribute}=\{{?([\d,]*)", self.attributes)
        return integers(found[1]) if found else ()


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; an operand stands before its user."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names, by number."""
        found = [one for one in self.instructions.values() if one.opcode == "parameter"]
        return tuple(one.name for one in sorted(found, key=lambda one: int(one.literal)))

    @functools.cached_property
    def users(self) -> dict[str, list[tuple[Instruction, int]]]:
        """Name -> who takes it, and as which operand."""
        users = defaultdict(list)
        for one in self.instructions.values():
            for position, operand in enumerate(one.operands):
                users[operand].append((one, position))
        return users

    def source(self, name: str) -> Instruction:
        """What a scalar comes from: copies and the like, and elements of a tuple made here, are looked through."""
        one = self.instructions[name]
        if one.opcode in _TRANSPARENT:
            return self.source(one.operands[0])
        if one.opcode == "get-tuple-element":
            made = self.instructions[one.operands[0]]
            return self.source(made.operands[one.numbers("index")[0]]) if made.opcode == "tuple" else one
        return one


@dataclass(frozen=True)
class Module:
    """A program: its computations by name, that which runs first, and for how many partitions it is (0: the text does not tell).

    Of several slices of TPUs it is the program of each, and its partitions are those of one.
    """

    computations: dict[str, Computation]
    entry: Computation
    partitions: int = 0

    def trip_count(self, within: Computation, loop: Instruction) -> int | None:
        """How often a while's body runs; None if the text does not tell.

        As the compiler noted it, or else read off a loop that counts: the condition's comparison, the number it starts from and the step.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.config)
        if known:
            return int(known[1])
        test = self._binary(self.computations[loop.called("condition")], None)
        direction = re.search(r"direction=(\w+)", test[0].attributes) if test else None
        init = within.source(loop.operands[0])
        if not direction or init.opcode != "tuple" or direction[1] not in _FLIPPED:
            return None
        _, left, right = test
        direction = direction[1]
        if left.opcode == "constant":
            left, right, direction = right, left, _FLIPPED[direction]
        if left.opcode != "get-tuple-element":
            return None
        counter = left.numbers("index")[0]
        if right.opcode == "get-tuple-element":  # the bound is carried along
            right = within.source(init.operands[right.numbers("index")[0]])
        start, bound = _constant(within.source(init.operands[counter])), _constant(right)
        step = self._step(self.computations[loop.called("body")], counter)
        return None if None in (start, bound) or not step else len(range(start, bound + _PAST_BOUND[direction], step))

    def _binary(
        self, computation: Computation, name: str | None
    ) -> tuple[Instruction, Instruction, Instruction] | None:
        """The instruction of two operands at a name (None: the root) and what they come from; a fusion is looked into."""
        one = computation.source(name or computation.root.name)
        if one.opcode == "fusion":
            fused = self.computations[one.called("calls")]
            inner = self._binary(fused, None)
            return inner and (
                inner[0],
                *(
                    computation.source(one.operands[int(side.literal)]) if side.opcode == "parameter" else side
                    for side in inner[1:]
                ),
            )
        return (one, *map(computation.source, one.operands)) if len(one.operands) == 2 else None

    def _step(self, body: Computation, counter: int) -> int | None:
        """What a loop's body adds to an element of its tuple."""
        after = self._binary(body, body.root.operands[counter]) if body.root.opcode == "tuple" else None
        if not after or after[0].opcode not in ("add", "subtract"):
            return None
        step = next((number for number in map(_constant, after[1:]) if number is not None), None)
        return -step if step and after[0].opcode == "subtract" else step


def parse(text: str) -> Module:
    """The program of a text.

    Raises:
      InputError: it is not the text of a compiled program.
    """
    computations, entry = {}, None
    name, instructions, root = "", {}, None
    for line in text.splitlines():
        if line.startswith("}") and root:
            computations[name] = Computation(name, instructions, root)
            root = None
        elif line.startswith((" ", "\t")):
            head = _INSTRUCTION.match(line)
            if head:
                one = _instruction(head[2], line[head.end() :])
                instructions[one.name] = one
                root = one if head[1] else root
        elif line.endswith("{") and (head := _COMPUTATION.match(line)):
            name, instructions, root = head[2], {}, None
            entry = name if head[1] else entry
    if entry not in computations:
        raise InputError(
            "the text of a compiled program has no ENTRY computation: give what compiled.as_text() returns, whole"
        )
    partitions = re.search(r"^HloModule .*\bnum_partitions=(\d+)", text, re.MULTILINE)
    return Module(computations, computations[entry], int(partitions[1]) if partitions else 0)


def _instruction(name: str, text: str) -> Instruction:
    """Of "shape opcode(operands), attributes, metadata={...}, backend_config={...}"."""
    parts, end = _parts(text)
    opening = text.index("(", end)
    closing = _closing(text, opening)
    literal, rest = text[opening + 1 : closing], text[closing + 1 :]
    rest, _, config = rest.partition(", backend_config=")
    attributes, _, metadata = rest.partition(", metadata={")
    op_name = re.search(r'op_name="([^"]*)"', metadata)
    opcode = text[end:opening].strip()
    return Instruction(
        name,
        opcode,
        parts,
        () if opcode == "constant" else tuple(_NAME.findall(literal)),
        literal,
        attributes,
        op_name[1] if op_name else "",
        config,
    )


def _parts(text: str) -> tuple[tuple[tuple[Array, ...], ...], int]:
    """The arrays of the shape that a text starts with, by elements of its outermost tuple, and where the shape ends."""
    parts, depth = [], 0
    for token in _SHAPE.finditer(text):
        if token[0] == "(":
            depth += 1
        if (token[0] == "(" and depth == 2) or (token[1] and depth < 2):
            parts.append([])
        if token[0] == ")":
            depth -= 1
        if token[1]:
            parts[-1].append(_array(token[1], token[2], token[3] or ""))
        if not depth:
            return tuple(map(tuple, parts)), token.end()
    raise InputError(f"the text of a compiled program has an instruction without a shape: {text[:80]!r}")


@functools.lru_cache(maxsize=1 << 14)
def _array(dtype: str, dims: str, layout: str) -> Array:
    memory = re.search(r"S\((\d+)\)", layout)
    return Array(dtype, integers(dims), int(memory[1]) if memory else 0)


def _closing(text: str, opening: int) -> int:
    """Where the bracket that opens here is closed."""
    depth = 0
    for bracket in re.finditer(r"[()]", text[opening:]):
        depth += 1 if bracket[0] == "(" else -1
        if not depth:
            return opening + bracket.start()
    return len(text)


def integers(text: str) -> tuple[int, ...]:
    """Those of a text, as they stand: "{{0,1},{2,3}}" -> 0, 1, 2, 3."""
    return tuple(map(int, re.findall(r"\d+", text)))


def _constant(one: Instruction) -> int | None:
    return int(one.literal) if one.opcode == "constant" and re.fullmatch(r"-?\d+", one.literal) else None


_LISTED = re.compile(r"replica_groups=\{(.*?)\}(?!,\{)")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]*))\))? \{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}(?!,\{)")


def device_groups(attributes: str, devices: int) -> list[tuple[int, ...]]:
    """Which partitions exchange data with each other, from the attributes of a collective in any of their syntaxes.

    Of a collective-permute: the chains and rings along which data goes. A group of one moves nothing.

    Args:
      attributes: of the instruction.
      devices: of the program; all are one group where none is given.

    Raises:
      InputError: a syntax that is not known.
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
        raise InputError(
            f"the replica_groups of a collective are written in a way that is not known: {attributes[:120]}"
        )
    return [tuple(range(devices))]


def _iota(dims: str, transposed: str | None) -> tuple[int, ...]:
    """0, 1, 2, ... in an array of these dims, transposed, read row by row."""
    sizes = integers(dims)
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    order = (0,)
    for axis in integers(transposed) if transposed else range(len(sizes)):
        order = tuple(base + step * strides[axis] for base in order for step in range(sizes[axis]))
    return order


def _mesh_groups(
    axes: str, dims: str | None, transposed: str | None, listed: str | None, over: str
) -> list[tuple[int, ...]]:
    """Of mesh['a'=2,'b'=4], device_ids=(...) {'b'}: those that differ only along the axes named last, or along 'b':(m)k, a part of one."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", axes)}
    total = math.prod(sizes.values())
    order = _iota(dims, transposed) if dims else integers(listed) if listed else tuple(range(total))
    strides = {name: math.prod(list(sizes.values())[place + 1 :]) for place, name in enumerate(sizes)}
    moving = []  # (stride, size) of each axis or part of one
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", over):
        size, before = int(size or sizes[name]), int(before or 1)
        moving.append((strides[name] * (sizes[name] // (before * size)), size))
    groups = defaultdict(list)
    for position in range(total):
        groups[position - sum(position // stride % size * stride for stride, size in moving)].append(order[position])
    return [tuple(group) for group in groups.values()]


def _chains(numbers: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Of source, target, source, target, ...: each chain or ring that data goes along."""
    following = dict(zip(numbers[::2], numbers[1::2]))
    seen = set()

    def walk(device) -> Iterator[int]:
        while device is not None and device not in seen:
            seen.add(device)
            yield device
            device = following.get(device)

    targets = set(following.values())
    heads = [device for device in following if device not in targets]
    return [chain for chain in (tuple(walk(device)) for device in (*heads, *following)) if chain]
