# SPDX-License-Identifier: Apache-2.0
"""What a server is made of, as the request for it says: its flavor's extra specs and its image's properties.

Nova looks all of it up again, and answers what is wrong with it: what cannot be looked up here is passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nova import block_device
from nova.api.openstack import common
from nova.compute import flavors
from oslo_log import log as logging

from pcmig_common import choice

LOG = logging.getLogger(__name__)

# Actions of a server that give it another image or another flavor, and Nova's rule for each.
MAKE = "os_compute_api:servers:create"
RULES = {"rebuild": "os_compute_api:servers:rebuild", "resize": "os_compute_api:servers:resize"}


def mistake_in_new(compute_api: Any, context: Any, server: Mapping[str, Any]) -> str | None:
    """What is wrong with flavor and image of a request to make SERVER; None if nothing is."""
    try:
        specs, properties = _extra_specs(context, server["flavorRef"]), _image(compute_api, context, server)
    except Exception as err:  # no such flavor, Glance is away, a mapping that makes no sense, ...
        _pass_on(err)
        return None
    return choice.mistake(specs, properties)


def mistake_in_action(
    compute_api: Any, context: Any, instance: Any, action: str, arguments: Mapping[str, Any]
) -> str | None:
    """Likewise of a server that gets another image (rebuild) or another flavor (resize)."""
    try:
        if action == "rebuild":
            specs = instance.flavor.extra_specs or {}
            properties = _properties(compute_api.image_api.get(context, arguments["imageRef"]))
        else:
            specs = _extra_specs(context, arguments["flavorRef"])
            properties = choice.image_properties(instance.system_metadata)
    except Exception as err:  # see above
        _pass_on(err)
        return None
    return choice.mistake(specs, properties)


def _pass_on(err: Exception) -> None:
    LOG.debug("pcmig: flavor and image are left to Nova: %(err)s", {"err": err})


def _extra_specs(context: Any, reference: Any) -> Mapping[str, str]:
    flavor_id = common.get_id_from_href(str(reference))
    return flavors.get_flavor_by_flavor_id(context, flavor_id, read_deleted="no").extra_specs or {}


def _image(compute_api: Any, context: Any, server: Mapping[str, Any]) -> Mapping[str, str]:
    """The properties of the image that Nova makes the server of, or that its root volume was made of."""
    if server.get("imageRef"):
        return _properties(compute_api.image_api.get(context, server["imageRef"]))
    legacy = "block_device_mapping_v2" not in server
    mapping = server.get("block_device_mapping" if legacy else "block_device_mapping_v2") or []
    if not legacy:
        mapping = [
            block_device.BlockDeviceDict.from_api(dict(device), image_uuid_specified=False)
            for device in mapping
        ]
    found = block_device.get_bdm_image_metadata(
        context, compute_api.image_api, compute_api.volume_api, mapping, legacy
    )
    return _properties(found)


def _properties(image: Mapping[str, Any]) -> Mapping[str, str]:
    return image.get("properties") or {}
