"""Runs attacks batch by batch and saves the progress after every batch."""
