"""Outputs of an evaluation: the record with its provenance, the logger report, and the data of figures."""
