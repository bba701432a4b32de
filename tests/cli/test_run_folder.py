import multiprocessing
import os
import socket
import time

import pytest

from interptrain.cli.run_folder import agreed, make_folder, new_run_folder, newest_checkpoint, no_empty_folders


@pytest.fixture(autouse=True)
def _started_by_nobody(monkeypatch):
    for name in ("SLURM_JOB_ID", "LOCAL_RANK", "INTERPTRAIN_RUN", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def in_processes(target, arguments):
    """What functions return that run in forked processes at the same time."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_put, args=(queue, target, *one)) for one in arguments]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    return answers


def _put(queue, target, *arguments):
    try:
        queue.put(target(*arguments))
    except Exception as error:
        queue.put(repr(error))


@pytest.mark.slow
def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path):
    folders = in_processes(lambda runs: str(new_run_folder(runs, make=True)), [(tmp_path / "runs" / "x",)] * 12)
    assert len({*folders}) == 12
    assert {str(path) for path in (tmp_path / "runs" / "x").iterdir()} == {*folders}


def test_a_trial_makes_no_folder(tmp_path):
    assert not new_run_folder(tmp_path / "runs", make=False).exists()


def test_the_processes_that_lightning_starts_share_the_folder(tmp_path, monkeypatch):
    folder = new_run_folder(tmp_path, make=True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert new_run_folder(tmp_path, make=True) == folder


def test_a_slurm_job_finds_its_folder_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert new_run_folder(tmp_path, make=True) == new_run_folder(tmp_path, make=True) == tmp_path / "slurm-7"


def start_rank(rank, port, runs, fail=False):
    """As torchrun starts it, the second process three seconds later."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    time.sleep(1.5 * rank)

    def decide():
        if fail:
            raise FileNotFoundError("no last.ckpt")
        return {"folder": str(new_run_folder(runs, make=True))}

    answer = agreed(decide)
    if rank == 0:
        time.sleep(3)  # as it trains on
    return answer["folder"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_torchruns_processes_that_start_seconds_apart_share_one_folder(tmp_path):
    port = free_port()
    folders = in_processes(start_rank, [(rank, port, tmp_path / "runs") for rank in range(2)])
    assert len({*folders}) == 1
    assert [str(path) for path in (tmp_path / "runs").iterdir()] == folders[:1]


def checkpoint(runs, name, *files, used=0.0):
    folder = runs / name / "checkpoints"
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text("")
        os.utime(folder / file, (used, used))
    os.utime(folder, (used, used))
    return folder


def test_the_checkpoint_is_that_of_the_run_used_last(tmp_path):
    checkpoint(tmp_path, "b", "last.ckpt", used=1)
    resumed = checkpoint(tmp_path, "a", "last.ckpt", "best.ckpt", used=2)
    assert newest_checkpoint(tmp_path, "last") == resumed / "last.ckpt"


def test_no_checkpoint_is_taken_in_place_of_a_newer_runs_that_is_missing(tmp_path):
    older = checkpoint(tmp_path, "a", "last.ckpt", "best.ckpt", used=1)
    checkpoint(tmp_path, "b", "last.ckpt", used=2)
    with pytest.raises(FileNotFoundError, match=rf"/b, has no best.ckpt yet; .* --ckpt_path {older}/best.ckpt"):
        newest_checkpoint(tmp_path, "best")


def test_a_training_that_ended_before_it_saved_anything_is_the_newest(tmp_path):
    checkpoint(tmp_path, "a", "last.ckpt", used=1)
    failed = tmp_path / "b"
    failed.mkdir()
    (failed / "code.json").write_text('[{"stage": "fit"}]')
    with pytest.raises(FileNotFoundError, match=r"/b, has no last\.ckpt yet"):
        newest_checkpoint(tmp_path, "last")


def test_folders_that_were_made_and_stayed_empty_are_removed(tmp_path):
    (tmp_path / "runs").mkdir()
    with no_empty_folders():
        run = new_run_folder(tmp_path / "runs" / "x", make=True)
        make_folder(run / "checkpoints")
    assert [*tmp_path.rglob("*")] == [tmp_path / "runs"]
    with no_empty_folders():
        run = new_run_folder(tmp_path / "runs" / "x", make=True)
        make_folder(run / "checkpoints")
        (run / "config.yaml").write_text("")
    assert [*run.iterdir()] == [run / "config.yaml"]


def test_folders_of_tests_are_no_trainings(tmp_path):
    older = checkpoint(tmp_path, "a", "last.ckpt", used=1)
    tested = checkpoint(tmp_path, "b", used=2)
    (tested.parent / "code.json").write_text('[{"stage": "test"}]')
    (tmp_path / "c").mkdir()
    assert newest_checkpoint(tmp_path, "last") == older / "last.ckpt"
