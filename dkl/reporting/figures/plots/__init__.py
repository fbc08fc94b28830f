"""One function per kind of figure, from numbers to a matplotlib ``Figure``; the look of all of them in ``style``."""
