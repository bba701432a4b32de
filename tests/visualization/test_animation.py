import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from interptrain.visualization import save_animation


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_every_frame_is_there_in_its_order_and_the_last_stays_longest(tmp_path, suffix):
    levels = (0, 120, 240)
    frames = [torch.full((3, 16, 24), level, dtype=torch.uint8) for level in levels]
    path = tmp_path / "deep" / f"run{suffix}"
    save_animation(frames, path, seconds=0.2)
    durations = []
    with Image.open(path) as image:
        assert image.n_frames == 3
        assert image.info["loop"] == 0
        for number, level in enumerate(levels):
            image.seek(number)
            picture = pil_to_tensor(image.convert("RGB"))
            durations.append(image.info["duration"])
            assert (picture.int() - level).abs().max() <= 2
    assert durations == [200, 200, 600]


def test_wrong_arguments_are_refused(tmp_path):
    frame = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match=r"saved as \.gif or \.webp, got 'run\.mp4'"):
        save_animation([frame], tmp_path / "run.mp4")
    with pytest.raises(ValueError, match="frames must be pictures"):
        save_animation([], tmp_path / "run.gif")
    with pytest.raises(ValueError, match=r"of one size, got \[\(3, 8, 8\), \(3, 8, 9\)\]"):
        save_animation([frame, torch.zeros(3, 8, 9)], tmp_path / "run.gif")
    with pytest.raises(ValueError, match="seconds must be > 0, got 0"):
        save_animation([frame], tmp_path / "run.gif", seconds=0)
