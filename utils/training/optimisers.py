"""The optimisers of the training stages and their learning rate schedule.

docs/method.md, sections 1, 2 and 5.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from networks.classifier import Classifier
from networks.deeplab import DeepLab


def classifier_groups(classifier: Classifier, lr: float, weight_decay: float) -> list[dict]:
    """The four parameter groups of the classification network.

    Backbone weights and biases at lr and 2 lr, the new layers' at 10 lr and 20 lr; weight decay on
    weights only. A batch normalisation's scale counts as a weight, its shift as a bias.
    """
    backbone = {id(parameter) for parameter in classifier.backbone.parameters()}
    groups = {
        (old, bias): {
            "params": [],
            "lr": lr * (1 if old else 10) * (2 if bias else 1),
            "weight_decay": 0.0 if bias else weight_decay,
        }
        for old in (True, False)
        for bias in (False, True)
    }
    for name, parameter in classifier.named_parameters():
        groups[id(parameter) in backbone, name.endswith("bias")]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def segmentation_groups(network: DeepLab, lr: float, weight_decay: float) -> list[dict]:
    """The three parameter groups of the segmentation network.

    The trunk at lr; the head's weights at 10 lr, its biases at 20 lr without weight decay.
    """
    head = list(network.head.named_parameters())
    weights = [parameter for name, parameter in head if not name.endswith("bias")]
    biases = [parameter for name, parameter in head if name.endswith("bias")]
    trunk = list(network.trunk.parameters())
    return [
        {"params": trunk, "lr": lr, "weight_decay": weight_decay},
        {"params": weights, "lr": 10 * lr, "weight_decay": weight_decay},
        {"params": biases, "lr": 20 * lr, "weight_decay": 0.0},
    ]


def sgd(groups: Iterable[dict], momentum: float, nesterov: bool = False) -> SGD:
    """SGD whose groups name their learning rates; Nesterov's for `nesterov` and momentum > 0."""
    return SGD(list(groups), lr=0.1, momentum=momentum, nesterov=nesterov and momentum > 0)


def polynomial_decay(
    optimizer: Optimizer,
    steps: int,
    power: float,
    every: int = 1,
    start: int = 0,
    warmup: int = 0,
) -> LambdaLR:
    """For step t of T, every group's learning rate is its first one times (1 - t / T)^power.

    Args:
        optimizer: its groups' learning rates are the first ones.
        steps: T.
        power: 0 keeps the learning rates as they are.
        every: t is taken down to a multiple of this.
        start: the step to begin with.
        warmup: steps over which the learning rates rise to that, in equal parts.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])

    def factor(step: int) -> float:
        risen = min(1.0, (step + 1) / (warmup + 1))
        return risen * (1 - step // every * every / steps) ** power

    return LambdaLR(optimizer, factor, last_epoch=start - 1)


def trainable(module: nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
