"""Whole steps with Triton's kernels move parameters as those with torch's do."""

import pytest
import torch
from device_games import FORMS, PAIRS, DeviceGame, fixed, relative, take
from penalty_registry import GanBatch, each_setting, player_of

from compopt import ACGD, CGD, PolymatrixCGD
from compopt.kernels import use_backend
from compopt.nn import fuse

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _triton(device):
    pytest.importorskip("triton")


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("form", FORMS)
def test_steps_of_both_backends_agree(form, fused, device):
    if fused and device.type == "cpu" and form != "ACGD, one":
        pytest.skip("Interpreted kernels are slow.")
    make, allowed = FORMS[form]
    game = DeviceGame(device, fused=fused)
    plain, ours = (
        game.moved_by(lambda twin, b=backend: in_backend(b, make, twin))
        for backend in ("torch", "triton")
    )
    assert relative(ours, plain) <= allowed


def in_backend(backend, make, game):
    # In force for the layers of the loss as well.
    with use_backend(backend):
        take(make, game, backend=backend)


@pytest.mark.parametrize("form", PAIRS)
def test_steps_of_two_losses_agree(form, device):
    make, allowed = PAIRS[form]
    game = DeviceGame(device)
    plain, ours = (
        game.moved_by(lambda twin, b=backend: take(make, twin, pair=True, backend=b))
        for backend in ("torch", "triton")
    )
    assert relative(ours, plain) <= allowed


def test_steps_of_many_players_are_those_of_the_host(device):
    def step(game):
        params = [list(game.generator.parameters()), list(game.critic.parameters())]
        optimizer = PolymatrixCGD(params, lr=1e-3)
        for batch in range(2):
            optimizer.step(list(game.losses(batch)))

    here, host = (
        DeviceGame(where, torch.float64).moved_by(step) for where in (device, torch.device("cpu"))
    )
    assert relative(here, host) <= 0.1


def test_steps_in_float64_are_those_of_the_host(device):
    def step(game, backend):
        take(ACGD, game, solver=fixed(3), backend=backend)

    host = DeviceGame(torch.device("cpu"), torch.float64).moved_by(lambda g: step(g, "torch"))
    for backend in ("torch", "triton"):
        found = DeviceGame(device, torch.float64).moved_by(lambda g, b=backend: step(g, b))
        assert relative(found, host) <= 1e-9, backend


@each_setting
def test_penalties_of_both_backends_agree(setting, device):
    moves = []
    for backend in ("torch", "triton"):
        batch = GanBatch(torch.float32)
        for network in (batch.network, batch.critic):
            network.to(device)
        batch.real, batch.noise = batch.real.to(device), batch.noise.to(device)
        params = [*batch.min_params, *batch.max_params]
        before = torch.cat([param.detach().flatten() for param in params])
        optimizer = ACGD(
            batch.min_params, batch.max_params, lr=1e-2, solver=fixed(), backend=backend
        )
        penalty = setting.build()
        inputs = batch.inputs()
        # Random numbers of their own would differ from device to device, not between backends.
        inputs["generator"] = torch.Generator(device).manual_seed(9)
        with use_backend(backend):
            term = penalty.on(**inputs)
            if setting.couples:
                optimizer.step(batch.loss() + term)
            else:
                optimizer.step(batch.loss(), **{f"{player_of(penalty)}_penalty": term})
        moves.append((torch.cat([p.detach().flatten() for p in params]) - before).cpu())
    assert relative(moves[1], moves[0]) <= 1e-3


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 0.1), (torch.float16, 0.03)])
def test_steps_under_autocast_are_near_those_in_float32(dtype, allowed, fused, backend, device):
    if fused and device.type == "cpu" and dtype == torch.float16:
        pytest.skip("Interpreted kernels are slow.")

    # Not ACGD, whose first step has the sign of each entry, however small.
    def plain(game):
        optimizer = CGD(*game.players, lr=0.1, solver=fixed(), backend="torch")
        optimizer.step(game.loss())

    def cast(game):
        if fused:
            fuse(game.generator)
            fuse(game.critic)
        optimizer = CGD(*game.players, lr=0.1, solver=fixed(), backend=backend)
        scaler = torch.amp.GradScaler(
            device.type, init_scale=2.0**10, enabled=dtype == torch.float16
        )
        with use_backend(backend), torch.autocast(device.type, dtype=dtype):
            loss = game.loss()
        optimizer.backward(loss, scaler=scaler)
        scaler.step(optimizer)
        scaler.update()

    game = DeviceGame(device)
    assert relative(game.moved_by(cast), game.moved_by(plain)) <= allowed


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_steps_of_bfloat16_parameters_are_near_those_in_float32(backend, device):
    def step(game, how):
        CGD(*game.players, lr=0.1, solver=fixed(), backend=how).step(game.loss())

    wide = DeviceGame(device).moved_by(lambda game: step(game, "torch"))
    narrow = DeviceGame(device, torch.bfloat16).moved_by(lambda game: step(game, backend))
    # The moves themselves are rounded to the grid of the weights.
    assert relative(narrow, wide) <= 0.3
