"""Sphinx settings; `make docs` builds with warnings as errors and without a network."""

from importlib.metadata import version as package_version

project = "ensue"
author = "The ensue authors"
project_copyright = "The ensue authors, Apache License 2.0"
release = package_version("ensue")
version = release

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = [
    "_build",
    "results/quality_table.md",
    "results/depth_table.md",
    "results/sessions_table.md",
    "results/attention_table.md",
    "results/conventions_table.md",
]

html_theme = "furo"
html_title = f"ensue {release}"
nitpicky = True
