# SPDX-License-Identifier: Apache-2.0
"""nova-compute's notifications of a switch, while the bus is away: the migration does not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from nova import context, objects, rpc
from nova.conf import CONF
from nova.network import model as network_model

from pcmig.nova import notifications
from tests.unit.patience import PATIENCE_S, wait_for

objects.register_all()

UUID = "a0a0a0a0-0000-4000-8000-000000000000"
START, END = f"{notifications.SWITCHOVER}.start", f"{notifications.SWITCHOVER}.end"


class Bus:
    """In place of Nova's notifier: nothing goes out before the bus is back."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self.asked = threading.Event()
        self.sent: list[tuple[str, str, Any]] = []
        self.fails = False

    def is_enabled(self) -> bool:
        return True

    def prepare(self, publisher_id: str) -> Bus:
        assert publisher_id == "nova-compute:src"
        return self

    def info(self, _context: Any, event_type: str, payload: Any) -> None:
        self.asked.set()
        assert self.back.wait(PATIENCE_S)
        if self.fails:
            self.fails = False
            raise OSError("no route to the bus")
        data = payload["nova_object.data"]
        self.sent.append((event_type, data["uuid"], data["task_state"]))


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    CONF([], project="nova", version="test", default_config_files=[])
    CONF.set_override("notification_format", "versioned", group="notifications")
    found = Bus()
    monkeypatch.setattr(rpc, "NOTIFIER", found)
    yield found
    found.back.set()
    CONF.clear_override("notification_format", group="notifications")


def server() -> objects.Instance:
    """With all that the payload has, but for volumes and shares, which Nova leaves out by default."""
    flavor = objects.Flavor(
        flavorid="1", memory_mb=1, vcpus=1, root_gb=1, ephemeral_gb=0, name="f", swap=0, rxtx_factor=1.0,
        vcpu_weight=0, disabled=False, is_public=True, extra_specs={}, projects=[], description=None,
    )  # fmt: skip
    texts = dict.fromkeys(
        (
            "user_id", "project_id", "reservation_id", "display_name", "display_description", "hostname",
            "host", "node", "os_type", "architecture", "availability_zone", "image_ref", "key_name",
            "kernel_id", "ramdisk_id", "created_at", "launched_at", "terminated_at", "deleted_at",
            "updated_at", "power_state",
        )
    )  # fmt: skip
    return objects.Instance(
        uuid=UUID,
        vm_state="active",
        task_state="migrating",
        progress=1,
        metadata={},
        system_metadata={},
        locked=False,
        auto_disk_config=False,
        flavor=flavor,
        info_cache=objects.InstanceInfoCache(network_info=network_model.NetworkInfo()),
        **texts,
    )


STEPS = [
    {"phase": "precopy", "crossed": False},
    {"phase": "switchover", "crossed": True},
    {"phase": "postcopy", "crossed": True},
]


def follow(instance: Any) -> None:
    """A switch, on the thread that looks after the migration."""
    told = notifications.Notifications(context.get_admin_context(), instance, "src")
    for step in STEPS:
        told.look({"outcome": None, "recovery": None, **step})


def test_nobody_waits_for_the_bus(bus: Bus) -> None:
    instance = server()
    follow(instance)  # comes back, the bus or not
    assert bus.asked.wait(PATIENCE_S)
    assert bus.sent == []
    instance.task_state = None  # the migration goes on
    bus.back.set()
    wait_for(lambda: len(bus.sent) == 2, "both notifications")
    assert bus.sent == [(START, UUID, "migrating"), (END, UUID, "migrating")]


def test_one_that_is_lost_is_told(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    bus.fails = True
    bus.back.set()
    follow(server())
    wait_for(lambda: len(bus.sent) == 1, "the other one")
    assert bus.sent == [(END, UUID, "migrating")]
    assert f"Cannot send the notification {START}: no route to the bus" in caplog.text


def test_what_cannot_be_told_ends_nothing(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    bus.back.set()

    class Odd:
        uuid = UUID

        def __deepcopy__(self, _: Any) -> Any:
            raise TypeError("what nobody thought of")

    follow(Odd())
    assert bus.sent == [] and caplog.text.count("what nobody thought of") == 2
