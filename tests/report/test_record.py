import json

import torch

from sslpurify.checkpoint import read
from sslpurify.compute import Compute
from sslpurify.data import read_images
from sslpurify.probes import Rate, wilson
from sslpurify.report import Evaluation, Row, provenance, versions
from tests.conftest import Files


def test_an_evaluation_has_the_documented_json_shape() -> None:
    row = Row("before", "knn", Rate(0.5, 0.4, 0.6, 100), None)
    assert Evaluation((row,), "all", 1.234).to_json() == {
        "results": [
            {
                "which": "before",
                "probe": "knn",
                "clean_accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100},
                "attack_success_rate": None,
            }
        ],
        "protocol": "all",
        "seconds": 1.23,
    }
    attacked = Row("after", "mlp", wilson(1, 2), wilson(2, 2))
    (told,) = Evaluation((attacked,), "all", 0.0).to_json()["results"]
    assert told["attack_success_rate"]["value"] == 1


def test_versions_name_what_decides_a_result() -> None:
    assert versions()["torch"] == torch.__version__.partition("+")[0]


def test_provenance_is_json_and_names_every_input(files: Files) -> None:
    parent, images = read(files.encoder), read_images(files.clean, None)
    origin = json.loads(json.dumps(provenance(parent, images, Compute(), "verb: x\n", 3)))
    assert origin["parent"] == {"file": "encoder.safetensors", "sha256": parent.sha256}
    assert origin["data"] == {"images": 24, "size": 16, "sha256": images.digest()}
    assert (origin["seed"], origin["recipe"]) == (3, "verb: x\n")
    assert (origin["device"], origin["precision"]) == ("cpu", "fp32")
