"""The training side: sharding, optimiser, step, checkpoints, metrics, and the loop that calls them."""
