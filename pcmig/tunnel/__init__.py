# SPDX-License-Identifier: Apache-2.0
"""The encrypted tunnel that carries post-copy, from Python's side: the daemon's settings and life, its
control socket, one migration's way through it, certificates. What carries bytes is C (`pcmig._tunnel`);
doc/operate/tunnel.rst tells how to use it."""

from pcmig.tunnel.client import Client, TunnelError, new_name
from pcmig.tunnel.passage import Passage
from pcmig.tunnel.peer import DEFAULT_PORT, Peer, of_uri, parse

__all__ = ["DEFAULT_PORT", "Client", "Passage", "Peer", "TunnelError", "new_name", "of_uri", "parse"]
