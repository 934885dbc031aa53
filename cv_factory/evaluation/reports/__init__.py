"""HTML and Markdown reports."""
