"""Means over seeds, intervals and paired comparisons."""
