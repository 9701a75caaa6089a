"""Images of 16 pixels: how they are made, and judged."""

import dataclasses

import pytest
import torch

from benchmarks.cifar10.config import NetworkConfig
from benchmarks.cifar10.folder import EVALUATIONS, RunFolder
from benchmarks.cifar10.judge import Judge, enlarged
from benchmarks.cifar10.run import Run


def test_small_images_are_means_over_squares(images):
    small = images.resized(16)
    squares = images.train.double().unflatten(3, (16, 2)).unflatten(2, (16, 2))
    assert torch.equal(small.train, squares.mean((3, 5)).round().to(torch.uint8))
    assert small.test is not None
    assert small.test.shape == (16, 3, 16, 16)
    assert images.resized(32) is images


def test_enlarged_images_are_bilinear():
    ramp = torch.arange(16, dtype=torch.uint8).mul(16).expand(2, 3, 16, 16)
    expected = ((torch.arange(32) + 0.5) / 2 - 0.5).clamp(0, 15) * 16
    assert torch.equal(enlarged(ramp), expected.to(torch.uint8).expand(2, 3, 32, 32))


def test_samples_and_real_images_are_enlarged_alike(images):
    small = images.resized(16)
    names = ["fd_cifar10net_v1"]
    found = Judge(small).scores(small.train, names)["metrics"]["fd_cifar10net_v1"]
    assert found == pytest.approx(0.0, abs=1e-3)


def test_a_cell_of_16_pixels_runs(tiny, images, tmp_path):
    network = NetworkConfig("dcgan16", 1 / 32, 8)
    evaluation = dataclasses.replace(tiny.evaluation, final_metrics=["fd_cifar10net_v1"])
    config = dataclasses.replace(tiny, network=network, evaluation=evaluation)
    run = Run(config, tmp_path / "run", images)
    assert run.complete(lambda: False) == "finished"
    assert run.training.batches.draw(0).real.shape == (8, 3, 16, 16)
    last = RunFolder(tmp_path / "run").rows(EVALUATIONS)[-1]
    assert last["metrics"]["fd_cifar10net_v1"] > 0
