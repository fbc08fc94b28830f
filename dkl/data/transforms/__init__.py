"""Random changes of images: crops, flips, rotations and policies."""
