"""Where images come from: each source returns a training and a test split."""
