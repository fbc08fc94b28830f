"""Files that survive an interruption, checkpoints, downloads, and whether a server answers."""
