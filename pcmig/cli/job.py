"""A migration that someone else started, seen from one host: what watch, abort and switch share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pcmig import _core
from pcmig.cli.base import CommandError

if TYPE_CHECKING:
    from pcmig._core import Status

POLL_S = 0.5

EMPTY: Status = {
    "phase": "setup",
    "outcome": None,
    "error": None,
    "operator_command": None,
    "elapsed_ms": 0,
    "passes": 0,
    "pass_permille": 0,
    "memory_total_bytes": 0,
    "memory_processed_bytes": 0,
    "memory_remaining_bytes": 0,
    "disk_total_bytes": 0,
    "disk_remaining_bytes": 0,
    "send_bps": 0,
    "link_bps": None,
    "dirty_pages_ps": 0,
    "postcopy_requests": 0,
    "requests_ps": 0,
    "queue_bytes": None,
    "pace_mib": None,
    "eta_ms": None,
    "decision": None,
}


def find(uri: str, domain: str) -> dict[str, Any]:
    """The running job of DOMAIN on URI. Raises CommandError when there is none."""
    job = _core.job_status(uri, domain)
    if job["state"] == "none":
        where = f"{job['domain_state']}, {job['domain_reason']}"
        raise CommandError(f"no migration of {domain} is under way on {uri} (the guest is {where})")
    return job


def wait_while(uri: str, domain: str, state: str, timeout_s: float) -> dict[str, Any]:
    """The job as soon as it is not in STATE any more, or as it is after TIMEOUT_S."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            job = _core.job_status(uri, domain)
        except _core.NoDomainError:
            return {"state": "gone"}
        if job["state"] != state or time.monotonic() > end_s:
            return job
        time.sleep(POLL_S / 5)


def as_status(job: dict[str, Any]) -> Status:
    """JOB in the form that a display takes."""
    status = EMPTY.copy()
    for key in status:
        if key in job:
            status[key] = job[key]  # type: ignore[literal-required]
    status["phase"] = job["state"]
    total = status["memory_total_bytes"]
    if total and not status["pass_permille"]:
        status["pass_permille"] = max(0, 1000 - status["memory_remaining_bytes"] * 1000 // total)
    return status
