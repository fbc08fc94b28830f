"""Speed, memory and rounding errors against the official implementation: ``make bench``."""
