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
        help="image-level labels from a published cls_labels.npy or a CSV instead of the XML files",
    )


def chosen(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """(root, saliency folder or None) of `options.dataset`."""
    root, saliency = {
        "voc12": (options.voc_root, options.voc_sal_root),
        "coco": (options.coco_root, options.coco_sal_root),
        "custom": (options.root, options.sal_root),
    }[options.dataset]
    return root, saliency or None
