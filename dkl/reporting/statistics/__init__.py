"""Means over seeds, confidence intervals, and paired comparisons of two rows."""
