"""How labeled images are held: in memory, as encoded files, or mapped from disk."""
