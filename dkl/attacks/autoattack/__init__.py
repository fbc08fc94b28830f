"""The four attacks of standard AutoAttack, written for speed; they fool the images that the package's attacks fool.

The algorithms, parameters, random draws and their order are those of ``pyautoattack`` for Linf and L2. What differs is
what is not computed: an image that has been fooled is not attacked further, FAB projects without sorting, and Square
repeats no query. ``tests/evaluation/robustness/test_package.py`` compares the flags with the package's.

Every attack is a function of a model in eval mode with frozen parameters, images ``x[B, C, H, W]`` in [0, 1] that it
classifies correctly, and labels ``y[B]``. It returns adversarial images for those that it fools and ``x`` for others.
"""

from dkl.attacks.autoattack.apgd import apgd_ce, apgd_dlr, apgd_targeted
from dkl.attacks.autoattack.fab import fab_targeted
from dkl.attacks.autoattack.square import square

__all__ = ["apgd_ce", "apgd_dlr", "apgd_targeted", "fab_targeted", "square"]
