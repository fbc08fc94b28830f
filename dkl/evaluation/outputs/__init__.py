"""Turns a finished evaluation into a record with its provenance."""
