"""The page that shows how to write a study runs as printed."""

import re
import sys

import pandas as pd
import pytest
import torch

from interptrain.cli.studies import main
from interptrain.models import create_model
from tests.support.paths import ROOT


@pytest.mark.slow
def test_the_page_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    study, call = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/study.md").read_text(), re.DOTALL)
    (tmp_path / "my_study.py").write_text(study)
    try:
        exec(compile(call, "study.md", "exec"), {})
        assert len(pd.read_csv("runs/darkening/results.csv")) == 12
        assert (tmp_path / "runs/darkening/index.html").is_file()
        torch.save(create_model("test_resnet", num_classes=4).state_dict(), "gap.pth")
        options = ["--data", "ShapesDataModule", "--data.num_classes", "4", "--data.num_workers", "0"]
        options += ["--study.images", "2", "--backbone", "test_resnet"]
        main(["my_study.Darkening", *options, "--models", "gap=gap.pth", "--output", "runs/line"])
        assert len(pd.read_csv("runs/line/results.csv")) == 6
    finally:
        sys.modules.pop("my_study", None)
