"""Traces of training, evaluation and tables that must not change, bit for bit."""
