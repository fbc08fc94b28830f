"""Semi-supervised training of Table 16: cross-entropy on few labels, and consistency on two views of other images."""
