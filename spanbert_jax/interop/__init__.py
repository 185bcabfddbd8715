"""Import and export of weights: names and layouts of other libraries.

Parameters are numpy arrays by path; only stablehlo.py needs jax.
"""
