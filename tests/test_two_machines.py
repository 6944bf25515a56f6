"""Two torchrun agents on this host, as on two machines: the same results as one agent; and the
SLURM job of docs/slurm.sh, with a srun and a scontrol that start both agents here."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from tests import test_distributed as one_machine
from tests.test_distributed import ENVIRONMENT, REPOSITORY, data_of, wait_for

pytestmark = pytest.mark.slow

files = one_machine.files

TRAINING = "--epochs 2 --batch 4 --crop 64 --long_side 64 80 --lr 1e-3"
EVALUATION = "--checkpoint {files}/classifier.pt --scales 1 --no_flip --beta 1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def static(node, port):
    """Every agent is told its number and where the first one is."""
    return ["--node_rank", str(node), "--master_addr", "127.0.0.1", "--master_port", str(port)]


def negotiated(node, port):
    """Agents meet at an address and number themselves, as in docs/slurm.sh."""
    place = ["--rdzv_endpoint", f"127.0.0.1:{port}", "--local_addr", "127.0.0.1"]
    return ["--rdzv_backend", "c10d", "--rdzv_id", "test", *place]


def run_two_agents(rendezvous, script, arguments):
    """Run a script under two agents of one process each; both outputs, the first agent's first."""
    port = free_port()
    agents = []
    for node in range(2):
        launcher = ["--nnodes", "2", "--nproc_per_node", "1", *rendezvous(node, port)]
        command = [sys.executable, "-m", "torch.distributed.run", *launcher]
        agents.append(
            subprocess.Popen(
                [*command, str(REPOSITORY / script), *arguments.split()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=ENVIRONMENT,
            )
        )
    try:
        ended = [agent.communicate(timeout=300) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    for agent, (_, error) in zip(agents, ended, strict=True):
        assert agent.returncode == 0, error
    return [output for output, _ in ended]


@pytest.fixture(scope="module")
def expected(files, tmp_path_factory):
    """What one agent with two processes makes."""
    folder = tmp_path_factory.mktemp("one")
    for script, options in (("train_scn.py", TRAINING), ("evaluator_cls_image.py", EVALUATION)):
        arguments = f"{data_of(files)} {options.format(files=files)} --experiments {folder}"
        done = one_machine.run(2, script, arguments)
        assert done.returncode == 0, done.stderr
    return folder


def weights(folder):
    return torch.load(folder / "scn/last.pt", weights_only=True)["model"]


def scores(folder):
    result = json.loads((folder / "eval_image/result.json").read_text())
    return {k: v for k, v in result.items() if k not in ("seconds", "images_per_second")}


@pytest.mark.parametrize("rendezvous", [static, negotiated])
def test_training_is_that_of_one_machine(files, tmp_path, expected, rendezvous):
    arguments = f"{data_of(files)} {TRAINING} --experiments {tmp_path}"
    outputs = run_two_agents(rendezvous, "train_scn.py", arguments)
    assert sum("epoch 2/2" in output for output in outputs) == 1  # the first process alone speaks
    found, wanted = weights(tmp_path), weights(expected)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_evaluation_is_that_of_one_machine(files, tmp_path, expected):
    arguments = f"{data_of(files)} {EVALUATION.format(files=files)} --experiments {tmp_path}"
    outputs = run_two_agents(static, "evaluator_cls_image.py", arguments)
    assert sum("best: mIoU" in output for output in outputs) == 1
    assert scores(tmp_path) == scores(expected)
    labels = sorted(path.relative_to(expected) for path in expected.rglob("pseudo_labels/*/*.png"))
    assert len(labels) == 13 * 7
    for path in labels:
        assert (tmp_path / path).read_bytes() == (expected / path).read_bytes()


# --- the SLURM job --------------------------------------------------------------------------------

SRUN = """#!{python}
# As srun with two nodes: the command twice, SIGTERM passed on to both.
import signal, subprocess, sys
steps = [subprocess.Popen(sys.argv[1:]) for _ in range(2)]
signal.signal(signal.SIGTERM, lambda *_: [step.terminate() for step in steps])
sys.exit(max([step.wait() != 0 for step in steps]))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> {folder}/scontrol; fi
"""


@pytest.fixture
def submit(tmp_path):
    """A function that starts the job with a command, where `srun` means two agents here."""
    programs = {
        "srun": SRUN.format(python=sys.executable),
        "scontrol": SCONTROL.format(folder=tmp_path),
        "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
    }
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    environment = {
        **ENVIRONMENT,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
    }

    def start(*command):
        with open(tmp_path / "job.txt", "a") as out:
            return subprocess.Popen(
                ["bash", "docs/slurm.sh", *command],
                cwd=REPOSITORY,
                stdout=out,
                stderr=out,
                env={**environment, "MSA_PORT": str(free_port())},
            )

    return start


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs bash and SLURM's signals")
def test_a_job_that_is_signalled_requeues_itself_and_goes_on(files, tmp_path, submit):
    command = f"{data_of(files)} --epochs 5 --batch 4 --crop 64 --long_side 64 80 --lr 1e-3"
    command = f"train_scn.py {command} --experiments {tmp_path}".split()
    job = submit(*command)
    wait_for(tmp_path / "scn/training.pt", job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=120) != 0, (tmp_path / "job.txt").read_text()
    assert (tmp_path / "scontrol").read_text() == "requeue 7\n"
    job = submit(*command)
    assert job.wait(timeout=300) == 0, (tmp_path / "job.txt").read_text()
    assert "going on after step" in (tmp_path / "job.txt").read_text()
    assert torch.load(tmp_path / "scn/last.pt", weights_only=True)["epoch"] == 5
    assert (tmp_path / "scontrol").read_text() == "requeue 7\n"
