"""Figures 2 and 3 of the paper, and pictures of runs: from manifests, records and arrays to PNG and SVG."""

from dkl.reporting.figures.draw import draw_all

__all__ = ["draw_all"]
