"""Class activation maps, pseudo labels and mIoU of the network trained by train_cls_image.py.

Step 5a. Every photograph is inferred at several scales, plain and mirrored; the cams become
pseudo labels for every background threshold. docs/method.md, section 3.

    python evaluator_cls_image.py --voc_root VOC2012 --checkpoint experiments/cls_image/best.pt
"""

from datasets.command_line import new_parser
from utils.labels.cam_evaluation import evaluate
from utils.labels.cam_evaluation_options import add_options, settings_of
from utils.runs.start import start

TRAINED_BY = "cls_image"
"""The run whose checkpoint is evaluated unless one is named."""

if __name__ == "__main__":
    parser = new_parser(__doc__)
    add_options(parser, tag="eval_image", trained_by=TRAINED_BY)
    start(lambda args: evaluate(settings_of(args, TRAINED_BY)), parser)
