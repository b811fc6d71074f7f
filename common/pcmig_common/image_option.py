# SPDX-License-Identifier: Apache-2.0
"""[pcmig] image_property, which nova-compute and the filter before nova-api both read."""

from __future__ import annotations

from oslo_config import cfg

from pcmig_common.choice import ImageMode

IMAGE_PROPERTY_OPT = cfg.StrOpt(
    "image_property",
    default="hint",
    choices=[
        (
            "honour",
            "As a flavor's: a migration that cannot do what the image requires is refused, likewise with an "
            "image that contradicts the flavor or has an unknown value.",
        ),
        ("hint", "As far as it can be. It never keeps a migration from starting."),
        ("ignore", "Not at all. The property is not looked at, neither here nor when a server is made."),
    ],
    help="""
How much the property ``pcmig_post_copy`` of a guest's image counts.

Whoever owns an image may set properties of it, and a server keeps those that its image
had when it was made. With the default no owner of an image can make a live migration
fail: ``required`` means post-copy where it can be had and pre-copy elsewhere,
``forbidden`` holds unless the request for one migration asks for post-copy, an unknown
value counts as ``allowed``, and against the flavor the flavor counts. A request for one
migration wins over the image in every mode.

The compute service reads this option when it migrates, pcmig's filter in the Compute
API when a server is made, rebuilt or resized: unless it is ``ignore`` in nova-api's
configuration, an image with an unknown value, or one that contradicts the flavor, is
answered with 400.

Related options:

* ``[pcmig] default_choice``
* ``[pcmig] request_sources``: whose request for one migration counts.
""",
)


def mode(conf: cfg.ConfigOpts) -> ImageMode:
    """Of CONF, whatever else is registered in it. Raises ValueError for a value that is none."""
    conf.register_opt(IMAGE_PROPERTY_OPT, group="pcmig")
    found: ImageMode = conf.pcmig.image_property
    return found
