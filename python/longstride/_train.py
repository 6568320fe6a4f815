"""Training from Python."""

from __future__ import annotations

import os
import warnings
from typing import Any, Callable, Mapping

from . import _longstride
from ._errors import Error, WrongType, bytes_of, path_of
from ._model import Model


def train(
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    data=None,
    *,
    run: str | os.PathLike[str] | None = None,
    callback: Callable[[dict[str, float]], Any] | None = None,
    resume: bool = False,
) -> Model:
    """Trains a model and returns it; ``metrics`` of the model is a dictionary for each step.

    ``config`` is a config file, or a dictionary such as {"model": {"context": 256}, "train.steps": 1000}; what it leaves
    open is chosen, as `longstride train` does. ``data`` is bytes, or a path of files; without it the config names them.
    ``run`` is the directory to save the run in, which files need and bytes do without. With ``resume`` a run on files that
    is there goes on. ``callback`` is given the metrics of each step; if it returns False, the training ends. An exception
    that it raises, and Ctrl-C, end the training too: the last state is saved in ``run``, and the exception goes on. What the
    program warns of is a warning of Python.
    """
    settings, file = _settings_of(config)
    in_memory = None
    if isinstance(data, (str, os.PathLike)):
        settings.append(f"data.path={_written(os.path.abspath(path_of(data, 'data')))}")
    elif data is not None:
        in_memory = bytes_of(data)
        if resume:
            raise Error("resume is for training on files; a run of bytes in memory cannot go on")
    if in_memory is None and run is None:
        raise Error("training on files needs run=, a directory for the run; or give data as bytes")
    metrics: list[dict[str, float]] = []

    def after_step(step):
        metrics.append(step)
        answer = None if callback is None else callback(dict(step))
        # numpy's False ends it too; None and 0 do not.
        return not (type(answer).__name__ in ("bool", "bool_") and not answer)

    def note(line):
        if line.startswith("warning"):
            warnings.warn(line.removeprefix("warning").strip(), RuntimeWarning, stacklevel=3)

    directory = "" if run is None else path_of(run)
    engine = _longstride.train(in_memory, settings, file, directory, resume, after_step, note)
    return Model._trained(engine, directory or None, metrics)


def _settings_of(config) -> tuple[list[str], str]:
    """What settings a config has, and its file."""
    if config is None:
        return [], ""
    if isinstance(config, (str, os.PathLike)):
        return [], path_of(config, "config")
    if not isinstance(config, Mapping):
        raise WrongType(f"config is a {type(config).__name__}, must be a dictionary or the path of a config file")
    settings = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            settings += [f"{key}.{name}={_written(of_section)}" for name, of_section in value.items()]
        else:
            settings.append(f"{key}={_written(value)}")
    return settings, ""


def _written(value) -> str:
    """As TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_written(item) for item in value) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    if hasattr(value, "item"):
        return _written(value.item())
    escaped = "".join(f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 32 else c for c in str(value))
    return f'"{escaped}"'
