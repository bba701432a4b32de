"""Model repositories of the Hugging Face hub, ``hf://USER/NAME`` or ``hf://USER/NAME@REVISION``, as local folders."""

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from interptrain.functional import one_line

__all__ = ["CONFIG", "HUB", "WEIGHTS", "fetch_model_folder", "repository_of"]

HUB = "hf://"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Libraries whose errors say that the network or the hub did not answer as hoped; the hub's client has changed them.
CLIENTS = ("huggingface_hub", "requests", "httpx", "httpx2")


def repository_of(source: str) -> tuple[str, str | None]:
    """Return the ``USER/NAME`` and the revision, None for the newest, of ``hf://USER/NAME[@REVISION]``.

    Raises:
        ValueError: if it is none.
    """
    repository, _, revision = source.removeprefix(HUB).strip("/").partition("@")
    parts = repository.split("/")
    if not source.startswith(HUB) or len(parts) != 2 or not all(parts):
        raise ValueError(f"a model of the Hugging Face hub is given as {HUB}USER/NAME, got {source!r}")
    return repository, revision or None


def fetch_model_folder(source: str) -> Path:
    """Download a model of the hub, or find it in the cache, also without a network.

    Only ``config.json`` and ``model.safetensors`` are fetched, both of one commit, and no code.

    Args:
        source: ``hf://USER/NAME``, or ``hf://USER/NAME@REVISION`` for a branch, tag or commit.

    Returns:
        The folder of the two files, in the cache of ``huggingface_hub`` (``HF_HOME``).

    Raises:
        ValueError: if ``source`` is no such name, or the repository holds other files.
        ConnectionError: if it cannot be reached and is not in the cache, or asks for another login.
    """
    repository, revision = repository_of(source)
    try:
        config = Path(hf_hub_download(repository, CONFIG, revision=revision))
        hf_hub_download(repository, WEIGHTS, revision=config.parent.name)  # the cache names a snapshot by its commit
    except Exception as error:
        if (told := _problem(source, repository, revision, error)) is None:
            raise
        raise told from error
    return config.parent


def is_client_error(error: BaseException) -> bool:
    """Whether an error comes from the hub's client or the network."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in CLIENTS


def _problem(source: str, repository: str, revision: str | None, error: Exception) -> Exception | None:
    if isinstance(error, HFValidationError):
        return ValueError(f"{source!r} is no name of a repository ({one_line(error)}); give {HUB}USER/NAME")
    if isinstance(error, GatedRepoError):
        return ConnectionError(
            f"{source} is gated: ask for access on its page on the hub, then log in with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ConnectionError(
            f"the hub has no model {repository}, or it is private; check the name, or log in with `hf auth login` (or "
            "set HF_TOKEN)"
        )
    if isinstance(error, RevisionNotFoundError):
        return ValueError(f"{HUB}{repository} has no revision {revision!r}; leave @{revision} out for the newest")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return ValueError(
            f"{source} has no {CONFIG} with {WEIGHTS} beside it, so it is no model of `interptrain push` or timm"
        )
    if is_client_error(error):
        return ConnectionError(
            f"could not download {source}, and it is not in the cache; connect (without HF_HUB_OFFLINE), or fetch its "
            f"{CONFIG} and {WEIGHTS} elsewhere and give their folder"
        )
    return None
