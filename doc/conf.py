# SPDX-License-Identifier: Apache-2.0
"""Sphinx: the pages of doc/ and the man page. Build with `tools/test doc`; pages land in doc/_build/html."""

import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "doc" / "_ext")]

with (ROOT / "pyproject.toml").open("rb") as file:
    _project = tomllib.load(file)["project"]

project = "pcmig"
author = "the pcmig developers"
copyright = author
version = release = (ROOT / "VERSION").read_text().strip()

extensions = ["c_headers", "choice_tables", "params_table", "flags_tables", "safety_tables", "engine_picture"]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
highlight_language = "none"

html_theme = "furo"
html_title = f"pcmig {release}"

# Source page, name, description, authors, section.
man_pages = [("refer/pcmig", "pcmig", _project["description"], [author], 1)]
