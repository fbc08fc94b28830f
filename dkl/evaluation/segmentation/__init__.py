"""Evaluates networks that label pixels: ``windows`` predicts whole images, ``pixel_counts`` counts and resumes."""
