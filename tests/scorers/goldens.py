"""Scores of the official scorers: files of tests/goldens/metrics, or of the folder that SPANBERT_GOLDENS names."""

import json
import os
from pathlib import Path

import pytest

COMMITTED = Path(__file__).parents[1] / "goldens" / "metrics"


def load(name: str) -> dict:
    """Returns a golden file; skips the test if it is not committed and no folder is named."""
    path = COMMITTED / f"{name}.json"
    if not path.is_file():
        folder = os.environ.get("SPANBERT_GOLDENS")
        if not folder:
            pytest.skip(f"{path.name} contains licensed data and is not committed: name its folder in SPANBERT_GOLDENS")
        path = Path(folder) / path.name
    return json.loads(path.read_text(encoding="utf-8"))


def close(value):
    """Equal to 9 digits, also inside dicts and lists; counts are small enough to be exact."""
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def assert_same(got: dict, expected: dict) -> None:
    """Both have the same keys and, to 9 digits, the same numbers; counts (whole numbers) are equal."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == (value if isinstance(value, int) else close(value)), name
