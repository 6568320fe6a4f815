"""longstride.Model against its own definition and against the program, without PyTorch."""

import json
import math
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import longstride
from conftest import SMALL, counting

TEXT = counting(300)


@pytest.fixture(scope="module")
def model(run):
    return longstride.Model(run, device="cpu", precision="f32")


def log2_softmax(logits):
    logits = logits.astype(np.float64) / math.log(2)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log2(np.exp2(logits - top).sum(-1, keepdims=True))


def test_says_what_it_is(model, run):
    assert (model.context, model.step, model.kind, model.pattern) == (64, 40, "text", "fixed:16,4")
    assert model.run == str(run) and model.parameters > 20000
    assert "context 64, step 40" in repr(model)


def test_logits_entropies_and_score_agree(model):
    data = TEXT[:50]
    logits = model.logits(data)
    assert logits.shape == (50, 256) and logits.dtype == np.float32
    bits = -log2_softmax(logits)
    found = model.entropies(data)
    np.testing.assert_allclose(found.bits, bits[np.arange(50), list(data)], atol=1e-4)
    np.testing.assert_allclose(found.entropy, (np.exp2(-bits) * bits).sum(-1), atol=1e-4)
    assert model.eval(data) == pytest.approx(found.bits.mean(), abs=1e-5)
    np.testing.assert_allclose(model.next_logits(data[:9]), logits[9], atol=1e-3)
    for min_context in (0, 40):
        longer = model.entropies(TEXT, min_context=min_context)
        assert longer.bits.shape == longer.entropy.shape == (len(TEXT),)
        assert model.eval(TEXT, min_context=min_context) == pytest.approx(longer.bits.mean(), abs=1e-5)
    assert model.eval(TEXT, max_bytes=50) == model.eval(data)
    assert model.logits(b"").shape == (0, 256) and model.entropies(b"").bits.shape == (0,)


def test_all_kinds_of_bytes(model):
    data = TEXT[:40]
    expected = model.logits(data)
    array = np.frombuffer(data, np.uint8)
    for same in (bytearray(data), memoryview(data), array, np.repeat(array, 2)[::2]):
        np.testing.assert_array_equal(model.logits(same), expected)
    for wrong, message in ((data.decode(), r"give data.encode\(\)"), (array.astype(np.int64), "int64"), ([1, 2], "list")):
        with pytest.raises(longstride.WrongType, match=message):
            model.logits(wrong)
        with pytest.raises(TypeError):
            model.eval(wrong)


def test_samples_as_they_are_drawn(model):
    drawn = model.sample(b"17 18 ", count=30, seed=5)
    first = next(drawn)
    assert isinstance(first, bytes) and len(first) == 1
    whole = first + b"".join(drawn)
    assert len(whole) == 30 and whole == b"".join(model.sample(b"17 18 ", count=30, seed=5))
    assert whole != b"".join(model.sample(b"17 18 ", count=30, seed=6))
    assert len(b"".join(model.sample())) == model.context
    assert b"".join(model.sample(count=3, temperature=0)) == b"".join(model.sample(count=3, top_k=1))
    with pytest.raises(longstride.Error, match="temperature"):
        model.sample(temperature=-1)
    with pytest.raises(longstride.Error, match="seed"):
        model.sample(seed=-1)


def test_is_the_program(model, run, program, tmp_path):
    (tmp_path / "text").write_bytes(TEXT)
    flags = ("--device", "cpu", "--set", "compute.precision=f32")
    out = json.loads(program("eval", run, "--file", tmp_path / "text", "--min-context", 32, "--json", *flags))
    assert model.eval(TEXT, min_context=32) == pytest.approx(out["results"][0]["bits_per_byte"], abs=1e-9)
    program("compress", run, tmp_path / "text", "-o", tmp_path / "packed", *flags)
    assert model.decompress((tmp_path / "packed").read_bytes()) == TEXT
    (tmp_path / "mine").write_bytes(model.compress(TEXT))
    program("decompress", run, tmp_path / "mine", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == TEXT


def test_compresses(model):
    packed = model.compress(TEXT)
    assert model.decompress(packed) == TEXT
    assert model.decompress(model.compress(b"")) == b""
    with pytest.raises(longstride.Error, match="no file that longstride"):
        model.decompress(b"nonsense")


def test_portable_is_the_program_with_any_threads(model, run, program, tmp_path):
    (tmp_path / "text").write_bytes(TEXT)
    program("compress", run, tmp_path / "text", "-o", tmp_path / "packed", "--portable")
    packed = model.compress(TEXT, portable=True)
    assert model.decompress((tmp_path / "packed").read_bytes()) == TEXT
    assert packed != model.compress(TEXT)
    assert packed == longstride.Model(run, device="cpu", precision="f32", threads=1).compress(TEXT, portable=True)
    (tmp_path / "mine").write_bytes(packed)
    program("decompress", run, tmp_path / "mine", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == TEXT
    eight = longstride.Model(run, device="cpu", int8=True)
    for call in (lambda: eight.compress(TEXT, portable=True), lambda: eight.decompress(packed)):
        with pytest.raises(longstride.Error, match="int8|weights auto"):
            call()


def test_refusals(model, run):
    for call, message in (
        (lambda: longstride.Model("no/such/run"), "no/such/run"),
        (lambda: longstride.Model(run, device="gpu"), "unknown device 'gpu'"),
        (lambda: longstride.Model(run, step=7), "40"),
        (lambda: model.logits(TEXT), "context is 64"),
        (lambda: model.eval(b""), "no data"),
        (lambda: model.eval(), "bytes in memory"),
        (lambda: model.eval(TEXT, min_context=64), "0 to 63"),
    ):
        with pytest.raises(longstride.Error, match=message) as raised:
            call()
        assert isinstance(raised.value, ValueError)
    with pytest.raises(longstride.WrongType, match="run is a int"):
        longstride.Model(7)


def test_other_threads_run_meanwhile(model):
    ended, seen = threading.Event(), []

    def work():
        model.compress(TEXT * 20)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not ended.is_set():
        seen.append(time.monotonic())
        time.sleep(0.001)
    thread.join()
    assert len(seen) > 20


# Each is a long call, which SIGINT ends.
LONG_CALLS = {
    "eval": "model.eval(text)",
    "entropies": "model.entropies(text)",
    "compress": "model.compress(text)",
    "sample": "b''.join(model.sample(count=10**8))",
    "train": "longstride.train({**SMALL, 'train': {'steps': 10**8, 'batch': 4, 'log_every': 1}}, text, run=RUN + '-ended', callback=begins)",
}


@pytest.mark.parametrize("name", LONG_CALLS)
def test_ctrl_c_ends_it(run, name, tmp_path):
    script = f"""
import longstride
RUN, SMALL, text = {str(run)!r}, {SMALL!r}, {counting(1000)!r} * 20000
model = longstride.Model(RUN, device="cpu", precision="f32")
told = False
def begins(metrics=None):
    global told
    if not told:
        print("begins", flush=True)
    told = True
if {name!r} != "train":  # which says so itself after a step, however long it takes to get there
    begins()
try:
    {LONG_CALLS[name]}
except KeyboardInterrupt:
    print("ended")
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "ended\n" and process.returncode == 0
    assert time.monotonic() - began < 5
    if name == "train":
        assert longstride.Model(f"{run}-ended", device="cpu").step > 0


def test_import_is_quick_and_without_torch():
    script = "import time; t = time.perf_counter(); import longstride, sys; print(time.perf_counter() - t, 'torch' in sys.modules)"
    seconds = []
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
        assert out[1] == "False"
        seconds.append(float(out[0]))
    assert min(seconds) < 0.3
