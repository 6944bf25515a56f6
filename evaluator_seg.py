"""Masks and mIoU of the segmentation network trained by train_seg.py.

Step 7. Every photograph is segmented at its own size: a split is scored against its masks, a folder
of photographs needs none. docs/method.md, section 5.

    python evaluator_seg.py --voc_root VOC2012 --checkpoint experiments/seg/last.pt
    python evaluator_seg.py --images holiday/ --checkpoint experiments/seg/last.pt
"""

from datasets.command_line import new_parser
from utils.labels.mask_evaluation import evaluate
from utils.labels.mask_evaluation_options import add_options, settings_of
from utils.runs.start import start

if __name__ == "__main__":
    parser = new_parser(__doc__)
    add_options(parser)
    start(lambda args: evaluate(settings_of(args)), parser)
