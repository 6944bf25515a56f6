"""What is scored while the segmentation network learns, against the mIoU of its label maps."""

import numpy as np
import pytest
import torch

from datasets.demo import generate
from datasets.images import read_label_map
from datasets.prepared import load_collection
from networks.backbone import build_backbone
from networks.deeplab import DeepLab
from tests.utils.scores.plain_miou import plain_miou
from utils.inference.segmentation import segment_file
from utils.runs.reader import Reader
from utils.scores.mask_validation import validate_segmentation


@pytest.mark.parametrize("max_side", [None, 48])
def test_the_plain_miou_of_the_labels(tmp_path, max_side):
    """Photographs larger than those that the network learnt from are scaled down."""
    generate(tmp_path, images=5, validation=2, size=64, seed=0)
    scenes = load_collection("custom", tmp_path, "train_aug", quiet=True)
    torch.manual_seed(0)
    network = DeepLab(build_backbone("resnet18"), scenes.num_classes)
    network.max_side = max_side
    network.train()  # as a training leaves it
    bad, shown = [], scenes.ids[1:3]
    reader = Reader(torch.device("cpu"), 0, bad.append)
    found = validate_segmentation(scenes, network, reader, shown)
    labels = [segment_file(scenes.images[i], network) for i in scenes.ids]
    truth = [read_label_map(scenes.mask_path(i)) for i in scenes.ids]
    assert len(np.unique(labels[0])) > 1 and bad == []
    assert found.miou == pytest.approx(plain_miou(labels, truth, scenes.num_classes), abs=1e-9)
    assert tuple(one.id for one in found.shown) == shown
