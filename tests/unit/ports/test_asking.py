# SPDX-License-Identifier: Apache-2.0
"""Who asks the destination: a program in ssh's place, and whatever it may say."""

from __future__ import annotations

import json
import os
import pathlib
import select
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig.ports import asking
from pcmig.ports.asking import Asker, understand, understand_last
from tests.unit.patience import PATIENCE_S

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


def answer(ready: bool | None, *ports: tuple[str, str], absent: bool = False) -> str:
    rows = [
        {"device": "vnet0", "mac": "52:54:00:00:00:01", "verdict": {"readiness": word, "why": why}}
        for word, why in ports
    ]
    return json.dumps(
        {"ready": ready, "absent": absent, "error": "no QEMU", "announced": None, "ports": rows}
    )


LAST = json.dumps({"announced": [{"mac": "52:54:00:00:00:01"}], "text": "vnet0: announced 4 times\x1b[2J"})


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        (answer(True, ("ready", "forwards")), "ready", "all ports forward"),
        (answer(False, ("ready", "forwards"), ("stuck", "br0 is down")), "blocked", "vnet0: br0 is down"),
        (answer(None, absent=True), "untold", "not there yet"),
        (answer(None), "unknown", "no QEMU"),
        (answer(False), "unknown", "makes no sense"),
        ("Welcome to b!\x1b[2J", "unknown", "Welcome to b!?[2J"),
        ("[" * 100_000, "unknown", "makes no sense"),
    ],
)
def test_what_is_said(line: str, level: str, text: str) -> None:
    said = understand(line)
    assert said.level == level and text in said.text


@given(
    st.one_of(
        st.text(),
        st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(json.dumps),
        st.fixed_dictionaries(
            {
                "ready": st.none() | st.booleans() | st.text(),
                "absent": st.booleans(),
                "announced": st.none() | st.text() | st.lists(st.text()),
                "text": st.text() | st.integers(),
                "error": st.none() | st.text(),
                "ports": st.lists(
                    st.none() | st.dictionaries(st.sampled_from(["verdict", "device", "mac"]), st.text())
                ),
            }
        ).map(json.dumps),
    )
)
def test_anything_may_be_said(line: str) -> None:
    said = understand(line)
    assert said.level in ("untold", "unknown", "blocked", "ready")
    assert said.text.isprintable() and len(said.text) < 1000
    last = understand_last(line)
    assert last is None or (last.isprintable() and len(last) < 1000)


Ask = Callable[[str], Asker]


@pytest.fixture
def ask(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """An asker whose ssh is a script with this text."""
    askers: list[Asker] = []

    def made(text: str) -> Asker:
        program = tmp_path / "ssh"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv(asking.ENVIRONMENT, f"{program} -i 'a key'")
        askers.append(Asker("root@b", UUID, 2222))
        return askers[-1]

    yield made
    for asker in askers:
        asker.stop()


def hear(asker: Asker, level: str, text: str = "") -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not (asker.take().level == level and text in asker.said.text):
        assert time.monotonic() < end_s, asker.said
        number = asker.fileno()
        select.select([] if number is None else [number], [], [], 0.1)


def test_it_listens(ask: Ask, tmp_path: pathlib.Path) -> None:
    """Half a line is none; what is said last counts."""
    blocked, ready = answer(False, ("waiting", "br0 learns")), answer(True)
    go = tmp_path / "go"
    asker = ask(
        f"""echo "$@" > {tmp_path}/words
        printf %s '{blocked}'; sleep 0.3; echo
        while [ ! -e {go} ]; do sleep 0.05; done
        echo '{blocked}'; echo '{ready}'; exec sleep 600"""
    )
    assert asker.said.level == "untold" and asker.fileno() is None
    hear(asker, "blocked", "br0 learns")
    go.touch()
    hear(asker, "ready")
    words = (tmp_path / "words").read_text()
    assert words.startswith("-i a key -T -o BatchMode=yes ")
    assert words.endswith(f" -p 2222 -- root@b exec pcmig ports --follow --announce --json {UUID}\n")


def test_the_last_word(ask: Ask, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has announced the guest has no more to say, and is not asked again."""
    monkeypatch.setattr(asking, "AGAIN_S", 0.0)
    go = tmp_path / "go"
    asker = ask(f"echo '{answer(True)}'; while [ ! -e {go} ]; do sleep 0.05; done; echo '{LAST}'")
    hear(asker, "ready")
    assert asker.announced is None
    go.touch()
    end_s = time.monotonic() + PATIENCE_S
    while asker.announced is None:
        assert time.monotonic() < end_s
        select.select([asker.fileno() or 0], [], [], 0.1)
        asker.take()
    assert asker.announced == "vnet0: announced 4 times?[2J"
    assert asker.take().level == "ready" and asker.fileno() is None


def test_who_cannot_be_asked_holds_nothing(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = ask("echo 'Permission denied (publickey).' >&2; exit 255")
    hear(asker, "unknown", "Permission denied (publickey).")
    assert asker.fileno() is None
    monkeypatch.setattr(asking, "AGAIN_S", 0.0)  # and is asked again
    asker._argv = ["sh", "-c", f"echo '{answer(True)}'; exec sleep 600"]
    hear(asker, "ready")
    monkeypatch.setattr(asking, "AGAIN_S", 60.0)
    asker.stop()
    hear(asker, "ready")


def test_who_falls_silent_is_not_believed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SILENT_S", 0.3)
    hear(ask(f"echo '{answer(True)}'; exec sleep 600"), "unknown", "root@b says nothing any more")


def test_the_terminal_does_not_end_it(ask: Ask) -> None:
    """A SIGHUP or Ctrl-C that ended it would open the gate."""
    asker = ask('read -r _ _ _ _ group _ < /proc/$$/stat; echo "group $group"; exec sleep 600')
    hear(asker, "unknown", "group ")
    assert asker.said.text.split()[-1] != str(os.getpgrp())


def test_no_ssh(ask: Ask) -> None:
    asker = ask("")
    asker._argv = ["/nonexistent/ssh"]
    assert asker.take() == ("unknown", "/nonexistent/ssh: No such file or directory")
    assert asker.take().level == "unknown"


def test_a_line_without_end(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_LINE", 1000)
    hear(ask("while :; do printf xxxxxxxxxxxxxxxx; done"), "unknown", "no end")
