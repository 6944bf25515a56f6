"""Kills runs with SIGKILL at random moments, starts them again, and compares what comes out.

    python -m tests.survival --kills 24 --record record.json

All trainings and evaluators and COCO's preparation take turns. After each kill every file that
is there must be whole; after the second start the results must be those of a run that was never
stopped: weights and pseudo labels byte for byte, scores digit for digit.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from datasets.classes import coco_classes  # noqa: E402
from datasets.demo import generate  # noqa: E402

TEMPORARY = (".part", ".txt", ".jsonl")
"""Endings of files that may be cut off: unfinished ones, logs and journals."""


@dataclass(frozen=True)
class Job:
    """A command, and what must come out of it.

    Attributes:
        name: of the job.
        command: without the interpreter; `{out}` is replaced by a folder.
        again: what is added to the command after a kill.
        finished: whether the folder holds all results.
        result: a digest by the name of each result.
    """

    name: str
    command: tuple[str, ...]
    again: tuple[str, ...]
    finished: Callable[[Path], bool]
    result: Callable[[Path], dict[str, str]]


def digest(data: bytes) -> str:
    """A short digest."""
    return hashlib.sha256(data).hexdigest()[:16]


def weights(path: Path) -> str:
    """A digest of the weights in a checkpoint."""
    model = torch.load(path, weights_only=True)["model"]
    return digest(b"".join(n.encode() + model[n].numpy().tobytes() for n in sorted(model)))


def files(folder: Path, pattern: str) -> dict[str, str]:
    """Digests of files by their paths in the folder."""
    found = sorted(folder.rglob(pattern))
    return {str(path.relative_to(folder)): digest(path.read_bytes()) for path in found}


def scores(path: Path) -> str:
    """A digest of what result.json says, but for its times."""
    content = json.loads(path.read_text())
    for name in ("seconds", "images_per_second", "inferred", "segmented", "checkpoint"):
        content.pop(name, None)
    return digest(json.dumps(content, sort_keys=True).encode())


def prepared(folder: Path) -> dict[str, str]:
    """Digests of masks, lists and labels; meta.json holds times."""
    made = {**files(folder / "coco", "*.png"), **files(folder / "lists", "*.[tj]*")}
    named = {Path(name).name: value for name, value in made.items()}
    return {name: value for name, value in named.items() if name != "meta.json"}


def make_coco(root: Path, images: int) -> None:
    """A small COCO: photographs of noise, each with two polygons."""
    rng = np.random.default_rng(0)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(coco_classes())]
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", images), ("val", 3)):
        (root / f"{split}2014").mkdir()
        records, annotations = [], []
        for number in range(1, count + 1):
            name = f"COCO_{split}2014_{number:012d}.jpg"
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(
                root / f"{split}2014" / name
            )
            records.append({"id": number, "file_name": name, "height": 48, "width": 64})
            for category in rng.integers(1, 80, 2).tolist():
                x, y, side = (int(v) for v in rng.integers(1, 30, 3))
                polygon = [x, y, x + side, y, x + side, y + side, x, y + side]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category,
                        "segmentation": [polygon],
                        "area": side * side,
                        "iscrowd": 0,
                    }
                )
        content = {"images": records, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{split}2014.json"
        path.write_text(json.dumps(content))


def training(name: str, command: str, *kept: str) -> Job:
    """A training, which leaves checkpoints in its folder."""
    return Job(
        name,
        tuple(command.split()),
        ("--resume",),
        lambda out: False,
        lambda out: {path: weights(out / path) for path in kept},
    )


def evaluation(name: str, command: str, folder: str) -> Job:
    """An evaluation in a folder, which says by itself whether it is finished."""
    return Job(
        name,
        tuple(command.split()),
        (),
        lambda out: (out / folder / "result.json").is_file(),
        lambda out: {
            "result.json": scores(out / folder / "result.json"),
            **files(out / folder, "*.png"),
            **files(out / folder, "*.npz"),
        },
    )


def jobs(work: Path) -> dict[str, Job]:
    """The jobs by name; what they start from is made in `work`."""
    scenes, start = work / "scenes", work / "start"
    generate(scenes, images=16, validation=4, size=64, seed=0)
    data = f"--dataset custom --root {scenes} --device cpu --workers 1 --experiments {{out}}"
    often = "--batch 4 --checkpoint_minutes 0.002"
    classifier = (
        f"{data} {often} --epochs 3 --crop 96 --long_side 96 112 --backbone resnet18 "
        f"--backbone_weights none --score_images 4 --lr 0.02 --scn {start}/scn/last.pt"
    )
    cams = (
        f"{data} --checkpoint {start}/cls_image/last.pt --scales 0.5 1 1.5 --save_cams npz "
        "--beta 1 --thresholds 0.1 0.3 0.5"
    )
    segmentation = (
        f"train_seg.py {data} {often} --split train --pseudo_labels masks --backbone resnet18 "
        "--backbone_weights none --stride 16 --accumulate 1 --crop 64 --lr 1e-3 --steps 12 "
        "--score_every 4"
    )
    scn = f"train_scn.py {data} {often} --epochs 5 --crop 64 --long_side 64 80 --lr 1e-3"
    for command in (scn, f"train_cls_image.py {classifier}", segmentation):
        run(command.split(), start, work)
    image = "cls_image/last.pt", "cls_image/best.pt"
    saliency = "cls_sal/last.pt", "cls_sal/best.pt"
    masks = f"evaluator_seg.py {data} --split train --checkpoint {start}/seg/last.pt --scales 1 2"
    prepare = "-m datasets.prepare coco --coco_root {out}/coco --workers 2"
    every = [
        training("train_scn", scn, "scn/last.pt"),
        training("train_cls_image", f"train_cls_image.py {classifier}", *image),
        evaluation("evaluator_cls_image", f"evaluator_cls_image.py {cams}", "eval_image"),
        Job("prepare", tuple(prepare.split()), (), lambda out: False, prepared),
        training("train_cls_sal", f"train_cls_sal.py {classifier}", *saliency),
        evaluation("evaluator_cls_sal", f"evaluator_cls_sal.py {cams}", "eval_sal"),
        training("train_seg", segmentation, "seg/last.pt", "seg/best.pt"),
        evaluation("evaluator_seg", masks, "eval_seg"),
    ]
    return {job.name: job for job in every}


def run(
    command: Sequence[str],
    out: Path,
    work: Path,
    delay: float | None = None,
    group: bool = False,
) -> int:
    """Run a command, to its end or until it is killed after `delay` seconds; its exit status.

    Args:
        command: without the interpreter; `{out}` is replaced by the next.
        out: folder of results; lists and labels go to `lists` in it.
        work: what the command says goes to `output.txt` in this folder.
        delay: seconds.
        group: kill its workers with it; otherwise these must notice themselves.
    """
    command = [part.replace("{out}", str(out)) for part in command]
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
        "PREPARED_ROOT": str(out / "lists"),
    }
    with open(work / "output.txt", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            return process.wait()


def damaged(folder: Path) -> list[str]:
    """The files in a folder that are not whole."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.endswith(TEMPORARY) or "tfevents" in path.name:
            continue
        try:
            if path.suffix == ".pt":
                torch.load(path, weights_only=True)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix in (".png", ".jpg"):
                Image.open(path).load()
            elif path.suffix == ".npz":
                with np.load(path) as content:
                    [content[name] for name in content.files]
        except Exception as error:  # whatever a reader makes of a damaged file
            found.append(f"{path.relative_to(folder)}: {error!r}")
    return found


def fresh(work: Path, name: str) -> Path:
    """A new output folder, with what preparation starts from."""
    out = work / name
    make_coco(out / "coco", images=240)
    return out


def try_once(job: Job, work: Path, number: int, seconds: float, rng: random.Random) -> dict:
    """Kill a job once, start it again; what was seen."""
    killed, tries = 0, 0
    while killed != -signal.SIGKILL:  # it may have ended before its time
        tries += 1
        out = fresh(work, f"kill{number}_{tries}")
        delay, group = rng.uniform(0.1, 0.95) * seconds, rng.random() < 0.5
        killed = run(job.command, out, work, delay, group)
    harm = damaged(out)
    left = sum(path.is_file() for path in out.rglob("*"))
    status = 0 if job.finished(out) else run([*job.command, *job.again], out, work)
    said = (work / "output.txt").read_bytes().decode(errors="replace").splitlines()
    found = {
        "kill": number,
        "job": job.name,
        "after_seconds": round(delay, 2),
        "of_seconds": round(seconds, 2),
        "workers_too": group,
        "files_left": left,
        "damaged": harm,
        "second_start": status,
        "went_on": next((line for line in said if "going on" in line), ""),
        "unfinished_left": sum(
            path.relative_to(out).parts[0] not in ("coco", "lists")  # prepare leaves them
            for path in out.rglob("*.part")
        ),
    }
    return {**found, "result": job.result(out) if status == 0 else {}}


def survive(kills: int, seed: int, names: Sequence[str] = ()) -> list[dict]:
    """Kill `kills` times; what was seen each time, with `same`: the result is that of a whole run.

    Args:
        kills: how many.
        seed: of the moments.
        names: of the jobs that take turns; all if empty.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        available = jobs(work)
        chosen = [available[n] for n in names or available]
        whole = {}
        for job in chosen:
            out = fresh(work, f"whole_{job.name}")
            started = time.monotonic()
            if run(job.command, out, work):
                raise RuntimeError((work / "output.txt").read_text())
            whole[job.name] = (time.monotonic() - started, job.result(out))
        seen = []
        for number in range(kills):
            job = chosen[number % len(chosen)]
            seconds, expected = whole[job.name]
            found = try_once(job, work, number, seconds, rng)
            result = found.pop("result")
            found["same"] = result == expected and len(result) > 0
            print(json.dumps(found), flush=True)
            seen.append(found)
        return seen


def main() -> int:
    """Kill as often as asked; exit status 1 if something was lost or differed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=24, help="how often")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--record", type=Path, help="write what was seen to this JSON file")
    given = parser.parse_args()
    seen = survive(given.kills, given.seed)
    good = sum(one["same"] and not one["damaged"] for one in seen)
    print(f"{good} of {len(seen)} came out as if never killed")
    if given.record:
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        about = {"date": date.today().isoformat(), **versions, "seed": given.seed}
        given.record.write_text(json.dumps({**about, "good": good, "kills": seen}, indent=1) + "\n")
    return 0 if good == len(seen) else 1


if __name__ == "__main__":
    sys.exit(main())
