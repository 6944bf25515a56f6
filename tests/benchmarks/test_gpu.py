import argparse
import json
import os
import time

import pytest

from benchmarks import gpu
from benchmarks.gpu import Part, Visit, parts_of
from datasets.files import InputError

WRITES = """
import json, sys
table = {"header": ["case", "ours / floor"], "rows": [["a", [1.05, 1, 2]]]}
content = {"tables": {"Training step, classifier": table}}
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps(content))
"""

LINGERS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def part(name, code, seconds=30.0, **more):
    return Part(name, ("-c", code), seconds, **more)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(gpu, "described", lambda: "this machine")


def visit(tmp_path, *parts, seconds=60.0):
    one = Visit(tmp_path / "results" / "gpu.json", parts)
    one.run(seconds, dict(os.environ))
    return json.loads(one.path.read_text())["parts"]


def test_parts_that_fail_or_take_too_long_do_not_stop_the_others(tmp_path):
    parts = visit(
        tmp_path,
        part("fails", "print('why'); raise SystemExit(3)", tables=False),
        part("lingers", LINGERS, seconds=2.0, tables=False),
        part("left out", "", needs="no-such-package"),
        part("measures", WRITES),
    )
    assert {name: entry["status"] for name, entry in parts.items()} == {
        "fails": "failed",
        "lingers": "out of time",
        "left out": "not run",
        "measures": "finished",
    }
    assert parts["fails"]["reason"] == "exit status 3"
    assert parts["fails"]["last lines"] == ["why"]
    assert parts["left out"]["reason"] == "no-such-package is not installed"
    assert "Training step, classifier" in parts["measures"]["tables"]
    child = int(parts["lingers"]["last lines"][0])
    assert ended(child), "what a part has started ends with it"
    log = (tmp_path / "results/gpu.log").read_text()
    assert "== fails" in log and "why" in log


def ended(process):
    """Whether a process is gone, or dead and not yet collected, within some seconds."""
    for _ in range(50):
        try:
            with open(f"/proc/{process}/stat") as file:
                if file.read().split(")")[-1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_the_same_command_goes_on(tmp_path):
    counter = tmp_path / "counter"
    counts = f"open({str(counter)!r}, 'a').write('x')"
    fails = f"import os, sys; sys.exit(not os.path.exists({str(tmp_path / 'mended')!r}))"
    parts = [part("counts", counts, tables=False), part("fails", fails, tables=False)]
    later = part("later", counts, tables=False)
    assert visit(tmp_path, *parts)["fails"]["status"] == "failed"
    (tmp_path / "mended").touch()
    found = visit(tmp_path, *parts, later)
    assert [entry["status"] for entry in found.values()] == ["finished"] * 3
    assert list(found) == ["counts", "fails", "later"]
    assert counter.read_text() == "xx"  # the first part was not run again
    waiting = Visit(tmp_path / "results/gpu.json", [part("counts", "pass", tables=False)]).waiting()
    assert [one.name for one in waiting] == ["counts"]  # it is another command now


def test_what_failed_is_tried_last(tmp_path):
    fails = part("fails", "raise SystemExit(1)", tables=False)
    visit(tmp_path, fails)
    again = Visit(tmp_path / "results/gpu.json", [fails, part("new", "pass", tables=False)])
    assert [one.name for one in again.waiting()] == ["new", "fails"]


def test_without_time_nothing_is_begun(tmp_path):
    parts = visit(tmp_path, part("counts", "raise SystemExit(1)"), seconds=1.0)
    assert parts["counts"]["status"] == "not run" and "no time" in parts["counts"]["reason"]


def test_results_of_another_machine_are_refused(tmp_path, monkeypatch):
    visit(tmp_path, part("one", "pass", tables=False))
    monkeypatch.setattr(gpu, "described", lambda: "another machine")
    with pytest.raises(InputError, match="this machine, this is another machine; name another"):
        visit(tmp_path, part("one", "pass", tables=False))


def test_parts_name_what_exists():
    parts = parts_of(argparse.Namespace(device="cuda", size="small"))
    assert len({one.name for one in parts}) == len(parts)
    for one in parts:
        module = one.arguments[1]
        path = gpu.REPOSITORY / (module.replace(".", "/") + ".py")
        assert one.arguments[0] == "-m" and (module == "pytest" or path.is_file())


def test_parts_asked_for(tmp_path):
    ran = tmp_path / "ran"
    parts = [part(name, f"open({str(ran)!r}, 'a').write('{name} ')") for name in ("one", "two")]
    Visit(tmp_path / "gpu.json", parts, only=["two"]).run(60.0, dict(os.environ))
    assert ran.read_text() == "two "
    one = Visit(tmp_path / "gpu.json", parts)
    one.run(60.0, dict(os.environ))
    assert ran.read_text() == "two one " and list(one.content["parts"]) == ["one", "two"]
    with pytest.raises(InputError, match="--only no yes: the parts are one, two"):
        Visit(tmp_path / "gpu.json", parts, only=["yes", "no", "one"])


def test_another_try_keeps_the_rows_of_the_one_before(tmp_path):
    marker = tmp_path / "marker"
    once = (
        f"import pathlib; p = pathlib.Path({str(marker)!r})\nif p.exists(): raise SystemExit(2)\n"
    )
    code = once + "p.touch()\n" + WRITES + "raise SystemExit(1)"
    visit(tmp_path / "other", part("measures", code))
    again = visit(tmp_path / "other", part("measures", code))["measures"]
    assert again["reason"] == "exit status 2" and "Training step, classifier" in again["tables"]


def test_what_took_longer_than_there_is_time_is_not_tried_again(tmp_path):
    lingers = part("lingers", "import time; time.sleep(60)", seconds=30.0, tables=False)
    assert visit(tmp_path, lingers, seconds=13.0)["lingers"]["status"] == "out of time"
    assert visit(tmp_path, lingers, seconds=12.0)["lingers"]["status"] == "out of time"
    assert (tmp_path / "results/gpu.log").read_text().count("== lingers") == 1
