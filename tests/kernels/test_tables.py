"""Tables of lists: made once, without waiting, and captured with the launches that read them."""

import gc
import weakref

import pytest
import torch
from kernel_checks import assert_accurate, shapes_of, vector
from strict_interpreter import strict
from torch.utils._python_dispatch import TorchDispatchMode

from compopt.kernels import gather, scatter, use_backend
from compopt.kernels.lists import tables
from compopt.kernels.lists import triton as lists_triton
from compopt.kernels.lists.tables import Place

CPU = torch.device("cpu")
SIZES = (1, 1023, 1024, 1025, 5000)
SHAPES = [torch.Size([size]) for size in SIZES]

MADE = {"lift_fresh", "_to_copy", "zeros", "_foreach_add_", "repeat_interleave"}
"""Operations that make tables, the first two of numbers of the host."""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    for name in ("_tables", "_blocks", "_addresses"):
        monkeypatch.setattr(tables, name, tables._Memory())
    with use_backend("triton"):
        yield


def be_in(monkeypatch, **place):
    """Let launches go where they are said to."""
    monkeypatch.setattr(Place, "of", lambda vector: Place(vector.device, **place))


class Operations(TorchDispatchMode):
    """Notes the names of operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def gathered(tensors, base):
    """Gather; return the flat vector, the number of partial sums and the launches."""
    out = torch.empty_like(base)
    sizes = [tensor.numel() for tensor in tensors]
    with strict(also={"tensors": tensors}) as run:
        partials = gather(tensors, shapes_of(tensors, sizes), out, base, base)
    truth = torch.cat([tensor.reshape(-1) for tensor in tensors]).double()
    assert_accurate(out, base.double() * (1 + truth))
    return partials.numel(), run.launches


@pytest.mark.parametrize("sizes", [SIZES, (7,)], ids=["many", "one"])
def test_blocks_cover_each_tensor(sizes):
    found = tables.blocks(sizes, 1024, Place(CPU)).tolist()
    assert found == [[i, at] for i, size in enumerate(sizes) for at in range(0, size, 1024)]


def test_what_depends_on_sizes_alone_is_made_once():
    base = vector(sum(SIZES), torch.float32)
    tensors = [vector(size, torch.float32) for size in SIZES]
    gathered(tensors, base)
    with Operations() as operations:
        gather(tensors, shapes_of(tensors, SIZES), torch.empty_like(base))
    assert not set(operations.names) & MADE
    tensors[-1] = vector(2 * SIZES[-1], torch.float32)[::2]
    gathered(tensors, base)
    first, second = (found[0] for found in (t[0] for t in tables._tables._recent.values()))
    assert first.blocks is second.blocks
    assert first.rows is not second.rows


def test_other_addresses_copy_nothing_from_the_host():
    base = vector(sum(SIZES), torch.float32)
    gather(
        [vector(size, torch.float32) for size in SIZES],
        SHAPES,
        torch.empty_like(base),
    )
    with Operations() as operations:
        gather(
            [torch.ones(size) for size in SIZES],
            SHAPES,
            torch.empty_like(base),
        )
    names = set(operations.names)
    assert names & MADE == {"_foreach_add_", "zeros"}
    assert "_local_scalar_dense" not in names


def test_tables_are_copied_without_waiting(monkeypatch):
    seen = []

    def pin_memory(tensor):
        seen.append("pinned")
        return tensor

    def to(tensor, device, non_blocking=False):
        seen.append((str(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    table = torch.ones(2, dtype=torch.int64)
    assert tables._to_device(table, torch.device("cuda:1")) is table
    assert seen == ["pinned", ("cuda:1", True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_capture_launches_what_the_warm_up_did(monkeypatch, dtype):
    """Of tensors at addresses that it meets for the first time, as many partial sums."""
    base = vector(sum(SIZES), torch.float32)
    warm = gathered([vector(size, dtype) for size in SIZES], base)
    be_in(monkeypatch, stream=7, capturing=True)
    with Operations() as operations:
        captured = gathered([vector(size, dtype) for size in SIZES], base)
    assert captured == warm == (sum(-(-size // 1024) for size in SIZES), ["gather_kernel"])
    # The addresses are written by the graph, again in each replay.
    assert operations.names.count("_foreach_add_") == 1


def test_addresses_of_a_capture_are_not_given_to_others():
    first = tables.addresses((3, 2**48 + 5), Place(CPU, capturing=True))
    assert first.tolist() == [3, 2**48 + 5]
    assert tables.addresses((3, 2**48 + 5), Place(CPU, capturing=True)) is not first
    assert tables.addresses((3, 2**48 + 5), Place(CPU)) is not first


def test_a_capture_without_a_warm_up_is_plain(monkeypatch):
    be_in(monkeypatch, capturing=True)
    base = vector(sum(SIZES), torch.float32)
    assert gathered([vector(size, torch.float32) for size in SIZES], base) == (1, [])
    shapes = [torch.Size((size,)) for size in SIZES]
    pieces = scatter(base, shapes, [torch.float32] * len(SIZES), base)
    assert_accurate(torch.cat(pieces), base.double() ** 2)


def test_what_a_graph_reads_is_kept_and_nothing_else(monkeypatch):
    captured, other = ([vector(size, torch.float32)] for size in (3000, 4000))
    for tensors in (captured, other):
        gather(tensors, shapes_of(tensors, [len(tensors[0])]), torch.empty(len(tensors[0])))
    references = [weakref.ref(found[0][0].rows) for found in tables._tables._recent.values()]
    with monkeypatch.context() as context:
        be_in(context, stream=7, capturing=True)
        gather(captured, [torch.Size([3000])], torch.empty(3000))
    for size in range(1, 200):
        gather(
            [vector(size, torch.float32)],
            [torch.Size([size])],
            torch.empty(size),
        )
    gc.collect()
    assert [reference() is not None for reference in references] == [True, False]


def test_each_stream_has_tables_of_its_own(monkeypatch):
    """What one stream has not written yet is not read on another."""
    places = [Place(CPU, stream) for stream in (0, 5, 0)]
    first, other, again = (tables.addresses((1, 2), place) for place in places)
    assert first is again is not other
    first, other, again = (tables.blocks((4,), 1024, place) for place in places)
    assert first is again is not other


def test_scatter_is_captured_as_it_was_warmed_up(monkeypatch):
    shapes = [torch.Size((size,)) for size in SIZES]
    base = vector(sum(SIZES), torch.float32)
    for capturing in (False, True):
        be_in(monkeypatch, stream=int(capturing), capturing=capturing)
        with strict() as run:
            pieces = scatter(base, shapes, [torch.float32] * len(SIZES), base)
        assert run.launches == ["scatter_kernel"]
        assert_accurate(torch.cat(pieces), base.double() ** 2)


def test_lists_are_reached_through_rows_of_their_kernel():
    assert lists_triton.gather_kernel.arg_names[:3] == ["addresses_ptr", "rows_ptr", "blocks_ptr"]
