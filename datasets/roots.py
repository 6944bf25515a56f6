"""Where data sets lie: the options that every command shares, with dataset_root.py's defaults."""

import argparse

import dataset_root


def add_options(group: argparse._ArgumentGroup) -> None:
    """Roots, saliency maps and replaced labels of the three data sets."""
    for name, what in (
        ("voc_root", "PASCAL VOC 2012, with JPEGImages in it"),
        ("voc_sal_root", "saliency maps <id>.png of VOC (else saliency_map in its root)"),
        ("coco_root", "MS COCO 2014, with train2014 in it"),
        ("coco_sal_root", "saliency maps <id>.png of COCO (else saliency_map in its root)"),
    ):
        default = getattr(dataset_root, name.upper())
        shown = f" (default: {default})" if default else ""
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
    """(root, saliency folder or None) of `args.dataset`."""
    root, saliency = {
        "voc12": (args.voc_root, args.voc_sal_root),
        "coco": (args.coco_root, args.coco_sal_root),
        "custom": (args.root, args.sal_root),
    }[args.dataset]
    return root, saliency or None
