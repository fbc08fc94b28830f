"""A table of text, written as Markdown, CSV, LaTeX or HTML."""
