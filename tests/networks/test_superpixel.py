import numpy as np
import pytest
import torch
import torch.nn.functional as F

from networks import reference
from networks.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from networks.superpixel import BSDS_MEAN, SuperpixelNet
from networks.superpixel_loss import clustering_loss, pixel_coordinates, scn_loss
from tests.networks.test_association import (
    assert_agree,
    loop_pool,
    loop_upsample,
    outputs_and_gradients,
)


def test_parameters():
    assert sum(p.numel() for p in SuperpixelNet().parameters()) == pytest.approx(2.29e6, rel=0.01)


def test_the_association_map_is_a_distribution():
    q = SuperpixelNet().eval()(torch.randn(2, 3, 32, 48))
    assert q.shape == (2, 9, 32, 48)
    torch.testing.assert_close(q.sum(1), torch.ones(2, 32, 48))


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 1, 32, 32), (3, 32, 32)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"multiples|\(B, 3, H, W\)"):
        SuperpixelNet()(torch.randn(shape))


def test_loss_against_loops():
    torch.manual_seed(0)
    cell, weight = 4, 0.7
    q = F.softmax(torch.randn(1, 9, 8, 12, dtype=torch.float64), 1)
    lab = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    position = pixel_coordinates(8, 12, lab)
    assert position[:, 5, 7].tolist() == [7, 5]
    sums = []
    for features in (lab[0].numpy(), position.numpy()):
        rebuilt = loop_upsample(loop_pool(features, q[0].numpy(), cell), q[0].numpy(), cell)
        sums.append(np.linalg.norm(rebuilt - features, axis=0).sum())
    total, colour, place = scn_loss(q, lab, weight, cell)
    assert colour.item() == pytest.approx(0.005 * sums[0] / cell)
    assert place.item() == pytest.approx(0.005 * weight * sums[1] / cell)
    assert total.item() == pytest.approx(colour.item() + place.item())


def test_gradient_of_the_loss():
    torch.manual_seed(0)
    q = F.softmax(torch.randn(1, 9, 4, 6, dtype=torch.float64), 1).requires_grad_()
    lab = torch.rand(1, 3, 4, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: scn_loss(x, lab, 0.5, cell=2)[0], (q,))


@pytest.mark.parametrize("term", [0, 1, 2])
def test_gradients_of_every_term_and_of_the_image(term):
    torch.manual_seed(0)
    q = F.softmax(torch.randn(2, 9, 4, 6, dtype=torch.float64), 1).requires_grad_()
    lab = torch.rand(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: scn_loss(x, y, 0.5, cell=2)[term], (q, lab))


def test_the_gradient_can_be_taken_twice():
    q = torch.randn(1, 9, 32, 32).softmax(1).requires_grad_()
    total, colour, position = scn_loss(q, torch.rand(1, 3, 32, 32))
    whole, first, second = (
        torch.autograd.grad(loss, q, retain_graph=True)[0] for loss in (total, colour, position)
    )
    torch.testing.assert_close(whole, first + second)


@pytest.mark.parametrize("term", [0, 1])
def test_loss_against_the_plain_formulation(term):
    torch.manual_seed(0)
    q, lab = torch.randn(2, 9, 32, 48).softmax(1), torch.rand(2, 3, 32, 48)
    ours = outputs_and_gradients(lambda x: scn_loss(x, lab)[term], q)
    assert_agree(ours, outputs_and_gradients(lambda x: reference.scn_loss(x, lab)[term], q))


def test_the_position_term_rounds_no_worse_than_the_plain_formulation():
    """Errors of a pixel between coordinates in the hundreds: float32 itself is 1e-4 off there."""
    torch.manual_seed(0)
    q, lab = torch.randn(1, 9, 128, 128).softmax(1), torch.rand(1, 3, 128, 128)

    def gradient(loss, dtype):
        x = q.to(dtype).requires_grad_()
        return torch.autograd.grad(loss(x, lab.to(dtype))[2], x)[0]

    exact = gradient(reference.scn_loss, torch.float64)
    torch.testing.assert_close(gradient(scn_loss, torch.float64), exact, rtol=1e-9, atol=1e-12)
    ours, plain = (gradient(loss, torch.float32) for loss in (scn_loss, reference.scn_loss))
    assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max()


def test_an_error_of_zero_has_no_gradient():
    """One superpixel a pixel: nothing is lost, and no norm can be differentiated."""
    q = torch.zeros(1, 9, 4, 4)
    q[:, 4] = 1
    q.requires_grad_()
    total = scn_loss(q, torch.zeros(1, 3, 4, 4), position_weight=0, cell=1)[0]
    assert total.item() == 0
    assert (torch.autograd.grad(total, q)[0] == 0).all()


def test_loss_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="does not fit"):
        scn_loss(torch.rand(1, 9, 16, 16), torch.rand(1, 3, 16, 32))
    for loss in (scn_loss, clustering_loss):
        for shape in ((1, 9, 30, 32), (1, 4, 32, 32), (0, 9, 32, 32)):
            lab = torch.rand(shape[0], 3, *shape[2:])
            with pytest.raises(ValueError, match=r"multiples of the cell|\(B, 9, H, W\)|no image"):
                loss(torch.rand(shape), lab)


def test_bsds_weights_see_the_image_they_were_trained_on():
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    scn = SuperpixelNet()
    scn.expect_bsds_normalisation()
    seen = normalise(image) * scn.input_scale.view(3, 1, 1) + scn.input_shift.view(3, 1, 1)
    expected = image / 255 - torch.tensor(BSDS_MEAN).view(3, 1, 1)
    torch.testing.assert_close(seen, expected)


def test_normalise():
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [
        (v / 255 - m) / s
        for v, m, s in zip([0, 128, 255], IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    assert normalise(image).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def loop_clustering(q, features, weight, temperature, cell):
    """One round of soft k-means, pixel by pixel: (9, H, W) -> (9, H, W)."""
    height, width = features.shape[1:]
    h, w = height // cell, width // cell
    means, target = loop_pool(features, q, cell), np.zeros(q.shape)
    for y, x in np.ndindex(height, width):
        for k in range(9):
            i, j = y // cell + k // 3 - 1, x // cell + k % 3 - 1
            if 0 <= i < h and 0 <= j < w:
                away = means[:, i, j] - features[:, y, x]
                distance = np.linalg.norm(away[:3]) + weight * np.linalg.norm(away[3:])
                target[k, y, x] = np.exp(-distance / temperature)
    return target / target.sum(0)


@pytest.mark.parametrize("rounds", [1, 3])
def test_clustering_loss_against_loops(rounds):
    torch.manual_seed(0)
    q = F.softmax(torch.randn(2, 9, 8, 12, dtype=torch.float64), 1)
    lab = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    expected = []
    for image_q, image in zip(q.numpy(), lab.numpy(), strict=True):
        features = np.concatenate([image, pixel_coordinates(8, 12, lab).numpy()])
        target = image_q
        for _ in range(rounds):
            target = loop_clustering(target, features, 0.3, 0.2, 4)
        expected.append(-(target * np.log(image_q)).sum(0).mean())
    loss = clustering_loss(q, lab, 0.3, 0.2, rounds, cell=4)
    assert loss.item() == pytest.approx(np.mean(expected))


def test_clustering_loss_against_the_plain_formulation():
    torch.manual_seed(0)
    q = torch.randn(2, 9, 32, 48, dtype=torch.float64).softmax(1).requires_grad_()
    lab = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    ours, plain = clustering_loss(q, lab), reference.clustering_loss(q, lab)
    assert_agree([ours], [plain])
    assert_agree(torch.autograd.grad(ours, q), torch.autograd.grad(plain, q))


def test_clustering_pulls_logits_to_the_target():
    """The gradient of a cross entropy with respect to logits is q - t: zero where they agree."""
    torch.manual_seed(0)
    logits = torch.randn(1, 9, 8, 8, dtype=torch.float64, requires_grad=True)
    lab = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    clustering_loss(F.softmax(logits, 1), lab, 0.1, 0.2, 1, cell=4).backward()
    q = F.softmax(logits.detach(), 1)
    features = np.concatenate([lab[0].numpy(), pixel_coordinates(8, 8, lab).numpy()])
    target = loop_clustering(q[0].numpy(), features, 0.1, 0.2, 4)
    np.testing.assert_allclose(logits.grad[0].numpy() * 64, q[0].numpy() - target, atol=1e-12)


def test_clustering_loss_with_no_probability_left():
    q = torch.zeros(1, 9, 32, 32)
    q[:, 0] = 1  # for the cells at the border, a neighbour outside the grid
    assert torch.isfinite(clustering_loss(q, torch.rand(1, 3, 32, 32)))
