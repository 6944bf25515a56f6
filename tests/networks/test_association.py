import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import cells, reassembly, reference
from networks.association import hard_labels, pool, reassemble, upsample


def neighbour(y, x, k, h, w):
    """Grid position of the k-th neighbour of cell (y, x), or None outside the grid."""
    y, x = y + k // 3 - 1, x + k % 3 - 1
    return (y, x) if 0 <= y < h and 0 <= x < w else None


def loop_pool(features, q, cell):
    (depth, height, width), h, w = features.shape, q.shape[1] // cell, q.shape[2] // cell
    sums, weights = np.zeros((depth, h, w)), np.zeros((h, w))
    for y in range(height):
        for x in range(width):
            for k in range(9):
                place = neighbour(y // cell, x // cell, k, h, w)
                if place is not None:
                    sums[(slice(None), *place)] += q[k, y, x] * features[:, y, x]
                    weights[place] += q[k, y, x]
    return (sums / cell**2) / (weights / cell**2 + 1e-8)


def loop_upsample(superpixels, q, cell):
    (depth, h, w), (_, height, width) = superpixels.shape, q.shape
    out = np.zeros((depth, height, width))
    for y in range(height):
        for x in range(width):
            for k in range(9):
                place = neighbour(y // cell, x // cell, k, h, w)
                if place is not None:
                    out[:, y, x] += q[k, y, x] * superpixels[(slice(None), *place)]
    return out


def loop_hard_labels(q, cell):
    _, height, width = q.shape
    h, w = height // cell, width // cell
    out = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            best = -1.0
            for k in range(9):
                place = neighbour(y // cell, x // cell, k, h, w)
                if place is not None and q[k, y, x] > best:
                    best, out[y, x] = q[k, y, x], place[0] * w + place[1]
    return out


def random_map(rng, batch, h, w, cell, dtype=torch.float64):
    logits = torch.from_numpy(rng.standard_normal((batch, 9, h * cell, w * cell)))
    return F.softmax(2 * logits, dim=1).to(dtype)


SHAPES = st.tuples(
    st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)
)


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.integers(0, 2**31))
def test_against_loops_over_pixels(shape, seed):
    batch, depth, h, w, cell = shape
    rng = np.random.default_rng(seed)
    q = random_map(rng, batch, h, w, cell)
    features = torch.from_numpy(rng.standard_normal((batch, depth, h * cell, w * cell)))
    superpixels = torch.from_numpy(rng.standard_normal((batch, depth, h, w)))
    pooled, up, hard = pool(features, q, cell), upsample(superpixels, q, cell), hard_labels(q, cell)
    for b in range(batch):
        np.testing.assert_allclose(pooled[b], loop_pool(features[b].numpy(), q[b].numpy(), cell))
        expected = loop_upsample(superpixels[b].numpy(), q[b].numpy(), cell)
        np.testing.assert_allclose(up[b], expected, atol=1e-12)
        assert (hard[b].numpy() == loop_hard_labels(q[b].numpy(), cell)).all()
    assert hard.dtype == torch.int64


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.integers(0, 2**31))
def test_reassemble_is_upsampling_with_cells_of_one_pixel(shape, seed):
    batch, depth, h, w, _ = shape
    rng = np.random.default_rng(seed)
    kernels = random_map(rng, batch, h, w, 1)
    features = torch.from_numpy(rng.standard_normal((batch, depth, h, w)))
    expected = loop_upsample(features[0].numpy(), kernels[0].numpy(), 1)
    np.testing.assert_allclose(reassemble(features, kernels)[0], expected, atol=1e-12)
    torch.testing.assert_close(reassemble(features, kernels), upsample(features, kernels, cell=1))


def test_a_constant_stays_constant_inside_the_border():
    q = random_map(np.random.default_rng(0), 1, 5, 6, 4)
    constant = torch.full((1, 2, 20, 24), 3.5, dtype=torch.float64)
    rebuilt = upsample(pool(constant, q, 4), q, 4)
    torch.testing.assert_close(rebuilt[..., 4:-4, 4:-4], constant[..., 4:-4, 4:-4])
    # Border pixels give part of their probability to neighbours that are not there.
    assert (rebuilt[..., 0, :] < 3.5).all()


@pytest.mark.parametrize("operator", ["pool", "upsample"])
def test_gradients_with_cells(operator):
    rng = np.random.default_rng(1)
    q = random_map(rng, 2, 2, 3, 3).requires_grad_()
    size = (2, 2, 6, 9) if operator == "pool" else (2, 2, 2, 3)
    x = torch.from_numpy(rng.standard_normal(size)).requires_grad_()
    function = {"pool": pool, "upsample": upsample}[operator]
    assert torch.autograd.gradcheck(lambda a, b: function(a, b, 3), (x, q))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (4, 5)])
def test_gradients_of_reassemble(size):
    rng = np.random.default_rng(2)
    kernels = torch.from_numpy(rng.standard_normal((2, 9, *size))).requires_grad_()
    features = torch.from_numpy(rng.standard_normal((2, 3, *size))).requires_grad_()
    assert torch.autograd.gradcheck(reassemble, (features, kernels))


def test_reassemble_in_any_memory_format():
    rng = np.random.default_rng(3)
    kernels = random_map(rng, 2, 4, 5, 1, torch.float32)
    features = torch.randn(2, 7, 4, 5)
    grad = torch.randn(2, 7, 4, 5)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = features.clone(memory_format=layout).requires_grad_()
        out = reassemble(x, kernels)
        out.backward(grad)
        results.append((out.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1])


def outputs_and_gradients(function, *inputs):
    leaves = [value.clone().requires_grad_() for value in inputs]
    out = function(*leaves)
    torch.manual_seed(1)
    return [out.detach(), *torch.autograd.grad(out, leaves, torch.randn(out.shape))]


def assert_agree(results, expected):
    """max |a - b| <= 1e-5 max |b|."""
    for a, b in zip(results, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.fixture(params=["passes", "products"])
def way(request, monkeypatch):
    """Both ways of mixing: whole-map passes (CPU) and matrix products (GPU, half precision)."""
    for module in (cells, reassembly):
        monkeypatch.setattr(module, "prefers_passes", lambda x: request.param == "passes")


@pytest.mark.parametrize("tile_pixels", [1, 2 * 16 * 80, 48 * 80, 2**20])
def test_pool_and_upsample_against_the_plain_formulation(way, tile_pixels, monkeypatch):
    """In tiles of a row of cells, two rows (with one left over), one image, and everything."""
    monkeypatch.setattr(cells, "TILE_PIXELS_CPU", tile_pixels)
    monkeypatch.setattr(cells, "MIX_PIXELS", tile_pixels)
    torch.manual_seed(0)
    q = torch.randn(3, 9, 48, 80).softmax(1)
    features, superpixels = torch.randn(3, 5, 48, 80), torch.randn(3, 5, 3, 5)
    for ours, plain, x in (
        (pool, reference.pool, features),
        (pool, reference.pool, features.to(memory_format=torch.channels_last)),
        (upsample, reference.upsample, superpixels),
    ):
        assert_agree(outputs_and_gradients(ours, x, q), outputs_and_gradients(plain, x, q))


@pytest.mark.parametrize("values", [1, 7 * 12 * 5, 2**20])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_reassemble_against_the_plain_formulation(way, values, layout, monkeypatch):
    monkeypatch.setattr(reassembly, "TILE_VALUES", values)
    torch.manual_seed(0)
    kernels = torch.randn(2, 9, 7, 12).softmax(1)
    features = torch.randn(2, 16, 7, 12).to(memory_format=layout)
    results = outputs_and_gradients(reassemble, features, kernels)
    assert_agree(results, outputs_and_gradients(reference.reassemble, features, kernels))


@pytest.mark.parametrize("operator", ["pool", "upsample", "reassemble"])
def test_gradients_both_ways(operator, way):
    rng = np.random.default_rng(4)
    cell = 1 if operator == "reassemble" else 2
    q = random_map(rng, 2, 3, 2, cell).requires_grad_()
    size = (3, 2) if operator == "upsample" else (3 * cell, 2 * cell)
    x = torch.from_numpy(rng.standard_normal((2, 3, *size))).requires_grad_()
    function = {
        "pool": lambda a, b: pool(a, b, cell),
        "upsample": lambda a, b: upsample(a, b, cell),
        "reassemble": reassemble,
    }[operator]
    assert torch.autograd.gradcheck(function, (x, q))


def test_autocast_does_not_touch_the_operators():
    q, x = torch.randn(1, 9, 8, 8).softmax(1), torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = pool(x, q, 4), upsample(x[..., ::4, ::4], q, 4), reassemble(x, q)
    expected = pool(x, q, 4), upsample(x[..., ::4, ::4], q, 4), reassemble(x, q)
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == torch.float32 and (a == b).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_keep_their_dtype(dtype):
    q = random_map(np.random.default_rng(0), 1, 2, 2, 4, dtype)
    assert pool(torch.ones(1, 3, 8, 8, dtype=dtype), q, 4).dtype == dtype
    assert upsample(torch.ones(1, 3, 2, 2, dtype=dtype), q, 4).dtype == dtype
    assert reassemble(torch.ones(1, 3, 8, 8, dtype=dtype), q).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_integers_are_taken_as_numbers(dtype):
    """Such as the pixels of a photograph: an association map must not be rounded for them."""
    q = random_map(np.random.default_rng(0), 1, 2, 2, 4)
    x = torch.randint(0, 256, (1, 3, 8, 8)).to(dtype)
    assert (pool(x, q, 4) == pool(x.to(q.dtype), q, 4)).all()
    few = x[..., ::4, ::4]
    assert (upsample(few, q, 4) == upsample(few.to(q.dtype), q, 4)).all()
    assert (reassemble(x, q) == reassemble(x.to(q.dtype), q)).all()


def test_shapes_alone_are_computed_too():
    """On PyTorch's meta device, which has no autocast."""
    q, x = torch.empty(1, 9, 8, 12, device="meta"), torch.empty(1, 3, 8, 12, device="meta")
    assert pool(x, q, 4).shape == (1, 3, 2, 3)
    assert upsample(pool(x, q, 4), q, 4).shape == reassemble(x, q).shape == x.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pool(torch.ones(1, 3, 16, 16), torch.ones(1, 8, 16, 16)), r"\(B, 9, H, W\)"),
        (lambda: pool(torch.ones(1, 3, 20, 16), torch.ones(1, 9, 20, 16)), "multiples of the cell"),
        (lambda: pool(torch.ones(1, 3, 16, 32), torch.ones(1, 9, 16, 16)), "do not fit"),
        (lambda: upsample(torch.ones(1, 3, 2, 1), torch.ones(1, 9, 16, 16)), "do not fit"),
        (lambda: upsample(torch.ones(2, 3, 1, 1), torch.ones(1, 9, 16, 16)), "do not fit"),
        (lambda: reassemble(torch.ones(1, 3, 4, 4), torch.ones(1, 9, 4, 5)), "do not fit"),
        (lambda: hard_labels(torch.ones(1, 9, 15, 16)), "multiples of the cell"),
        (lambda: pool(torch.ones(0, 3, 16, 16), torch.ones(0, 9, 16, 16)), "no image"),
        (lambda: reassemble(torch.ones(0, 3, 4, 4), torch.ones(0, 9, 4, 4)), "no image"),
    ],
)
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
