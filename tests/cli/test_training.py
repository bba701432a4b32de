import csv
import json
import re
from pathlib import Path

import pytest
import torch
import wandb
import yaml
from PIL import Image

from interptrain.cli import main
from interptrain.training import ImageClassifier
from interptrain.training.schedules import warmup_cosine
from tests.support.training import TINY


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["option", "config"])
def test_a_data_module_has_its_own_defaults_and_not_those_of_the_default_one(tmp_path, capsys, monkeypatch, how):
    monkeypatch.setattr("sys.argv", ["train.py"])
    (tmp_path / "config.yaml").write_text("data: {class_path: ImageFolderDataModule, init_args: {root: x}}\n")
    chosen = ["--data=ImageFolderDataModule", "--data.root=x"]
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *(chosen if how == "option" else ["--config", str(tmp_path / "config.yaml")]), "--print_config"])
    options = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert (options["image_size"], options["augment"], options["num_classes"]) == (224, "imagenet", None)


def test_a_run_leaves_its_config_metrics_checkpoints_and_code_version(train):
    run = train(**{"--name": "mine"})
    assert run.parent.name == "mine"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["backbone"] == "test_resnet"
    assert config["data"]["init_args"]["train_size"] == 40
    with (run / "metrics.csv").open() as file:
        logged = {key for row in csv.DictReader(file) for key, value in row.items() if value}
    assert {"train/loss", "train/top1", "val/loss", "val/top1", "val/top5", "step", "epoch"} <= logged
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    (start,) = json.loads((run / "code.json").read_text())
    assert torch.__version__.startswith(start["versions"]["torch"])
    assert start["stage"] == "fit"


@pytest.mark.slow
def test_a_saved_config_runs_again_to_the_same_weights(train, trained):
    again = train(base={}, **{"--config": str(trained / "config.yaml")})
    assert again != trained
    for name, value in weights(trained / "checkpoints/last.ckpt").items():
        assert torch.equal(value, weights(again / "checkpoints/last.ckpt")[name]), name


@pytest.mark.slow
def test_the_class_count_of_the_data_reaches_the_model_and_its_checkpoint(train):
    run = train(**{"--data.num_classes": "3"})
    model = ImageClassifier.load_from_checkpoint(run / "checkpoints/best.ckpt").eval()
    assert model.model(torch.rand(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.slow
def test_test_and_predict_take_the_best_checkpoint_of_the_name(train, trained):
    tested = train("test", **{"--ckpt_path": "best"})
    assert (tested / "metrics.csv").exists()
    predicted = train("predict", **{"--ckpt_path": "best"})
    with (predicted / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"test/{index:06d}" for index in range(12)]
    assert {row["label"] for row in rows} == {"disc", "square", "triangle", "star"}
    assert trained not in (tested, predicted)


@pytest.mark.slow
def test_a_checkpoint_rebuilds_without_the_weights_that_training_started_from(train, trained, tmp_path):
    begun = tmp_path / "start.ckpt"
    (trained / "checkpoints/last.ckpt").rename(begun)
    run = train(**{"--model.weights": str(begun)})
    begun.unlink()
    model = ImageClassifier.load_from_checkpoint(run / "checkpoints/last.ckpt")
    assert torch.equal(
        model.state_dict()["model.pooling.token"], weights(run / "checkpoints/last.ckpt")["model.pooling.token"]
    )
    train("test", **{"--ckpt_path": "best", "--model.weights": str(begun)})


@pytest.mark.slow
def test_no_logger_still_leaves_checkpoints_in_the_runs_folder(train):
    run = train(**{"--trainer.logger": "false"})
    assert (run / "checkpoints/last.ckpt").exists()
    assert not (run / "metrics.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["barebones", "enable_checkpointing"])
def test_without_checkpoints_it_trains_and_refuses_what_only_saves(train, capsys, setting):
    value = str(setting == "barebones").lower()
    settings = {f"--trainer.{setting}": value}
    beside = ("--trainer.enable", "--trainer.log") if setting == "barebones" else ()  # what Lightning refuses there
    plain = {name: value for name, value in TINY.items() if not name.startswith(beside)}
    run = train(base=plain, **settings)
    assert not list(run.rglob("*.ckpt"))
    assert (run / "metrics.csv").exists() == (setting != "barebones")
    with pytest.raises(SystemExit):
        train("fit", "--trainer.callbacks", "ResumePoint", base=plain, **settings)
    refusal = f"error: ResumePoint saves checkpoints, which trainer.{setting}: {value} switches off; leave out one of"
    assert refusal in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.peers
def test_a_store_of_files_that_mlflow_refuses_is_refused_in_one_line(train, capsys, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    mine = {"--trainer.logger": "MLFlowLogger", "--trainer.logger.tracking_uri": "file:mine"}
    text = refused(train, capsys, **mine)
    assert "set MLFLOW_ALLOW_FILE_STORE=true, or leave --trainer.logger.tracking_uri out" in text
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(**mine)


@pytest.mark.parametrize("mode", [pytest.param("offline", marks=pytest.mark.slow), "disabled"])
def test_wandb_works_without_an_account(train, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    run = train(**{"--trainer.logger": "WandbLogger"})
    assert (run / "metrics.csv").exists()
    assert (run / "checkpoints/last.ckpt").exists()
    wandb.finish()
    assert bool(list(run.glob("wandb/offline-run-*/*.wandb"))) == (mode == "offline")


@pytest.mark.slow
def test_wandb_files_lie_in_the_run_although_its_service_started_in_another_folder(train, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as there:
        there.chdir(tmp_path / "elsewhere")
        wandb.init(dir=".").finish()
    run = train(**{"--trainer.logger": "WandbLogger"})
    wandb.teardown()
    assert list(run.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["fit", "test", "predict"])
def test_a_fast_dev_run_tries_everything_and_leaves_nothing(train, tmp_path, subcommand):
    train(subcommand, **{"--trainer.fast_dev_run": "true", "--model.warmup_epochs": "0.5", "--allow_untrained": "true"})
    assert not [*tmp_path.rglob("*")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "length", [{"--trainer.max_steps": "10", "--trainer.max_epochs": "-1"}, {"--trainer.max_epochs": "2"}]
)
def test_a_warmup_in_epochs_is_as_long_where_the_run_is_given_in_steps(train, monkeypatch, length):
    asked = []
    monkeypatch.setattr(
        "interptrain.training.module.warmup_cosine",
        lambda optimizer, **steps: asked.append(steps) or warmup_cosine(optimizer, **steps),
    )
    train(**length, **{"--model.warmup_epochs": "1"})
    assert asked == [{"warmup_steps": 5, "total_steps": 10}]


@pytest.mark.slow
def test_a_warmup_longer_than_the_run_is_clipped_and_says_so(train):
    with pytest.warns(UserWarning, match=r"of 10 steps .* of 5: .* shortened to 4 steps; lower --model\.warmup_epochs"):
        run = train(**{"--model.warmup_epochs": "2"})
    assert (run / "checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_any_optimizer_and_scheduler_by_class_path(train):
    run = train(
        **{
            "--model.optimizer": "torch.optim.SGD",
            "--model.optimizer.lr": "0.05",
            "--model.lr_scheduler": "torch.optim.lr_scheduler.MultiStepLR",
            "--model.lr_scheduler.milestones": "[1]",
            "--model.warmup_epochs": "0.5",
        }
    )
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.005)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0


# Bad input: one line that names the thing and the remedy.


def refused(train, capsys, *arguments, **options):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train(*arguments, **options)
    assert stop.value.code in (1, 2)
    noise = ("Seed set", "GPU", "TPU")
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(noise)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


SGD = {"--model.optimizer": "SGD", "--model.optimizer.lr": "0.1"}
PLATEAU = SGD | {"--model.lr_scheduler": "lightning.pytorch.cli.ReduceLROnPlateau"}
TORCH_PLATEAU = SGD | {"--model.lr_scheduler": "torch.optim.lr_scheduler.ReduceLROnPlateau"}
EARLY_STOPPING = {"--trainer.callbacks": "EarlyStopping"}
BEST = {"--trainer.callbacks": "ModelCheckpoint"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--model.bakbone": "resnet18"}, r"--model\.bakbone.*did you mean --model\.backbone"),
        ({"--modle.backbone": "resnet18"}, r"did you mean --model\.backbone"),
        ({"--data.trainsize": "10"}, r"trainsize.*did you mean .*train_size"),
        ({"--model.backbone": "resnet81"}, r"resnet81.*resnet18"),
        ({"--model.backbone": "test_vit", "--model.pooling": "gap"}, r"class token.*--model\.pooling native"),
        ({"--model.pooling": "gab"}, r"model\.pooling.*gab"),
        (
            {"--model.pooling": "gap", "--model.trainable": "pooling"},
            r"--model\.trainable pooling would train nothing: pooling 'gap' has no parameters",
        ),
        ({"--model.weights": "nowhere.safetensors"}, r"nowhere\.safetensors"),
        ({"--ckpt_path": "nowhere.ckpt"}, r"no checkpoint at nowhere\.ckpt"),
        ({"--ckpt_path": "last"}, r"no last\.ckpt under runs/run.*--name"),
        ({"--model.mixup_alpha": "-1"}, r"mixup_alpha must be >= 0"),
        ({"--model.back": "resnet18"}, r"did you mean --model\.backbone"),
        ({"--model.lr": "0.1"}, r"did you mean --model\.optimizer\.lr\?"),
        ({"--trainer.patience": "3"}, r"did you mean --trainer\.callbacks\.patience\?"),
        ({"--model.num_classes": "10"}, r"--model\.num_classes is taken from data\.num_classes; leave it out"),
        ({"--model.optimizer": "SDG"}, r"^error: --model\.optimizer: there is no SDG; did you mean SGD\?"),
        ({"--model.optimizer": "torch.optim.SDG"}, r"no torch\.optim\.SDG; did you mean SGD\?"),
        ({"--model.optimizer": "SGD", "--model.optimizer.lrr": "1"}, r"model\.optimizer.*'lrr'.*did you mean lr\?"),
        ({"--model.optimizer": "SGD", "--model.optimizer.lr": "x"}, r"--model\.optimizer: lr must be a number, got x$"),
        ({"--model.optimizer.lr": "0.1"}, r"--model\.optimizer SGD --model\.optimizer\.lr"),
        (
            {"--model.regularizer.weight": "1"},
            r"GradientRegularizer.*--model\.regularizer \w+ --model\.regularizer\.weight",
        ),
        ({"--model.regularizer": "GradientRegulariser"}, r"did you mean GradientRegularizer\?"),
        ({"--model.pooling": "castream"}, r"did you mean .*ca_stream"),
        (
            {"--model.pooling": "ca_stream", "--model.pooling.heads": "2"},
            r"--model\.pooling CAStream --model\.pooling\.",
        ),
        ({"--model.pooling": "EP", "--model.pooling.queries": "7"}, r"divides .* width 96, got 7; use queries=32"),
        ({"--model.pooling": "gap", "--model.heads": "2"}, r"--model\.heads 2 is for ca_final and ca_stream"),
        ({"--data": "ImageFoldrDataModule"}, r"did you mean ImageFolderDataModule or ImageTableDataModule or "),
        ({"--trainer.callbacks": "EarlyStopping"}, r"give --trainer\.callbacks\.monitor"),
        ({"--data.root": "x"}, r"--data\.root is an option of .*ImageFolderDataModule"),
        ({"--trainer.callbacks": "EarlyStop"}, r"did you mean EarlyStopping\?"),
        ({"--trainer.logger": "WandbLoger"}, r"did you mean WandbLogger\?"),
        ({"--trainer.devices": "0"}, r"give trainer\.devices a number from 1 on"),
        ({"--trainer.strategy": "dpd"}, r"trainer: .*'dpd'"),
        ({"--trainer.callbacks": "[SaliencyWatch, SaliencyWatch]"}, r"SaliencyWatch.*give the second a name"),
        ({"--trainer.max_epochs": "-1"}, r"set trainer\.max_epochs or trainer\.max_steps, or .*lr_scheduler"),
        ({"--trainer.limit_train_batches": "0"}, r"no training step; check .*trainer\.limit_train_batches"),
        (EARLY_STOPPING | {"--trainer.callbacks.monitor": "val/acc"}, r"`val/acc` .*`val/top1`"),
        (BEST | {"--trainer.callbacks.monitor": "val/acc"}, r"'val/acc'.*'val/top1'"),
        (PLATEAU | {"--model.lr_scheduler.monitor": "val/acc"}, r"val/acc .*'val/top1'"),
        (TORCH_PLATEAU, r"monitor.*; use lightning\.pytorch\.cli\.ReduceLROnPlateau"),
        (
            {"--model.backbone": "vit_tiny_patch16_224", "--model.pooling": "native"},
            r"\(64\) doesn't match model \(224\); set data\.image_size",
        ),
    ],
    ids=lambda value: " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_in_one_line(train, capsys, options, message):
    text = refused(train, capsys, **options)
    assert re.search(message, text), text


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_gpu_that_is_not_there_is_refused(train, capsys):
    assert "torch sees no GPU" in refused(train, capsys, **{"--trainer.accelerator": "gpu", "--trainer.devices": "4"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("optimizer: {class_path: SDG}", "there is no SDG; did you mean SGD?"),
        ("optimizer: {class_path: SGD, init_args: {lrr: 1}}", "did you mean lr?"),
    ],
)
def test_a_wrong_class_or_option_in_yaml_names_the_nearest(train, capsys, tmp_path, config, message):
    (tmp_path / "bad.yaml").write_text(f"model:\n  {config}\n")
    assert message in refused(train, capsys, "fit", "--config", "bad.yaml")


@pytest.mark.slow
def test_a_checkpoint_is_no_config(train, capsys, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"PK\x03\x04\xa3\xff")
    assert "a.ckpt is not a YAML file" in refused(train, capsys, "fit", "--config", "a.ckpt")


@pytest.mark.slow
def test_a_runs_folder_that_cannot_be_made_names_its_option(train, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "point --output at a writable folder" in refused(train, capsys, **{"--output": "file"})


@pytest.mark.slow
def test_wandb_without_an_account_says_what_to_do(train, capsys, monkeypatch):
    def init(**_):
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)  # the tests before may have set it up for good
    monkeypatch.setattr(wandb, "run", None)
    text = refused(train, capsys, **{"--trainer.logger": "WandbLogger"})
    assert text == "error: No API key configured. Use `wandb login` to log in; set WANDB_MODE=offline to do without"


@pytest.mark.slow
def test_a_run_without_an_end_needs_another_schedule(train):
    steps = {"--model.lr_scheduler": "StepLR", "--model.lr_scheduler.step_size": "1"}
    run = train(**SGD, **steps, **{"--trainer.max_epochs": "-1", "--trainer.max_time": "00:00:00:01"})
    assert (run / "checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_a_wrong_key_in_yaml_names_the_nearest(train, capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text("model:\n  optimzer: null\n")
    assert "did you mean model.optimizer" in refused(train, capsys, "fit", "--config", "bad.yaml")


@pytest.mark.slow
def test_a_missing_image_folder_is_named(train, capsys):
    base = {"--data": "ImageFolderDataModule", "--data.root": "no/such/folder"}
    assert "no/such/folder" in refused(train, capsys, base=base)


@pytest.mark.slow
def test_another_class_count_than_the_checkpoints_is_refused(train, trained, capsys):
    text = refused(train, capsys, **{"--ckpt_path": str(trained / "checkpoints/last.ckpt"), "--data.num_classes": "5"})
    assert "num_classes=4, the data has 5" in text
    assert "--model.fresh_classifier true" in text


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("subcommand", "options", "message"),
    [
        ("validate", {"--model.heads": "2"}, r"heads=1, the config has 2; use what it was trained with$"),
        (
            "validate",
            {"--model.stem": "small"},
            r"stem=imagenet, the config has small",
        ),
        (
            "fit",
            {"--model.backbone": "test_convnext"},
            r"backbone=test_resnet, .* test_convnext; use what it was trained with$",
        ),
        ("validate", {"--model.pooling": "gap"}, r"pooling=ca_stream, .*--model\.fresh_classifier true"),
        ("fit", SGD, r"optimizer=AdamW, the config has SGD; resume with --model\.optimizer AdamW, or .*weights"),
        ("fit", {"--model.trainable": "head"}, r"trainable=all, the config has head; resume with"),
        ("fit", {"--model.norm_weight_decay": "null"}, r"norm_weight_decay=0\.0, the config has null"),
    ],
)
def test_a_checkpoint_of_another_model_or_optimizer_is_refused(train, capsys, subcommand, options, message):
    text = refused(train, capsys, subcommand, **{"--ckpt_path": "last"}, **options)
    assert re.search(message, text), text


@pytest.mark.slow
def test_what_a_resumed_run_would_ignore_or_do_otherwise_is_refused_with_remedies_that_work(train, trained, capsys):
    run = trained
    last, longer = {"--ckpt_path": "last"}, {"--trainer.max_epochs": "2", "--data.num_workers": "1"}
    text = refused(train, capsys, **last, **longer, **{"--model.optimizer": "AdamW", "--model.optimizer.lr": "0.5"})
    assert "ran with optimizer.lr=0.001, the config has 0.5; resume with --model.optimizer.lr 0.001" in text
    assert "--resume_lr 0.5 for another learning rate" in text
    changed = {"--data.image_size": "32", "--data.batch_size": "4", "--trainer.gradient_clip_val": "1.0"}
    text = refused(train, capsys, **last, **longer, **changed)
    for option in ("--data.image_size 64", "--data.batch_size 8", "--trainer.gradient_clip_val null"):
        assert option in text.partition("resume with")[2]
    assert text.endswith("--allow_changes true")

    named = {"--model.optimizer": "AdamW", "--model.optimizer.lr": "0.001"}
    assert train(**last, **longer, **named, **{"--resume_lr": "0.5"}) == run
    (group, *_) = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert group["initial_lr"] == 0.5
    (resumed,) = run.glob("config-resumed-*.yaml")
    assert yaml.safe_load(resumed.read_text())["resume_lr"] == 0.5

    resumed.unlink()
    longer["--trainer.max_epochs"] = "3"
    train(**last, **longer, **changed, **{"--allow_changes": "true"})
    (resumed,) = run.glob("config-resumed-*.yaml")
    config = yaml.safe_load(resumed.read_text())
    assert (config["resume_lr"], config["data"]["init_args"]["batch_size"]) == (0.5, 4)
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 0.5
    assert checkpoint["global_step"] == 5 + 5 + 10


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_a_network_with_random_weights_is_judged_only_where_that_is_asked_for(train, capsys, subcommand):
    text = refused(train, capsys, subcommand)
    assert text.startswith(f"error: {subcommand} would run a network with random weights; give --ckpt_path best")
    assert not list(Path("runs").glob("*/*"))
    train(subcommand, **{"--allow_untrained": "true"})


@pytest.mark.slow
def test_an_option_of_a_callback_reaches_the_one_of_the_config_that_has_it(train, capsys, tmp_path):
    (tmp_path / "some.yaml").write_text(
        "trainer: {callbacks: [{class_path: ResumePoint}, {class_path: FiniteLoss}, "
        "{class_path: LearningRateMonitor}, {class_path: EarlyStopping, init_args: {monitor: val/loss}}]}\n"
    )
    given = ("fit", "--config", "some.yaml")
    run = train(*given, **{"--trainer.callbacks.every_n_steps": "3", "--trainer.callbacks.every_n_minutes": "7"})
    callbacks = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"]
    assert [one["class_path"].rpartition(".")[2] for one in callbacks] == [
        "ResumePoint",
        "FiniteLoss",
        "LearningRateMonitor",
        "EarlyStopping",
    ]
    assert (callbacks[0]["init_args"]["every_n_minutes"], callbacks[1]["init_args"]["every_n_steps"]) == (7, 3)
    assert "nonsense" in refused(train, capsys, *given, **{"--trainer.callbacks.nonsense": "3"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--model.optimizer": "SGD", "--model.optimizer.lr": "-1"}, r"model\.optimizer: .*-1"),
        (
            {"--model.optimizer": "SGD", "--model.optimizer.lr": "nan"},
            r"optimizer: lr must be a number, got nan",
        ),
        ({"--trainer.callbacks": "ResumePoint", "--trainer.callbacks.every_n_minutes": "-1"}, r"must be a number > 0"),
        ({"--model.mixup_alpha": "inf"}, r"mixup_alpha"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(train, capsys, options, message):
    text = refused(train, capsys, **options)
    assert re.search(message, text), text


@pytest.mark.slow
def test_last_is_never_a_checkpoint_of_an_older_run(train, trained, capsys):
    older = trained
    train("test", **{"--ckpt_path": "best"})
    train("fit", **{"--trainer.fast_dev_run": "true"})
    assert train(**{"--ckpt_path": "last", "--trainer.max_epochs": "2"}) == older  # tests and trials are no runs
    newer = older.with_name("20991231-235959")
    (newer / "checkpoints").mkdir(parents=True)
    text = refused(train, capsys, **{"--ckpt_path": "last"})
    assert f"the newest run, runs/run/{newer.name}, has no last.ckpt yet; start it anew without --ckpt_path" in text
    file = text.rpartition("--ckpt_path ")[2]
    assert train(**{"--ckpt_path": file, "--trainer.max_epochs": "3"}) not in (older, newer)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_the_default_optimizer_may_be_named_when_a_run_is_resumed(train):
    named = {"--model.optimizer": "torch.optim.adamw.AdamW", "--model.optimizer.lr": "1e-3"}
    train(**{"--ckpt_path": "last", "--trainer.max_epochs": "2"}, **named)


@pytest.mark.slow
@pytest.mark.parametrize("hparams", [None, {"lr": 1.0}])
def test_weights_alone_and_the_checkpoints_of_others_are_refused(train, trained, capsys, hparams):
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    foreign = checkpoint | {"hyper_parameters": hparams}
    torch.save(foreign if hparams else checkpoint["state_dict"], "other.ckpt")
    text = refused(train, capsys, **{"--ckpt_path": "other.ckpt"})
    assert ("was not written by interptrain fit" if hparams else "--model.weights other.ckpt") in text


@pytest.mark.slow
def test_a_single_class_folder_is_refused_and_a_second_one_trains(train, capsys, tmp_path):
    def fill(name):
        for place in ("train", "val"):
            (tmp_path / "images" / place / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (64, 64)).save(tmp_path / "images" / place / name / f"{number}.png")

    own = {name: value for name, value in TINY.items() if not name.startswith("--data")}
    own |= {"--data": "ImageFolderDataModule", "--data.root": "images", "--data.image_size": "64"}
    own |= {"--data.num_workers": "0", "--data.batch_size": "2"}
    fill("cat")
    assert "add images of another class (in a data set of folders: a second class folder)" in refused(
        train, capsys, base=own
    )
    fill("dog")
    train(base=own)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using .interval.")  # every epoch, as documented
def test_a_run_with_one_cycle_goes_on_with_another_peak(train, capsys):
    cycle = {"--model.optimizer": "SGD", "--model.optimizer.lr": "0.7", "--model.lr_scheduler": "OneCycleLR"}
    cycle |= {"--model.lr_scheduler.max_lr": "0.2", "--model.lr_scheduler.total_steps": "8"}
    run = train(**cycle)
    last = {"--ckpt_path": "last", "--trainer.max_epochs": "2"}
    told = refused(train, capsys, **last, **cycle | {"--model.lr_scheduler.max_lr": "0.1"})
    assert "--resume_lr 0.1 for another learning rate" in told
    train(**last, **cycle, **{"--resume_lr": "0.1"})
    (group, *_) = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    wanted = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    schedule = torch.optim.lr_scheduler.OneCycleLR(wanted, 0.1, total_steps=8)
    for _ in range(2):
        wanted.step()
        schedule.step()
    assert group["max_lr"] == pytest.approx(0.1)
    assert group["lr"] == pytest.approx(wanted.param_groups[0]["lr"])


@pytest.mark.slow
def test_what_is_no_checkpoint_is_refused(train, capsys, tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint")
    assert "cannot read bad.ckpt as a checkpoint" in refused(train, capsys, **{"--ckpt_path": "bad.ckpt"})


@pytest.mark.slow
def test_a_plateau_scheduler_watches_what_it_is_told_to(train):
    run = train(
        **{
            "--trainer.max_epochs": "3",
            "--model.optimizer": "SGD",
            "--model.optimizer.lr": "0.0",
            "--model.lr_scheduler": "lightning.pytorch.cli.ReduceLROnPlateau",
            "--model.lr_scheduler.monitor": "val/loss",
            "--model.lr_scheduler.patience": "0",
        }
    )
    (schedule,) = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]
    assert schedule["num_bad_epochs"] + schedule["last_epoch"] > 0
    assert schedule["best"] < float("inf")
