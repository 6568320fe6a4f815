"""longstride.train, without PyTorch."""

import json

import numpy as np
import pytest

import longstride
from conftest import SMALL, counting, small


def test_metrics_of_each_step():
    model = longstride.train(SMALL, counting(2000))
    assert [line["step"] for line in model.metrics] == list(range(1, 41))
    assert set(model.metrics[0]) == {"step", "done", "bits", "learning_rate", "gradient_norm", "seconds"}
    assert model.metrics[0]["bits"] > 7 and model.metrics[-1]["done"] == 1
    assert model.run is None and model.step == 40
    assert model.eval(counting(2000)) < 3


def test_a_config_is_a_file_or_a_dictionary(tmp_path):
    (tmp_path / "my.toml").write_text("[model]\ncontext = 64\nlayers = 1\nheads = 2\nwidth = 16\npattern = 'window:8'\n[train]\nsteps = 2\nbatch = 2\n")
    of_file = longstride.train(tmp_path / "my.toml", counting(500))
    assert (of_file.context, of_file.pattern, of_file.step) == (64, "window:8", 2)
    flat = longstride.train({"model": SMALL["model"], "train.steps": 2, "compute.device": "cpu"}, counting(500))
    assert (flat.context, flat.step) == (64, 2)


def test_the_callback_ends_it_or_raises(tmp_path):
    assert longstride.train(SMALL, counting(500), callback=lambda step: step["step"] < 3).step == 3
    assert longstride.train(SMALL, counting(500), callback=lambda step: np.float64(step["step"]) < 3).step == 3
    assert longstride.train(small(train={"steps": 5}), counting(500), callback=lambda step: 0).step == 5

    class Own(Exception):
        pass

    def raises(step):
        if step["step"] == 5:
            raise Own("mine")

    with pytest.raises(Own, match="mine"):
        longstride.train(SMALL, counting(500), run=tmp_path / "run", callback=raises)
    assert longstride.Model(tmp_path / "run", device="cpu").step == 5


def test_files_are_validated_and_gone_on_with(tmp_path, program):
    (tmp_path / "data.txt").write_bytes(counting(3000))
    config = small(data={"split": [6000, 1000, 1000]}, train={"validate_every": 20})

    def fails(step):
        if step["step"] == 25:
            raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        longstride.train(config, tmp_path / "data.txt", run=tmp_path / "run", callback=fails)
    with pytest.raises(longstride.Error, match="already holds a run"):
        longstride.train(config, tmp_path / "data.txt", run=tmp_path / "run")
    model = longstride.train(config, tmp_path / "data.txt", run=tmp_path / "run", resume=True)
    assert [line["step"] for line in model.metrics] == list(range(26, 41))
    assert [line["step"] for line in model.metrics if "validation_bits" in line] == [40]
    found = json.loads(program("eval", tmp_path / "run", "--split", "test", "--device", "cpu", "--json"))
    assert model.eval(split="test") == pytest.approx(found["results"][0]["bits_per_byte"], abs=1e-9)


def test_what_the_program_warns_of_is_a_warning(tmp_path):
    (tmp_path / "data.txt").write_bytes(counting(3000))
    config = small(train={"recipe": "paper", "warmup": 100})
    with pytest.warns(RuntimeWarning, match="learning rate is still rising"):
        longstride.train(config, tmp_path / "data.txt", run=tmp_path / "run")


def test_refusals(tmp_path):
    for arguments, message in (
        (({"model": {"contxt": 64}}, b"text"), "did you mean .*context"),
        (({**SMALL, "model": {**SMALL["model"], "pattern": "fixd:8"}}, counting(100)), r"\n  fixd:8\n  \^\^\^\^"),
        (("no/such.toml", b"text"), "no/such.toml"),
        ((SMALL, b""), "no bytes"),
        ((SMALL, "text.txt"), "needs run="),
        ((SMALL,), "needs run="),
    ):
        with pytest.raises(longstride.Error, match=message):
            longstride.train(*arguments)
    with pytest.raises(longstride.Error, match="text.txt"):
        longstride.train(SMALL, "text.txt", run=tmp_path / "run")
    with pytest.raises(longstride.WrongType, match="config is a int"):
        longstride.train(7, b"text")
    with pytest.raises(longstride.Error, match="resume is for"):
        longstride.train(SMALL, b"text", run=tmp_path / "run", resume=True)
