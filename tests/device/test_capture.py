"""Steps replay as device graphs; others wait for the device only where they must."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from device_games import DeviceGame, fixed, on_side_stream, relative

from compopt import ACGD, CGD
from compopt.kernels.lists import tables
from compopt.nn import fuse

pytestmark = pytest.mark.gpu

BACKENDS = pytest.mark.parametrize("backend", ["torch", "triton"])
WARM_UP, REPLAYS = 3, 4
NO_PARAMETERS = SimpleNamespace(params={})


@pytest.fixture(autouse=True)
def _backend(request):
    if "triton" in getattr(request.node, "callspec", NO_PARAMETERS).params.values():
        pytest.importorskip("triton")


class Run:
    """A game, its optimizer, and a schedule of learning rates."""

    def __init__(self, device, cls=ACGD, *, fused=False, **options):
        self.game = DeviceGame(device, fused=fused)
        self.real, self.noise = (part.clone() for part in self.game.batches[0])
        self.game.batches = [*self.game.batches, (self.real, self.noise)]
        self.optimizer = cls(
            *self.game.players, lr=torch.tensor(1e-3, device=device), capturable=True, **options
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda n: 0.5**n)

    def step(self):
        """Step on the batch that is in place."""
        self.optimizer.step(self.game.loss(-1))

    def feed(self, index):
        """Put a batch in place."""
        for target, source in zip((self.real, self.noise), self.game.batches[index], strict=True):
            target.copy_(source)


def trajectory(device, *, captured, **options):
    """Return what steps move, and what the last ones do after a warm-up."""
    run = Run(device, **options)
    with on_side_stream(device):
        for index in range(WARM_UP):
            run.feed(index)
            run.step()
    start, graph = run.game.flat(), torch.cuda.CUDAGraph()
    if captured:
        with warnings.catch_warnings(), torch.cuda.graph(graph):
            warnings.simplefilter("error")
            run.step()
        # A capture runs nothing.
        assert torch.equal(run.game.flat(), start)
    for index in range(REPLAYS):
        run.feed(index + WARM_UP)
        graph.replay() if captured else run.step()
        with warnings.catch_warnings():
            # Of a step that the scheduler did not see, in a graph.
            warnings.simplefilter("ignore")
            run.scheduler.step()
    return run.game.flat() - start


@BACKENDS
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("num_iter", [1, 2, 3])
def test_a_whole_step_replays_as_a_graph(num_iter, warm, backend, cuda):
    options = {"solver": fixed(num_iter), "warm_start": warm, "backend": backend}
    plain, replayed = (trajectory(cuda, captured=c, **options) for c in (False, True))
    assert relative(replayed, plain) <= 1e-3


@BACKENDS
@pytest.mark.parametrize(
    "options",
    [
        {"cls": CGD},
        {"solve_for": "min"},
        {"weight_decay": 0.1, "max_grad_norm": 0.5},
        {"interaction": 0.01, "warm_start": True},
        {"fused": True},
    ],
    ids=["CGD", "min", "decay", "strength", "fused"],
)
def test_other_steps_replay_as_well(options, backend, cuda):
    plain, replayed = (
        trajectory(cuda, captured=c, backend=backend, solver=fixed(), **options)
        for c in (False, True)
    )
    assert relative(replayed, plain) <= 1e-3


@BACKENDS
def test_a_step_that_fails_in_a_graph_leaves_everything_as_it_was(backend, cuda):
    run = Run(cuda, solver=fixed(), backend=backend, on_failure="skip")
    with on_side_stream(cuda):
        for _ in range(WARM_UP):
            run.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run.step()
    before = run.game.flat()
    run.real.fill_(torch.nan)
    graph.replay()
    assert torch.equal(run.game.flat(), before)
    run.feed(0)
    graph.replay()
    assert not torch.equal(run.game.flat(), before)


@BACKENDS
def test_a_rate_that_is_a_number_is_warned_of(backend, cuda):
    run = Run(cuda, solver=fixed(), backend=backend)
    with on_side_stream(cuda):
        run.step()
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-3
    with on_side_stream(cuda):
        run.step()
    with pytest.warns(UserWarning, match="keeps `lr`"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        run.step()


@BACKENDS
@pytest.mark.parametrize("cls", [ACGD, CGD])
def test_a_warm_capturable_step_never_waits(cls, backend, cuda):
    run = Run(cuda, cls, solver=fixed(), backend=backend, warm_start=cls is ACGD)
    for _ in range(WARM_UP):
        run.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@BACKENDS
@pytest.mark.parametrize("num_iter", [1, 3])
def test_a_step_of_fixed_length_waits_once(num_iter, backend, cuda):
    game = DeviceGame(cuda)
    fuse(game.critic)
    optimizer = ACGD(*game.players, lr=1e-3, solver=fixed(num_iter), backend=backend)
    for _ in range(WARM_UP):
        optimizer.step(game.loss())
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step(game.loss())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchronizing" in str(w.message)]) == 1


def test_lists_are_captured_with_their_tables(monkeypatch, cuda):
    pytest.importorskip("triton")
    for name in ("_tables", "_blocks", "_addresses"):
        monkeypatch.setattr(tables, name, tables._Memory())
    run = Run(cuda, solver=fixed(), backend="triton")
    with on_side_stream(cuda):
        for _ in range(WARM_UP):
            run.step()
    assert not tables._tables._captured
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run.step()
    # Those of products and gradients into both players, and of vectors into lists.
    assert len(tables._tables._captured) >= 4
    graph.replay()
