"""Rare outside jobs, run from the repository root."""
