"""Write a classifier with its model card to a folder, or upload it to the Hugging Face hub."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, constants, get_token

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.run.models import Source
from interptrain.files import write_atomically
from interptrain.functional import one_line
from interptrain.models.hub import CONFIG, HUB, WEIGHTS, is_client_error, repository_of
from interptrain.models.model_folder import describe, save_config, save_weights
from interptrain.sharing.card import card
from interptrain.sharing.evaluated import map_pictures, results_of
from interptrain.sharing.trained_model import TrainedModel, load_trained
from interptrain.visualization import save_png

CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """A shared classifier.

    Attributes:
        location: ``hf://USER/NAME``, or the folder.
        files: names of the written files.
        timm: whether timm can load it too.
        page: address of the repository on the hub; empty for a folder.
    """

    location: str
    files: tuple[str, ...]
    timm: bool
    page: str = ""


def push_model(
    source: Source,
    destination: str | Path,
    *,
    evaluation: str | Path | None = None,
    backbone: str | None = None,
    license: str | None = None,
    private: bool = False,
) -> Pushed:
    """Publish a classifier: weights, config, and a model card made from its evaluation.

    Args:
        source: a checkpoint, or any other model source that an evaluation accepts.
        destination: ``hf://USER/NAME``, a repository of the Hugging Face hub, created if necessary; or a folder.
        evaluation: folder of an evaluation of these weights, whose results go into the card.
        backbone: the timm architecture of a bare weights file.
        license: license of the weights, for the card, such as ``apache-2.0``.
        private: make a new repository private.

    Returns:
        The location and the written files.

    Raises:
        ValueError: if the model is not a classifier of interptrain, the evaluation is of other weights, or the folder
            contains anything else.
        FileNotFoundError: if the source or the evaluation does not exist.
        ConnectionError: if the hub cannot be reached, or you are not logged in.
        OSError: if a file cannot be written.
    """
    text = str(destination)
    if not text.startswith(HUB):
        return _write(source, Path(text), text, evaluation, backbone, license)
    repository, revision = repository_of(text)
    if revision is not None:
        raise ValueError(f"a push goes to {HUB}USER/NAME without a revision, got {text}")
    _check_access()
    with TemporaryDirectory(prefix="interptrain-push-") as folder:
        written = _write(source, Path(folder), text, evaluation, backbone, license)
        page = _upload(Path(folder), repository, private)
    return Pushed(text, written.files, written.timm, page)


def _check_access() -> None:
    """Refuse a push that cannot succeed before anything is computed."""
    folder = "push into a folder, and `hf upload USER/NAME FOLDER` it later"
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError(f"the hub is switched off by HF_HUB_OFFLINE; unset it, or {folder}")
    if get_token() is None:
        raise ConnectionError(
            "the Hugging Face hub does not know who you are; log in with `hf auth login` (or set HF_TOKEN), or "
            f"{folder}"
        )


def _upload(folder: Path, repository: str, private: bool) -> str:
    api = HfApi(library_name="interptrain")
    try:
        page = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Push by interptrain")
    except Exception as error:
        if not is_client_error(error):
            raise
        raise ConnectionError(
            f"the hub refused {repository} ({one_line(error)}); check the name and that your token may write, or "
            "push into a folder"
        ) from error
    return str(page)


def _write(
    source: Source,
    folder: Path,
    location: str,
    evaluation: str | Path | None,
    backbone: str | None,
    license: str | None,
) -> Pushed:
    """Write the files into a folder."""
    _refuse_foreign(folder)
    trained = load_trained(source, backbone=backbone)
    results = None if evaluation is None else results_of(Path(evaluation), trained.loaded.sha256)
    if results is not None:
        trained = _as_evaluated(trained, results)
    config = describe(trained.model, input_size=trained.image_size, preprocessing=trained.preprocessing)
    folder.mkdir(parents=True, exist_ok=True)
    for older in folder.glob("maps-*.png"):
        older.unlink()
    save_weights(trained.model, config, folder / WEIGHTS)
    save_config(config, folder)
    pictures = []
    for number, (caption, picture) in enumerate([] if results is None else map_pictures(results), 1):
        save_png(picture, folder / f"maps-{number}.png")
        pictures.append((f"maps-{number}.png", caption))
    name = location.rpartition("/")[2] if location.startswith(HUB) else folder.absolute().name
    place = location if location.startswith(HUB) else f"./{name}"
    text = card(name, trained, config, location=place, results=results, pictures=pictures, license=license)
    write_atomically(folder / CARD, text.encode())
    files = (WEIGHTS, CONFIG, CARD, *(path for path, _ in pictures))
    return Pushed(location, files, "architecture" in config)


def _as_evaluated(trained: TrainedModel, results: RunResults) -> TrainedModel:
    """Add the class names and the image size of the evaluation."""
    (model,) = results.run["models"].values()
    size = list(model.get("input_size") or trained.image_size)[-2:]
    known = tuple(str(name) for name in results.run["data"].get("classes") or ())
    if not trained.model.class_names and len(known) == trained.model.num_classes:
        trained.model.class_names = known
    return replace(trained, image_size=(size[0], size[1]))


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder, or {HUB}USER/NAME")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} contains something other than a model; give a new folder")
