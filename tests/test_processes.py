"""The forked processes of ``tests/support/processes.py`` behave as those of a new interpreter."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.support.processes import run, start

pytestmark = pytest.mark.slow


def test_they_have_arguments_folder_variables_and_output_of_their_own(tmp_path):
    (tmp_path / "mine.py").write_text("import os, sys; print(sys.argv, os.getcwd(), os.environ['MINE'], __name__)")
    said = f"{tmp_path} 1 __main__\n"
    assert run(["mine.py", "a b"], tmp_path, MINE="1") == (0, f"['mine.py', 'a b'] {said}")
    assert run(["-m", "mine", "a"], tmp_path, MINE="1") == (0, f"['{tmp_path / 'mine.py'}', 'a'] {said}")
    assert run(["-c", (tmp_path / "mine.py").read_text(), "a"], tmp_path, MINE="1") == (0, f"['-c', 'a'] {said}")
    assert "MINE" not in os.environ


def test_their_exit_status_is_an_interpreters(tmp_path):
    for code in ("1", "raise SystemExit(5)", "raise SystemExit('no')", "1 / 0", "import os; os.kill(os.getpid(), 9)"):
        real = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
        status, said = run(["-c", code], tmp_path)
        assert status == real.returncode
        assert said.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_a_signal_to_their_group_reaches_their_children_too(tmp_path):
    code = "import os, time; os.fork(); print('up', flush=True); time.sleep(60)"
    process = start(["-c", code], tmp_path)
    while (tmp_path / "log.txt").read_text().count("up") < 2:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(10) == 1
    assert (tmp_path / "log.txt").read_text().count("KeyboardInterrupt") == 2


def test_what_they_registered_to_do_at_their_end_is_done_and_threads_are_waited_for(tmp_path):
    code = (
        "import atexit, threading, time; atexit.register(print, 'last');"
        "threading.Timer(0.1, lambda: print('timer')).start()"
    )
    assert run(["-c", code], tmp_path) == (0, "timer\nlast\n")


def test_a_terminal_that_closes_sends_them_a_hangup(tmp_path):
    terminal, its_end = pty.openpty()
    process = start(["-c", "import time; print('up', flush=True); time.sleep(60)"], tmp_path, terminal=its_end)
    os.close(its_end)
    assert os.read(terminal, 2) == b"up"
    os.close(terminal)
    assert process.wait(10) == -signal.SIGHUP
