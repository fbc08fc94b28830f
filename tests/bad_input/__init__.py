"""Mistakes in commands, files and calls: each is refused with one line that says what is wrong and how to fix it."""
