# SPDX-License-Identifier: Apache-2.0
"""Several guests at once: what is asked for wrongly is refused in a line, before anything is started."""

from __future__ import annotations

import pytest

from tests.bench.many import __main__ as many
from tests.bench.many import fifty


@pytest.mark.parametrize("program", [many.main, fifty.main])
@pytest.mark.parametrize("guests", ["0", "-1", "51"])
def test_number_of_guests(
    program: object, guests: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(program)
    assert program(["--guests", guests]) == 2
    assert capsys.readouterr().err == f"bench: --guests {guests}: use 1 to 50\n"
