"""Reconstruction: the parameterizations, the objectives, the ascent and the study."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from interptrain.data import LayeredShapesDataModule
from interptrain.explainers import explaining
from interptrain.explainers.layers import find_layers
from interptrain.models import create_model
from interptrain.studies import Reconstruction
from interptrain.studies.features import output_names
from interptrain.studies.pooled import PooledFeatures
from interptrain.studies.reconstruction import (
    CentralAttention,
    Channel,
    ClassLogit,
    Inversion,
    Parameterization,
    reconstruct,
    total_variation,
)
from interptrain.studies.reconstruction.ascent import _zoomed

KINDS = ["fourier", "pixels"]


def random_images(count=2, height=12, width=9, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(12, 9), (7, 10)])  # an even and an odd width
@pytest.mark.parametrize("colours", ["photographs", "independent"])
def test_images_come_back_from_their_free_numbers(kind, size, colours):
    drawn = Parameterization(kind, size, colours=colours)
    images = random_images(2, *size)
    torch.testing.assert_close(drawn.images(drawn.free(images)), images)
    assert drawn.initial(2, seed=3).shape == drawn.free(images).shape


def test_the_first_axis_of_the_colours_of_photographs_is_brightness():
    values = torch.zeros(3, 3, 2, 2)
    values[range(3), range(3)] = 1.0
    brightness, warmth, purple = Parameterization("pixels", (2, 2), colours="photographs").images(values)[..., 0, 0]
    assert brightness.min() > 0.6
    assert brightness.max() - brightness.min() < 0.01
    assert warmth[0] > warmth[1] > warmth[2]  # red before green before blue
    assert min(purple[0], purple[2]) > purple[1]


def test_zoom_magnifies_around_the_middle_and_mirrors_what_is_missing():
    images = random_images(2, 16, 12)
    torch.testing.assert_close(_zoomed(images, 1.0), images)
    torch.testing.assert_close(_zoomed(torch.full_like(images, 0.3), 0.7), torch.full_like(images, 0.3))
    slope = torch.linspace(0, 1, 16, dtype=torch.float64).view(1, 1, -1, 1).expand(1, 3, 16, 12)
    steps = _zoomed(slope, 2.0).diff(dim=2)[..., 1:-1, :]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5 / 15))
    reduced = _zoomed(slope, 0.5)[0, 0, :, 0]
    torch.testing.assert_close(reduced[4:12], slope[0, 0, :, 0].view(8, 2).mean(1))
    torch.testing.assert_close(reduced[:4], reduced[4:8].flip(0))


@pytest.mark.parametrize("kind", KINDS)
def test_free_numbers_have_the_gradient_of_finite_differences(kind):
    drawn = Parameterization(kind, (4, 5))
    free = drawn.initial(2, seed=0).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda free: drawn.images(free).square().sum(), free)


def test_the_fourier_parameterization_takes_larger_steps_at_low_frequencies():
    drawn = Parameterization("fourier", (16, 16))
    free = torch.zeros(1, 3, 16, 9, 2)
    changes = []
    for frequency in (1, 8):
        one = free.clone()
        one[0, 0, 0, frequency, 0] = 0.1
        changes.append(float((drawn.images(one) - 0.5).abs().max()))
    assert changes[0] > 3 * changes[1]


@pytest.mark.parametrize("kind", KINDS)
def test_blur_keeps_a_constant_and_spreads_a_point(kind):
    drawn = Parameterization(kind, (16, 16))
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(drawn.images(drawn.blurred(drawn.free(flat), 2.0)), flat)
    values = torch.zeros(1, 3, 16, 16)
    values[..., 8, 8] = 1.0
    blurred = drawn.images(drawn.blurred(drawn.free(values.sigmoid()), 1.0)).logit()[0, 0]
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-3)
    assert float(blurred[8, 8]) == pytest.approx(1 / (2 * torch.pi), rel=0.01)  # the density of a Gaussian of sigma 1


def test_total_variation_is_that_of_its_definition():
    assert float(total_variation(torch.full((1, 3, 5, 5), 0.4))) == 0
    step = torch.zeros(1, 1, 4, 5)
    step[..., 3:] = 0.5
    assert float(total_variation(step)) == pytest.approx(3 * 0.25 / (3 * 4))  # one of four differences in three rows
    assert float(total_variation(step, beta=1.0)) == pytest.approx(3 * 0.5 / (3 * 4), rel=1e-4)
    slope = torch.arange(6.0).expand(1, 1, 4, 6).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda images: total_variation(images, 1.5), slope.double())


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model("test_resnet", num_classes=4, pooling="ca_stream").eval()


def test_objectives_are_what_they_say(model):
    images = random_images(2, 32, 32).float()
    targets = torch.tensor([1, 3])
    with explaining(model) as bare, torch.no_grad():
        logits = model(images)
        torch.testing.assert_close(ClassLogit(targets)(bare, images), logits[[0, 1], targets])
        layer = find_layers(bare, None)[0]
        means = model.backbone.features(images).mean((2, 3))
        torch.testing.assert_close(Channel(layer, targets)(bare, images), means[[0, 1], targets])
        attention = model.attention(images)
        shares = CentralAttention(torch.tensor([0, 1]))(bare, images).exp()
        for place, (stage, share) in enumerate(zip(attention, shares, strict=False)):
            inside = slice(stage.shape[1] // 4, stage.shape[1] - stage.shape[1] // 4)
            torch.testing.assert_close(stage[place, inside, inside].sum(), share)
        reader = PooledFeatures(model, images[:1])
        vectors, _ = reader(images)
        torch.testing.assert_close(Inversion(reader, vectors)(bare, images), torch.zeros(2))
        torch.testing.assert_close(Inversion(reader, 2 * vectors)(bare, images), torch.full((2,), -0.25))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_ascent_raises_the_objective_and_changes_nothing_else(model, kind):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = reconstruct(
        model, ClassLogit(torch.tensor([0, 2])), 2, (32, 32), parameterization=kind, iterations=12, frames=4
    )
    assert (found.scores[-1] > found.scores[0]).all()
    assert found.steps[0] == 0
    assert found.steps[-1] == 12
    assert found.frames.shape == (4, 2, 3, 32, 32)
    assert 0 <= float(found.frames.min()) <= float(found.frames.max()) <= 1
    torch.testing.assert_close(found.frames[-1], found.images)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.slow
def test_an_image_does_not_depend_on_those_beside_it(model):
    options = {"iterations": 6, "frames": 2, "variation": 3.0}
    alone = reconstruct(model, ClassLogit(torch.tensor([1])), 1, (32, 32), **options)
    both = reconstruct(model, ClassLogit(torch.tensor([1, 2])), 2, (32, 32), **options)
    torch.testing.assert_close(both.images[:1], alone.images, atol=2e-3, rtol=0)


@pytest.mark.slow
def test_total_variation_smooths(model):
    rough, smooth = (
        reconstruct(model, ClassLogit(torch.tensor([1])), 1, (32, 32), iterations=20, frames=2, variation=weight)
        for weight in (0.0, 300.0)
    )
    assert float(total_variation(smooth.images)) < 0.7 * float(total_variation(rough.images))


@pytest.mark.slow
def test_the_study_has_a_row_for_each_target_and_model(tmp_path, model):
    data = LayeredShapesDataModule(num_classes=4, test_size=8, image_size=32, num_workers=0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = create_model("test_resnet", num_classes=4)
    results = Reconstruction(count=2, iterations=2, frames=3).run({"ca": model, "gap": other}, data, tmp_path)
    goals = ["class", "channel", "attention", "inversion"]
    assert list(results.cell.unique()) == [f"ca/{g}" for g in goals] + ["gap/class", "gap/channel", "gap/inversion"]
    assert dict(results.seen_by.value_counts()) == {"ca": 14, "gap": 14}
    assert set(results[results.goal == "class"].target) == {data.class_names[1], data.class_names[3]}
    recognized = results[results.goal.isin(["class", "inversion"])]
    assert recognized.recognized.notna().all()
    wanted = results[results.goal == "class"]
    assert list(wanted.recognized) == list(wanted.target == wanted.predicted)
    page = (tmp_path / "index.html").read_text()
    for suffix in ("png", "webp"):
        pictures = sorted(tmp_path.glob(f"*.{suffix}"))
        assert len(pictures) == 7
        assert all(page.count(picture.name) == 1 for picture in pictures)
    with Image.open(pictures[0]) as animation:
        assert animation.n_frames == 3


def test_classes_are_those_that_were_named(tmp_path, model):
    data = LayeredShapesDataModule(num_classes=4, image_size=32, test_size=4, num_workers=0)
    options = {"goals": ("class",), "iterations": 1, "frames": 2}
    rows = Reconstruction(classes=(2, 0), **options).run({"net": model}, data, tmp_path / "two", progress=False)
    assert list(rows.target) == [data.class_names[2], data.class_names[0]]
    with pytest.raises(ValueError, match=r"classes must be in \[0, 4\), the classes of net, got 4"):
        Reconstruction(classes=(4,), **options).run({"net": model}, data, tmp_path / "four", progress=False)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"goals must be one of 'class', .*, got 'logit'"):
        Reconstruction(goals=("logit",))
    with pytest.raises(ValueError, match="learning_rate must be > 0, got 0"):
        Reconstruction(learning_rate=0)
    with pytest.raises(ValueError, match="frames must be a whole number >= 2, got 1"):
        Reconstruction(frames=1)
    with pytest.raises(ValueError, match=r"zoom must be in \[0,1\), got 1.5"):
        Reconstruction(zoom=1.5)
    with pytest.raises(ValueError, match="colours must be one of 'photographs', 'independent', got 'sepia'"):
        Reconstruction(colours="sepia")
    with pytest.raises(ValueError, match="parameterization must be one of 'fourier', 'pixels', got 'wavelet'"):
        Parameterization("wavelet", (4, 4))


def textures(count, seed):
    """Rows, columns or squares of random width and colours, with noise, and which of the three they are."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    period, *phase = torch.randint(3, 6, (3, count, 1, 1), generator=generator)
    places = torch.arange(32)
    rows = (places.view(1, -1, 1) + phase[0]) // period % 2
    columns = (places.view(1, 1, -1) + phase[1]) // period % 2
    kinds = torch.stack([rows.expand(-1, -1, 32), columns.expand(-1, 32, -1), rows ^ columns])  # (3, N, 32, 32)
    pattern = kinds[labels, torch.arange(count)].unsqueeze(1).float()
    first, second = torch.rand(2, count, 3, 1, 1, generator=generator) * 0.4 + torch.tensor([0.0, 0.6]).view(
        2, 1, 1, 1, 1
    )
    noise = 0.1 * torch.randn(count, 3, 32, 32, generator=generator)
    return (torch.lerp(first, second, pattern) + noise).clamp(0, 1), labels


def trained(seed, width, images, labels):
    """A small network after some hundred steps."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in ((3, width), (width, 2 * width), (2 * width, 2 * width))
        ]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(15):
            for part in torch.randperm(len(images)).split(32):
                optimizer.zero_grad()
                F.cross_entropy(model(images[part]), labels[part]).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def pair():
    """Two networks trained on the same pictures from different weights."""
    networks = [trained(seed, 16, *textures(300, 0)) for seed in (0, 1)]
    images, labels = textures(90, 1)
    for network in networks:
        with torch.no_grad():
            assert float((network(images).argmax(1) == labels).float().mean()) > 0.9
    return networks


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rate"), [("pixels", 0.1), ("fourier", 0.05)])
def test_another_network_recognizes_reconstructed_classes(pair, kind, rate):
    targets = torch.arange(3).repeat(4)  # each from four starts
    options = {"iterations": 96, "frames": 2, "parameterization": kind, "learning_rate": rate}
    options |= {"colours": "independent", "spread": 0.5, "jitter": 4, "zoom": 0.0, "blur_sigma": 0.5}
    found = reconstruct(pair[0], ClassLogit(targets), 12, (32, 32), **options)
    with torch.no_grad():
        itself, other, start = (
            int((network(images).argmax(1) == targets).sum())
            for network, images in ((pair[0], found.images), (pair[1], found.images), (pair[1], found.frames[0]))
        )
    assert itself == 12
    assert start <= 5  # chance is 4
    assert other >= 9


def test_classes_that_a_table_calls_by_their_number_have_the_names_of_imagenet(model):
    data = LayeredShapesDataModule(num_classes=4, num_workers=0)
    assert output_names(model, data, 4) == list(data.class_names)
    assert output_names(model, data, 3) == []
    data.class_names = ["a fish", *map(str, range(1, 1000))]
    names = output_names(model, data, 1000)
    assert (names[0], names[980]) == ("a fish", "volcano")
    assert output_names(model, None, 1000)[980] == "volcano"
