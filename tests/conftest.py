"""For all tests."""

from __future__ import annotations

import signal

# A shell starts what runs in its background with SIGINT ignored, and so would be every pcmig that a test
# starts (it respects that, as programs should). With a handler here, children begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
