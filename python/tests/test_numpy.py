"""Attention and patterns for arrays of numpy, without PyTorch."""

import numpy as np
import pytest

import longstride

PATTERNS = ["dense", "fixed:8,2", "strided:6", "window:5|stride:4", "summary:8,2"]


def arrays(n=37, heads=2, width=8, value_width=5):
    generator = np.random.default_rng(0)
    return [generator.standard_normal((2, heads, n, d)).astype(np.float32) for d in (width, width, value_width)]


def by_definition(q, k, v, pattern):
    n, heads = q.shape[2], q.shape[1]
    pattern = longstride.Pattern(pattern, heads=heads)
    mask = np.stack([pattern.to_dense(n, head) for head in range(heads)])
    scores = np.where(mask, q @ k.swapaxes(2, 3) / np.sqrt(q.shape[3]), -np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        lse = np.log(np.exp(scores).sum(-1))
        return np.nan_to_num(np.exp(scores - lse[..., None])) @ v, lse


@pytest.mark.parametrize("pattern", PATTERNS)
def test_attention_is_what_the_definition_says(pattern):
    q, k, v = arrays()
    expected, expected_lse = by_definition(*(a.astype(np.float64) for a in (q, k, v)), pattern)
    o, lse = longstride.attention(q, k, v, pattern, return_lse=True)
    np.testing.assert_allclose(o, expected, atol=1e-5)
    np.testing.assert_allclose(lse, expected_lse, atol=1e-5)
    rows = longstride.attention(*(a.swapaxes(1, 2) for a in (q, k, v)), pattern, layout="bnhd")
    np.testing.assert_array_equal(rows.swapaxes(1, 2), o)


def test_gradients_are_slopes():
    q, k, v = arrays(n=9)
    o, lse = longstride.attention(q, k, v, "fixed:4,1", return_lse=True)
    d_o = np.random.default_rng(1).standard_normal(o.shape).astype(np.float32)
    gradients = longstride.attention_backward(q, k, v, o, lse, d_o, "fixed:4,1")
    for i, gradient in enumerate(gradients):
        step = np.random.default_rng(2 + i).standard_normal(gradient.shape)
        sides = []
        for sign in (1, -1):
            moved = [a.astype(np.float64) for a in (q, k, v)]
            moved[i] = moved[i] + sign * 1e-5 * step
            sides.append((by_definition(*moved, "fixed:4,1")[0] * d_o).sum())
        assert (gradient * step).sum() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-3)


def test_reach_is_that_of_the_masks():
    for text in ("dense", "window:5", "fixed:8,2", "strided:6"):
        mask = longstride.Pattern(text).to_dense(40) | np.eye(40, dtype=bool)
        seen, layers = mask, 1
        while layers < 12 and seen.sum() < 40 * 41 // 2:
            seen, layers = (mask.astype(int) @ seen.astype(int)) > 0, layers + 1
        reach = longstride.Pattern(text).reach(40, layers=12)
        assert (reach.complete, reach.layers) == (seen.sum() == 40 * 41 // 2, layers), text
    reach = longstride.Pattern("window:5").reach(40)
    assert not reach.complete and reach.blind_query == 39 and reach.blind == (0, 30) and reach.blind_count == 31
    assert "position 39 cannot see" in str(reach)
    assert longstride.Pattern("window:8|stride:8").reach(64).complete


def test_pictures(tmp_path):
    pattern = longstride.Pattern("window:4|stride:4")
    drawing = pattern.draw(16, pixels=64)
    assert drawing.svg.startswith("<svg ") and ">stride:4</text>" in drawing.svg
    assert pattern._repr_svg_() == pattern.draw()._repr_svg_() != drawing.svg
    drawing.save(tmp_path / "pattern.svg")
    assert (tmp_path / "pattern.svg").read_text() == drawing.svg
    with pytest.raises(longstride.Error, match="16 to 16384 pixels"):
        pattern.draw(16, pixels=2)


def test_refusals():
    q, k, v = arrays()

    def refused(kind, message, *arguments, **options):
        with pytest.raises(longstride.Error, match=message) as raised:
            longstride.attention(*arguments, **options)
        assert isinstance(raised.value, kind)

    refused(ValueError, r"did you mean 'fixed'[^^]*\n  fixd:8\n  \^\^\^\^", q, k, v, "fixd:8")
    refused(ValueError, "k is f32", q, k[:, :, :, :4], v, "dense")
    refused(ValueError, "q has 3 axes", q[0], k, v)
    refused(TypeError, "elements must be float32, bfloat16 or float16, they are float64", *(a.astype(float) for a in (q, k, v)))
    refused(TypeError, "q is a list", [1], k, v)
    with pytest.raises(longstride.WrongType, match="lse is float64"):
        longstride.attention_backward(q, k, v, v, np.zeros((2, 2, 37)), v)


def test_arrays_in_any_order_of_memory():
    q, k, v = arrays()
    expected = longstride.attention(q, k, v, "fixed:8,2")
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=3)[..., ::2], lambda a: a[:, :, ::-1].copy()[:, :, ::-1]):
        np.testing.assert_array_equal(longstride.attention(*map(change, (q, k, v)), "fixed:8,2"), expected)


def test_an_unknown_attribute_is_none():
    assert not hasattr(longstride, "nonsense")
    assert "SparseTransformer" in dir(longstride)
