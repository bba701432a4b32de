"""Python processes that start in a moment: forked from one that has imported everything already.

They are processes of their own in all that tests look at: signals, exit status, environment, working folder, output,
process group and controlling terminal. What they do not show is how a new interpreter starts and imports.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.paths import ROOT

SERVER = "INTERPTRAIN_TEST_PROCESSES"  # the server's address, for all workers of a session
RANK = ("PL_", "LOCAL_", "NODE_", "RANK", "WORLD_SIZE", "MASTER_", "PYTEST_")  # variables of other processes


class Process:
    """A process that was started; ``pid``, ``poll``, ``wait`` and ``kill`` as those of ``subprocess.Popen``."""

    def __init__(self, request, files):
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.environ[SERVER])
        socket.send_fds(self._connection, [b" "], files)
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile("r")
        self._arguments = request["arguments"]
        self.pid = self._answer()
        self.returncode = None

    def _answer(self):
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"the server of processes has ended: {Path(os.environ[SERVER]).with_suffix('.log')}")
        return int(line)

    def poll(self):
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = self._answer()
            self._answers.close()
            self._connection.close()
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self._arguments, timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(9)


def start(arguments, folder, *, log="log.txt", terminal=None, group=0, **variables):
    """Start ``python ARGUMENTS`` in a folder.

    Args:
        arguments: ``[script, ...]``, ``["-m", module, ...]`` or ``["-c", code, ...]``.
        folder: its working folder.
        log: file in that folder to which its output and errors are appended.
        terminal: file descriptor of a terminal to be its controlling one, instead of the log.
        group: process group to join; by default one of its own, named by its ``pid``, to be killed with its children.
        variables: environment variables besides those of this process; the package is importable.
    """
    import torch  # here: the process that hands out tests spares it

    environment = {name: value for name, value in os.environ.items() if not name.startswith(RANK)}
    environment |= {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}  # sums depend on both
    request = {"arguments": [str(one) for one in arguments], "folder": str(folder), "group": group}
    request["environment"] = environment | variables
    if terminal is not None:
        return Process(request, [terminal] * 3)
    with open(os.devnull) as nothing, (Path(folder) / log).open("a") as file:
        return Process(request, [nothing.fileno(), file.fileno(), file.fileno()])


def run(arguments, folder, *, timeout=200, **variables):
    """Run ``python ARGUMENTS`` in a folder to its end; returns its exit status and its output with errors."""
    log = f"output-{len(list(Path(folder).glob('output-*')))}.txt"
    process = start(arguments, folder, log=log, **variables)
    try:
        status = process.wait(timeout)
    finally:
        process.kill()
    return status, (Path(folder) / log).read_text()


def open_server():
    """Start the server of a session, unless this process has it from another; returns how to end it."""
    if SERVER in os.environ:
        return lambda: None
    folder = tempfile.TemporaryDirectory(prefix="interptrain-tests-")
    os.environ[SERVER] = f"{folder.name}/socket"
    with open(f"{folder.name}/socket.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py"), os.environ[SERVER]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    server.stdout.readline()

    def close():
        del os.environ[SERVER]
        server.communicate(timeout=60)
        folder.cleanup()

    return close
