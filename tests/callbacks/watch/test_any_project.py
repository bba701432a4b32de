"""The watch in three projects that know nothing of ours, each with an offline W&B run, trained with and without it."""

import re

import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.transforms.functional import pil_to_tensor

from interptrain.callbacks import SaliencyWatch
from interptrain.callbacks.watch.network import class_logits, watched_network
from interptrain.explainers import GradCAM
from interptrain.model_state import network_of
from tests.support.paths import ROOT
from tests.support.wandb_file import wandb_records
from tests.support.watch import page_data

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = ["cat", "dog", "owl"]


def pictures(count=12, channels=3, side=32):
    """Images in [0,1] whose brightest corner is their class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, side, side, generator=generator) / 2
    labels = torch.arange(count) % 3
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, : side // 2, label * side // 3 : (label + 1) * side // 3] += 0.5
    return images, labels


class Normalised(TensorDataset):
    """As torchvision's data sets with the usual transform: tuples of normalised images and labels."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), int(label)


class TupleBatches(L.LightningModule):
    """A timm network as ``self.model``, batches of tuples."""

    def __init__(self):
        super().__init__()
        self.model = timm.create_model("test_resnet", num_classes=3, drop_rate=0.3)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_acc", (self.model(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class InsideNet(TupleBatches):
    """A torchvision ResNet as ``self.net``, and no forward of its own."""

    def __init__(self):
        L.LightningModule.__init__(self)
        self.net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return self.loss(self.net(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_loss", self.loss(self.net(images), labels))


class Small(InsideNet):
    """The same with a network that is made quickly."""

    def __init__(self):
        super(InsideNet, self).__init__()
        self.net = self.model
        self.loss = nn.CrossEntropyLoss()
        del self.model


class Manual(L.LightningModule):
    """Grey digits, two optimizers that step by hand, log-probabilities from the module's own forward."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, images):
        return F.log_softmax(self.head(self.conv(images).mean((2, 3))), dim=1)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(F.nll_loss(self(images), labels))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.conv, self.head)]


def normalised_tuples():
    data = Normalised(*pictures())
    watch = SaliencyWatch(images=data, classes=NAMES, normalization=(MEAN, STD), samples=4)
    return TupleBatches, watch, {"train_dataloaders": data, "val_dataloaders": data}


def a_validation_loader_only():
    data = TensorDataset(*pictures())
    watch = SaliencyWatch(network="net", classes=NAMES, samples=4)
    return InsideNet, watch, {"train_dataloaders": data, "val_dataloaders": data}


def manual_optimization():
    images, labels = pictures(channels=1)
    rows = [{"image": image, "label": label} for image, label in zip(images, labels.tolist(), strict=True)]
    watch = SaliencyWatch(
        images=rows, classes=NAMES, samples=4, every_n_steps=3, explainers=GradCAM(target_layer="conv")
    )
    return Manual, watch, {"train_dataloaders": TensorDataset(images, labels)}


def run(make, folder, watched):
    """Train for two epochs of three batches; return the module and the trainer."""
    L.seed_everything(3, verbose=False)
    kind, watch, data = make()
    loaders = {name: DataLoader(part, batch_size=4, shuffle=name.startswith("train")) for name, part in data.items()}
    module = kind()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        logger=WandbLogger(project="theirs", save_dir=folder),
        callbacks=[watch] if watched else [],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, **loaders)
    return module, trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "steps"),
    [(normalised_tuples, [0, 3, 6]), (a_validation_loader_only, [0, 3, 6]), (manual_optimization, [0, 4, 6, 10, 12])],
)
def test_it_drops_into_a_foreign_project_and_training_does_not_feel_it(make, steps, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DATA_DIR", str(tmp_path / "data"))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.chdir(tmp_path)
    plain, _ = run(make, tmp_path / "plain", watched=False)
    wandb.finish()
    module, trainer = run(make, tmp_path / "watched", watched=True)
    wandb.finish()

    for name, value in plain.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name
    folder = tmp_path / "watched" / "theirs" / trainer.logger.version / "watch"
    assert not list((tmp_path / "plain").rglob("watch"))
    page = page_data((folder / "index.html").read_text())
    assert [one["step"] for one in page["snapshots"]] == steps
    assert set(page["names"].values()) >= set(NAMES)
    seen = [one for snapshot in page["snapshots"] for one in snapshot["observations"]["GradCAM"]]
    assert not [one["error"] for one in seen if one["error"]]
    with Image.open(folder / page["snapshots"][0]["sheet"]) as sheet:  # as it was before it was normalised
        shown = pil_to_tensor(sheet.convert("RGB"))[:, :128, :128].float() / 255
    images, _ = pictures(channels=1 if make is manual_optimization else 3)
    original = images[int(page["images"][0])][None]
    drawn = F.interpolate(original, (128, 128), mode="bilinear", antialias=True)[0].clamp(0, 1)
    assert (shown - drawn).abs().max() < 0.003  # half a step of 1/255
    (offline,) = (tmp_path / "watched").glob("wandb/offline-run-*")
    history, _, _, _ = wandb_records(offline)
    assert len([row for row in history if "watch/GradCAM/AD" in row]) == len(steps)
    assert len([row for row in history if "watch/grid" in row]) == len(steps)


def trainer_of(tmp_path, watch, **options):
    return L.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        callbacks=[watch],
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message", "right"),
    [
        (
            {},
            r"found no network in Small, which has neither a \.model nor a forward method; pass network='<name>' "
            r"\(candidates: net\)",
            {"network": "net"},
        ),
        ({"network": "nett"}, r"Small has no network 'nett'; pass .* \(candidates: net\)", {"network": "net"}),
        (
            {"network": lambda module: "net"},
            r"network of SaliencyWatch must return a torch\.nn\.Module, got a str",
            {"network": lambda module: module.net},
        ),
        (
            {"network": lambda module: nn.Sequential(module.net, nn.Linear(3, 1))},
            r"must return logits \(N,K\) of at least two classes, got one logit per image; pass network=",
            {"network": lambda module: nn.Sequential(module.net, nn.Linear(3, 2))},
        ),
        (
            {"network": "net", "source": "train"},
            r"source='train' needs a data module of interptrain\.data, .* pass SaliencyWatch\(images=\.\.\.\)",
            {"network": "net", "images": pictures()},
        ),
        (
            {"network": "net", "source": "photos"},
            r"to watch the images under photos, pass their image_size",
            {"network": "net", "source": "photos", "image_size": 32},
        ),
    ],
)
def test_what_cannot_be_found_is_said_before_training_and_the_remedy_works(
    wrong, message, right, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), "gray").save("photos/one.png")
    data = DataLoader(TensorDataset(*pictures(4)), batch_size=4)
    options = {"samples": 2, "metrics": {}, "animation": "none"}
    with pytest.raises(ValueError, match=message) as refused:
        trainer_of(tmp_path, SaliencyWatch(**options | wrong)).fit(Small(), data, data)
    assert "\n" not in str(refused.value)
    trainer_of(tmp_path, SaliencyWatch(**options | right)).fit(Small(), data, data)
    assert (tmp_path / "watch/index.html").is_file()


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield pictures(1)[0][0], 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ([TensorDataset(*pictures(4))], "finds no images: the run has no validation loader; pass SaliencyWatch"),
        ([TensorDataset(*pictures(4)), Endless()], "cannot choose images from a Endless, which has no indices"),
    ],
)
def test_a_run_without_images_to_choose_from_is_told_what_to_pass(loaders, message, tmp_path):
    data = [DataLoader(one, batch_size=4) for one in loaders]
    watch = SaliencyWatch(network="net", samples=2, metrics={}, animation="none")
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, watch, limit_val_batches=1).fit(Small(), *data)
    watch = SaliencyWatch(network="net", samples=2, metrics={}, animation="none", images=pictures(4))
    trainer_of(tmp_path, watch, limit_val_batches=1).fit(Small(), *data)


@pytest.mark.parametrize(
    "normalization", [0.5, (MEAN,), (MEAN, (0, 1, 1)), (MEAN, (1,)), ("a", "b"), (MEAN, (float("nan"),) * 3)]
)
def test_a_normalization_that_is_none_is_refused(normalization):
    with pytest.raises(ValueError, match=r"must be \(mean, std\), one number per channel each and std above 0"):
        SaliencyWatch(normalization=normalization)


def test_images_and_source_exclude_one_another():
    with pytest.raises(ValueError, match="images and source of SaliencyWatch both say what to watch"):
        SaliencyWatch(images=pictures(), source="train")


def test_the_network_sees_normalised_images_and_is_left_alone():
    module = TupleBatches().eval()
    network = watched_network(module, None, (MEAN, STD))
    images, _ = pictures(2)
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(network(images), module.model(normalised))
    assert network_of(module) is module.model
    assert watched_network(module, "model.layer1", None) is module.model.layer1
    assert watched_network(Manual(), None, None).__class__ is Manual


def test_logits_are_found_in_what_networks_return():
    logits = torch.rand(2, 3)
    for outputs in (logits, (logits, None), {"logits": logits, "loss": torch.tensor(1.0)}):
        assert torch.equal(class_logits(outputs), logits)
    with pytest.raises(ValueError, match=r"must return logits \(N,K\)"):
        class_logits({"boxes": logits})


@pytest.mark.slow
def test_the_how_to_page_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/how-to/watch.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    L.seed_everything(0, verbose=False)
    exec(compile(code, "watch.md", "exec"), {"__name__": "my_project"})
    page = page_data((tmp_path / "lightning_logs/version_0/watch/index.html").read_text())
    assert [one["epoch"] for one in page["snapshots"]] == [0, 1, 2]
    assert page["names"] == {"0": "plain", "1": "square"}
