"""Speed, memory and accuracy against the official way of doing it: ``python -m scripts.bench``, or ``make bench``."""
