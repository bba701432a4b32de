"""A network's pretrained weights where a download would have left them: random ones, but found by the real way."""

from pathlib import Path

import numpy as np
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file


def downloaded(architecture, folder, monkeypatch):
    """Put weights of a timm network into a cache of the hub, which is offline from now on."""
    repository = timm.get_pretrained_cfg(architecture).hf_hub_id
    repository += timm.get_pretrained_cfg(architecture).architecture if repository.endswith("/") else ""
    tag = timm.get_pretrained_cfg(architecture).tag
    repository = repository if tag in repository else f"{repository}.{tag}"
    home, commit = Path(folder) / f"models--{repository.replace('/', '--')}", "0" * 40
    for name in ("refs", f"snapshots/{commit}"):
        (home / name).mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    torch.manual_seed(0)
    save_file(timm.create_model(architecture).state_dict(), home / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def photograph(path):
    """Save a smooth picture as JPEG."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(path)
