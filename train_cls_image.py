"""Train the classification network with the image itself as supervision of the IPC loss.

Step 4a. In every patch the normalised image, pooled to superpixels, is reconstructed from one
prototype a class; affinity propagation (AP) acts in training too. docs/method.md, section 2.

    python train_cls_image.py --voc_root VOC2012 --scn experiments/scn/last.pt
"""

from torch import Tensor

from datasets.command_line import new_parser
from utils.runs.start import start
from utils.training.classifier import train_classifier
from utils.training.classifier_options import add_options, settings_of
from utils.training.supervision import Supervision


def target(images: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The normalised images (B, 3, H, W) themselves."""
    return images


SUPERVISION = Supervision("image", (), target, "evaluator_cls_image.py")

DEFAULTS = {"tag": "cls_image", "patch": 10, "threshold": 0.1, "power": 0.5, "beta_train": 8}
"""Those in which the train_cls scripts differ."""

if __name__ == "__main__":
    parser = new_parser(__doc__)
    add_options(parser, **DEFAULTS)
    start(lambda args: train_classifier(settings_of(args), SUPERVISION), parser)
