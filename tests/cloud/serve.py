# SPDX-License-Identifier: Apache-2.0
"""Serves an OpenStack API under waitress.

usage: python serve.py MODULE:ATTRIBUTE ADDRESS PORT NAME THREADS [OPTION ...]
"""

import importlib
import sys

import waitress


def main() -> None:
    place, address, port, name, threads, *options = sys.argv[1:]
    sys.argv = [name, *options]  # the applications read their own options from it as they are loaded
    module, _, attribute = place.partition(":")
    application = getattr(importlib.import_module(module), attribute)
    waitress.serve(application, host=address, port=int(port), threads=int(threads), ident=None)


main()
