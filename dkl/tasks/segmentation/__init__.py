"""Tasks on images with a label per pixel: training with masks, and distillation per pixel."""

from dkl.tasks.segmentation.distillation import SegmentationDistillation
from dkl.tasks.segmentation.metrics import SegmentationCounts, count_pixels
from dkl.tasks.segmentation.supervised import Segmentation

__all__ = ["Segmentation", "SegmentationCounts", "SegmentationDistillation", "count_pixels"]
