# SPDX-License-Identifier: Apache-2.0
"""How a client asks for post-copy, and what it says when it is refused; the same for both clients."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable
from typing import Any

from pcmig_common.turned_back import Words

ACTION = "os-migrateLive"
BODY_KEY = "post_copy"
# As pcmig_common.choice has it; that module is not for workstations.
METADATA_KEY = "pcmig:post_copy"

# (option, argparse's destination, action, help)
OPTIONS = (
    (
        "--post-copy",
        "post_copy",
        "store_true",
        "Ask for post-copy: the guest may go on at the destination while the rest of its memory is still to "
        "come, so that the migration ends however much it writes (needs pcmig's filter in the API).",
    ),
    (
        "--no-post-copy",
        "post_copy",
        "store_false",
        "Ask for a migration without post-copy (needs pcmig's filter in the API).",
    ),
    (
        "--post-copy-by-metadata",
        "post_copy_by_metadata",
        "store_true",
        f"For an API without pcmig's filter: ask through the server's metadata {METADATA_KEY}, which is set "
        "before the request and removed if that is refused. Counts only where nova-compute's [pcmig] "
        "request_sources names metadata. Without --no-post-copy it means --post-copy.",
    ),
)

NO_FILTER = (
    "the Nova API has no pcmig filter and knows no post_copy, so nothing was migrated; either its operator "
    "adds to api-paste.ini a section [filter:pcmig] with paste.filter_factory = pcmig_api:factory, and the "
    "word pcmig before osapi_compute_app_v21 in the pipelines, or ask with --post-copy-by-metadata"
)


# What the filter calls it, and the words of who asks (pcmig_api.body).
TURN_BACK = "os-pcmigTurnBack"
TURN_BACK_OPTIONS = (
    (
        "--destination-is-dead",
        "Say that the destination's host is dead: turn off its power first. Should it live, the server runs "
        "twice and breaks its disks. Where the destination answers, its own word counts.",
    ),
    (
        "--accept-newer-disks",
        "Let it go on with disks that may have been written to since the switch: file systems that are in "
        "use may break. A hard reboot instead keeps what is on the disks.",
    ),
    (
        "--guest-is-nowhere-else",
        "Say that no other host has it. It may have been whole at the destination, and have been moved on "
        "from there before that died: look at the other hosts first. Should it run there, it runs twice.",
    ),
)


class NotAnswered(Exception):
    """An answer that is an error, from an adapter that returns answers: its text as the API gives it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the user asked for one migration."""

    post_copy: bool
    by_metadata: bool = False


def wish_of(args: argparse.Namespace) -> Wish | None:
    """None when none of OPTIONS was given."""
    post_copy = getattr(args, "post_copy", None)
    by_metadata = bool(getattr(args, "post_copy_by_metadata", False))
    if post_copy is None and not by_metadata:
        return None
    return Wish(post_copy is not False, by_metadata)


def explain(status: int | None, text: str) -> str | None:
    """Better words for the answer STATUS, TEXT to a live migration with BODY_KEY; None: the API's do."""
    if status == 400 and re.search(rf"Additional properties are not allowed.*'{BODY_KEY}'", text, re.DOTALL):
        return NO_FILTER
    return None


class Api:
    """A keystoneauth adapter of either client: openstacksdk's returns errors, novaclient's raises them."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter
        self.send = adapter.request

    def ask(self, method: str, url: str, json: Any = None) -> Any:
        """The answer's JSON (None when it has none). Raises NotAnswered for an HTTP error, and what the
        adapter raises when there is no answer at all."""
        kwargs = {} if json is None else {"json": json}
        try:
            answer = self.send(url, method, **kwargs)
        except Exception as err:
            status = status_of(err)
            if status is None:
                raise
            raise NotAnswered(status, str(err)) from err
        response = answer[0] if isinstance(answer, tuple) else answer
        try:
            content = response.json()
        except ValueError:
            content = None
        if response.status_code >= 400:
            raise NotAnswered(
                response.status_code, message_in(content) or response.reason or "no reason given"
            )
        return content


def status_of(err: Exception) -> int | None:
    """The HTTP status that an exception of a client stands for."""
    for name in ("code", "http_status", "status_code"):
        value = getattr(err, name, None)
        if isinstance(value, int) and value >= 400:
            return value
    return None


def message_in(content: Any) -> str | None:
    """The text of an error as Nova words it: {"conflictingRequest": {"code": 409, "message": "..."}}."""
    if isinstance(content, dict):
        for value in content.values():
            if isinstance(value, dict) and isinstance(value.get("message"), str):
                return str(value["message"])
    return None


def turn_back(api: Api, server_id: str, words: Words) -> None:
    """Asks for it. Raises NotAnswered."""
    said = {name: True for name, given in dataclasses.asdict(words).items() if given}
    try:
        api.ask("POST", f"/servers/{server_id}/action", {TURN_BACK: said})
    except NotAnswered as err:
        if err.status == 400 and "no such action" in str(err).lower():
            raise NotAnswered(err.status, "the Nova API has no pcmig filter, or one of before") from err
        raise


class Courier:
    """Puts WISH into the live migrations that go through ADAPTER, from here to dismiss().

    REFUSAL makes the client's own exception from a message. `refused` counts requests that failed.
    """

    def __init__(self, adapter: Any, wish: Wish, refusal: Callable[[str], Exception]) -> None:
        self.refused = 0
        self.asked = 0
        self._api = Api(adapter)
        self._adapter = adapter
        self._wish = wish
        self._refusal = refusal
        adapter.request = self.request

    @staticmethod
    def dismiss(adapter: Any) -> None:
        """ADAPTER without a courier, should it have one: in the client's interactive mode adapters stay."""
        if isinstance(getattr(adapter.request, "__self__", None), Courier):
            del adapter.request

    def request(self, url: str, method: str, **kwargs: Any) -> Any:
        """As the adapter's own, which it stands for."""
        key = "json" if "json" in kwargs else "body"
        body = kwargs.get(key)
        if method != "POST" or not isinstance(body, dict) or not isinstance(body.get(ACTION), dict):
            return self._api.send(url, method, **kwargs)
        server_url = url.removesuffix("/action")
        self.asked += 1
        try:
            if self._wish.by_metadata:
                return self._by_metadata(server_url, url, method, kwargs)
            if self._is_lenient(kwargs):
                self._check_filter(server_url)
            kwargs[key] = {**body, ACTION: {**body[ACTION], BODY_KEY: self._wish.post_copy}}
            return self._checked(url, method, kwargs)
        except Exception:
            self.refused += 1
            raise

    def _checked(self, url: str, method: str, kwargs: dict[str, Any]) -> Any:
        try:
            answer = self._api.send(url, method, **kwargs)
        except Exception as err:
            words = explain(status_of(err), str(err))
            if words is None:
                raise
            raise self._refusal(words) from None
        status = getattr(answer, "status_code", 200)
        words = explain(status, answer.text) if status >= 400 else None
        if words is not None:
            raise self._refusal(words)
        return answer

    def _by_metadata(self, server_url: str, url: str, method: str, kwargs: dict[str, Any]) -> Any:
        key_url = f"{server_url}/metadata/{METADATA_KEY}"
        try:
            before = self._api.ask("GET", key_url)["meta"][METADATA_KEY]
        except NotAnswered as err:
            if err.status != 404:
                raise self._refusal(f"server metadata {METADATA_KEY} cannot be read: {err}") from err
            before = None
        try:
            self._set(server_url, "true" if self._wish.post_copy else "false")
        except NotAnswered as err:
            raise self._refusal(f"server metadata {METADATA_KEY} cannot be set: {err}") from err
        try:
            answer = self._api.send(url, method, **kwargs)
            failed = getattr(answer, "status_code", 200) >= 400
        except Exception:
            self._put_back(server_url, before)
            raise
        if failed:
            self._put_back(server_url, before)
        return answer

    def _set(self, server_url: str, value: str) -> None:
        self._api.ask("POST", f"{server_url}/metadata", {"metadata": {METADATA_KEY: value}})

    def _put_back(self, server_url: str, before: str | None) -> None:
        """A wish that stayed would count for the next migration, which may be somebody else's."""
        try:
            if before is None:
                self._api.ask("DELETE", f"{server_url}/metadata/{METADATA_KEY}")
            else:
                self._set(server_url, before)
        except Exception as err:
            if isinstance(err, NotAnswered) and err.status == 404:
                return  # nova-compute has read and removed it
            server = server_url.rpartition("/")[2]
            raise self._refusal(
                f"the migration was refused, and server metadata {METADATA_KEY} is still there ({err}); "
                f"remove it: openstack server unset --property {METADATA_KEY} {server}"
            ) from err

    def _is_lenient(self, kwargs: dict[str, Any]) -> bool:
        """The API that is spoken to without a microversion may be /v2, which drops what it does not know."""
        asked = kwargs.get("microversion") or getattr(self._adapter, "default_microversion", None)
        version = getattr(self._adapter, "api_version", None)  # novaclient's
        return not asked and not getattr(version, "ver_minor", 0)

    def _check_filter(self, server_url: str) -> None:
        try:
            self._api.ask("GET", f"{server_url}/os-pcmig")
        except NotAnswered as err:
            if err.status == 404:
                raise self._refusal(NO_FILTER) from None
