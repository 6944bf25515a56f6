import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks.ipc import cut_patches, ipc_loss


def loop_ipc(fg_cam, target, patches, threshold):
    """docs/method.md, section 2, IPC, step by step over patches and positions."""
    side = round(patches**0.5)
    samples = []
    for cam, goal in zip(fg_cam, target, strict=True):
        ph, pw = cam.shape[1] // side, cam.shape[2] // side
        for i in range(side):
            for j in range(side):
                window = (slice(None), slice(i * ph, (i + 1) * ph), slice(j * pw, (j + 1) * pw))
                samples.append(
                    (cam[window].reshape(len(cam), -1), goal[window].reshape(len(goal), -1))
                )
    prepared = []
    for cam, goal in samples:
        background = 1 - cam.max(0)
        mask = (goal.sum(0) != 0).astype(float)
        counts = (1 - background * mask).max() > threshold and (background * mask).max() > threshold
        prepared.append((background, cam, goal, mask, counts))
    any_counts = any(sample[-1] for sample in prepared)
    error = total = 0.0
    for background, cam, goal, mask, counts in prepared:
        if any_counts and not counts:
            mask = mask * 0
        p = np.concatenate([background[None], cam]) * mask
        t = goal / np.maximum(np.linalg.norm(goal, axis=0), 1e-12) * mask
        prototypes = [(p_c * t).sum(1) / (p_c.sum() + 1e-5) for p_c in p]
        rebuilt = sum(p_c * f[:, None] for p_c, f in zip(p, prototypes, strict=True))
        error += (((rebuilt - t) ** 2) * mask).sum()
        total += mask.sum()
    return error / (total + 1e-3)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 4, 9]), st.floats(0.01, 0.9), st.floats(0.1, 1), st.integers(0, 2**31))
def test_against_the_definition(patches, threshold, strength, seed):
    rng = np.random.default_rng(seed)
    fg_cam = rng.random((2, 4, 7, 8)) * strength
    target = rng.standard_normal((2, 3, 7, 8))
    target[:, :, 5:] = 0  # padding
    loss = ipc_loss(torch.from_numpy(fg_cam), torch.from_numpy(target), patches, threshold)
    assert loss.item() == pytest.approx(loop_ipc(fg_cam, target, patches, threshold), rel=1e-9)


@pytest.mark.parametrize("patches", [1, 4])
def test_gradients(patches):
    rng = np.random.default_rng(0)
    fg_cam = torch.from_numpy(rng.random((2, 3, 4, 4))).requires_grad_()
    target = torch.from_numpy(rng.standard_normal((2, 3, 4, 4)))
    assert torch.autograd.gradcheck(lambda c: ipc_loss(c, target, patches, 0.1), (fg_cam,))


def test_the_target_gets_no_gradient():
    target = torch.randn(1, 3, 6, 6, requires_grad=True)
    fg_cam = torch.rand(1, 2, 6, 6, requires_grad=True)
    ipc_loss(fg_cam, target, 9, 0.1).backward()
    assert target.grad is None and fg_cam.grad is not None


def test_perfect_cams_reconstruct_perfectly():
    """Two regions of constant target and cams that name them exactly leave no error."""
    target = torch.zeros(1, 3, 8, 8)
    target[:, 0, :, :4] = 1
    target[:, 1, :, 4:] = 1
    fg_cam = torch.zeros(1, 2, 8, 8)
    fg_cam[:, 1, :, 4:] = 1
    assert ipc_loss(fg_cam, target, 1, 0.01) < 1e-6
    assert ipc_loss(torch.full((1, 2, 8, 8), 0.5), target, 1, 0.01) > 0.1


def test_a_patch_counts_only_beyond_the_threshold():
    """One of two patches has, beside background, a cam of exactly the threshold, or just above."""
    target = torch.rand(1, 3, 4, 8) + 0.1
    fg_cam = torch.zeros(1, 1, 4, 8)
    fg_cam[..., 4:] = torch.rand(4, 4)  # the right half always counts
    fg_cam[..., 0, 4], fg_cam[..., 1, 4] = 0, 1

    def total(value):
        counted.append(value.item())
        return value

    for background, left in ((False, 0.25), (False, 0.26), (True, 0.75), (True, 0.74)):
        counted = []
        fg_cam[..., :4] = left if background else 0
        fg_cam[..., 0, 0] = 1 if background else left
        ipc_loss(fg_cam.repeat(1, 1, 2, 1), target.repeat(1, 1, 2, 1), 4, 0.25, total)
        assert counted[1] == (64 if left in (0.26, 0.74) else 32), left


def test_only_padding_gives_zero():
    assert ipc_loss(torch.rand(1, 2, 6, 6), torch.zeros(1, 3, 6, 6), 9, 0.1) == 0


def test_patches_are_cut_row_by_row_and_the_rest_is_dropped():
    x = torch.arange(35.0).reshape(1, 1, 5, 7)
    cut = cut_patches(x, 4)
    assert cut.shape == (4, 1, 6)
    assert cut[1, 0].tolist() == [3, 4, 5, 10, 11, 12]


@pytest.mark.parametrize(("patches", "message"), [(2, "square"), (0, "square"), (49, "cannot cut")])
def test_patches_that_cannot_be(patches, message):
    with pytest.raises(ValueError, match=message):
        ipc_loss(torch.rand(1, 2, 6, 6), torch.rand(1, 3, 6, 6), patches, 0.1)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="does not fit"):
        ipc_loss(torch.rand(1, 2, 6, 6), torch.rand(1, 3, 6, 7), 1, 0.1)
    with pytest.raises(ValueError, match="targets"):
        ipc_loss(torch.rand(1, 2, 6, 6), torch.rand(2, 3, 6, 6), 1, 0.1)


@pytest.mark.parametrize(
    ("cams", "target"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float64), (torch.float32, torch.uint8)],
)
def test_types_may_differ(cams, target):
    """What is computed in float32 or float64 has the gradient's type of the cams."""
    torch.manual_seed(0)
    cam = torch.rand(2, 2, 6, 6).to(cams).requires_grad_()
    goal = (9 * torch.rand(2, 3, 6, 6)).to(target)
    loss = ipc_loss(cam, goal, 4, 0.1)
    exact = ipc_loss(cam.detach().double(), goal.double(), 4, 0.1)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ipc_loss(cam, goal, 4, 0.1), loss, rtol=0, atol=0)
    loss.backward()
    assert cam.grad.dtype == cams and cam.grad.isfinite().all() and cam.grad.any()
