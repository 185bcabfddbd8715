"""A report on runs: tables, curves and samples as one HTML file, and the tables as Markdown and CSV."""
