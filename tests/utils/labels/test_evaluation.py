import json
import os
import signal

import pytest
import torch

from datasets.files import InputError
from utils.labels.evaluation import carry_out
from utils.runs.interruption import Stopped
from utils.runs.options import RunSettings


@pytest.mark.parametrize("option", ["labels", "labels_file"])
def test_labels_are_not_overwritten_by_what_reads_them(tmp_path, option):
    """As with predicted.csv, corrected and given back under the same tag."""
    file = tmp_path / "a" / "predicted.csv"
    file.parent.mkdir()
    file.write_text("x,dog\n")
    options = {option: str(file)}
    settings = RunSettings(str(tmp_path), "a", overwrite=True, options=options)
    with pytest.raises(InputError, match=f"--{option} .*predicted.csv: lies in the folder"):
        carry_out(settings, torch.device("cpu"), {}, print, print)
    assert file.read_text() == "x,dog\n"
    elsewhere = RunSettings(str(tmp_path), "b", overwrite=True, options=options)
    done = []
    carry_out(elsewhere, torch.device("cpu"), {}, done.append, print)
    assert done


def test_the_folder_of_a_training_is_not_evaluated_into(tmp_path):
    """--overwrite would remove the network, perhaps the one that is evaluated."""
    network = tmp_path / "seg" / "last.pt"
    network.parent.mkdir()
    network.write_bytes(b"weights")
    settings = RunSettings(str(tmp_path), "seg", overwrite=True)
    with pytest.raises(InputError, match="holds a training .last.pt.*another --tag"):
        carry_out(settings, torch.device("cpu"), {}, lambda run: None, str)
    assert network.read_bytes() == b"weights"


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"script": 1, "options": [], "x": {}}'])
def test_what_no_evaluator_wrote_is_refused(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/evaluation.json").write_text(content)
    (tmp_path / "a/done-0.jsonl").write_text("")
    (tmp_path / "a/options.json").write_text("{}")
    settings = RunSettings(str(tmp_path), "a", options={"scales": [1]})
    with pytest.raises(InputError, match="evaluation.json: not what an evaluator wrote"):
        carry_out(settings, torch.device("cpu"), {}, lambda run: None, str)
    done = []
    again = RunSettings(str(tmp_path), "a", overwrite=True, options={"scales": [1]})
    carry_out(again, torch.device("cpu"), {}, done.append, str)
    assert done and json.loads((tmp_path / "a/evaluation.json").read_text())["options"]


@pytest.mark.parametrize(("overwrite", "how"), [(False, ""), (True, " without --overwrite")])
def test_a_stopped_evaluation_says_how_it_goes_on(tmp_path, overwrite, how):
    settings = RunSettings(str(tmp_path), "a", overwrite)
    with pytest.raises(Stopped, match=f"stopped by SIGTERM; the same command{how} goes on"):
        carry_out(
            settings,
            torch.device("cpu"),
            {},
            lambda run: os.kill(os.getpid(), signal.SIGTERM),
            str,
        )
