"""Steps on other streams and other devices, and of several processes."""

import pytest
import torch
from device_games import DeviceGame, fixed, on_side_stream, rank_steps, relative, steps
from torch import distributed as dist

from compopt import ACGD

pytestmark = pytest.mark.gpu

BACKENDS = pytest.mark.parametrize("backend", ["torch", "triton"])


@pytest.fixture(autouse=True)
def _backend(request):
    if "triton" in request.node.callspec.params.values():
        pytest.importorskip("triton")


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


@BACKENDS
@pytest.mark.parametrize("sharded", [False, True], ids=["replicated", "sharded"])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_ranks_take_the_steps_of_one_process(num_ranks, sharded, backend, device, tmp_path):
    """All see the same batch, so that averages are those of one process."""
    if device.type == "cuda":
        if torch.cuda.device_count() < num_ranks:
            pytest.skip("There is one CUDA device here, not two.")
        if not dist.is_nccl_available():
            pytest.skip("This torch has no NCCL.")
    truth = DeviceGame(device).moved_by(lambda game: steps(game, backend))
    torch.multiprocessing.spawn(
        rank_steps, (num_ranks, device.type, sharded, backend, tmp_path), nprocs=num_ranks
    )
    for rank in range(num_ranks):
        assert relative(torch.load(tmp_path / f"rank{rank}.pt"), truth) <= 1e-3
