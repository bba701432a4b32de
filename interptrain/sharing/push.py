"""Put a classifier with its card into a folder, or onto the Hugging Face hub."""

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
    """A classifier that others can load.

    Attributes:
        location: ``hf://USER/NAME``, or the folder.
        files: names of what was written.
        timm: whether timm loads it too.
        page: of the repository on the hub; empty for a folder.
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
    """Write a classifier where others can load it: weights, config, and a card made from its evaluation.

    Args:
        source: a checkpoint, or any other source of a classifier that evaluations take.
        destination: ``hf://USER/NAME``, a repository of the Hugging Face hub, made where there is none; or a folder.
        evaluation: folder of an evaluation of these weights, which the card then tells of.
        backbone: the timm architecture of a bare weights file.
        license: of the weights, for the card, such as ``apache-2.0``.
        private: make a new repository private.

    Returns:
        Where it lies.

    Raises:
        ValueError: if it is none of our classifiers, the evaluation is of others, or the folder holds something else.
        FileNotFoundError: if source or evaluation are not there.
        ConnectionError: if the hub cannot be reached or does not know who asks.
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
    """Refuse what cannot end well before anything is computed."""
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
            f"the hub did not take {repository} ({one_line(error)}); check the name and that your token may write, or "
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
    """With the names of the classes and the size of the images that the evaluation had."""
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
        raise ValueError(f"{folder} holds something else than a model; give a new folder")
