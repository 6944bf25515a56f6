"""Every script from end to end on a device, with what follows an epoch: scores and pictures."""

import json

from datasets.demo import generate
from tests.calling import call

CROPS = "--batch 4 --crop 64 --long_side 64 80"
SCRATCH = "--backbone resnet18 --backbone_weights none"


def run_every_script(folder, device):
    """Train, infer and score on a small generated data set; `device` is a value of --device."""
    generate(folder / "scenes", images=8, validation=3, size=64, seed=0)
    runs = f"--experiments {folder} --device {device} --workers 1"
    scenes = f"{runs} --dataset custom --root {folder}/scenes"
    train = f"{scenes} --split train"
    call("train_scn.py", f"{train} {CROPS} --epochs 1 --amp")
    for kind, more in (("image", "--amp"), ("sal", "--gamma_keep 0.3")):
        options = f"{train} {SCRATCH} {CROPS} --epochs 2 --score_images 3 {more}"
        call(f"train_cls_{kind}.py", options)
        call(f"evaluator_cls_{kind}.py", f"{train} --scales 1 1.5")
    seg = f"{train} {SCRATCH} --stride 16 --score_every 2 --batch 4 --crop 48 --lr 0.01 --amp"
    call("train_seg.py", f"{seg} --steps 4 --score_images 2")
    call("train_seg.py", f"{seg} --steps 6 --score_images 2 --resume --force")
    call("evaluator_seg.py", f"{scenes} --flip --restrict")
    photograph = f"{runs} --images {folder}/scenes/JPEGImages/val_0001.jpg"
    classifier = f"--checkpoint {folder}/cls_image/last.pt"
    call("evaluator_cls_image.py", f"{photograph} --labels predicted --tag one {classifier}")
    call("evaluator_seg.py", f"{photograph} --tag one_seg")
    for tag, images in (("eval_image", 8), ("eval_sal", 8), ("eval_seg", 3), ("one", 1)):
        assert json.loads((folder / tag / "result.json").read_text())["images"] == images
