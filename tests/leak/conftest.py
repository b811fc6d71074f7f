# SPDX-License-Identifier: Apache-2.0
"""glibc keeps a few freed blocks of each size for each thread, and counts them as in use. A daemon of several
threads fills these stores for minutes, by a little in every round, as a leak would. The setting counts from a
process's start, so it holds for xdist's workers: pytest -n 1 or more, as tools/test has it."""

from __future__ import annotations

import os

os.environ["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
