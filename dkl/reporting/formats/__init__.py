"""Tables of text as Markdown, CSV, LaTeX and HTML."""
