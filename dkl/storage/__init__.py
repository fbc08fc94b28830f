"""Files that survive an interruption, checkpoints, downloads, files of a hub, and whether a server answers."""
