"""What several tests need: a small run, and the program `longstride` where the build has one."""

import os
import subprocess

import pytest

# PyTorch's threads spin while they wait, and on a busy machine take the time of all others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import longstride  # noqa: E402

SMALL = {
    "model": {"context": 64, "layers": 2, "heads": 2, "width": 32, "pattern": "fixed:16,4"},
    "train": {"steps": 40, "batch": 4},
    "compute": {"device": "cpu", "precision": "f32"},
}


def counting(numbers):
    return "".join(f"{i % 50} " for i in range(numbers)).encode()


def small(**sections):
    """SMALL, with more fields for its sections."""
    return {section: {**fields, **sections.get(section, {})} for section, fields in {**dict.fromkeys(sections, {}), **SMALL}.items()}


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Of bytes in memory."""
    path = tmp_path_factory.mktemp("runs") / "counting"
    longstride.train(SMALL, counting(2000), run=path)
    return path


@pytest.fixture(scope="session")
def program():
    """Runs `longstride ARGUMENTS...` and returns what it prints; skips the test where there is no such program."""
    path = os.environ.get("LONGSTRIDE_BINARY")
    if not path:
        pytest.skip("LONGSTRIDE_BINARY names no program")

    def call(*arguments):
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call
