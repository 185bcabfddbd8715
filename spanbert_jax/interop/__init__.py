"""Weights in and out: names and layouts of other libraries. Parameters are numpy arrays by path; only stablehlo.py needs jax."""
