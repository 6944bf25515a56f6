"""The order of the house: imports run one way, and scoring label maps loads no network. And what is
private in the standard library, but needed here, is where it is expected."""

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

MAY_USE = {
    "networks": set(),
    "datasets": {"dataset_root"},
    "utils.runs": {"networks", "datasets"},
    "utils.checkpoints": {"utils.runs"},
    "utils.inference": {"utils.checkpoints"},
    "utils.scores": {"utils.inference"},
    "utils.pictures": {"utils.scores"},
    "utils.labels": {"utils.pictures"},
    "utils.training": {"utils.pictures"},
}
"""What each part of the house may import, besides itself and what those parts may import."""

PROJECT = ("networks", "datasets", "utils", "dataset_root", "benchmarks", "tests")


def allowed(part):
    found = {part}
    for other in MAY_USE.get(part, ()):
        found |= allowed(other)
    return found


def part_of(module):
    """`utils.runs` of utils.runs.run, `datasets` of datasets.files."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "utils" else names[0]


def imported(path):
    """The project's modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: a wildcard import"
            # `from utils import checkpoints` names the room behind the dot.
            bare = node.module in ("utils", "networks", "datasets")
            names = [f"{node.module}.{a.name}" if bare else node.module for a in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PROJECT)


def test_imports_run_one_way():
    against = []
    for part in MAY_USE:
        for path in sorted((REPOSITORY / part.replace(".", "/")).rglob("*.py")):
            for module in imported(path):
                if part_of(module) not in allowed(part):
                    against.append(f"{path.relative_to(REPOSITORY)} imports {module}")
    assert against == []


def test_every_file_of_utils_is_in_a_room():
    """But for the names that others import: utils.cams and utils.metrics."""
    flat = {path.name for path in (REPOSITORY / "utils").glob("*.py")}
    assert flat == {"__init__.py", "cams.py", "metrics.py"}
    rooms = {f"utils.{path.parent.name}" for path in (REPOSITORY / "utils").glob("*/__init__.py")}
    assert rooms == {part for part in MAY_USE if part.startswith("utils.")}


def test_scoring_label_maps_loads_no_network():
    code = "import utils.scores.__main__, sys; print([m for m in sys.modules if 'networks' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_benchmark_finds_what_it_imports():
    names = sorted(f"benchmarks.{path.stem}" for path in (REPOSITORY / "benchmarks").glob("*.py"))
    code = "; ".join(f"import {name}" for name in names)
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_names_that_others_rely_on():
    code = """
from networks.affinity import propagate
from networks.association import hard_labels, pool, reassemble, upsample
from networks.backbone import build_backbone
from networks.classifier import Classifier, cam
from networks.deeplab import DeepLab, segmentation_loss
from networks.ipc import ipc_loss
from networks.superpixel import SuperpixelNet, scn_loss
from utils.cams import infer
from utils.checkpoints import load_backbone, load_classifier, load_scn, open_deeplab
from utils.metrics import ThresholdSweep
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_the_unpickler_that_is_written_in_python():
    """datasets/published_labels.py reads label files with it; it has no public name."""
    unpickler = getattr(pickle, "_Unpickler", None)
    assert inspect.isclass(unpickler), "this Python has no pickle._Unpickler"
    for name in ("load", "find_class"):
        assert inspect.isfunction(getattr(unpickler, name)), f"its {name} is not in Python"
    assert inspect.isfunction(unpickler.dispatch[pickle.PROTO[0]]), "no table of instructions"
