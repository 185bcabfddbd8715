"""What made a run, besides its config: versions of packages, the state of the project's git checkout, and the data."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spanbert_jax.folders import replace_file

PROVENANCE_FILE = "provenance.json"  # in a workdir
ROOT = Path(__file__).resolve().parents[1]  # of the project, where it is a checkout
# Distributions whose versions are recorded, as far as they are installed; tensorflow has several.
PACKAGES = ("spanbert_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
TENSORFLOW = ("tensorflow", "tensorflow-cpu")
GIT_SECONDS = 10  # for a call of git


def provenance(text: str, vocabulary: str) -> dict[str, Any]:
    """Returns what this process would make a run with, in JSON types, nested by "section" and "name".

    Args:
      text: fingerprint of what is trained on.
      vocabulary: fingerprint of the vocabulary and its rules.
    """
    made = {"versions": versions(), "data": {"text": text, "vocabulary": vocabulary}}
    state = git_state(ROOT)
    return made | ({"git": state} if state else {})


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a run's numbers depend on, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if version := _version(name):
            found[name] = version
    if version := next(filter(None, map(_version, TENSORFLOW)), None):
        found["tensorflow"] = version
    return found


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state(root: Path) -> dict[str, Any] | None:
    """Returns {"commit", "dirty": whether tracked files have changes}; None if `root` is not the root of a checkout."""
    top, commit, changes = (
        _git(root, *arguments)
        for arguments in (
            ("rev-parse", "--show-toplevel"),
            ("rev-parse", "HEAD"),
            ("status", "--porcelain", "--untracked-files=no"),
        )
    )
    # A package installed in another project's checkout is not of that project.
    if not top or not commit or changes is None or Path(top).resolve() != root.resolve():
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    """Returns what git prints, None if it fails."""
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def flat(made: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields ("section.name", value) of a provenance."""
    for section, values in made.items():
        for name, value in values.items():
            yield f"{section}.{name}", value


def write_provenance(workdir: Path, made: Mapping[str, Any]) -> None:
    """Writes provenance.json, completely or not at all."""
    with replace_file(workdir / PROVENANCE_FILE, unique=False) as file:
        file.write(json.dumps(made, indent=2) + "\n")


def read_provenance(workdir: Path) -> dict[str, Any]:
    """Returns what write_provenance wrote; of a run of an earlier release, or of a damaged file, nothing."""
    try:
        made = json.loads((workdir / PROVENANCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sections = made.items() if isinstance(made, dict) else ()
    return {name: values for name, values in sections if isinstance(values, dict)}


def in_words(made: Mapping[str, Any]) -> list[str]:
    """Returns a provenance as clauses for people, such as "jax 0.10.2"."""
    clauses = [f"{name} {version}" for name, version in made.get("versions", {}).items()]
    if state := made.get("git"):
        changes = ", with changes that are not committed" if state["dirty"] else ""
        clauses.append(f"commit {state['commit'][:12]}{changes}")
    return clauses + [f"{name} {value[:12]}" for name, value in made.get("data", {}).items()]
