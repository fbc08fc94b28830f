"""Runs the rows of a manifest: plan, estimate, train, evaluate, tabulate."""
