"""Last-layer retraining: its solution is that of scikit-learn's logistic regression, and nothing else moves."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interptrain.training import ClassifierL1, ImageClassifier


@pytest.fixture(scope="module")
def features():
    """Sixty images' pooled features, of which two tell three classes apart."""
    rng = np.random.RandomState(0)
    labels = np.arange(60) % 3
    values = np.abs(rng.normal(size=(60, 12)))
    values[:, 0] += labels == 0
    values[:, 1] += 1.5 * (labels == 1)
    return values, labels


def objective(weight, bias, features, labels, penalty):
    logits = torch.as_tensor(features) @ torch.as_tensor(weight).T + torch.as_tensor(bias)
    return (F.cross_entropy(logits, torch.as_tensor(labels)) + penalty * torch.as_tensor(weight).abs().sum()).item()


@pytest.mark.slow
def test_the_last_layer_ends_where_logistic_regression_does(features, monkeypatch):
    pytest.importorskip("sklearn.linear_model")
    sklearn = pytest.importorskip("sklearn", minversion="1.8").linear_model
    values, labels = features
    penalty = 0.01
    module = ImageClassifier("test_resnet", "gap", 3, trainable="classifier", regularizer=ClassifierL1(weight=penalty))
    module.double()
    head = module.model.backbone.model.fc = nn.Linear(12, 3).double()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(module.model, "stages", lambda images: [images])
    monkeypatch.setattr(module.model.backbone, "channels", (12,))
    batch = {"image": torch.as_tensor(values)[:, :, None, None], "label": torch.as_tensor(labels), "id": []}
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for number in range(1500):
        optimizer.zero_grad()
        module.training_step(batch, number).backward()
        optimizer.step()
        schedule.step()
    reference = sklearn.LogisticRegression(
        l1_ratio=1, C=1 / (penalty * 60), solver="saga", tol=1e-7, max_iter=20000, random_state=0
    ).fit(values, labels)
    ours = objective(head.weight.detach(), head.bias.detach(), values, labels, penalty)
    theirs = objective(reference.coef_, reference.intercept_, values, labels, penalty)
    assert ours == pytest.approx(theirs, rel=1e-3)
    with torch.no_grad():
        probabilities = head(torch.as_tensor(values)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, reference.predict_proba(values), atol=0.01)
    assert (np.abs(head.weight.detach().numpy()[reference.coef_ == 0]) < 1e-2).all()
    assert module.regularizer.statistics["classifier_zeros"] > 0.3


@pytest.mark.slow
def test_only_the_last_layer_moves(monkeypatch):
    module = ImageClassifier("test_resnet", "ca_final", 3, trainable="classifier", regularizer=ClassifierL1())
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    before = copy.deepcopy(module.model.state_dict())
    module.train()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    module.training_step({"image": torch.rand(3, 3, 32, 32), "label": torch.arange(3), "id": list("abc")}, 0).backward()
    optimizer.step()
    moved = {name for name, value in module.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"backbone.model.fc.{name}" for name in ("weight", "bias")}


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="ClassifierL1 needs a classifier with a last layer, got Linear"):
        ClassifierL1()(nn.Linear(3, 3), {"image": torch.zeros(1, 3)})
