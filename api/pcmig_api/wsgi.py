# SPDX-License-Identifier: Apache-2.0
"""The filter as Nova's API runs it: WSGI in and out, errors in Nova's own form.

It stands behind keystonecontext, which makes the request's context, and before the Compute API.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import webob
import webob.dec
import webob.exc
from nova import exception, objects, policy
from nova.api import wsgi as base_wsgi
from nova.api.openstack import common, wsgi
from nova.compute import api as compute
from nova.conf import CONF
from nova.objects import fields

from pcmig_api import body, making, policies, releases, views
from pcmig_common import choice, image_option, messages, turned_back
from pcmig_common.i18n import _

_SERVERS = r"(?:/(?P<project>[0-9a-f-]+))?/servers"
_SERVER = _SERVERS + r"/(?P<server>[^/]+)"

_registering = threading.Lock()

# What plugs a device into the guest, or out of it.
_PLUGS = (
    ("POST", "/os-(volume_attachments|interface)/?"),
    ("PUT", "/os-(volume_attachments|interface)/[^/]+/?"),
    ("DELETE", "/os-(volume_attachments|interface)/[^/]+/?"),
)

# Whoever may ask may not always know of hosts.
_UNHEARD = _(
    "Nobody would heed post_copy: nova-compute on the server's host does not answer for pcmig. Set "
    "compute_driver = pcmig.PostCopyLibvirtDriver there, or see that it runs; or migrate without post_copy."
)


class Filter(base_wsgi.Middleware):  # type: ignore[misc]  # Nova has no types
    """Answers what is pcmig's, changes live migrations that speak of post-copy, and lets the rest pass."""

    def __init__(self, application: Any) -> None:
        super().__init__(application)
        self.compute_api = compute.API()
        self.computes = messages.Client()
        self._looks_at_images = image_option.mode(CONF) != "ignore"
        # A handler returns the answer, or None for Nova to give it.
        self._routes: tuple[tuple[str, re.Pattern[str], Callable[..., Any]], ...] = (
            ("POST", re.compile(_SERVERS + "/?"), self._make),
            ("POST", re.compile(_SERVER + "/action/?"), self._act),
            *((method, re.compile(_SERVER + path), self._plug) for method, path in _PLUGS),
            ("GET", re.compile(_SERVER + "/os-pcmig/?"), self._show),
            ("GET", re.compile(_SERVER + "/migrations/?"), self._migrations),
            ("GET", re.compile(_SERVER + "/migrations/(?P<id>[^/]+)/?"), self._migration),
        )
        _know_rules()

    @webob.dec.wsgify(RequestClass=wsgi.Request)  # type: ignore[untyped-decorator]
    def __call__(self, req: Any) -> Any:
        context = req.environ.get("nova.context")
        if context is None:  # not behind keystonecontext
            return self.application
        # A request for post-copy is what is said here, and no role that somebody has.
        context.roles = choice.without_request(context.roles)
        path = req.environ.get("PATH_INFO", "")
        for method, pattern, handle in self._routes:
            match = pattern.fullmatch(path) if req.method == method else None
            if match is not None:
                answer = handle(req, context, match)
                return self.application if answer is None else answer
        return self.application

    # What Nova answers, with a word taken out of it or put into it

    def _make(self, req: Any, context: Any, match: re.Match[str]) -> None:
        """Refuses a server whose image says of post-copy what makes no sense. It would be found later, by who
        has to migrate it and cannot change the image."""
        if not self._looks_at_images or _refusal(req, context, match["project"]) is not None:
            return
        server = (body.read(req.body) or {}).get("server")
        if not isinstance(server, dict):
            return
        with wsgi.ResourceExceptionHandler():
            target = {"project_id": context.project_id, "user_id": context.user_id}
            if context.can(making.MAKE, target=target, fatal=False):
                _bad_request(making.mistake_in_new(self.compute_api, context, server))

    def _change(self, context: Any, server: str, document: dict[str, Any]) -> None:
        """Likewise for an action that gives a server another image or flavor."""
        for action, rule in making.RULES.items():
            arguments = document.get(action)
            if self._looks_at_images and isinstance(arguments, dict):
                instance = self._instance(context, server)
                if _can(context, rule, instance, fatal=False):
                    _bad_request(
                        making.mistake_in_action(self.compute_api, context, instance, action, arguments)
                    )

    def _act(self, req: Any, context: Any, match: re.Match[str]) -> Any:
        """Takes the word on post-copy out of a live migration's body and puts it into its context."""
        if _refusal(req, context, match["project"]) is not None:
            return None
        raw = req.body  # here, because Nova does not make its faults of what goes wrong with reading it
        asked = body.action(raw, (body.TURN_BACK,))
        if asked is not None:
            return self._turn_back(req, context, match["server"], asked[1])
        self._refuse_until_powered_off(context, match["server"], raw)
        self._live_migrate(req, context, match["server"], raw)
        return None

    def _refuse_until_powered_off(self, context: Any, server: str, raw: bytes) -> None:
        """What libvirt cannot do to a server that turned back."""
        asked = body.action(raw, turned_back.ACTIONS)
        instance = None if asked is None else self._found(context, server)
        if asked is None or instance is None:
            return
        of_volume = instance.obj_attr_is_set("image_ref") and not instance.image_ref
        _conflict(turned_back.refused(asked[0], _system_metadata(instance), of_volume=of_volume))

    def _plug(self, req: Any, context: Any, match: re.Match[str]) -> None:
        """Likewise for devices."""
        if _refusal(req, context, match["project"]) is not None:
            return
        instance = self._found(context, match["server"])
        if instance is not None and turned_back.since(_system_metadata(instance)) is not None:
            _conflict(str(turned_back.SENTENCE))

    def _turn_back(self, req: Any, context: Any, server: str, said: Any) -> Any:
        """Has the server's host let it go on there, whose destination was lost in post-copy."""
        with wsgi.ResourceExceptionHandler():
            said = {} if said is None else said
            if not isinstance(said, dict) or not set(said) <= set(turned_back.WORDS):
                raise exception.ValidationError(
                    detail=f"{body.TURN_BACK} takes {', '.join(turned_back.WORDS)}, each true or false"
                )
            words: dict[str, bool] = {}
            for name in turned_back.WORDS:
                value = body.truth(said.get(name, False))
                if value is not None:
                    words[name] = value
                else:
                    releases.check_boolean(name, said[name])
                    raise exception.ValidationError(detail=f"{name}: {said[name]!r} is not true or false")
            instance = self._instance(context, server)
            _can(context, policies.TURN_BACK, instance)
            host = instance.host if instance.obj_attr_is_set("host") else None
            if not host:
                raise webob.exc.HTTPConflict(explanation=_("The server is on no host."))
            why = self.computes.turn_back(context, host, str(instance.uuid), turned_back.Words(**words))
            if why is not None:
                raise webob.exc.HTTPConflict(explanation=why)
        return _answer(req, None, status=202)

    def _live_migrate(self, req: Any, context: Any, server: str, raw: bytes) -> None:
        with wsgi.ResourceExceptionHandler():
            try:
                taken = body.take(raw)
            except body.Malformed:
                raise webob.exc.HTTPBadRequest(explanation=_("Malformed request body")) from None
            if taken is None:
                if b"rebuild" in raw or b"resize" in raw:
                    self._change(context, server, body.read(raw) or {})
                return
            wish = body.truth(taken.value)
            if wish is None:
                releases.check_boolean(body.KEY, taken.value)
                raise exception.ValidationError(detail=f"{body.KEY}: {taken.value!r} is not true or false")
            instance = self._instance(context, server)
            _can(context, policies.ASK, instance)
            refused = choice.refusal(wish, _extra_specs(instance))
            if refused is not None:
                raise webob.exc.HTTPConflict(explanation=refused)
            host = instance.host if instance.obj_attr_is_set("host") else None
            # Without a host Nova has an answer of its own.
            if host and not self.computes.answers(context, host, instance.uuid):
                raise webob.exc.HTTPConflict(explanation=_UNHEARD)
        req.body = taken.rest
        context.roles = [*context.roles, choice.request_role(wish)]

    def _migrations(self, req: Any, context: Any, match: re.Match[str]) -> Any:
        """Nova's list of what is under way, and those in post-copy, which it leaves out."""
        answer = req.get_response(self.application)
        if answer.status_int != 200:
            return answer
        try:
            instance = self._instance(context, match["server"])
        except webob.exc.HTTPNotFound:  # gone since
            return answer
        found = _in_post_copy(context, instance)
        if not found:
            return answer
        more = [self._as_nova_has_it(req, context, instance, migration, index=True) for migration in found]
        content = json.loads(answer.body)
        content["migrations"] = views.with_post_copy(content["migrations"], more)
        answer.body = _dumped(content)
        return answer

    def _migration(self, req: Any, context: Any, match: re.Match[str]) -> Any:
        """Nova's answer, but for one in post-copy, which it says is not in progress."""
        answer = req.get_response(self.application)
        if answer.status_int != 404 or _refusal(req, context, match["project"]) is not None:
            return answer
        if not releases.lists_server_migrations(req):
            return answer
        try:
            instance = self._instance(context, match["server"])
        except webob.exc.HTTPNotFound:
            return answer
        if not _can(context, releases.SHOW, instance, fatal=False):
            return answer
        for migration in _in_post_copy(context, instance):
            if str(migration.id) == match["id"]:
                view = self._as_nova_has_it(req, context, instance, migration, index=False)
                return _answer(req, {"migration": view})
        return answer

    @staticmethod
    def _as_nova_has_it(req: Any, context: Any, instance: Any, migration: Any, *, index: bool) -> Any:
        view = releases.server_migration(
            req, migration, index=index, can=lambda rule: _can(context, rule, instance, fatal=False)
        )
        return json.loads(_dumped(view))

    # What only pcmig answers

    def _show(self, req: Any, context: Any, match: re.Match[str]) -> Any:
        """What may be asked for, and how far the newest live migration is."""
        refusal = _refusal(req, context, match["project"])
        if refusal is not None:
            return refusal
        with wsgi.ResourceExceptionHandler():
            instance = self._instance(context, match["server"])
            _can(context, policies.SHOW, instance)
            newest = next(iter(_live_migrations(context, instance, limit=1)), None)
            return _answer(
                req,
                views.pcmig(
                    _can(context, policies.ASK, instance, fatal=False),
                    choice.bounds(_extra_specs(instance)),
                    None if newest is None else self._newest(context, newest),
                    may_turn_back=_can(context, policies.TURN_BACK, instance, fatal=False),
                    turned_back=turned_back.since(_system_metadata(instance)),
                ),
            )

    def _newest(self, context: Any, migration: Any) -> dict[str, Any]:
        progress, missing = None, views.no_progress(migration.status)
        if missing is None:
            host = migration.source_compute
            progress, missing = self.computes.progress(context, host, migration.instance_uuid)
        record = {name: getattr(migration, name) for name in views.fields()}
        return views.migration(record, progress, missing)

    def _instance(self, context: Any, server: str) -> Any:
        """The server's record with what its flavor and image say; HTTPNotFound as Nova has it.

        CONTEXT is targeted at the server's cell from then on, as behind every such call in Nova's API.
        """
        return common.get_instance(
            self.compute_api, context, server, expected_attrs=["flavor", "system_metadata"]
        )

    def _found(self, context: Any, server: str) -> Any:
        """The server's record, or None: what is wrong with it, Nova answers."""
        try:
            return self._instance(context, server)
        except webob.exc.HTTPNotFound:
            return None


def _conflict(why: str | None) -> None:
    if why is not None:
        with wsgi.ResourceExceptionHandler():
            raise webob.exc.HTTPConflict(explanation=why)


def _bad_request(mistake: str | None) -> None:
    if mistake is not None:
        raise webob.exc.HTTPBadRequest(explanation=mistake)


def _refusal(req: Any, context: Any, project: str | None) -> Any:
    """Nova's answer to what is wrong before it looks into the body; None if nothing is."""
    try:
        req.set_api_version_request()
        req.get_content_type()
    except exception.InvalidAPIVersionString as err:
        return wsgi.Fault(webob.exc.HTTPBadRequest(explanation=err.format_message()))
    except exception.InvalidGlobalAPIVersion as err:
        return wsgi.Fault(webob.exc.HTTPNotAcceptable(explanation=err.format_message()))
    except exception.InvalidContentType:
        return wsgi.Fault(webob.exc.HTTPUnsupportedMediaType(explanation=_("Unsupported Content-Type")))
    if project is None or project == context.project_id:
        return None
    text = (
        f"Malformed request URL: URL's project_id '{project}' doesn't match Context's project_id "
        f"'{context.project_id}'"
    )
    return wsgi.Fault(webob.exc.HTTPBadRequest(explanation=text))


def _in_post_copy(context: Any, instance: Any) -> list[Any]:
    """There is one at the most; the newest few are looked at, as the database filters by whole statuses."""
    return [
        migration
        for migration in _live_migrations(context, instance, limit=5)
        if views.in_post_copy(str(migration.status))
    ]


def _live_migrations(context: Any, instance: Any, *, limit: int | None = None) -> Any:
    """The server's live migrations, the newest first."""
    filters = {"instance_uuid": instance.uuid, "migration_type": fields.MigrationType.LIVE_MIGRATION}
    order = {"sort_keys": ["created_at", "id"], "sort_dirs": ["desc", "desc"]}
    return objects.MigrationList.get_by_filters(context, filters, limit=limit, **order)


def _extra_specs(instance: Any) -> dict[str, str]:
    """Those of the instance's flavor, if that came with the record: one that no host has yet has nowhere to
    load it from."""
    specs = instance.flavor.extra_specs if instance.obj_attr_is_set("flavor") else None
    return specs or {}


def _system_metadata(instance: Any) -> dict[str, str]:
    """If it came with the instance's record."""
    return (instance.system_metadata or {}) if instance.obj_attr_is_set("system_metadata") else {}


def _dumped(content: Any) -> bytes:
    """As Nova writes its answers, times of its records included."""
    return str(wsgi.JSONDictSerializer().serialize(content)).encode()


def _answer(req: Any, content: Any, status: int = 200) -> Any:
    """With the headers that Nova's answers have; no CONTENT: empty."""
    answer = webob.Response(body=b"" if content is None else _dumped(content), status=status)
    answer.headers["Content-Type"] = req.best_match_content_type()
    version = req.api_version_request.get_string()
    names = {
        wsgi.API_VERSION_REQUEST_HEADER: f"compute {version}",
        wsgi.LEGACY_API_VERSION_REQUEST_HEADER: version,
    }
    for name, value in names.items():
        answer.headers[name] = value
        answer.headers.add("Vary", name)
    return answer


def _know_rules() -> None:
    """Nova's own enforcer judges pcmig's rules too, with Nova's policy file."""
    policy.init()
    with _registering:
        known = policy._ENFORCER.registered_rules
        rules = policies.rules_beside(known)
        policy._ENFORCER.register_defaults([rule for rule in rules if rule.name not in known])


def _can(context: Any, rule: str, instance: Any, *, fatal: bool = True) -> bool:
    """Whether the caller may; with FATAL, Nova's PolicyNotAuthorized if not."""
    _know_rules()  # again, should Nova have made itself another enforcer
    return bool(context.can(rule, target={"project_id": instance.project_id}, fatal=fatal))
