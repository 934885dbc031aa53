"""Self-contained pages of text, tables and pictures: one renderer for HTML, one for Markdown."""
