# SPDX-License-Identifier: Apache-2.0
"""Stands where an OpenStack API was, as a proxy before dead servers does: answers 503 to everything, or takes
requests and says nothing.

usage: python stand_in.py ADDRESS PORT 503|hangs
"""

import http.server
import sys
import threading

SAYS = b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available.\n</body></html>\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        if HOW == "hangs":
            threading.Event().wait()  # until this process ends
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(503, "Service Unavailable")
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(SAYS)))
        self.end_headers()
        self.wfile.write(SAYS)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


HOW = sys.argv[3]
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
