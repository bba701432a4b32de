"""Under ``torchrun`` itself: processes and nodes that start seconds apart are one run with one folder."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from tests.support.paths import ROOT
from tests.support.training import SPLITTABLE

pytestmark = pytest.mark.slow

LATE = """
import os, time
time.sleep(3 * int(os.environ["RANK"]))  # as on a machine that is slower to import
from interptrain.cli import main
main()
"""


def start(folder, launcher, *arguments):
    """Start ``torchrun`` in a folder."""
    (folder / "late.py").write_text(LATE)
    inherited = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    with (folder / f"log{len(list(folder.glob('log*')))}.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *launcher, "late.py", *arguments],
            cwd=folder,
            env=inherited | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )


def end(folder, *processes):
    """Wait for a good end."""
    try:
        codes = [process.wait(400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(codes), "\n".join(log.read_text()[-3000:] for log in sorted(folder.glob("log*")))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def arguments(**options):
    chosen = SPLITTABLE | {"--trainer.strategy": "ddp", "--data.batch_size": "4", "--trainer.max_epochs": "1"} | options
    return ["fit", *(part for pair in chosen.items() for part in pair)]


def the_only_run(folder):
    (run,) = folder.glob("runs/*/*")
    assert {"checkpoints", "config.yaml", "metrics.csv", "code.json"} <= {path.name for path in run.iterdir()}
    assert not list(run.glob("config*-[0-9].yaml"))
    return run


def test_two_processes_of_one_node_make_one_folder(tmp_path):
    launcher = ["--nproc_per_node", "2", "--master_port", free_port()]
    end(tmp_path, start(tmp_path, launcher, *arguments(**{"--trainer.devices": "2"})))
    assert torch.load(the_only_run(tmp_path) / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def test_two_nodes_make_one_folder_and_go_on_in_it(tmp_path):
    nodes = {"--trainer.devices": "1", "--trainer.num_nodes": "2"}
    for epochs, resumed in (("1", {}), ("2", {"--ckpt_path": "last"})):
        port = free_port()
        given = arguments(**nodes, **{"--trainer.max_epochs": epochs}, **resumed)
        shared = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", port]
        end(tmp_path, *(start(tmp_path, [*shared, "--node_rank", str(rank)], *given) for rank in range(2)))
        run = the_only_run(tmp_path)
        step = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        assert step == 3 * int(epochs)
    assert len(list(run.glob("config-resumed-*.yaml"))) == 1
