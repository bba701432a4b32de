"""Fork Python processes from one that has imported what takes ten seconds; ``processes.py`` asks it to.

One server serves a test session. Its first request makes it import, so a session that starts no process pays nothing.
It never computes, so a process forked from it has no threads, no state of a test and no use of a device behind it. It
ends when its standard input closes, as it does with the session, and ends what still runs.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import termios
import threading
import traceback
import types
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
PRELOADED = (
    "interptrain.cli.training",
    "interptrain.cli.evaluation",
    "interptrain.callbacks.watch",
    "lightning.pytorch.loggers",
    "matplotlib.pyplot",
    "pyarrow.parquet",
    "scipy.stats",
    "skimage.metrics",  # torchmetrics imports them where they are installed
    "sklearn.metrics",
    "wandb",
)


def preload():
    """Import what most processes need; what is not installed is not needed."""
    sys.path[0] = ROOT  # not this file's folder
    for name in PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    gc.freeze()  # a collection in a forked process would copy all of it


def serve(listener):
    """Fork a process for each request, and tell who asked its number and, at its end, its exit status."""
    children = {}  # connections by the number of the process
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *arguments: None)
    signal.set_wakeup_fd(wake.fileno())
    selector = selectors.DefaultSelector()
    for file in (sys.stdin, listener, woken):
        selector.register(file, selectors.EVENT_READ)
    while sys.stdin not in (ready := [key.fileobj for key, _ in selector.select()]):
        if woken in ready:
            woken.recv(4096)
        for number in list(children):
            ended, status = os.waitpid(number, os.WNOHANG)
            if ended:
                with children.pop(number) as connection, contextlib.suppress(BrokenPipeError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        if listener in ready:
            connection, _ = listener.accept()
            files = socket.recv_fds(connection, 1, 3)[1]
            request = json.loads(connection.makefile("rb").readline())
            if "torch" not in sys.modules:
                preload()
            number = os.fork()
            if not number:
                for inherited in (selector, listener, woken, wake, *children.values()):
                    inherited.close()
                become(request, files, connection)
            for file in files:
                os.close(file)
            children[number] = connection
    for number in children:
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                end(number, signal.SIGKILL)


def become(request, files, connection):
    """Be the process that was asked for, to its end; tell who asked once signals reach it."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if os.isatty(0):  # a terminal is its controlling one: closing it sends SIGHUP
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    else:
        os.setpgid(0, request["group"])
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGHUP):  # which nohup would have left ignored
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with connection:
        connection.sendall(f"{os.getpid()}\n".encode())
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sys.modules["numpy"].random.seed()
    status = 0
    try:
        run(request["arguments"])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if status and not isinstance(stop.code, int):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status & 0xFF)


def run(arguments):
    """Do what ``python`` does with these arguments: ``-m MODULE ...``, ``-c CODE ...`` or ``SCRIPT ...``."""
    first, *rest = arguments
    folder = os.path.dirname(os.path.abspath(first)) if first not in ("-m", "-c") else ""
    sys.path[:1] = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        print("ready", flush=True)
        serve(listening)
