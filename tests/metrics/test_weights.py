"""Files of weights: only the ones meant are used."""

import hashlib

import pytest
import torch
from image_sets import patterns

from benchmarks.metrics import train_cifar10net, weights
from benchmarks.metrics.cifar10net import SHA256, WEIGHTS, Cifar10Net, load_cifar10net
from benchmarks.metrics.train_cifar10net import augmented, calibrated, train

CONTENT = b"some weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_the_carried_weights_are_those_of_version_1():
    assert weights.sha256_of(WEIGHTS) == SHA256
    net = load_cifar10net()
    assert sum(param.numel() for param in net.parameters()) == 486_938
    assert not net.training
    assert not any(param.requires_grad for param in net.parameters())


def test_other_or_truncated_weights_are_refused(tmp_path):
    cut = tmp_path / "cut.pt"
    cut.write_bytes(WEIGHTS.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated or another file"):
        load_cifar10net(cut)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_cifar10net(tmp_path / "nowhere.pt")


def test_a_download_is_verified_and_kept(tmp_path):
    source = tmp_path / "source.pth"
    source.write_bytes(CONTENT)
    found = weights.downloaded(source.as_uri(), DIGEST, tmp_path / "cache")
    assert found.read_bytes() == CONTENT
    source.unlink()
    assert weights.downloaded(source.as_uri(), DIGEST, tmp_path / "cache") == found


def test_a_wrong_download_leaves_nothing(tmp_path):
    source = tmp_path / "source.pth"
    source.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=DIGEST):
        weights.downloaded(source.as_uri(), DIGEST, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_network_it_says_where_to_put_the_file(tmp_path):
    with pytest.raises(ConnectionError, match=r"put the file at .*gone\.pth"):
        weights.downloaded((tmp_path / "gone.pth").as_uri(), DIGEST, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_augmentation_shifts_and_flips_whole_images():
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    made = augmented(images, torch.Generator().manual_seed(0))
    assert made.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (4,) * 4, mode="reflect")
    for before, flipped, after in zip(padded, padded.flip(3), made, strict=True):
        crops = [
            source[:, top : top + 32, left : left + 32]
            for source in (before, flipped)
            for top in range(9)
            for left in range(9)
        ]
        assert any(torch.equal(crop, after) for crop in crops)
    assert len({tuple(image.flatten()[:50].tolist()) for image in made}) == 40


def test_calibration_finds_the_scale_that_was_lost():
    labels = torch.randint(10, (20000,))
    logits = torch.randn(20000, 10)
    # Labels drawn from the probabilities of 2.1 times these logits.
    labels = torch.multinomial((2.1 * logits).softmax(1), 1).squeeze(1)
    assert calibrated(logits, labels) == pytest.approx(2.1, abs=0.11)


@pytest.mark.slow
def test_training_learns_and_repeats_with_its_seed(monkeypatch):
    monkeypatch.setattr(train_cifar10net, "BATCH_SIZE", 32)
    splits = {"train": patterns(1500), "test": patterns(300, seed=1)}
    first, second = (train(splits, steps=6, seed=3) for _ in range(2))
    states = (trained.net.state_dict() for trained in (first, second))
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))
    assert set(first.net.state_dict()) == set(Cifar10Net().state_dict())
    longer = train(splits, steps=40)
    assert longer.accuracy > 0.3
    with pytest.raises(ValueError, match="positive"):
        train(splits, steps=0)


def test_the_script_does_not_write_over_the_fixed_weights(capsys):
    with pytest.raises(SystemExit):
        train_cifar10net.main(["--out", str(WEIGHTS)])
    assert "must not be the fixed weights" in capsys.readouterr().err
