import json

import pytest
import torch

from sslpurify.checkpoint import read
from sslpurify.compute import Compute
from sslpurify.data import read_images
from sslpurify.probes import Change, Rate, wilson
from sslpurify.report import (
    Changes,
    CheckpointName,
    ClassRates,
    Evaluation,
    EvaluationOrigin,
    Row,
    provenance,
    versions,
)
from tests.conftest import Files


def test_an_evaluation_has_the_documented_json_shape() -> None:
    rate = Rate(0.5, 0.4, 0.6, 100)
    told = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    row = Row("before", "knn", rate, None, (ClassRates("ant", rate, None),))
    change = Change(-0.1, -0.2, 0.0, 100, 12, 2, 0.01)
    evaluation = Evaluation((row,), "all", 1.234, (Changes("knn", change, None),))
    assert evaluation.to_json() == {
        "results": [
            {
                "which": "before",
                "probe": "knn",
                "clean_accuracy": told,
                "attack_success_rate": None,
                "classes": [{"name": "ant", "clean_accuracy": told, "attack_success_rate": None}],
            }
        ],
        "changes": [
            {
                "probe": "knn",
                "clean_accuracy": {
                    "value": -0.1,
                    "low": -0.2,
                    "high": 0.0,
                    "n": 100,
                    "only_before": 12,
                    "only_after": 2,
                    "p": 0.01,
                },
                "attack_success_rate": None,
            }
        ],
        "protocol": "all",
        "seconds": 1.23,
    }
    attacked = Row("after", "mlp", wilson(1, 2), wilson(2, 2))
    (told,) = Evaluation((attacked,), "all", 0.0).to_json()["results"]
    assert told["attack_success_rate"]["value"] == 1


def test_an_evaluation_says_how_it_was_made_and_can_be_read_back(files: Files) -> None:
    parent = read(files.encoder)
    names = {"after": CheckpointName.of(parent)}
    origin = EvaluationOrigin(
        names, {"test": "ab"}, None, 3, "cpu", "fp32", "verb: evaluate\n", {"torch": "2"}
    )
    row = Row("after", "knn", wilson(1, 2), wilson(2, 2), (ClassRates("ant", None, wilson(1, 1)),))
    changes = Changes("knn", Change(-0.1, -0.2, 0.0, 100, 12, 2, 0.01), None)
    evaluation = Evaluation((row,), "all", 0.5, (changes,), origin)
    told = json.loads(json.dumps(evaluation.to_json()))
    assert told["origin"]["checkpoints"] == {
        "after": {"file": "encoder.safetensors", "sha256": parent.sha256}
    }
    assert Evaluation.from_json(told) == evaluation
    with pytest.raises(ValueError, match="clean_accuracy"):
        Evaluation.from_json({**told, "results": [{"which": "after", "probe": "knn"}]})


def test_versions_name_what_decides_a_result() -> None:
    assert versions()["torch"] == torch.__version__.partition("+")[0]


def test_provenance_is_json_and_names_every_input(files: Files) -> None:
    parent, images = read(files.encoder), read_images(files.clean, None)
    origin = json.loads(json.dumps(provenance(parent, images, Compute(), "verb: x\n", 3)))
    assert origin["parent"] == {"file": "encoder.safetensors", "sha256": parent.sha256}
    assert origin["data"] == {"images": 24, "size": 16, "sha256": images.digest()}
    assert (origin["seed"], origin["recipe"]) == (3, "verb: x\n")
    assert (origin["device"], origin["precision"]) == ("cpu", "fp32")
