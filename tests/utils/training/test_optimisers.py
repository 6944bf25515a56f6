import pytest
import torch

from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.deeplab import DeepLab
from networks.dilated import build_trunk
from tests.golden_files import golden
from utils.training.optimisers import (
    classifier_groups,
    polynomial_decay,
    segmentation_groups,
    sgd,
)


def test_trajectory_against_the_golden_one():
    data = golden("optimizer")
    p0, p1 = data["p0"].clone().requires_grad_(), data["p1"].clone().requires_grad_()
    groups = [
        {"params": [p0], "lr": 0.1, "weight_decay": 4e-5},
        {"params": [p1], "lr": 1.0, "weight_decay": 0.0},
    ]
    optimizer = sgd(groups, float(data["momentum"]), nesterov=True)
    steps = int(data["steps"])
    decay = polynomial_decay(optimizer, steps, float(data["power"]))
    for step in range(steps):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx(data["lr"][step].tolist(), rel=1e-5)
        optimizer.zero_grad()
        (p0.square().sum() + 0.3 * p1.square().sum()).backward()
        optimizer.step()
        decay.step()
        torch.testing.assert_close(p0, data["p0_after"][step], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(p1, data["p1_after"][step], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dcr", [True, False])
def test_the_four_groups(dcr):
    model = Classifier(build_backbone("resnet18"), 5, dcr=dcr)
    groups = classifier_groups(model, lr=0.1, weight_decay=4e-5)
    rates = {round(group["lr"], 6): group for group in groups}
    assert sorted(rates) == ([0.1, 0.2, 1.0, 2.0] if dcr else [0.1, 0.2, 1.0])
    assert {rate: group["weight_decay"] for rate, group in rates.items() if group["params"]} == {
        rate: (0.0 if rate in (0.2, 2.0) else 4e-5) for rate in rates
    }
    members = {rate: {id(p) for p in group["params"]} for rate, group in rates.items()}
    assert id(model.backbone.bn1.weight) in members[0.1]
    assert id(model.backbone.bn1.bias) in members[0.2]
    assert id(model.classifier.weight) in members[1.0]
    if dcr:
        assert id(model.dcr.embed[0][1].weight) in members[1.0]
        assert id(model.dcr.embed[0][1].bias) in members[2.0]
    everything = [p for group in groups for p in group["params"]]
    assert len(everything) == len(list(model.parameters()))


def test_the_groups_of_the_segmentation_network():
    network = DeepLab(build_trunk("resnet18"), 3)
    trunk, weights, biases = segmentation_groups(network, lr=2.5e-4, weight_decay=5e-4)
    assert [group["lr"] for group in (trunk, weights, biases)] == [2.5e-4, 2.5e-3, 5e-3]
    assert [group["weight_decay"] for group in (trunk, weights, biases)] == [5e-4, 5e-4, 0]
    for group, expected in (
        (trunk, network.trunk.parameters()),
        (weights, [branch.weight for branch in network.head.branches]),
        (biases, [branch.bias for branch in network.head.branches]),
    ):
        assert {id(p) for p in group["params"]} == {id(p) for p in expected}


def test_power_zero_keeps_the_rate():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([parameter], lr=0.5)
    decay = polynomial_decay(optimizer, 10, 0.0)
    for _ in range(10):
        assert optimizer.param_groups[0]["lr"] == 0.5
        optimizer.step()
        decay.step()


def test_decay_in_steps_and_from_a_later_one():
    def rates(every, start, warmup=0):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
        decay = polynomial_decay(optimizer, 10, 0.9, every, start, warmup)
        found = []
        for _ in range(start, 10):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            decay.step()
        return found

    assert rates(1, 0) == [2.0 * (1 - t / 10) ** 0.9 for t in range(10)]
    assert rates(4, 0) == [2.0 * (1 - t / 10) ** 0.9 for t in (0, 0, 0, 0, 4, 4, 4, 4, 8, 8)]
    assert rates(4, 5) == rates(4, 0)[5:]
    risen = [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 1, 1, 1, 1, 1]
    assert rates(1, 0, 4) == pytest.approx([a * b for a, b in zip(risen, rates(1, 0), strict=True)])
    assert rates(1, 3, 4) == rates(1, 0, 4)[3:]
