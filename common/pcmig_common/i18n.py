# SPDX-License-Identifier: Apache-2.0
"""Translation of what users of Nova's API read, in the domain `pcmig`; as in Nova, log lines have none."""

from __future__ import annotations

import oslo_i18n

DOMAIN = "pcmig"

_ = oslo_i18n.TranslatorFactory(domain=DOMAIN).primary
