"""Where data sets lie: the options that every command shares, with dataset_root.py's defaults."""

import argparse

import dataset_root
from datasets.files import InputError

OPTIONS = {
    "voc12": ("voc_root", "voc_sal_root"),
    "coco": ("coco_root", "coco_sal_root"),
    "custom": ("root", "sal_root"),
}
"""Of every data set, the options that name its root and its saliency maps."""


def standing(name: str) -> str:
    """The folder for an option that dataset_root.py or the environment names, or ""."""
    return getattr(dataset_root, name.upper(), None) or ""


class _Standing(str):
    """A folder from dataset_root.py or the environment: nobody typed it for this command."""


def add_options(group: argparse._ArgumentGroup) -> None:
    """Roots, saliency maps and replaced labels of the three data sets."""
    for name, what in (
        ("voc_root", "PASCAL VOC 2012, with JPEGImages in it"),
        ("voc_sal_root", "saliency maps <id>.png of VOC (else saliency_map in its root)"),
        ("coco_root", "MS COCO 2014, with train2014 in it"),
        ("coco_sal_root", "saliency maps <id>.png of COCO (else saliency_map in its root)"),
    ):
        default = _Standing(standing(name))
        shown = f" (default: {default})".replace("%", "%%") if default else ""
        group.add_argument(f"--{name}", default=default, metavar="DIR", help=what + shown)
    group.add_argument("--root", metavar="DIR", help="your own data in VOC layout (custom)")
    group.add_argument(
        "--sal_root",
        metavar="DIR",
        help="saliency maps <id>.png of your own data (else saliency_map in its root)",
    )
    group.add_argument(
        "--labels_file",
        metavar="FILE",
        help="image-level labels from a published cls_labels.npy or a CSV instead of the "
        "annotations' (default: data/voc/cls_labels.npy or data/coco/cls_labels.npy in the "
        "repository, if it is there, for the photographs that it lists)",
    )


def chosen(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """(root, saliency folder or None) of `args.dataset`.

    Raises:
        InputError: the folder of another data set was typed, which would have no effect.
    """
    for dataset, names in OPTIONS.items():
        for name in names:
            folder = getattr(args, name)
            typed = folder is not None and not isinstance(folder, _Standing)
            if typed and dataset != args.dataset:
                raise InputError(
                    f"--{name} {folder}: is for --dataset {dataset}, and this is {args.dataset}; "
                    f"name {dataset} too, or leave --{name} out"
                )
    root, saliency = (getattr(args, name) for name in OPTIONS[args.dataset])
    return root, saliency or None
