import argparse
import json
from pathlib import Path

import numpy as np
import torch

from sslpurify.checkpoint import load_report, read
from tests.checkpoint.files import save_zip, weights
from tests.checkpoint.test_folder import make


def test_the_report_tells_what_was_found_and_decided(tmp_path: Path) -> None:
    tree = {
        "state_dict_ema": weights(1),
        "state_dict": weights(0, torch.float16),
        "args": argparse.Namespace(lr=np.float64(0.1)),
    }
    save_zip(tree, tmp_path / "model.pt")
    report = load_report(read(tmp_path / "model.pt"))
    assert (report.format, report.files, report.wrapper) == ("torch-zip", 1, "state_dict")
    assert (report.tensors, report.parameters) == (4, 117)
    assert report.dtypes == {"float16": 3, "int64": 1}
    several, beside, kept = report.decisions
    assert several == (
        "of several state dicts 'state_dict' is used; 'state_dict_ema' stays as it is"
    )
    assert beside == "beside the weights, and left as it is: 'args'"
    assert "'argparse.Namespace'" in kept
    assert "'numpy._core.multiarray.scalar'" in kept
    assert report.warnings == ()
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_matrices_of_zeros_are_named_and_biases_are_not(tmp_path: Path) -> None:
    zero = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2), "bn.weight": torch.zeros(3)}
    save_zip(weights() | zero, tmp_path / "model.pt")
    (warning,) = load_report(read(tmp_path / "model.pt")).warnings
    assert warning == "weight matrices of nothing but zeros: 'fc.weight'"


def test_what_a_folder_leaves_out_is_told(tmp_path: Path) -> None:
    source = make(tmp_path / "source", sharded=True)
    (source / "modeling.py").touch()
    report = load_report(read(source))
    assert report.files == 2
    assert report.decisions == ("left out 'modeling.py': code, which is never read",)
