"""The filter as Nova's API runs it: WSGI in and out, errors in Nova's own form.

It stands behind keystonecontext, which makes the request's context, and before the Compute API.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import webob.dec
import webob.exc
from nova import exception, policy
from nova.api import validation
from nova.api import wsgi as base_wsgi
from nova.api.openstack import common, wsgi
from nova.api.validation import parameter_types
from nova.compute import api as compute

from pcmig.api import body, policies
from pcmig.nova import choice

_SERVER = r"(?:/(?P<project>[0-9a-f-]+))?/servers/(?P<server>[^/]+)"

_BOOLEAN = {"type": "object", "properties": {body.KEY: parameter_types.boolean}}

_registering = threading.Lock()


class Filter(base_wsgi.Middleware):  # type: ignore[misc]  # Nova has no types
    """Answers what is pcmig's, changes live migrations that speak of post-copy, and lets the rest pass."""

    def __init__(self, application: Any) -> None:
        super().__init__(application)
        self.compute_api = compute.API()
        self._routes: tuple[tuple[str, re.Pattern[str], Callable[..., Any]], ...] = (
            ("POST", re.compile(_SERVER + "/action/?"), self._act),
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
            if match is not None and not _nova_refuses(req, context, match["project"]):
                # Read here, as Nova does: what goes wrong with it is told in another form than Nova's faults.
                _ = req.body
                with wsgi.ResourceExceptionHandler():
                    answer = handle(req, context, match)
                return self.application if answer is None else answer
        return self.application

    def _act(self, req: Any, context: Any, match: re.Match[str]) -> None:
        """Takes the word on post-copy out of a live migration's body and puts it into its context."""
        try:
            taken = body.take(req.body)
        except body.Malformed:
            raise webob.exc.HTTPBadRequest(explanation="Malformed request body") from None
        if taken is None:
            return
        wish = body.truth(taken.value)
        if wish is None:
            validation.validators._SchemaValidator(_BOOLEAN).validate({body.KEY: taken.value})
            raise exception.ValidationError(detail=f"{body.KEY}: {taken.value!r} is not true or false")
        instance = self._instance(context, match["server"])
        _can(context, policies.ASK, instance)
        refused = choice.refusal(wish, *_sayings(instance))
        if refused is not None:
            raise webob.exc.HTTPConflict(explanation=refused)
        req.body = taken.rest
        context.roles = [*context.roles, choice.request_role(wish)]

    def _instance(self, context: Any, server: str) -> Any:
        """The server's record with what its flavor and image say; HTTPNotFound as Nova has it."""
        return common.get_instance(
            self.compute_api, context, server, expected_attrs=["flavor", "system_metadata"]
        )


def _nova_refuses(req: Any, context: Any, project: str | None) -> bool:
    """Whether the request is wrong in a way that Nova answers before it looks into the body."""
    try:
        req.set_api_version_request()
        req.get_content_type()
    except (
        exception.InvalidAPIVersionString,
        exception.InvalidGlobalAPIVersion,
        exception.InvalidContentType,
    ):
        return True
    return project is not None and project != context.project_id


def _sayings(instance: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The extra specs of the instance's flavor, and the properties of its image."""
    return instance.flavor.extra_specs or {}, choice.image_properties(instance.system_metadata)


def _know_rules() -> None:
    """Nova's own enforcer judges pcmig's rules too, with Nova's policy file."""
    policy.init()
    with _registering:
        known = policy._ENFORCER.registered_rules
        policy._ENFORCER.register_defaults([rule for rule in policies.RULES if rule.name not in known])


def _can(context: Any, rule: str, instance: Any, *, fatal: bool = True) -> bool:
    """Whether the caller may; with FATAL, Nova's PolicyNotAuthorized if not."""
    _know_rules()  # again, should Nova have made itself another enforcer
    return bool(context.can(rule, target={"project_id": instance.project_id}, fatal=fatal))
