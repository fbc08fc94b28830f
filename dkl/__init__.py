"""dkl: decoupled Kullback-Leibler divergence losses, and everything needed to reproduce their paper."""

__version__ = "0.1.0"
