"""The collapse monitor: a planted collapse raises the alarm, healthy runs do not."""

import warnings
from dataclasses import replace

import pytest
import torch
from dense import assert_close
from torch import nn
from torch.nn.utils import parametrizations

from compopt.penalties import (
    CollapseMonitor,
    CollapseRule,
    CollapseWarning,
    Layers,
    SpectralRegularizer,
)

HEALTHY = torch.tensor([1.0, 0.9, 0.8, 0.75, 0.6, 0.5, 0.4, 0.2])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    for layer in (net[0], net[2]):
        plant(layer, HEALTHY)
    return net


def plant(layer: nn.Module, spectrum: torch.Tensor, scale: float = 3.0) -> None:
    """Give a layer this normalised spectrum and keep its singular vectors."""
    with torch.no_grad():
        left, _, right = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
        layer.weight.copy_((left * (scale * spectrum) @ right).view_as(layer.weight))


def shrunk(share: float) -> torch.Tensor:
    """Return the healthy spectrum with all values but the first multiplied by ``share``."""
    return torch.where(torch.arange(8) == 0, HEALTHY, share * HEALTHY)


def record_fall(
    monitor: CollapseMonitor, layer: nn.Module, shares: list[float], every: int
) -> list:
    raised = []
    for index, share in enumerate(shares):
        plant(layer, shrunk(share))
        raised.append(monitor.record(index * every))
    return raised


# Judges from the first record on.
FROM_THE_START = CollapseRule(warm_up=0)
SHARES = [1.0, 1.0, 0.9, 0.7, 0.5, 0.3, 0.2]


def test_a_planted_collapse_raises_one_alarm_in_its_layer():
    net = network()
    monitor = CollapseMonitor(net, rule=FROM_THE_START)
    # The level is the mean of values 2 to 4: .8167 when healthy, below .5 at a share of .5.
    with pytest.warns(CollapseWarning, match="layer '2' fell from 0.82 to 0.41.*by step 2000"):
        raised = record_fall(monitor, net[2], SHARES, every=500)
    assert [len(alarms) for alarms in raised] == [0, 0, 0, 0, 1, 0, 0]
    (alarm,) = monitor.alarms
    assert (alarm.layer, alarm.step) == ("2", 2000)
    assert alarm.level == pytest.approx(0.5 * 2.45 / 3, rel=1e-5)
    assert alarm.peak == pytest.approx(2.45 / 3, rel=1e-5)
    expected = [share * 2.45 / 3 for share in SHARES]
    assert monitor.levels("2") == pytest.approx(expected, rel=1e-5)
    assert monitor.levels("0") == pytest.approx([2.45 / 3] * 7, rel=1e-5)
    assert_close(monitor.spectra("2")[4], shrunk(0.5), 1e-5)


def silent(monitor: CollapseMonitor, layer: nn.Module, shares: list[float], every: int) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record_fall(monitor, layer, shares, every)
    return not monitor.alarms


def test_what_is_healthy_raises_none():
    net = network()
    # Rising and falling above the floor.
    assert silent(
        CollapseMonitor(net, rule=FROM_THE_START), net[2], [1.0, 0.7, 0.9, 0.65, 1.0], 500
    )
    # Moderate from the start.
    assert silent(CollapseMonitor(net, rule=FROM_THE_START), net[2], [0.3, 0.3, 0.25, 0.3], 500)
    # A fall over a longer time than the window.
    assert silent(
        CollapseMonitor(net, rule=FROM_THE_START), net[2], [1 - 0.02 * i for i in range(30)], 1000
    )
    # Just under the floor, by little.
    assert silent(CollapseMonitor(net, rule=FROM_THE_START), net[2], [0.63, 0.61, 0.4], 500)
    # Low at first and rising, as the critic of a plain Wasserstein loss; then low only once.
    assert silent(CollapseMonitor(net), net[2], [0.05, 0.06, 0.1, 0.2, 0.11, 0.3], 5)


def test_the_fall_from_random_initial_weights_is_none():
    shares = [1.0, 0.4, 0.5, 0.5]
    net = network()
    assert silent(CollapseMonitor(net, rule=CollapseRule(warm_up=1000)), net[2], shares, 500)
    net = network()
    monitor = CollapseMonitor(net, rule=CollapseRule(warm_up=1000))
    with pytest.warns(CollapseWarning, match="fell from 0.78 to 0.41.*by step 1500"):
        record_fall(monitor, net[2], [1.0, 0.4, 0.95, 0.5], 500)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([1.0, 0.12, 0.1, 0.05], "fell from 0.82 to 0.08.*by step 10:"),
        ([0.1, 0.09, 1.0], "fell from 0.08 to 0.07.*by step 5:"),
    ],
)
def test_a_low_level_raises_an_alarm_at_any_step(shares, words):
    """A plain Wasserstein critic collapses within tens of steps, long before the warm-up ends."""
    net = network()
    monitor = CollapseMonitor(net)
    with pytest.warns(CollapseWarning, match=words):
        record_fall(monitor, net[2], shares, 5)
    assert len(monitor.alarms) == 1
    assert silent(CollapseMonitor(net, rule=CollapseRule(low=0.0)), net[2], shares, 5)


def test_the_scale_of_a_weight_does_not_matter():
    net = network()
    monitor = CollapseMonitor(net, rule=FROM_THE_START)
    for step, scale in enumerate([1e-3, 1.0, 1e3]):
        plant(net[2], HEALTHY, scale)
        monitor.record(step)
    assert monitor.levels("2") == pytest.approx([2.45 / 3] * 3, rel=1e-5)


def test_thresholds_are_the_users():
    net = network()
    rule = CollapseRule(floor=0.7, fall=0.2, share=1.0, warm_up=0)
    monitor = CollapseMonitor(net, rule=replace(rule, window=10))
    with pytest.warns(CollapseWarning):
        record_fall(monitor, net[0], [1.0, 0.6], every=10)
    later = CollapseMonitor(net, rule=replace(rule, window=9))
    assert silent(later, net[0], [1.0, 0.6], every=10)


def test_under_spectral_normalization_the_original_counts():
    net = network()
    parametrizations.spectral_norm(net[2])
    monitor = CollapseMonitor(net, rule=FROM_THE_START)
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    monitor.record(0)
    assert monitor.levels("2") == pytest.approx([2.45 / 3], rel=1e-5)
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())


def test_training_that_collapses_is_stopped_by_the_projection():
    """Gradient descent towards rank one: the alarm sounds, and not beside the projection."""
    outcomes = {}
    for protected in (False, True):
        net = network()[2]
        regularizer = SpectralRegularizer(net, every=1)
        monitor = CollapseMonitor(net, rule=FROM_THE_START)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)
            for step in range(60):
                optimizer.zero_grad()
                # Of all singular values the largest alone is kept.
                matrix = net.weight.flatten(1)
                loss = matrix.square().sum() - torch.linalg.matrix_norm(matrix, 2) ** 2
                (0.1 * loss).backward()
                optimizer.step()
                if protected:
                    regularizer.step()
                monitor.record(step)
        outcomes[protected] = len(monitor.alarms)
    assert outcomes == {False: 1, True: 0}


def test_a_resumed_monitor_goes_on(tmp_path):
    net = network()
    monitor = CollapseMonitor(net, rule=FROM_THE_START)
    record_fall(monitor, net[2], [1.0, 0.9], every=500)
    torch.save(monitor.state_dict(), tmp_path / "monitor.pt")
    resumed = CollapseMonitor(net, rule=FROM_THE_START)
    resumed.load_state_dict(torch.load(tmp_path / "monitor.pt", weights_only=True))
    plant(net[2], shrunk(0.4))
    with pytest.warns(CollapseWarning):
        (alarm,) = resumed.record(1500)
    assert alarm.peak == pytest.approx(2.45 / 3, rel=1e-5)
    assert resumed.steps == [0, 500, 1500]
    again = CollapseMonitor(net, rule=FROM_THE_START)
    again.load_state_dict(resumed.state_dict())
    assert again.alarms == [alarm]
    assert again.record(2000) == []
    with pytest.raises(ValueError, match="The state must have the layers"):
        CollapseMonitor(net, layers=Layers(skip=("0",))).load_state_dict(monitor.state_dict())


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    net = network()
    monitor = CollapseMonitor(net, rule=FROM_THE_START)
    with pytest.warns(CollapseWarning):
        record_fall(monitor, net[2], SHARES, every=500)
    file = monitor.plot(tmp_path / "spectra.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 5000


def test_bad_input(tmp_path):
    net = network()
    monitor = CollapseMonitor(net, rule=FROM_THE_START)
    with pytest.raises(RuntimeError, match="There are no spectra yet"):
        monitor.spectra("0")
    monitor.record(5)
    with pytest.raises(ValueError, match="`step` must be above the last one, 5, got 5"):
        monitor.record(5)
    with pytest.raises(ValueError, match=r"`layer` must be one of \['0', '2'\], got '1'"):
        monitor.levels("1")
    with pytest.raises(ValueError, match="`fall` must be positive"):
        CollapseRule(fall=0.0)
    with pytest.raises(ValueError, match="`share` must be in"):
        CollapseRule(share=2.0)
    with torch.no_grad():
        net[0].weight[0] = torch.nan
    with pytest.raises(ValueError, match="The weight of layer '0' must be finite"):
        monitor.record(6)
    assert monitor.steps == [5]
    assert len(monitor.history["2"]) == 1
