# SPDX-License-Identifier: Apache-2.0
"""Everything that people read can be translated."""

from __future__ import annotations

import pathlib

from babel.messages import extract, mofile, pofile
from django.test.utils import override_settings
from django.utils import translation
from django.utils.translation import trans_real

import pcmig_dashboard
from pcmig_dashboard import figures

FOLDER = pathlib.Path(pcmig_dashboard.__file__).parent
TEMPLATE = FOLDER / "locale/django.pot"
KEYWORDS = {**extract.DEFAULT_KEYWORDS, "gettext_lazy": None}


def test_the_template_is_up_to_date() -> None:
    """doc/operate/dashboard.rst has the command that writes it."""
    found = {message for _, _, message, _, _ in extract.extract_from_dir(str(FOLDER), keywords=KEYWORDS)}
    with TEMPLATE.open("rb") as file:
        known = {message.id for message in pofile.read_po(file) if message.id}
    assert known == found


def test_a_translation_is_used(tmp_path: pathlib.Path) -> None:
    with TEMPLATE.open("rb") as file:
        catalog = pofile.read_po(file, locale="de")
    catalog["Page requests"].string = "Angeforderte Seiten"
    target = tmp_path / "de/LC_MESSAGES/django.mo"
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        mofile.write_mo(file, catalog)
    before = dict(trans_real._translations)
    try:
        trans_real._translations.clear()
        with override_settings(LOCALE_PATHS=[str(tmp_path)]), translation.override("de"):
            assert dict(figures.labels())["requests"] == "Angeforderte Seiten"
    finally:
        trans_real._translations.clear()
        trans_real._translations.update(before)
