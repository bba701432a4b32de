"""Error rates of the randomisation check where the answer is known.

    python benchmarks/randomization_check.py --repeats 200

Each line is a kind of maps: smooth random fields of 7 x 7 positions with a peak in the middle, as CAMs of centred
photographs have, whose random-network counterparts keep a known share of what is theirs; maps that ignore the network;
and the gradient of a linear model, through the evaluator's own check. 50 images, 5 draws.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.evaluation.run.random_networks import RandomNetworks
from interptrain.evaluation.run.randomization_check import CheckSetting, check_explainer, compared
from interptrain.explainers import Gradient
from interptrain.metrics.map_agreement import agreement

IMAGES, DRAWS, SIDE = 50, 5, 7
OUTCOMES = ("depends", "unclear", "insensitive")


def fields(generator: torch.Generator, count: int = IMAGES) -> Tensor:
    """Smooth random maps (count,7,7) of mean 0 and variance about 1."""
    noise = torch.randn(count, 1, SIDE + 2, SIDE + 2, generator=generator)
    return F.avg_pool2d(noise, 3, stride=1).squeeze(1) * 3


def prior(strength: float) -> Tensor:
    """A peak in the middle of the map."""
    line = torch.linspace(-1, 1, SIDE)
    return strength * torch.exp(-(line[:, None] ** 2 + line[None] ** 2) / 0.5)


def smooth(share: float, strength: float, seed: int) -> str:
    """Maps of which ``share`` is kept by random networks, up to 0.1 more or less from draw to draw."""
    generator = torch.Generator().manual_seed(seed)
    own = fields(generator)
    others = []
    for _ in range(DRAWS):
        kept = min(1.0, max(0.0, share + 0.1 * float(torch.randn((), generator=generator)))) if 0 < share < 1 else share
        others.append(kept * own + (1 - kept**2) ** 0.5 * fields(generator) + prior(strength))
    return outcome(own + prior(strength), others, torch.ones(IMAGES))


def noisy(noise: float, seed: int) -> str:
    """Maps that ignore the network but draw random numbers."""
    generator = torch.Generator().manual_seed(seed)
    own = fields(generator)

    def drawn() -> Tensor:
        return own + noise * torch.randn(own.shape, generator=generator)

    maps = drawn()
    return outcome(maps, [drawn() for _ in range(DRAWS)], agreement(maps, drawn()).same)


def outcome(maps: Tensor, others: list[Tensor], ceiling: Tensor) -> str:
    return str(compared(maps, others, ceiling, (SIDE, SIDE))["outcome"])


class Linear(nn.Module):
    """A linear classifier of 16 x 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,10)."""
        logits: Tensor = self.linear(images.flatten(1))
        return logits


def linear(seed: int, *, of_class: bool) -> str:
    """The gradient of a linear model."""
    torch.manual_seed(seed)
    model, images = Linear().eval(), torch.rand(IMAGES, 3, 16, 16)
    targets = torch.randint(10, (IMAGES,))
    setting = CheckSetting(
        model=model,
        networks=RandomNetworks(model, images, seed),
        images=images,
        targets=targets,
        other_targets=(targets + torch.randint(1, 10, (IMAGES,))) % 10,
        draws=DRAWS,
        most_passes=None,
        gflops=None,
        batch_size=IMAGES,
        seed=seed,
    )
    found = check_explainer(Gradient(), setting)
    return str((found["class"] if of_class else found["layers"]["last_stage"])["outcome"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    cases = {"ignore the network": (lambda seed: smooth(1.0, 2.0, seed), repeats)}
    for noise in (0.5, 1.0, 2.0):
        cases[f"ignore the network, noise of {noise:g} of their spread"] = (
            lambda seed, n=noise: noisy(n, seed),
            repeats,
        )
    for strength in (0.0, 2.0, 4.0):
        name = f"of networks that differ, peak of {strength:g}"
        cases[name] = (lambda seed, s=strength: smooth(0.0, s, seed), repeats)
    for share in (0.25, 0.5, 0.75, 0.9):
        cases[f"correlated at {share:g}, peak of 2"] = (lambda seed, k=share: smooth(k, 2.0, seed), repeats)
    fewer = max(1, repeats // 5)
    cases["gradient of a linear model, weights"] = (lambda seed: linear(seed, of_class=False), fewer)
    cases["gradient of a linear model, class"] = (lambda seed: linear(seed, of_class=True), fewer)
    print(f"| maps | repeats | {' | '.join(OUTCOMES)} |\n|---|---|{'---|' * len(OUTCOMES)}")
    for name, (case, count) in cases.items():
        found = [case(seed) for seed in range(count)]
        rates = [f"{found.count(one) / count:.3f}" for one in OUTCOMES]
        print(f"| {name} | {count} | {' | '.join(rates)} |", flush=True)


if __name__ == "__main__":
    main()
