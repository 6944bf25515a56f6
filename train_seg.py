"""Train the segmentation network, DeepLab, on pseudo labels as if they were masks.

Step 6. The labels are the best ones of an evaluation (--labels_from eval_image), any folder of
label maps, or the masks themselves, which gives the upper bound. The trained network needs no
labels to segment a photograph. docs/method.md, section 5.

    python evaluator_cls_image.py --split train_aug --tag pseudo_aug
    python train_seg.py --labels_from pseudo_aug
    python train_seg.py --pseudo_labels masks --tag seg_full
"""

from datasets.command_line import new_parser
from utils.runs.start import start
from utils.training.segmentation import train_segmentation
from utils.training.segmentation_options import add_options, settings_of

if __name__ == "__main__":
    parser = new_parser(__doc__)
    add_options(parser)
    start(lambda args: train_segmentation(settings_of(args)), parser)
