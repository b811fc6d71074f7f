# SPDX-License-Identifier: Apache-2.0
"""Plugins of OpenStack's command line clients: `nova live-migration --post-copy` and
`openstack server migrate --live-migration --post-copy`.

They are for an administrator's workstation: nothing here imports Nova, libvirt or pcmig's extension.
"""
