"""``dkl reproduce``: plan the jobs of a manifest, run them here or through a launcher, and show their tables."""

import dkl.full
