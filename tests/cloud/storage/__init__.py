# SPDX-License-Identifier: Apache-2.0
"""Storage for the cloud bed: a Ceph of one monitor and one OSD, Cinder on it; doc/develop/cloud.rst."""
