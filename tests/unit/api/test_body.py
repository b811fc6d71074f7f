# SPDX-License-Identifier: Apache-2.0
"""The body of a live migration: the key is taken, all else is left as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pcmig_api import body

MIGRATE = {"host": None, "block_migration": "auto"}


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("value", [True, False, "true", 5, None, {"a": [1]}, [], 1e999])
def test_the_key_is_taken(value: Any) -> None:
    taken = body.take(dumped({"os-migrateLive": {**MIGRATE, "post_copy": value}}))
    assert taken is not None
    assert taken.value == value
    assert json.loads(taken.rest) == {"os-migrateLive": MIGRATE}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"5",
        b'"os-migrateLive"',
        b"[]",
        b'["os-migrateLive"]',
        b"{}",
        b"{",
        b'{"os-migrateLive": ',
        b'{"os-migrateLive": {"post_copy": true}',
        b'{"os-migrateLive": null}',
        b'{"os-migrateLive": "post_copy"}',
        b'{"os-migrateLive": ["post_copy"]}',
        b'{"os-migrateLive": {}}',
        b'{"os-migrateLive": {"Post_copy": true}}',
        b'{"os-migrateLive": {"host": {"post_copy": true}}}',
        b'{"os-migrateLive": {"post_copy": true}, "pause": null}',
        b'{"pause": null, "os-migrateLive": {"post_copy": true}}',
        b'{"post_copy": true}',
        b'{"migrate": {"post_copy": true}}',
        b'{"os-migrateLive": {"post_copy": true}, "os-migrateLive": {"host": null}}',
        b'{"os-migrateLive": {"post_copy": true}} x',
        b"\xff\xfe" + '{"os-migrateLive": {"post_copy": true}}'.encode("utf-16-le"),
        '{"os-migrateLive": {"post_copy": true}}'.encode("utf-16"),
        b'\xef\xbb\xbf{"os-migrateLive": {"post_copy": true}}',
        b'{"os-migrateLive": {"post_copy": true, "host": "\xff"}}',
        b'{"os-migrateLive": {"post_copy": ' + b"9" * 5000 + b"}}",
        b'{"os-migrateLive": {"post_copy": tru}}',
    ],
    ids=range(28),
)
def test_what_is_not_ours_is_left(raw: bytes) -> None:
    assert body.take(raw) is None


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"os-migrateLive": {"post_copy": false, "post_copy": true}}', True),
        (b'{"os-migrateLive": {"host": null}, "os-migrateLive": {"post_copy": true}}', True),
        (b'{"os-migrateLive": {"post\\u005fcopy": true}}', True),
        (b'{"os-migrate\\u004cive": {"post_copy": "no"}}', "no"),
        (b' \n{"os-migrateLive":{"post_copy":"\\ud800"}}\t', "\ud800"),
    ],
)
def test_the_key_is_found_however_it_is_written(raw: bytes, value: Any) -> None:
    taken = body.take(raw)
    assert taken is not None and taken.value == value
    assert json.loads(taken.rest)["os-migrateLive"].get("post_copy") is None


def test_what_else_nova_would_read_is_kept() -> None:
    raw = (
        b'{"os-migrateLive": {"post_copy": 1, "a": NaN, "b": -Infinity, "c": "\\ud800\xc3\xa9", "d": 1e400}}'
    )
    taken = body.take(raw)
    assert taken is not None
    assert b'"a": NaN, "b": -Infinity' in taken.rest
    rest = json.loads(taken.rest)["os-migrateLive"]
    assert (rest["c"], rest["d"]) == ("\ud800é", float("inf"))


@pytest.mark.parametrize("depth", [body.MAX_DEPTH + 1, 500, 5000, 50_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting_is_malformed(depth: int, left: bytes, right: bytes, closed: bool) -> None:
    inner = left * depth + b"1" + (right * depth if closed else b"")
    raw = b'{"os-migrateLive": {"post_copy": true, "host": ' + inner + (b"}}" if closed else b"")
    with pytest.raises(body.Malformed):
        body.take(raw)


@pytest.mark.parametrize("text", [b"[" * 500, b'\\"' + b"{" * 500, b"\\\\", b"]" * 500])
def test_brackets_in_a_string_are_no_depth(text: bytes) -> None:
    raw = b'{"os-migrateLive": {"post_copy": true, "a": "' + text + b'", "b": [1]}}'
    taken = body.take(raw)
    assert (
        taken is not None
        and json.loads(taken.rest)["os-migrateLive"]
        == json.loads(raw.replace(b'"post_copy": true, ', b""))["os-migrateLive"]
    )


def test_depth_that_is_no_danger() -> None:
    inner = "[" * 40 + "]" * 40
    taken = body.take(f'{{"os-migrateLive": {{"post_copy": true, "host": {inner}}}}}'.encode())
    assert taken is not None and b"[" * 40 in taken.rest


def test_spellings() -> None:
    assert body.truth(True) is True and body.truth(False) is False
    for text in ("true", "True", "1", "on", "YES"):
        assert body.truth(text) is True
    for text in ("false", "False", "0", "off", "NO"):
        assert body.truth(text) is False
    others: tuple[Any, ...] = (1, 0, 1.0, None, "", "tRUE", " true", "2", [], {}, [True], "t")
    for other in others:
        assert body.truth(other) is None


NAMES = st.sampled_from(["os-migrateLive", "post_copy", "host", "force", "pause"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | NAMES, inner, max_size=4),
    max_leaves=12,
)
# Pieces that a body is made of, in any order: mostly broken, and broken where it hurts.
PIECES = st.lists(
    st.sampled_from(
        [b'{"os-migrateLive"', b"{", b"}", b"[", b"]", b'"post_copy"', b"post_copy", b":", b",", b"true",
         b"NaN", b'"\\u005f', b'"', b"\\", b"\xff", b"\xef\xbb\xbf", b"null", b"1e999", b" ", b"-", b"\x00"]
    )
    | st.binary(max_size=3),
    max_size=30,
).map(b"".join)  # fmt: skip
BODIES = (
    PIECES
    | st.binary(max_size=200)
    | JSON.map(dumped)
    | st.dictionaries(NAMES, JSON, max_size=5).map(lambda action: dumped({"os-migrateLive": action}))
    | st.tuples(PIECES, PIECES).map(lambda two: b'{"os-migrateLive": {' + two[0] + b"}}" + two[1])
)


@given(BODIES)
@example(b"[" * 100_000)
@example(b'{"os-migrateLive":' * 20_000)
def test_no_body_is_too_much(raw: bytes) -> None:
    """It is malformed, or left alone, or it loses the one key, and Nova reads the rest as it would have."""
    try:
        taken = body.take(raw)
    except body.Malformed:
        return
    try:
        document = json.loads(raw.decode())
    except (ValueError, RecursionError):
        assert taken is None
        return
    ours = isinstance(document, dict) and list(document) == ["os-migrateLive"]
    action = document["os-migrateLive"] if ours else None
    if not isinstance(action, dict) or "post_copy" not in action:
        assert taken is None
        return
    assert taken is not None
    value = action.pop("post_copy")
    assert json.dumps(taken.value) == json.dumps(value)  # texts, because NaN is not equal to itself
    assert json.dumps(json.loads(taken.rest.decode())) == json.dumps(document)
    assert body.take(taken.rest) is None
    assert len(taken.rest) <= 7 * len(raw)
    assert body.truth(taken.value) in (True, False, None)
