"""The parameters of a model as a table for a person: path, shape, number, and where they lie."""

import io

import jax
import numpy as np
import rich.box
import rich.console
import rich.table

from spanbert_jax.training.sharding import param_path


def parameter_table(params, shardings) -> str:
    """One line a parameter, with its PartitionSpec, and the total; `params` may be shapes only."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_footer=True)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(int(np.prod(leaf.shape)) for _, leaf in leaves)
    table.add_column("parameter", footer="total")
    table.add_column("shape")
    table.add_column("number", justify="right", footer=f"{total:,}")
    table.add_column("sharding")
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings)):
        layout = ", ".join(str(axis) for axis in sharding.spec) or "replicated"
        table.add_row(param_path(path), " x ".join(map(str, leaf.shape)), f"{int(np.prod(leaf.shape)):,}", layout)
    console = rich.console.Console(file=io.StringIO(), width=140)
    console.print(table)
    return console.file.getvalue().rstrip()
