"""Where the data sets lie. Edit this file once, or set environment variables of the same names.

The options --voc_root, --voc_sal_root, --coco_root and --coco_sal_root override both.
"""

import os

VOC_ROOT = os.environ.get("VOC_ROOT", "data/VOCdevkit/VOC2012")
"""PASCAL VOC 2012: holds JPEGImages, Annotations, ImageSets and, with SBD, SegmentationClassAug."""

VOC_SAL_ROOT = os.environ.get("VOC_SAL_ROOT", "")
"""Saliency maps `<id>.png` of VOC's photographs; empty: the folder saliency_map in VOC_ROOT."""

COCO_ROOT = os.environ.get("COCO_ROOT", "data/coco2014")
"""MS COCO 2014: holds train2014, val2014 and annotations."""

COCO_SAL_ROOT = os.environ.get("COCO_SAL_ROOT", "")
"""Saliency maps `<id>.png` of COCO's photographs; empty: the folder saliency_map in COCO_ROOT."""

PREPARED_ROOT = os.environ.get("PREPARED_ROOT", "")
"""What datasets.prepare makes of them: lists and labels; empty: data/prepared in the repository."""
