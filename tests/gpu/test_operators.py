"""Every operator, forward and its gradients, on the GPU and on the CPU."""

from functools import partial

import pytest
import torch

from networks import affinity
from networks.affinity import propagate
from networks.association import hard_labels, pool, reassemble, upsample
from networks.classifier import cam
from networks.deeplab import segmentation_loss
from networks.ipc import ipc_loss
from networks.superpixel import clustering_loss, scn_loss

pytestmark = pytest.mark.gpu

BFLOAT16 = 2**-6
"""Of the greatest value. docs/running.md."""


def association_map(batch, height, width):
    return torch.randn(batch, 9, height, width).softmax(1)


def inputs_of(name):
    """Operator, what is differentiated, and what is not."""
    torch.manual_seed(0)
    q, kernels = association_map(2, 64, 96), association_map(2, 30, 31)
    lab, image = torch.rand(2, 3, 64, 96), torch.randn(2, 5, 64, 96)
    logits, features = torch.randn(2, 21, 15, 17), torch.rand(2, 64, 15, 17)
    labels = torch.randint(0, 21, (2, 33, 49)).masked_fill(torch.rand(2, 33, 49) < 0.1, 255)
    wide = features.repeat(1, 1, 2, 2)[..., :30, :31]
    last = wide.contiguous(memory_format=torch.channels_last)
    return {
        "pool": (pool, (image, q), ()),
        "upsample": (upsample, (torch.randn(2, 21, 4, 6), q), ()),
        "reassemble": (reassemble, (wide, kernels), ()),
        "reassemble, channels last": (reassemble, (last, kernels), ()),
        "SCN loss": (lambda q, lab: scn_loss(q, lab)[0], (q,), (lab,)),
        "clustering loss": (clustering_loss, (q,), (lab,)),
        "propagate": (partial(propagate, gamma=0.6), (logits, features), ()),
        "cam": (cam, (logits,), ()),
        "IPC loss": (
            lambda cams, target: ipc_loss(cams, target, 9, 0.1),
            (torch.rand(2, 20, 15, 18),),
            (torch.randn(2, 3, 15, 18),),
        ),
        "segmentation loss": (
            lambda full, half, labels: segmentation_loss([full, half, full], labels)[0],
            (torch.randn(2, 21, 5, 7), torch.randn(2, 21, 3, 4)),
            (labels,),
        ),
    }[name]


NAMES = (
    *("pool", "upsample", "reassemble", "reassemble, channels last", "SCN loss"),
    *("clustering loss", "propagate", "cam", "IPC loss", "segmentation loss"),
)


def results(function, learnt, fixed, device, dtype=torch.float32):
    """The outputs and the gradients of what is learnt, as float32 on the CPU."""
    leaves = [value.to(device, dtype).requires_grad_() for value in learnt]
    out = function(*leaves, *(value.to(device) for value in fixed))
    torch.manual_seed(1)
    grads = torch.autograd.grad(out, leaves, torch.randn(out.shape).to(device, out.dtype))
    return [value.detach().float().cpu() for value in (out, *grads)]


def assert_within(found, expected, bound):
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(one).all()
        assert (one - other).abs().max() <= bound * other.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_float32(name, device, as_on_a_gpu):
    function, learnt, fixed = inputs_of(name)
    expected = results(function, learnt, fixed, "cpu")
    assert_within(as_on_a_gpu(results, function, learnt, fixed, device), expected, 1e-4)


@pytest.mark.parametrize("name", NAMES[:4])
def test_bfloat16(name, device, as_on_a_gpu):
    """What --amp gives to operators: against float32 on the same rounded inputs."""
    function, learnt, fixed = inputs_of(name)
    learnt = [value.bfloat16().float() for value in learnt]
    found = as_on_a_gpu(results, function, learnt, fixed, device, torch.bfloat16)
    assert_within(found, results(function, learnt, fixed, "cpu"), BFLOAT16)


def test_affinity_stays_float32_under_autocast(device):
    _, (logits, features), _ = inputs_of("propagate")
    expected = propagate(logits, features)
    with torch.autocast(device.type, torch.bfloat16):
        found = propagate(logits.to(device), features.to(device))
    assert_within([found.cpu()], [expected], 1e-4)


def test_affinity_in_strips(device, monkeypatch):
    _, (logits, features), _ = inputs_of("propagate")
    both = propagate, (logits, features), ()
    expected = results(*both, "cpu")
    monkeypatch.setattr(affinity, "STRIP", 64)
    monkeypatch.setattr(affinity, "STRIP_VALUES_GPU", 0)
    assert_within(results(*both, device), expected, 1e-4)


def test_a_share_of_affinities(device):
    """Which of two equal affinities is the last to be kept may differ: few positions at most."""
    _, (logits, features), _ = inputs_of("propagate")
    one = propagate(logits.to(device), features.to(device), beta=1, keep=0.3).cpu()
    other = propagate(logits, features, beta=1, keep=0.3)
    agree = ((one - other).abs() <= 1e-4 * other.abs().max()).all(1)
    assert agree.float().mean() >= 0.98


def test_hard_labels(device):
    q = association_map(2, 64, 96)
    assert torch.equal(hard_labels(q.to(device)).cpu(), hard_labels(q))
