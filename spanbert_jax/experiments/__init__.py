"""Runs side by side, and what they cost: loss curves, benchmarks."""
