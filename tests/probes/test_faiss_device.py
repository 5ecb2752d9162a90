import warnings

import pytest
import torch

from sslpurify.probes.faiss_device import _TRIAL, choose, gpu_works, survives


def test_a_trial_that_aborts_hangs_or_fails_is_survived():
    assert survives("pass")
    assert not survives("import os; os.abort()")
    assert not survives("raise SystemExit(1)")
    assert not survives("while True: pass", seconds=0.5)


def test_a_file_in_the_working_directory_is_not_taken_for_faiss(tmp_path, monkeypatch):
    (tmp_path / "faiss.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert survives("import faiss; faiss.IndexFlatIP(4)")


def test_without_a_gpu_nothing_is_tried_or_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose(False, "raise SystemExit(1)") is False


def test_a_gpu_that_faiss_cannot_use_is_said_and_left_alone():
    with pytest.warns(UserWarning, match="searched on the CPU"):
        assert choose(True, "import os; os.abort()") is False
    assert choose(True, "pass") is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_the_real_trial_fails_where_there_is_no_gpu():
    assert not survives(_TRIAL)
    assert gpu_works() is False
