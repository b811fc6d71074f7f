# SPDX-License-Identifier: Apache-2.0
"""Imports both clients once, which takes a second, and runs each command line in a fork of itself.

Standard input is a socket. A message on it is JSON: the words of a command and its environment, with three
files for its standard streams; the answer is its exit status.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import socket
import sys
import traceback

from cliff import command
from keystoneauth1 import loading

# What the commands under test import when they are called.
LATER = (
    "novaclient.v2.client",
    "openstackclient.compute.v2.server",
    "openstack.compute.v2._proxy",
    "cmd2",
    "keystoneauth1.identity",
)
MAINS = {"nova": "novaclient.shell", "openstack": "openstackclient.shell"}


def run(words: list[str], env: dict[str, str], files: list[int]) -> int:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = words
    try:
        main = importlib.import_module(MAINS[words[0]]).main
        # Newer ones have bound the words of this process's start as their default.
        code = main(words[1:]) if inspect.signature(main).parameters else main()
    except SystemExit as err:
        code = err.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


def main() -> None:
    for name in (*MAINS.values(), *LATER):
        importlib.import_module(name)
    # Each command would look through the whole environment for these two.
    loading.get_available_plugin_loaders()
    getattr(command, "_get_distributions_by_modules", list)()
    with socket.socket(fileno=os.dup(0)) as channel:
        while True:
            message, files, _, _ = socket.recv_fds(channel, 1 << 16, 3)
            if not message:
                return
            order = json.loads(message)
            pid = os.fork()
            if pid == 0:
                channel.close()
                os._exit(run(order["words"], order["env"], files))
            for file in files:
                os.close(file)
            _, status = os.waitpid(pid, 0)
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main()
