"""Files that survive an interruption, checkpoints, and downloads."""
