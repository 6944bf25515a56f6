"""Train the superpixel segmentation network (SCN), without any labels.

Step 3. The network learns to reconstruct colour (CIE-Lab) and position of every pixel from the
means of its superpixels (docs/method.md, section 1), or, with `--objective clustering`, to assign
every pixel as clustering by colour and position would, which takes far fewer steps.

    python train_scn.py --voc_root VOC2012
    python train_scn.py --images DIR        # all photographs of a folder
"""

from datasets.command_line import new_parser
from utils.runs.start import start
from utils.training.superpixel_options import add_options, settings_of
from utils.training.superpixels import train_superpixels

if __name__ == "__main__":
    parser = new_parser(__doc__)
    add_options(parser)
    start(lambda args: train_superpixels(settings_of(args)), parser)
