import pytest
import torch

from sslpurify.errors import DataError
from sslpurify.probes.knn import KnnSettings, knn_predict
from sslpurify.probes.linear import LinearSettings, linear_predict
from sslpurify.probes.mlp import MlpSettings, mlp_predict
from sslpurify.probes.predict import ProbeSettings, predict
from tests.probes.clusters import clusters

BANK, LABELS = clusters(120, seed=1, spread=2.0)
QUERIES, _ = clusters(60, seed=2, spread=2.0)
SETTINGS = ProbeSettings(
    knn=KnnSettings(k=3, temperature=0.5),
    linear=LinearSettings(inverse_penalty=0.01),
    mlp=MlpSettings(epochs=2, batch_size=16),
)


def test_every_probe_gets_its_own_settings():
    expected = {
        "knn": knn_predict(BANK, LABELS, QUERIES, 5, k=3, temperature=0.5),
        "linear": linear_predict(BANK, LABELS, QUERIES, 5, SETTINGS.linear),
        "mlp": mlp_predict(BANK, LABELS, QUERIES, 5, 7, SETTINGS.mlp),
    }
    for probe, classes in expected.items():
        assert torch.equal(predict(probe, BANK, LABELS, QUERIES, 5, 7, SETTINGS), classes)
    assert len({tuple(classes.tolist()) for classes in expected.values()}) == 3


def test_the_default_neighbours_need_a_bank_of_their_number():
    with pytest.raises(DataError, match="k = 200"):
        predict("knn", BANK, LABELS, QUERIES, 5, 0)
