"""The formats of an export: one module each, with ``write(exported, folder)``."""
