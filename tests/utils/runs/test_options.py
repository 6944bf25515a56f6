import os

import pytest
import torch

from datasets.command_line import new_parser, number
from datasets.files import InputError
from utils.runs.options import (
    RunSettings,
    add_affinity_options,
    existing_file,
)


def help_of(**option):
    parser = new_parser("")
    parser.add_argument("--given", **option)
    return " ".join(parser.format_help().split())


def test_defaults_are_shown_as_they_are_typed():
    scales = {"type": number(float), "nargs": "+"}
    assert "sizes (default: 0.5 1.0 2.0)" in help_of(
        **scales, default=(0.5, 1.0, 2.0), help="sizes"
    )
    assert "(default: 5% a b)" in help_of(nargs="+", default=["5%", "a b"], help="one")
    assert "one (default: 0.6)" in help_of(type=number(float), default=0.6, help="one")
    for nothing in (None, "", (), False):
        assert "default" not in help_of(nargs="*", default=nothing, help="one")
    assert help_of(default=3, help="one (default: by --crop)").count("default") == 1


def test_a_folder_is_told_from_a_missing_file(tmp_path):
    """A run's folder is named by mistake for the network in it."""
    with pytest.raises(InputError, match=r"^--scn .*/no\.pt: no such file; train one$"):
        existing_file(tmp_path / "no.pt", "--scn", "train one")
    with pytest.raises(InputError, match=r"^--scn [^ ]*: is a folder; name a file$"):
        existing_file(tmp_path, "--scn", "train one")
    (tmp_path / "last.pt").touch()
    with pytest.raises(InputError) as error:
        existing_file(tmp_path, "--scn", "train one")
    such = f"name a file in it, such as {tmp_path}/last.pt"
    assert str(error.value) == f"--scn {tmp_path}: is a folder; {such}"
    assert existing_file(tmp_path / "last.pt", "--scn", "train one") == tmp_path / "last.pt"


def test_affinities_are_cut_in_one_way(capsys):
    """Also where --gamma is given its default."""
    parser = new_parser("")
    add_affinity_options(parser, beta=8)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--gamma", "0.6", "--gamma_keep", "0.1"])
    assert stop.value.code == 2
    assert "--gamma_keep: not allowed with argument --gamma;" in capsys.readouterr().err
    kept = parser.parse_args(["--gamma_keep", "0.1"])
    assert (kept.gamma, kept.gamma_keep) == (0.6, 0.1)
    assert parser.parse_args(["--gamma", "0.9"]).gamma_keep is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no such shares here")
def test_readers_for_a_gpu_keep_to_this_process_s_cores(monkeypatch):
    """Those that SLURM or a container gives, divided among the processes of the machine."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert RunSettings().workers_for(torch.device("cuda")) == 6
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert RunSettings().workers_for(torch.device("cuda")) == 1
    assert RunSettings(workers=3).workers_for(torch.device("cuda")) == 3
