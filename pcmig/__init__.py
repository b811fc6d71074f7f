"""pcmig: post-copy live migration for OpenStack and libvirt hosts."""
