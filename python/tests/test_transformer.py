"""longstride.SparseTransformer against the golden models, the engine and the program."""

import json
import pathlib

import numpy as np
import pytest

import longstride
from conftest import SMALL, counting, small

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

HERE = pathlib.Path(__file__).parent  # a source distribution has the golden models here, the tree in its own tests
GOLDEN = next((path for path in (HERE / "golden", HERE.parents[1] / "tests" / "golden") if path.exists()), HERE)

# Every way of having positions, and all that blocks may have.
MODELS = {
    "paper": {},
    "released": {"positions": "released", "qk_width": 16, "pattern": "stride:8,window:8*2"},
    "rotary": {"positions": "rotary", "qk_norm": True, "pattern": "window:8|stride:8"},
    "grid": {"positions": "rotary", "position_axes": [8, 8], "feed_forward": 48},
    "all": {"layers": 3, "positions": "rotary", "rotary_base": 500.0, "qk_norm": True, "value_residual": 0.5, "convolution": 4},
}


def read_golden(path):
    """The file's arrays, also those that are not f32, and the [model] section."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    model = header.pop("__metadata__")["model"]
    types = {"F32": np.float32, "F64": np.float64, "U8": np.uint8}
    arrays = {}
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        of_tensor = np.frombuffer(content[8 + size + begin : 8 + size + end], types[tensor["dtype"]])
        arrays[name] = torch.from_numpy(of_tensor.reshape(tensor["shape"]).copy())
    config = {}
    for line in model.splitlines():
        key, value = line.split(" = ", 1)
        config[key] = json.loads(value)
    return arrays, config


def losses_of(model, tokens):
    return F.cross_entropy(model(tokens).transpose(1, 2), tokens.long(), reduction="none")


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.safetensors")))
def test_the_golden_models(name):
    arrays, config = read_golden(GOLDEN / f"{name}.safetensors")
    model = longstride.SparseTransformer(**config)
    model.load_state_dict({key[8:]: value for key, value in arrays.items() if key.startswith("weights.")})
    losses = losses_of(model, arrays["tokens"])
    torch.testing.assert_close(losses.double(), arrays["losses"], atol=1e-5, rtol=1e-5)
    losses.mean().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, arrays["gradients." + key], atol=1e-5, rtol=1e-3, msg=key)


def test_golden_models_are_there():
    assert len(list(GOLDEN.glob("*.safetensors"))) >= 7


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_and_back(name, tmp_path, program):
    trained = longstride.train(small(model=MODELS[name]), counting(2000), run=tmp_path / "run")
    data = counting(40)[:64]
    model = longstride.SparseTransformer.from_pretrained(tmp_path / "run")
    with torch.no_grad():
        logits = model(torch.frombuffer(bytearray(data), dtype=torch.uint8)[None])[0]
    np.testing.assert_allclose(logits.numpy(), trained.logits(data), atol=1e-4)
    # Of fewer bytes than the context too.
    with torch.no_grad():
        fewer = model(torch.frombuffer(bytearray(data[:19]), dtype=torch.uint8)[None])[0]
    np.testing.assert_allclose(fewer.numpy(), logits[:19].numpy(), atol=1e-4)

    model.save_pretrained(tmp_path / "same")
    same = longstride.Model(tmp_path / "same", device="cpu", precision="f32")
    assert same.step == 40
    np.testing.assert_array_equal(same.logits(data), trained.logits(data))
    assert same.decompress(trained.compress(data)) == data  # the very same model

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens = torch.frombuffer(bytearray(counting(2000)), dtype=torch.uint8)
    before = same.eval(counting(500))
    for step in range(20):
        batch = torch.stack([tokens[at : at + 64] for at in torch.randint(len(tokens) - 64, (8,))])
        optimizer.zero_grad()
        losses_of(model, batch).mean().backward()
        optimizer.step()
    model.save_pretrained(tmp_path / "same", step=60)
    again = longstride.Model(tmp_path / "same", device="cpu", precision="f32")
    assert again.step == 60 and again.eval(counting(500)) < before
    text = counting(500)[: 64 * 20]
    with torch.no_grad():
        windows = torch.frombuffer(bytearray(text), dtype=torch.uint8).view(-1, 64)
        bits = losses_of(model, windows).double().mean().item() / np.log(2)
    assert again.eval(text) == pytest.approx(bits, abs=1e-5)
    (tmp_path / "text").write_bytes(text)
    flags = ("--device", "cpu", "--set", "compute.precision=f32", "--json")
    found = json.loads(program("eval", tmp_path / "same", "--file", tmp_path / "text", *flags))
    assert found["results"][0]["bits_per_byte"] == pytest.approx(bits, abs=1e-5)


def test_a_run_that_the_program_trained(tmp_path, program):
    (tmp_path / "data.txt").write_bytes(counting(3000))
    (tmp_path / "my.toml").write_text(
        f"[data]\npath = '{tmp_path}/data.txt'\n[model]\ncontext = 64\nlayers = 2\nheads = 2\nwidth = 32\npattern = 'fixed:16,4'\n[train]\nsteps = 30\n"
    )
    program("train", tmp_path / "my.toml", "--run", tmp_path / "run", "--quiet", "--set", "compute.device=cpu")
    model = longstride.SparseTransformer.from_pretrained(tmp_path / "run")
    assert model.config["convolution"] == 4 and model.config["positions"] == "rotary"  # what the program chooses
    data = counting(3000)[: 64 * 50]
    with torch.no_grad():
        bits = losses_of(model, torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 64)).double().mean().item() / np.log(2)
    (tmp_path / "text").write_bytes(data)
    flags = ("--device", "cpu", "--set", "compute.precision=f32", "--json")
    for run in ("run", "saved"):
        found = json.loads(program("eval", tmp_path / run, "--file", tmp_path / "text", *flags))
        assert found["results"][0]["bits_per_byte"] == pytest.approx(bits, abs=1e-5)
        if run == "run":
            model.save_pretrained(tmp_path / "saved")
    assert len(program("sample", tmp_path / "saved", "--length", 9, "--device", "cpu")) >= 9


@pytest.mark.parametrize("name", MODELS)
def test_new_models_are_read_too(name, tmp_path):
    torch.manual_seed(0)
    model = longstride.SparseTransformer(**{**SMALL["model"], **MODELS[name]})
    torch.nn.init.normal_(model.output.weight)
    model.save_pretrained(tmp_path / "new")
    data = counting(40)[:64]
    with torch.no_grad():
        logits = model(torch.frombuffer(bytearray(data), dtype=torch.uint8)[None])[0]
    engine = longstride.Model(tmp_path / "new", device="cpu", precision="f32")
    np.testing.assert_allclose(logits.numpy(), engine.logits(data), atol=1e-4)


def test_new_weights_are_drawn_as_the_engine_does():
    torch.manual_seed(0)
    model = longstride.SparseTransformer(width=256, layers=2, init="released", context=64)
    assert model.blocks[0].attention.qkv.weight.std().item() == pytest.approx((0.125 / 256) ** 0.5, rel=0.02)
    assert model.blocks[0].feed_forward.down.weight.std().item() == pytest.approx((0.125 / 1024) ** 0.5 / 2, rel=0.02)
    assert not model.output.weight.any() and not model.blocks[1].feed_forward.up.bias.any()
    losses = losses_of(model, torch.zeros(1, 8, dtype=torch.uint8))
    torch.testing.assert_close(losses, torch.full((1, 8), np.log(256)), check_dtype=False)


def test_compiles_and_takes_autocast():
    torch.manual_seed(0)
    model = longstride.SparseTransformer(**{**SMALL["model"], **MODELS["all"]})
    torch.nn.init.normal_(model.output.weight)
    tokens = torch.randint(256, (2, 64))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), model(tokens), atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(tokens)
    torch.testing.assert_close(half.float(), model(tokens), atol=0.3, rtol=0.1)


def test_refusals(tmp_path, run):
    def refused(message, call, kind=longstride.Error):
        with pytest.raises(kind, match=message):
            call()

    new = longstride.SparseTransformer
    refused("contxt: no such field", lambda: new(contxt=64))
    refused("heads = 3 does not divide", lambda: new(heads=3, width=32))
    refused("convolution = 3", lambda: new(convolution=3))
    refused("cover 20 positions", lambda: new(position_axes=[4, 5], context=21))
    refused(r"fixd", lambda: new(pattern="fixd:8"))
    refused("no such file", lambda: new.from_pretrained(tmp_path / "nothing"))
    model = new.from_pretrained(run)
    refused("65 bytes, but the context is 64", lambda: model(torch.zeros(1, 65, dtype=torch.uint8)))
    refused("whole numbers", lambda: model(torch.zeros(1, 4)), TypeError)
    refused("save to a new directory", lambda: model.save_pretrained(run))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.toml").write_bytes((run / "config.toml").read_bytes())
    refused("no model.safetensors", lambda: new.from_pretrained(tmp_path / "broken"))
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"12345678nonsense")
    refused("no file of weights", lambda: new.from_pretrained(tmp_path / "broken"))
    with torch.no_grad():
        model.final_norm.gain[0] = float("nan")
    refused("not finite", lambda: model.save_pretrained(tmp_path / "nan"))
