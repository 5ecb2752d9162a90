import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from torch.nn import functional as F

from sslpurify.errors import CheckpointError, TrainingError
from sslpurify.probes.linear import LinearSettings, _solve, linear_predict
from tests.probes.clusters import clusters

BANK, LABELS = clusters(300, seed=1, spread=1.5)
QUERIES, TRUTH = clusters(200, seed=2, spread=1.5)


def independent(bank, labels, classes, c):
    """scikit-learn's objective, C · Σ loss + ½ ‖W‖², minimised by scipy on numpy arrays."""
    x = F.normalize(bank.double()).numpy()
    onehot = np.eye(classes)[labels.numpy()]

    def objective(flat):
        table = flat.reshape(classes, -1)
        logits = x @ table[:, :-1].T + table[:, -1]
        loss = c * (logsumexp(logits, axis=1) - (logits * onehot).sum(axis=1)).sum()
        slope = c * (softmax(logits, axis=1) - onehot)
        gradient = np.hstack([slope.T @ x + table[:, :-1], slope.sum(axis=0)[:, None]])
        return loss + 0.5 * (table[:, :-1] ** 2).sum(), gradient.ravel()

    start = np.zeros(classes * (x.shape[1] + 1))
    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-8}
    return minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x.reshape(
        classes, -1
    )


@pytest.mark.parametrize("c", [0.1, 10.0])
def test_the_optimum_is_scikit_learns(c):
    table = torch.from_numpy(independent(BANK, LABELS, 5, c))
    settings = LinearSettings(inverse_penalty=c)
    unit = F.normalize(BANK).double()
    weight, bias = _solve(unit, LABELS, 5, settings)
    torch.testing.assert_close(weight, table[:, :-1], atol=2e-3, rtol=1e-3)
    # A constant added to all intercepts changes nothing.
    torch.testing.assert_close(
        bias - bias.mean(), table[:, -1] - table[:, -1].mean(), atol=2e-3, rtol=1e-3
    )
    scores = F.normalize(QUERIES.double()) @ table[:, :-1].T + table[:, -1]
    found = linear_predict(BANK, LABELS, QUERIES, 5, settings)
    assert torch.equal(found, scores.argmax(dim=1))


def test_scikit_learn_agrees():
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.LogisticRegression(C=10, max_iter=1000, tol=1e-8)
    model.fit(F.normalize(BANK).double().numpy(), LABELS.numpy())
    expected = torch.from_numpy(model.predict(F.normalize(QUERIES).double().numpy()))
    assert torch.equal(linear_predict(BANK, LABELS, QUERIES, 5), expected)


def test_it_classifies():
    found = linear_predict(BANK, LABELS, QUERIES, 5)
    assert (found == TRUTH).float().mean() > 0.75


def test_neither_the_banks_order_nor_inference_mode_matters():
    order = torch.randperm(len(BANK), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        bank = BANK[order] * 3
    found = linear_predict(bank, LABELS[order], QUERIES, 5)
    assert torch.equal(found, linear_predict(BANK, LABELS, QUERIES, 5))


def test_an_optimum_that_was_not_reached_is_said():
    with pytest.raises(TrainingError, match="did not converge in 2 iterations"):
        linear_predict(BANK, LABELS, QUERIES, 5, LinearSettings(max_iterations=2))


def test_unusable_embeddings_are_refused():
    with pytest.raises(CheckpointError, match="collapsed"):
        linear_predict(torch.ones(300, 16), LABELS, QUERIES, 5)


def test_settings_have_no_other_keys():
    with pytest.raises(ValidationError):
        LinearSettings.model_validate({"C": 1.0})
