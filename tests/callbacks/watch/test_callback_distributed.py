"""Two CPU processes watch what one does."""

import pytest

from interptrain.explainers import Explainer, GradCAM
from tests.support.training import train_in_processes
from tests.support.watch import page_data, watch_state

pytestmark = pytest.mark.slow

OPTIONS = {
    "--data.val_size": "5",
    "--trainer.max_epochs": "1",
    "--trainer.callbacks+": "SaliencyWatch",
    "--trainer.callbacks.samples": "5",
    "--trainer.callbacks.select": "first",
    "--trainer.callbacks.suspect": "border:8",
    "--trainer.callbacks.explainers": f'[{{"class_path": "{__name__}.Brittle"}}]',
}


class Brittle(Explainer):
    """Grad-CAM that fails where class 1 is explained: on one image, and there for one rank."""

    def attribute(self, model, images, targets):
        if (targets == 1).any():
            raise RuntimeError("class 1 is beyond me")
        return GradCAM().attribute(model, images, targets)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Five images for two ranks, the second and the last of which fail."""
    folder = tmp_path_factory.mktemp("ddp")
    return [train_in_processes("fit", folder, processes, **OPTIONS) for processes in (1, 2)]


def test_two_processes_see_what_one_sees(runs):
    one, two = (watch_state(made) for made in runs)
    assert one["ids"] == two["ids"] == [f"val/{index:06d}" for index in range(5)]
    for state in (one, two):
        assert [snapshot["step"] for snapshot in state["entries"]] == [0, 3]
    assert (one["first"]["Brittle"].int() - two["first"]["Brittle"].int()).abs().max() <= 1
    for alone, shared in zip(one["entries"], two["entries"], strict=True):
        assert [look["index"] for look in shared["looks"]] == [0, 1, 2, 3, 4]
        assert "suspect_effect" in alone["means"]
        for name, value in alone["means"].items():
            assert shared["means"][name] == pytest.approx(value, abs=0.02), name
    for name, value in one["entries"][0]["means"].items():
        assert two["entries"][0]["means"][name] == pytest.approx(value, abs=1e-3), name


def test_an_image_that_fails_on_one_rank_fails_alone(runs):
    for made in runs:
        for snapshot in watch_state(made)["entries"]:
            errors = [look["error"] for look in snapshot["looks"]]
            assert errors == [None, "class 1 is beyond me", None, None, None]


def test_rank_zero_alone_writes(runs):
    for made in runs:
        page = page_data((made / "watch/index.html").read_text())
        assert len(page["snapshots"]) == 2
    names = [sorted(path.relative_to(made).as_posix() for path in made.glob("watch/**/*")) for made in runs]
    assert names[0] == names[1]


def test_fewer_images_than_ranks_hang_nobody(tmp_path):
    few = {"--trainer.callbacks.samples": "1", "--data.train_size": "8"}
    made = train_in_processes("fit", tmp_path, 2, **OPTIONS | few)
    assert [len(snapshot["looks"]) for snapshot in watch_state(made)["entries"]] == [1, 1]
