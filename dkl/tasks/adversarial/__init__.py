"""Training on adversarial images."""
