"""Sharing networks: ``load_model`` gets one from anywhere, and ``export`` writes a run's for others.

A folder that ``export`` writes has the weights, how to load them, and a card whose figures are those of records.
"""

import dkl.full
from dkl.sharing.export import FORMATS, export
from dkl.sharing.load import load_model

__all__ = ["FORMATS", "export", "load_model"]
