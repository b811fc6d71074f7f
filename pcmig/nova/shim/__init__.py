"""compute_driver = pcmig.PostCopyLibvirtDriver

Nova looks for its drivers below nova.virt only (nova/virt/driver.py, load_compute_driver). This package is
installed there as nova.virt.pcmig, so that the line above works; everything is in pcmig.nova.
"""

from pcmig.nova.driver import PostCopyLibvirtDriver

__all__ = ["PostCopyLibvirtDriver"]
