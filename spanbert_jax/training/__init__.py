"""Training: sharding, train step, checkpoints, metrics, and the loop that uses them."""
