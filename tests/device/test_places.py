"""Steps on other streams and other devices, and of several processes."""

import datetime
import os

import pytest
import torch
from device_games import DeviceGame, fixed, on_side_stream, relative
from torch import distributed as dist

from compopt import ACGD
from compopt.distributed import Sharded
from compopt.kernels import use_backend

pytestmark = pytest.mark.gpu

BACKENDS = pytest.mark.parametrize("backend", ["torch", "triton"])


@pytest.fixture(autouse=True)
def _backend(request):
    if "triton" in request.node.callspec.params.values():
        pytest.importorskip("triton")


def steps(game, backend, **options):
    optimizer = ACGD(*game.players, lr=1e-3, solver=fixed(), backend=backend, **options)
    with use_backend(backend):
        for batch in range(3):
            optimizer.step(game.loss(batch))


@BACKENDS
def test_steps_on_a_side_stream_are_those_of_the_main_one(backend, cuda):
    def aside(game):
        with on_side_stream(cuda):
            steps(game, backend)

    game = DeviceGame(cuda)
    truth = game.moved_by(lambda twin: steps(twin, backend))
    assert relative(game.moved_by(aside), truth) <= 1e-4


@BACKENDS
def test_streams_in_turns_take_the_steps_of_one(backend, cuda):
    def in_turns(game):
        optimizer = ACGD(*game.players, lr=1e-3, solver=fixed(), backend=backend)
        for batch in range(3):
            with on_side_stream(cuda):
                optimizer.step(game.loss(batch))

    game = DeviceGame(cuda)
    truth = game.moved_by(lambda twin: steps(twin, backend))
    assert relative(game.moved_by(in_turns), truth) <= 1e-4


@BACKENDS
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_steps_on_a_device_that_is_not_the_current_one(fused, backend, second):
    assert torch.cuda.current_device() == 0
    here, there = (
        DeviceGame(device, fused=fused).moved_by(lambda game: steps(game, backend))
        for device in (torch.device("cuda:0"), second)
    )
    assert torch.cuda.current_device() == 0
    assert relative(there, here) <= 1e-3


def work(rank, num_ranks, store, sharded, backend, results):
    """Take steps as one rank of several, each on a device of its own."""
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    os.environ["TRITON_INTERPRET"] = "0"
    dist.init_process_group(
        "nccl",
        init_method=f"file://{store}",
        rank=rank,
        world_size=num_ranks,
        timeout=datetime.timedelta(seconds=60),
    )
    try:
        group = dist.group.WORLD
        game = DeviceGame(device)
        place = Sharded(group) if sharded else group
        moved = game.moved_by(lambda twin: steps(twin, backend, process_group=place))
        torch.save(moved, f"{results}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@BACKENDS
@pytest.mark.parametrize("sharded", [False, True], ids=["replicated", "sharded"])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_ranks_take_the_steps_of_one_process(num_ranks, sharded, backend, cuda, tmp_path):
    """All see the same batch, so that averages are those of one process."""
    if torch.cuda.device_count() < num_ranks:
        pytest.skip("There is one CUDA device here, not two.")
    if not dist.is_nccl_available():
        pytest.skip("This torch has no NCCL.")
    truth = DeviceGame(cuda).moved_by(lambda game: steps(game, backend))
    arguments = num_ranks, tmp_path / "store", sharded, backend, tmp_path
    torch.multiprocessing.spawn(work, arguments, nprocs=num_ranks, join=True)
    for rank in range(num_ranks):
        assert relative(torch.load(tmp_path / f"rank{rank}.pt"), truth) <= 1e-3
