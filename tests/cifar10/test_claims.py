"""Exactly one process runs a cell, and what a dead one held is free."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.cifar10 import claims
from benchmarks.cifar10.claims import Claim, HeldError, _place, _started, holder
from benchmarks.cifar10.errors import Interrupted

ELSEWHERE = {"process": 1, "place": "another machine", "started": "0"}


def test_a_claim_excludes_and_is_given_back(tmp_path):
    assert holder(tmp_path) is None
    with Claim(tmp_path) as claim:
        claim.check()
        assert holder(tmp_path)["process"] == os.getpid()
        with pytest.raises(HeldError, match=f"run by process {os.getpid()}"):
            Claim(tmp_path).__enter__()
    assert holder(tmp_path) is None
    with Claim(tmp_path) as again:
        assert again.file.name == "claim.2"


def test_of_many_that_see_it_free_exactly_one_wins(tmp_path, monkeypatch):
    looked, done, held = threading.Barrier(8), threading.Event(), []
    monkeypatch.setattr(claims, "holder", lambda *arguments: (looked.wait(5), None)[1])

    def contend():
        try:
            with Claim(tmp_path):
                held.append(threading.get_ident())
                done.wait(5)
        except HeldError:
            held.append(None)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while len(held) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert len(held) == 8
    assert sum(identity is not None for identity in held) == 1


def test_what_a_killed_process_of_this_machine_held_is_free_at_once(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom benchmarks.cifar10.claims import Claim\n"
        "Claim(Path(sys.argv[1])).__enter__()\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(HeldError):
            Claim(tmp_path).__enter__()
        process.kill()
    with Claim(tmp_path) as claim:
        assert claim.file.name == "claim.2"


def test_a_process_number_given_anew_is_not_the_owner(tmp_path):
    owner = {"process": os.getpid(), "place": _place(), "started": "long ago"}
    (tmp_path / "claim.1").write_text(json.dumps(owner))
    assert _started(os.getpid()) != "long ago"
    assert holder(tmp_path) is None


def test_an_owner_elsewhere_counts_while_it_touches_its_claim(tmp_path):
    file = tmp_path / "claim.1"
    file.write_text(json.dumps(ELSEWHERE))
    assert holder(tmp_path, patience=60) == ELSEWHERE
    os.utime(file, (time.time() - 61, time.time() - 61))
    assert holder(tmp_path, patience=60) is None
    with Claim(tmp_path, patience=60) as claim:
        assert claim.file.name == "claim.2"


def test_a_claim_is_touched(tmp_path):
    with Claim(tmp_path, patience=0.2) as claim:
        first = claim.file.stat().st_mtime_ns
        deadline = time.monotonic() + 5
        while claim.file.stat().st_mtime_ns == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert claim.file.stat().st_mtime_ns > first


def test_an_owner_that_slept_too_long_learns_it(tmp_path):
    with Claim(tmp_path) as sleeper:
        os.utime(sleeper.file, (0, 0))
        with Claim(tmp_path) as successor:
            successor.check()
            with pytest.raises(Interrupted, match="taken the cell over"):
                sleeper.check()
    assert holder(tmp_path) is None


def test_a_claim_being_written_counts(tmp_path):
    (tmp_path / "claim.1").touch()
    with pytest.raises(HeldError):
        Claim(tmp_path).__enter__()
