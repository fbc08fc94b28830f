"""Batches: which images, in which order, for which process, prefetched."""
