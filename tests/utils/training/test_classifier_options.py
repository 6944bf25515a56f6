import pytest

import train_cls_image
import train_cls_sal
from datasets.command_line import new_parser
from datasets.files import InputError
from utils.training.classifier_options import add_options, settings_of
from utils.training.segmentation_options import add_options as add_segmentation_options


def add_image_options(parser):
    add_options(parser, **train_cls_image.DEFAULTS)


def settings(script, *arguments):
    parser = new_parser("")
    add_options(parser, **script.DEFAULTS)
    return settings_of(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("script", "crop", "side"),
    [
        *((train_cls_image, crop, side) for crop, side in ((480, 3), (256, 2), (112, 1), (32, 1))),
        *((train_cls_sal, crop, 1) for crop in (480, 256, 112, 32)),
    ],
)
def test_patches_keep_the_papers_size(script, crop, side):
    """Nine patches and one at the paper's crops; in others the size in superpixels stays."""
    assert settings(script, "--crop", str(crop)).patches_a_side == side


@pytest.mark.parametrize("add", [add_segmentation_options, add_image_options])
def test_nothing_is_said_to_be_fewer_by_itself(add):
    parser = new_parser("")
    add(parser)
    assert "0 for none, give fewer on a CPU" in " ".join(parser.format_help().split())


def test_a_given_number_of_patches_stands():
    given = ("--crop", "256", "--patch", "5")
    assert settings(train_cls_image, *given).patches_a_side == 3
    assert settings(train_cls_image, *given, "--patches", "1").patches_a_side == 1


@pytest.mark.parametrize("given", ["--patches 9", "--patch 2"])
def test_patches_of_one_superpixel_are_refused(given):
    with pytest.raises(InputError, match=f"--crop 48: too small for {given}; a patch of one"):
        settings(train_cls_image, "--crop", "48", *given.split())


def test_the_learning_rate_follows_the_backbone_unless_it_is_given():
    """What a run keeps of its options is the rate it took."""
    pytest.importorskip("timm")
    assert settings(train_cls_image).run.options["lr"] == 0.1
    name = "timm:deit_tiny_patch16_224"
    found = settings(train_cls_sal, "--backbone", name)
    assert found.learning.lr == found.run.options["lr"] == 0.01
    assert settings(train_cls_image, "--backbone", name, "--lr", "0.2").learning.lr == 0.2
    with pytest.raises(InputError, match="--backbone timm:vgg11: the family vgg cannot be cut"):
        settings(train_cls_image, "--backbone", "timm:vgg11")
