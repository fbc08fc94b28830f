"""Draws Figures 2 and 3 of the paper and figures of runs, from manifests, records and arrays, as PNG and SVG."""

from dkl.reporting.figures.draw import draw_all

__all__ = ["draw_all"]
