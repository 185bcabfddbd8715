"""Weights in and out: names and layouts of other libraries. No jax: parameters are numpy arrays by path."""
