"""Tasks that train on adversarial images."""
