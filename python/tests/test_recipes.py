"""The code of docs/python.md runs as it stands there."""

import pathlib
import re
import shutil

import numpy as np
import pytest

import longstride
from conftest import counting

torch = pytest.importorskip("torch")

MANUAL = pathlib.Path(__file__).parents[2] / "docs" / "python.md"


def block(after):
    """The first block of code after this line."""
    if not MANUAL.exists():
        pytest.skip("a source distribution has no manual")
    text = MANUAL.read_text()
    assert after in text
    return re.search(r"```python\n(.*?)```", text[text.index(after) :], re.DOTALL)[1]


def test_another_attention_in_a_gpt(monkeypatch):
    functional = torch.nn.functional
    dense = functional.scaled_dot_product_attention
    monkeypatch.setattr(functional, "scaled_dot_product_attention", dense)
    code = block("### Another attention in a GPT")
    assert len(code.strip().splitlines()) == 5
    exec(code, {})
    q, k, v = torch.randn(3, 2, 4, 300, 16).unbind()
    o = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(o, longstride.attention(q, k, v, "fixed:128,32"))
    assert not torch.allclose(o, dense(q, k, v, is_causal=True), atol=1e-3)
    exec(code.replace("fixed:128,32", "dense"), {})
    o = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(o, dense(q, k, v, is_causal=True), atol=1e-5, rtol=1e-5)


def test_a_text_file_with_plain_pytorch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_bytes(counting(3000))
    torch.manual_seed(0)
    learnt = {}
    exec(block("### A text file, with plain PyTorch"), learnt)
    assert learnt["loss"].item() < 2.5
    assert len(capsys.readouterr().out) == 50
    # The run that it wrote is what the patches are cut with.
    patched = {"longstride": longstride}
    exec(block("dynamic patches of bytes begin at"), patched)
    assert b"".join(patched["patches"]) == patched["data"] and len(patched["patches"]) > 1


def test_a_model_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    made = {}
    code = block("### A model of Hugging Face")
    torch.manual_seed(0)
    exec(code, made)
    assert all(parameter.grad is not None for parameter in made["model"].parameters())
    # With the dense pattern it is the model as it was.
    exec(code.replace("fixed:128,32", "dense").replace('"longstride"', '"longstride_dense"'), made)
    config = made["config"].to_dict()
    plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**config, "attn_implementation": "sdpa"}))
    plain.load_state_dict(made["model"].state_dict())
    with torch.no_grad():
        expected, found = (m(made["tokens"], use_cache=False).logits for m in (plain, made["model"]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_beginning_of_the_manual(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "runs" / "fortunes")
    code = block("and numpy are needed").replace("b\"...\"", "text").replace('{"minutes": 1}', '{"steps": 1}')
    q = np.zeros((1, 2, 9, 4), np.float32)
    names = {"q": q, "k": q, "v": q, "text": counting(20000)}
    exec(code, names)
    exec(block("## Attention"), names)
    assert names["lse"].shape == (1, 2, 9) and names["module"].config["context"] == 64
