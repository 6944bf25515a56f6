"""Train the classification network with saliency maps as supervision of the IPC loss.

Step 4b. The saliency map and its complement, pooled to superpixels, are reconstructed from one
prototype a class over the whole image; affinity propagation (AP) acts in inference only.
docs/method.md, section 2.

    python train_cls_sal.py --voc_root VOC2012 --voc_sal_root SALIENCY --scn experiments/scn/last.pt
"""

import torch
from torch import Tensor

from datasets.command_line import new_parser
from networks.crops import channels_first
from utils.runs.start import start
from utils.training.classifier import train_classifier
from utils.training.classifier_options import add_options, settings_of
from utils.training.supervision import Supervision


def target(images: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """`[s, 1 - s]` (B, 2, H, W) of the saliency maps s in 0..1."""
    saliency = channels_first(batch["saliency"]).float() / 255
    return torch.cat([saliency, 1 - saliency], dim=1)


SUPERVISION = Supervision("saliency", ("saliency",), target, "evaluator_cls_sal.py")

DEFAULTS = {"tag": "cls_sal", "patch": 30, "threshold": 0.01, "power": 0.9, "beta_train": 0}
"""Those in which the train_cls scripts differ."""

if __name__ == "__main__":
    parser = new_parser(__doc__)
    add_options(parser, **DEFAULTS)
    start(lambda args: train_classifier(settings_of(args), SUPERVISION), parser)
