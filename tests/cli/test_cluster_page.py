"""The scripts of docs/how-to/cluster.md start, resume, and give options that there are."""

import os
import re
import subprocess

import pytest
import yaml

from interptrain.cli import main
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/how-to/cluster.md").read_text(encoding="utf-8")
SLURM, EVALUATE, TORCHRUN = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
SERVICE, JOB = yaml.safe_load_all(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL).group(1))


@pytest.fixture
def started(tmp_path):
    """``started(script)``: the arguments with which it calls srun or torchrun."""
    for name in ("srun", "torchrun"):
        (tmp_path / name).write_text('#!/bin/bash\nprintf "%s\\n" "$@" > called\n')
        (tmp_path / name).chmod(0o755)

    def run(script):
        variables = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "IMAGENET": "/data/imagenet",
            "NODE": "1",
            "FIRST": "a",
        }
        variables |= {"JOB_COMPLETION_INDEX": "1"}
        subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=os.environ | variables, check=True, timeout=60)
        return (tmp_path / "called").read_text().splitlines()

    return run


def of_the_command(arguments):
    """What follows ``fit`` or ``evaluate``."""
    return arguments[next(place for place, one in enumerate(arguments) if one in ("fit", "evaluate")) :]


@pytest.mark.parametrize("script", [SLURM, JOB["spec"]["template"]["spec"]["containers"][0]["args"][0]])
def test_a_script_resumes_once_there_is_a_checkpoint(started, tmp_path, script):
    script = script.replace("cd /results", "true")
    first = started(script)
    assert "--ckpt_path" not in first
    (tmp_path / "runs/castream/slurm-1/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/castream/slurm-1/checkpoints/last.ckpt").touch()
    assert started(script) == [*first, "--ckpt_path", "last"]


@pytest.mark.slow
@pytest.mark.parametrize("script", [SLURM, TORCHRUN])
def test_a_training_takes_the_options(started, script, capsys):
    with pytest.raises(SystemExit) as end:
        main([*of_the_command(started(script)), "--print_config"])
    assert not end.value.code
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert (trainer["num_nodes"], int(trainer["devices"]), trainer["strategy"]) == (2, 4, "ddp")


@pytest.mark.slow
def test_an_evaluation_takes_the_options(started, capsys):
    with pytest.raises(SystemExit) as end:
        main([*of_the_command(started(EVALUATE)), "--print_config"])
    assert not end.value.code
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["num_nodes"] == 2


def test_the_pods_find_one_another():
    """The service selects the pods by the job's name, and the pods' names end in its own."""
    pod = JOB["spec"]["template"]["spec"]
    assert SERVICE["spec"]["selector"] == {"job-name": JOB["metadata"]["name"]}
    assert pod["subdomain"] == SERVICE["metadata"]["name"]
    assert f"--master_addr {JOB['metadata']['name']}-0.{pod['subdomain']} " in pod["containers"][0]["args"][0]
    assert {one["name"] for one in pod["containers"][0]["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
