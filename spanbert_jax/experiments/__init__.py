"""Comparison of runs, and benchmarks."""
