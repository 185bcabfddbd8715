"""Which blocks share a row: packing without a loss of text or time."""

import numpy as np


def pack_blocks(lengths: np.ndarray, seq_len: int, max_blocks_per_row: int) -> np.ndarray:
    """Row number of each block, int64 [blocks]; `lengths` are in tokens with [CLS] and [SEP].

    Best fit decreasing: blocks from long to short (of equal ones the earlier first), each into the row with the least room that still
    holds it, or a new one. Rows with equal room are a stack, and the set of rooms in use is the bits of one integer, so a block costs
    constant time. Rows are numbered by their first block.
    """
    if max_blocks_per_row == 1:
        return np.arange(len(lengths))
    row_of_block = np.empty(len(lengths), np.int64)
    stacks = [[] for _ in range(seq_len + 1)]  # rows by the room they have left
    rooms = 0  # bit r: some row has room r
    fill = []  # blocks in each row
    for block in np.argsort(-lengths.astype(np.int64), kind="stable").tolist():
        length = int(lengths[block])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = stacks[room].pop()
            if not stacks[room]:
                rooms ^= 1 << room
            fill[row] += 1
        else:
            room, row = seq_len, len(fill)
            fill.append(1)
        row_of_block[block] = row
        if fill[row] < max_blocks_per_row:
            stacks[room - length].append(row)
            rooms |= 1 << (room - length)
    first = np.unique(row_of_block, return_index=True)[1]  # [rows] first block of each row
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[row_of_block]
