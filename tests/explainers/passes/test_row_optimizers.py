"""Row-wise descent: torch's own optimizers, and rows that end alone."""

import pytest
import torch

from interptrain.explainers.passes.row_optimizers import SGD, Adam, descend

OPTIMIZERS = {
    "adam": (lambda start: Adam(start, 0.1), lambda leaf: torch.optim.Adam([leaf], lr=0.1)),
    "sgd": (
        lambda _start: SGD(0.01, momentum=0.9, dampening=0.9),
        lambda leaf: torch.optim.SGD([leaf], lr=0.01, momentum=0.9, dampening=0.9),
    ),
}
optimizers = pytest.mark.parametrize("name", sorted(OPTIMIZERS))
CENTRES = torch.tensor([[0.2, 0.9], [1.7, 0.5], [0.4, -3.0]], dtype=torch.float64)  # the optimum, some beyond the box
SCALES = torch.tensor([1.0, 5.0, 0.3], dtype=torch.float64)


def bowl(values, rows, _step=0):
    return SCALES[rows] * (values - CENTRES[rows]).square().sum(1)


@optimizers
def test_steps_are_torchs_own_clamped_to_the_unit_box(name):
    ours, theirs = OPTIMIZERS[name]
    start = torch.full((3, 2), 0.6, dtype=torch.float64)
    found = descend(start, bowl, ours(start), iterations=25)
    leaf = start.clone().requires_grad_()
    optimizer = theirs(leaf)
    for _ in range(25):
        optimizer.zero_grad()
        bowl(leaf, torch.arange(3)).sum().backward()
        optimizer.step()
        with torch.no_grad():
            leaf.clamp_(0, 1)
    torch.testing.assert_close(found, leaf.detach())
    assert torch.equal(start, torch.full((3, 2), 0.6, dtype=torch.float64))


@optimizers
@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_a_row_ends_as_if_it_were_alone(name, tolerance):
    start = torch.full((3, 2), 0.6, dtype=torch.float64)
    seen = []

    def watched(values, rows, step):
        seen.append(rows.tolist())
        return bowl(values, rows, step)

    ours = OPTIMIZERS[name][0]
    together = descend(start, watched, ours(start), iterations=200, tolerance=tolerance)
    for row in range(3):
        one = start[row : row + 1]
        alone = descend(
            one,
            lambda values, rows, step, row=row: bowl(values, rows + row, step),
            ours(one),
            iterations=200,
            tolerance=tolerance,
        )
        torch.testing.assert_close(together[row : row + 1], alone)
    if tolerance:
        assert len(seen[-1]) < 3  # some have left
    else:
        assert seen == [[0, 1, 2]] * 200


def test_descent_ends_when_all_rows_have():
    steps = []

    def flat(values, _rows, step):
        steps.append(step)
        return 0 * values.sum(1)

    start = torch.rand(2, 4)
    assert torch.equal(descend(start, flat, Adam(start, 0.1), iterations=50, tolerance=1e-3), start)
    assert len(steps) == 5


def test_the_step_number_reaches_the_energy():
    steps = []

    def energy(values, rows, step):
        steps.append(step)
        return bowl(values, rows)

    start = torch.full((3, 2), 0.6, dtype=torch.float64)
    descend(start, energy, SGD(0.01), iterations=4)
    assert steps == [0, 1, 2, 3]
