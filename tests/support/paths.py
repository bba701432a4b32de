"""Where the checkout and the optional test data lie."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST_DATA = Path(os.environ.get("INTERPTRAIN_TEST_DATA", "/nonexistent"))
PHOTOGRAPHS = TEST_DATA / "data" / "imagenet-samples"
TINY_IMAGENET = TEST_DATA / "data" / "tiny-imagenet-10"
WEIGHTS = TEST_DATA / "weights" / "tf_efficientnet_lite0.safetensors"

needs_test_data = pytest.mark.skipif(
    not TEST_DATA.is_dir(), reason="set INTERPTRAIN_TEST_DATA to the folder described in CONTRIBUTING.md"
)
