"""The version for pyproject.toml: project(longstride VERSION ...) is the one place that says it."""

import pathlib
import re


def dynamic_metadata(settings, project):
    python = pathlib.Path(__file__).parents[1]
    tree = python / "tree" if (python / "tree").exists() else python.parent
    found = re.search(r"project\(longstride VERSION ([0-9.]+)", (tree / "CMakeLists.txt").read_text())
    return {"version": found[1]}
