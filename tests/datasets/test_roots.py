import argparse

import pytest

import dataset_root
from datasets.files import InputError
from datasets.roots import add_options, chosen


def roots_of(dataset, *options):
    parser = argparse.ArgumentParser()
    add_options(parser.add_argument_group())
    return chosen(argparse.Namespace(dataset=dataset, **vars(parser.parse_args(options))))


@pytest.mark.parametrize(
    "dataset, option, owner",
    [
        ("voc12", "--root", "custom"),
        ("voc12", "--sal_root", "custom"),
        ("voc12", "--coco_root", "coco"),
        ("custom", "--coco_sal_root", "coco"),
        ("custom", "--voc_root", "voc12"),
        ("coco", "--voc_sal_root", "voc12"),
    ],
)
def test_a_folder_of_another_data_set_is_refused(dataset, option, owner):
    for folder in ("DIR", dataset_root.COCO_ROOT):  # typed is typed, even if it is the default
        with pytest.raises(InputError, match=f"{option} {folder}: is for --dataset {owner}, and"):
            roots_of(dataset, option, folder)
    root, saliency = roots_of(owner, option, "DIR")
    assert "DIR" in (root, saliency)


def test_folders_that_nobody_typed_are_no_mistake(monkeypatch):
    for name in ("VOC_ROOT", "VOC_SAL_ROOT", "COCO_ROOT", "COCO_SAL_ROOT"):
        monkeypatch.setattr(dataset_root, name, f"/data/{name}")
    assert roots_of("custom", "--root", "DIR") == ("DIR", None)
    assert roots_of("voc12") == ("/data/VOC_ROOT", "/data/VOC_SAL_ROOT")
    monkeypatch.setattr(dataset_root, "COCO_SAL_ROOT", "")
    assert roots_of("coco") == ("/data/COCO_ROOT", None)
