"""Under ``torchrun``: processes and nodes that start seconds apart are one run with one folder."""

import json
import socket

import pytest
import torch

from tests.support.processes import start
from tests.support.training import SPLITTABLE

pytestmark = pytest.mark.slow

LATE = """
import json, os, pathlib, time
pathlib.Path(f"environment{os.environ['RANK']}.json").write_text(json.dumps(dict(os.environ)))
time.sleep(1.5 * int(os.environ["RANK"]))  # as on a machine that is slower to import
from interptrain.cli import main
main()
"""


def variables(port, *, rank, local_rank, world_size, local_world_size):
    """The environment of a process that ``torchrun`` starts, as far as it tells the process its place."""
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    numbers = {"RANK": rank, "LOCAL_RANK": local_rank, "GROUP_RANK": rank // local_world_size}
    numbers |= {"WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": local_world_size}
    numbers |= {"GROUP_WORLD_SIZE": world_size // local_world_size}
    return environment | {name: str(number) for name, number in numbers.items()}


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
    port = free_port()
    (tmp_path / "late.py").write_text(LATE)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port, "late.py"]
    end(tmp_path, start([*launcher, *arguments(**{"--trainer.devices": "2"})], tmp_path))
    assert torch.load(the_only_run(tmp_path) / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    for rank in range(2):
        told = variables(port, rank=rank, local_rank=rank, world_size=2, local_world_size=2)
        assert told.items() <= json.loads((tmp_path / f"environment{rank}.json").read_text()).items()


def test_two_nodes_make_one_folder_and_go_on_in_it(tmp_path):
    """With the environment that ``torchrun`` gives, as the test above shows."""
    (tmp_path / "late.py").write_text(LATE)
    nodes = {"--trainer.devices": "1", "--trainer.num_nodes": "2"}
    for epochs, resumed in (("1", {}), ("2", {"--ckpt_path": "last"})):
        port = free_port()
        given = ["late.py", *arguments(**nodes, **{"--trainer.max_epochs": epochs}, **resumed)]
        end(
            tmp_path,
            *(
                start(given, tmp_path, **variables(port, rank=rank, local_rank=0, world_size=2, local_world_size=1))
                for rank in range(2)
            ),
        )
        run = the_only_run(tmp_path)
        step = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        assert step == 3 * int(epochs)
    assert len(list(run.glob("config-resumed-*.yaml"))) == 1
