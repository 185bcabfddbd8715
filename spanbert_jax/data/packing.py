"""Packing: which blocks share a row, with little padding and no loss of text."""

import numpy as np


def pack_blocks(lengths: np.ndarray, seq_len: int, max_blocks_per_row: int) -> np.ndarray:
    """Returns the row number of each block, int64 [blocks]. `lengths` are in tokens, with [CLS] and [SEP].

    Best fit decreasing: the blocks are taken from long to short (equal ones in order), and each is put into the row
    with the least space that is enough, or into a new one. Rows with equal space are a stack, and the set of spaces in
    use is the bits of one integer, so a block takes constant time. Rows are numbered by their first block.
    """
    if max_blocks_per_row == 1:
        return np.arange(len(lengths))
    row_of_block = np.empty(len(lengths), np.int64)
    rows_by_space: list[list[int]] = [[] for _ in range(seq_len + 1)]  # space -> rows
    spaces = 0  # bit r is set if some row has space r
    blocks_in_row: list[int] = []
    for block in np.argsort(-lengths.astype(np.int64), kind="stable").tolist():
        length = int(lengths[block])
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1  # the lowest set bit
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                spaces ^= 1 << space
            blocks_in_row[row] += 1
        else:
            space, row = seq_len, len(blocks_in_row)
            blocks_in_row.append(1)
        row_of_block[block] = row
        if blocks_in_row[row] < max_blocks_per_row:
            rows_by_space[space - length].append(row)
            spaces |= 1 << (space - length)
    first_block = np.unique(row_of_block, return_index=True)[1]  # [rows]
    row_number = np.empty(len(first_block), np.int64)
    row_number[np.argsort(first_block)] = np.arange(len(first_block))
    return row_number[row_of_block]
