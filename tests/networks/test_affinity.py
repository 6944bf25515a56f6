from functools import partial

import numpy as np
import pytest
import torch

from networks import affinity, reference
from networks.affinity import propagate
from tests.networks.test_association import assert_agree, outputs_and_gradients


def loop_propagate(logits, features, beta, gamma):
    """The definition for one image: (C, N) and (D, N)."""
    unit = features / np.linalg.norm(features, axis=0)
    n = unit.shape[1]
    weights = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            value = min(max(float(unit[:, i] @ unit[:, j]), 0.01), 0.999)
            weights[i, j] = value if value >= gamma else 0.0
    weights /= weights.sum(0, keepdims=True)
    for _ in range(beta):
        logits = logits @ weights
    return logits


@pytest.mark.parametrize("beta", [1, 3])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9])
def test_against_loops(beta, gamma):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    out = propagate(logits, features, beta, gamma)
    for b in range(2):
        expected = loop_propagate(
            logits[b].flatten(1).numpy(), features[b].flatten(1).numpy(), beta, gamma
        )
        np.testing.assert_allclose(out[b].flatten(1).numpy(), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.6])
def test_gradients(gamma):
    torch.manual_seed(1)
    # Positive features keep similarities off the clamp's corners, where no gradient exists.
    features = (torch.rand(2, 4, 2, 3, dtype=torch.float64) + 0.05).requires_grad_()
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, f: propagate(x, f, 3, gamma), (logits, features))


def test_gamma_itself_is_kept():
    """Entries under gamma are cut, not those that equal it."""
    half = torch.tensor([[1.0, 0.5], [0.0, 3**0.5 / 2]]).reshape(1, 2, 1, 2).double()
    similarity = torch.nn.functional.normalize(half.flatten(2), dim=1)
    gamma = float((similarity[0].T @ similarity[0])[0, 1])
    logits = torch.tensor([[1.0, 0.0]]).reshape(1, 1, 1, 2).double()
    assert propagate(logits, half, 1, gamma)[0, 0, 0, 1] > 0
    assert propagate(logits, half, 1, gamma + 1e-6)[0, 0, 0, 1] == 0


@pytest.mark.parametrize("keep", [0.02, 0.3, 1.0])
def test_a_share_that_is_kept(keep):
    """Of few positions exactly that share; the cut is each image's own and has no gradient."""
    torch.manual_seed(2)
    features = torch.rand(2, 64, 9, 11)
    features[1] **= 3
    inputs = torch.randn(2, 21, 9, 11), features
    results = outputs_and_gradients(partial(propagate, keep=keep), *inputs)
    assert_agree(results, outputs_and_gradients(partial(reference.propagate, keep=keep), *inputs))
    if keep == 1:
        assert torch.equal(propagate(*inputs, keep=keep), propagate(*inputs, gamma=0))


@pytest.mark.parametrize("keep", [0.02, 0.3])
def test_a_share_of_many_positions_is_kept_nearly(keep):
    """Some of them tell where to cut; neighbours are alike here, as in photographs."""
    torch.manual_seed(3)
    features = torch.nn.functional.interpolate(torch.rand(1, 16, 6, 8), (36, 48), mode="bilinear")
    unit = torch.nn.functional.normalize(features.flatten(2), dim=1)
    affinities = (unit.mT @ unit).clamp(0.01, 0.999)
    kept = affinities >= affinity._smallest_kept(affinities, keep)
    assert kept.float().mean().item() == pytest.approx(keep, rel=0.1)


def test_columns_sum_to_one():
    features = torch.randn(1, 8, 4, 4)
    constant = torch.full((1, 2, 4, 4), 2.5)
    torch.testing.assert_close(propagate(constant, features, 8, 0.6), constant)


def test_zero_features_give_no_nan():
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    out = propagate(torch.ones(1, 2, 2, 2), features, 2, 0.6)
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(features.grad).all()


def test_beta_zero_changes_nothing_and_negative_is_refused():
    logits, features = torch.randn(1, 2, 3, 3), torch.randn(1, 4, 3, 3)
    assert propagate(logits, features, 0) is logits
    with pytest.raises(ValueError, match="gamma must be at most 0.999"):
        propagate(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), gamma=1.0)
    with pytest.raises(ValueError, match="beta"):
        propagate(logits, features, -1)
    with pytest.raises(ValueError, match="do not fit"):
        propagate(logits, features[..., :2])
    with pytest.raises(ValueError, match="do not fit"):
        propagate(logits, features.expand(2, -1, -1, -1), beta=0)
    with pytest.raises(ValueError, match="gamma must be at most 0.999"):
        propagate(logits, features, gamma=float("nan"))


@pytest.mark.parametrize("keep", [2.0, -0.1, float("nan")])
def test_what_is_no_share(keep):
    with pytest.raises(ValueError, match="keep is a share"):
        propagate(torch.randn(1, 2, 3, 3), torch.randn(1, 4, 3, 3), keep=keep)


@pytest.mark.parametrize("strip", [1, 50, 1000])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_against_the_plain_formulation(strip, layout, monkeypatch):
    monkeypatch.setattr(affinity, "STRIP", strip)
    torch.manual_seed(0)
    logits, features = torch.randn(2, 21, 9, 11), torch.rand(2, 64, 9, 11)
    inputs = logits, features.to(memory_format=layout)
    results = outputs_and_gradients(propagate, *inputs)
    assert_agree(results, outputs_and_gradients(reference.propagate, *inputs))


def test_half_precision_and_autocast_compute_in_float32():
    torch.manual_seed(0)
    logits, features = torch.randn(1, 3, 5, 5), torch.rand(1, 16, 5, 5)
    expected = propagate(logits, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (propagate(logits, features) == expected).all()
    half = propagate(logits.bfloat16(), features.bfloat16())
    rounded = propagate(logits.bfloat16().float(), features.bfloat16().float())
    assert half.dtype == torch.bfloat16 and (half == rounded.bfloat16()).all()


def test_integer_logits_and_the_meta_device():
    features = torch.rand(1, 16, 2, 3)
    logits = torch.randint(-5, 5, (1, 3, 2, 3))
    assert (propagate(logits, features) == propagate(logits.float(), features)).all()
    with torch.device("meta"):
        shape = propagate(torch.empty(1, 3, 2, 3), torch.empty(1, 16, 2, 3)).shape
    assert shape == logits.shape


def test_only_one_matrix_of_all_pairs_is_kept():
    features = torch.rand(1, 16, 20, 20, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        propagate(torch.randn(1, 3, 20, 20), features)
    assert sum(x.numel() >= 400 * 400 for x in kept) == 1
