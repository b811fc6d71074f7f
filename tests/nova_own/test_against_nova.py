# SPDX-License-Identifier: Apache-2.0
"""What pcmig takes for granted of Nova, against the Nova that is installed. Run by tools/test nova-own."""

from __future__ import annotations

import itertools
import types
from typing import Any
from unittest import mock

import pytest
from nova import exception, objects, utils
from nova.api.validation.extra_specs import validators
from nova.conf import CONF
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import driver as libvirt_driver

from pcmig import _core
from pcmig.nova import conf, flags
from pcmig.nova.settings import read
from pcmig_api import extra_specs
from pcmig_common import choice
from tests.unit.nova import nova_conf

conf.register_opts(CONF)

_OPTIONS = {
    "live_migration_permit_post_copy": (False, True),
    "live_migration_permit_auto_converge": (False, True),
    "live_migration_tunnelled": (False, True),
    "live_migration_with_native_tls": (False, True),
    "live_migration_parallel_connections": (1, 4),  # since 33
}
OPTIONS = {name: values for name, values in _OPTIONS.items() if name in CONF.libvirt}


@pytest.fixture
def settings() -> Any:
    CONF([], project="nova", default_config_files=[])
    yield CONF
    for name in OPTIONS:
        CONF.clear_override(name, group="libvirt")


def parsed(conf_: Any) -> tuple[int, int]:
    """The flags that Nova's own driver makes of CONF_."""
    driver = types.SimpleNamespace()
    for name, method in vars(libvirt_driver.LibvirtDriver).items():
        if name.startswith(("_handle_", "_prepare_migration", "_parse_migration", "_is_post_copy")):
            setattr(driver, name, types.MethodType(method, driver))
    with mock.patch.object(libvirt_driver, "libvirt", fakelibvirt):
        driver._parse_migration_flags()
    return driver._live_migration_flags, driver._block_migration_flags


@pytest.mark.parametrize("values", list(itertools.product(*OPTIONS.values())))
def test_flags_of_todays_options(settings: Any, values: tuple[Any, ...]) -> None:
    """The unit tests' model of Nova is right, every option is known, and what Nova asks for is named."""
    for name, value in zip(OPTIONS, values, strict=True):
        settings.set_override(name, value, group="libvirt")
        assert read(settings, "libvirt", name) is not None
    live, block = parsed(settings)
    assert (live, block) == nova_conf.nova_bits(settings)
    assert not [name for name in _core.flags_from_bits(live | block).names if name not in flags.BITS]
    try:
        merged = flags.merge(settings, live, block, qemu_version=11_001_002)
    except flags.ConfigError as err:
        assert "live_migration_tunnelled" in str(err)
        return
    for kind, bits in ((merged.live, live), (merged.block, block)):
        # libvirt's tunnel together with post-copy means pcmig's.
        both = _core.parse_flags("TUNNELLED, POSTCOPY").bits
        assert kind.tunnel == (bits & both == both)
        assert kind.bits == (bits & ~_core.parse_flags("TUNNELLED").bits if kind.tunnel else bits)


def test_options_of_old_are_not_novas_any_more() -> None:
    for name in ("live_migration_flag", "block_migration_flag"):
        assert name not in {opt.name for opt in __import__("nova.conf.libvirt", fromlist=["x"]).ALL_OPTS}
        assert name in CONF.libvirt


def test_properties_of_an_image_reach_the_compute_host() -> None:
    """ImageMetaProps drops what it does not know; the instance's system metadata keeps it."""
    objects.register_all()
    image = {"properties": {choice.IMAGE_PROPERTY: "required", "hw_machine_type": "q35"}, "min_ram": 1}
    kept = utils.get_system_metadata_from_image(image)
    assert choice.image_properties(kept)[choice.IMAGE_PROPERTY] == "required"
    meta = objects.ImageMeta.from_dict(image)
    assert meta.properties.get("hw_machine_type") == "q35"
    assert not hasattr(meta.properties, choice.IMAGE_PROPERTY)


def test_api_lets_the_extra_spec_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validators, "VALIDATORS", dict(validators.VALIDATORS))
    monkeypatch.setattr(validators, "NAMESPACES", validators.NAMESPACES - {"pcmig"})
    validators.VALIDATORS.pop(choice.EXTRA_SPEC, None)
    validators.validate(choice.EXTRA_SPEC, "anything")  # without pcmig beside nova-api
    with pytest.raises(exception.ValidationError):
        validators.validate("hw:post_copy", "forbidden")  # why the namespace is an own one


def test_api_knows_the_values_where_pcmig_is_installed() -> None:
    assert choice.EXTRA_SPEC in validators.VALIDATORS
    assert [validator.name for validator in extra_specs.register()] == [choice.EXTRA_SPEC]
    for rule in choice.RULES:
        validators.validate(choice.EXTRA_SPEC, rule)
    with pytest.raises(exception.ValidationError, match="'yes' is not one of: forbidden, allowed, required"):
        validators.validate(choice.EXTRA_SPEC, "yes")
    with pytest.raises(exception.ValidationError):
        validators.validate("pcmig:postcopy", "allowed")  # a slip of the pen in our namespace
