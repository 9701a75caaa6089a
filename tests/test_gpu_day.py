"""The stages of a day on a GPU: outcomes are kept, failures hide nothing, time has an end."""

import json
import os
import time
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.contestants import CONTESTANTS
from benchmarks.gpu_day import __main__ as day_command
from benchmarks.gpu_day.packing import LARGEST, SMALL, main, pack
from benchmarks.gpu_day.running import Record, Task, run_stage
from benchmarks.gpu_day.stages import LIMIT, STAGES, Day, tasks_of
from benchmarks.gpu_day.throughput import steps_per_second

CONDITIONS = {"processor": "of a test"}


def python(name, code, seconds=30.0, **options):
    """Return a task of some lines of Python."""
    return Task(name, ("-S", "-c", code), seconds, **options)


def run(tasks, folder, seconds=60.0):
    """Run a stage; return whether all is done, its outcomes as written, and what it said."""
    said, path = [], folder / "stage.json"
    done = run_stage(tasks, Record(path, CONDITIONS), seconds, folder / "logs", said.append)
    return done, json.loads(path.read_text())["tasks"] if path.exists() else {}, said


def counting(folder, name="count"):
    """Return a task that notes how often it is run."""
    return python(name, f"open({str(folder / name)!r}, 'a').write('x')")


def test_what_a_task_measures_is_in_its_outcome(tmp_path):
    result = tmp_path / "result.json"
    code = f"print('seen'); open({str(result)!r}, 'w').write('[1, 2]')"
    done, outcomes, _ = run([python("one", code, results=(result,))], tmp_path)
    assert done
    assert outcomes["one"]["state"] == "done"
    assert outcomes["one"]["results"] == {"result.json": [1, 2]}
    assert outcomes["one"]["output"] == ["seen"]
    assert outcomes["one"]["conditions"] == CONDITIONS


def test_a_task_that_fails_hides_no_other(tmp_path):
    tasks = [
        counting(tmp_path, "first"),
        python("broken", "print('why'); raise SystemExit(3)"),
        python("silent", "pass", results=(tmp_path / "missing.json",)),
        counting(tmp_path, "last"),
    ]
    done, outcomes, said = run(tasks, tmp_path)
    assert not done
    states = [outcome["state"] for outcome in outcomes.values()]
    assert states == ["done", "failed", "failed", "done"]
    assert outcomes["broken"]["exit_status"] == 3
    assert "did not write missing.json" in outcomes["silent"]["output"][-1]
    assert any("why" in line for line in said)


def test_a_stage_is_gone_on_with_where_it_stopped(tmp_path):
    flag = tmp_path / "flag"
    broken = python("broken", f"import os; raise SystemExit(not os.path.exists({str(flag)!r}))")
    tasks = [counting(tmp_path), broken]
    assert not run(tasks, tmp_path)[0]
    flag.touch()
    assert run(tasks, tmp_path)[0]
    assert (tmp_path / "count").read_text() == "x"
    # What is another command now is done anew, and so is what depends on others.
    changed = python("count", f"open({str(tmp_path / 'count')!r}, 'a').write('y')", repeats=True)
    for _ in range(2):
        assert run([changed, broken], tmp_path)[0]
    assert (tmp_path / "count").read_text() == "xyy"


def test_a_task_ends_at_its_limit_with_all_that_it_started(tmp_path):
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)']); "
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    tasks = [python("slow", code, seconds=3.0), counting(tmp_path)]
    start = time.monotonic()
    done, outcomes, _ = run(tasks, tmp_path)
    assert time.monotonic() - start < 30
    assert not done
    assert [outcome["state"] for outcome in outcomes.values()] == ["out of time", "done"]
    # The child is gone, or a zombie that nobody has waited for.
    status = Path(f"/proc/{child.read_text()}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_a_stage_begins_nothing_after_its_time(tmp_path):
    done, outcomes, said = run([counting(tmp_path)], tmp_path, seconds=0.5)
    assert not done
    assert not outcomes
    assert said == ["count: not begun, as the stage's time is over"]


@pytest.mark.parametrize("dry", [False, True], ids=["device", "dry"])
@pytest.mark.parametrize("stage", STAGES)
def test_stages_name_what_there_is(stage, dry, tmp_path):
    tasks = tasks_of(stage, Day(tmp_path / "out", tmp_path / "work", dry=dry))
    names = [task.name for task in tasks]
    assert len(set(names)) == len(names)
    assert all(task.seconds < LIMIT for task in tasks)
    root = Path(__file__).parent.parent
    for task in tasks:
        flag, module, *rest = task.command
        assert flag == "-m"
        if module == "pytest":
            assert all((root / word).exists() for word in rest if word.startswith("tests/"))
            assert (task.environment["TRITON_INTERPRET"] == "1") == dry
            continue
        folder = root / module.replace(".", "/")
        assert folder.with_suffix(".py").exists() or (folder / "__main__.py").exists()
        if "--optimizers" in rest:
            chosen = rest[rest.index("--optimizers") + 1 : rest.index("--out")]
            assert set(chosen) <= set(CONTESTANTS)
        if "--device" in rest:
            assert rest[rest.index("--device") + 1] == ("cpu" if dry else "cuda")


def test_small_files_are_packed_and_large_ones_named(tmp_path):
    folder = tmp_path / "sweep"
    (folder / "cell").mkdir(parents=True)
    (folder / "cell" / "curve.json").write_text("{}")
    os.utime(folder / "cell" / "curve.json", (0, 0))
    (folder / "checkpoint.pt").write_bytes(bytes(SMALL))
    assert pack(folder, tmp_path / "packed.zip") == ["checkpoint.pt"]
    with zipfile.ZipFile(tmp_path / "packed.zip") as packed:
        assert packed.namelist() == [os.path.join("cell", "curve.json")]
    for index in range(LARGEST // (SMALL - 1) + 1):
        (folder / f"{index}").write_bytes(bytes(SMALL - 1))
    assert len(pack(folder, tmp_path / "packed.zip")) == 2
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "none.zip")]) == 1


def test_a_stage_without_a_device_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        day_command.main(["A"])
    assert "Use `--dry-run`" in capsys.readouterr().err


@pytest.mark.parametrize("works", [True, False], ids=["works", "fails"])
def test_the_command_writes_the_outcomes_of_a_dry_run(works, tmp_path, monkeypatch, capsys):
    seen = []

    def tasks(stage, day):
        seen.append((stage, day))
        return [python("one", f"raise SystemExit({0 if works else 1})"), counting(tmp_path)]

    monkeypatch.setattr(day_command, "tasks_of", tasks)
    monkeypatch.setattr(day_command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(day_command, "write_images", lambda folder: folder)
    out, work = tmp_path / "out", tmp_path / "work"
    folders = ["--out", str(out), "--work", str(work)]
    assert day_command.main(["B", "--dry-run", *folders]) == (0 if works else 1)
    assert seen == [("B", Day(out, work, data=work / "images", dry=True))]
    outcomes = json.loads((out / "dry_stage_B.json").read_text())["tasks"]
    assert [outcome["state"] for outcome in outcomes.values()] == [
        "done" if works else "failed",
        "done",
    ]
    assert outcomes["one"]["conditions"]["torch"] == torch.__version__
    assert ("Not all" in capsys.readouterr().out) != works


@pytest.mark.slow
def test_processes_side_by_side_are_counted_by_themselves():
    cpu = torch.device("cpu")
    rates = steps_per_second("adam", "poisson", cpu, 2, 1.0, batch_size=4)
    assert len(rates) == 2
    assert min(rates) > 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_dry_run_goes_through_a_stage(stage, tmp_path, capsys):
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert day_command.main([stage, "--dry-run", *folders]) == 0, capsys.readouterr().out
    outcomes = json.loads((tmp_path / "out" / f"dry_stage_{stage}.json").read_text())["tasks"]
    assert {outcome["state"] for outcome in outcomes.values()} == {"done"}
    # Few and small enough to be carried from a lent machine.
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) <= 8
    assert max(path.stat().st_size for path in files) < 16 * 2**20
