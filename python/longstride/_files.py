"""The files of a run: config.toml and model.safetensors (docs/file-formats.md)."""

from __future__ import annotations

import json
import os
from typing import Any

from ._errors import Error


def read_config(path: str) -> dict[str, dict[str, Any]]:
    """The sections of a config file."""
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise Error(f"{path}: no such file; a run is a directory that `longstride train` wrote") from None
    except ValueError as error:
        raise Error(f"{path}: {error}") from None


def weights_file(run: str) -> str:
    """That of the best step, or where validation names none of the newest."""
    path = os.path.join(run, "model.safetensors")
    if not os.path.exists(path):
        raise Error(f"{run}: no model.safetensors there; train it first")
    return path


def read_weights(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays of float32 by name, and the file's metadata."""
    import numpy

    with open(path, "rb") as file:
        content = file.read()
    try:
        begin = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:begin])
        metadata = header.pop("__metadata__", {})
        weights = {}
        for name, tensor in header.items():
            if tensor["dtype"] != "F32":
                raise ValueError(f"{name} is {tensor['dtype']}, weights are F32")
            first, end = tensor["data_offsets"]
            of_tensor = numpy.frombuffer(content[begin + first : begin + end], "<f4")
            weights[name] = of_tensor.reshape(tensor["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Error(f"{path}: no file of weights: {error}") from None
    return weights, metadata


def write_weights(path: str, weights: dict[str, Any], metadata: dict[str, str]) -> None:
    """Arrays of float32 in this order, in a file that appears whole or not at all."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in weights.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open_whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in weights.values():
            file.write(array.astype("<f4", order="C").tobytes())


class open_whole:
    """A file that takes its name when it is closed without an error."""

    def __init__(self, path: str):
        folder, name = os.path.split(path)
        self.path, self.temporary = path, os.path.join(folder, f".tmp-{name}-{os.getpid()}")

    def __enter__(self):
        self.file = open(self.temporary, "wb")
        return self.file

    def __exit__(self, kind, *_):
        self.file.close()
        if kind is None:
            os.replace(self.temporary, self.path)
        else:
            os.unlink(self.temporary)
