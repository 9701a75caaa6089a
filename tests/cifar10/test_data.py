"""Images are found where they should be, and never taken when they are damaged."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from image_cases import random_images
from PIL import Image

from benchmarks.cifar10.data import Images, load_images, to_float
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.official import FOLDER, MD5, TEST, TRAIN, read_official


class OldPickler(pickle._Pickler):
    """Writes strings of bytes and arrays as the Python of the official files did."""

    def save_bytes(self, obj):
        self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)
        self.memoize(obj)

    def save_global(self, obj, name=None):
        if getattr(obj, "__name__", "") == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def write_batch(file: Path, images: np.ndarray, labels: list[int]) -> str:
    """Write a batch as the official ones are, and return its MD5."""
    stream = io.BytesIO()
    content = {b"data": images.reshape(len(images), -1), b"labels": labels}
    OldPickler(stream, protocol=2).dump(content)
    file.write_bytes(stream.getvalue())
    return hashlib.md5(stream.getvalue()).hexdigest()


@pytest.fixture
def official(tmp_path):
    """A small folder in the official layout, its checksums, and its images in order."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    images = random_images(24).numpy()
    checksums = {
        name: write_batch(folder / name, images[4 * k : 4 * k + 4], [k] * 4)
        for k, name in enumerate((*TRAIN, TEST))
    }
    return folder, checksums, torch.from_numpy(images)


def test_the_official_layout_is_read_in_its_order(official):
    folder, checksums, images = official
    assert b"numpy.core.multiarray" in (folder / TEST).read_bytes()
    splits = read_official(folder, checksums)
    assert torch.equal(splits["train"][0], images[:20])
    assert splits["train"][1].tolist() == [k for k in range(5) for _ in range(4)]
    assert torch.equal(splits["test"][0], images[20:])


@pytest.mark.parametrize("inner", [True, False], ids=["parent", "folder itself"])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_the_folder_is_found(official, monkeypatch, inner, by):
    folder, checksums, images = official
    named = folder.parent if inner else folder
    if by == "variable":
        monkeypatch.setenv("COMPOPT_DATA", str(named))
        named = None
    found = load_images(named, checksums=checksums, fetch=refuse)
    assert torch.equal(found.train, images[:20])
    assert found.source == "CIFAR-10"
    assert found.describe()["train_images"] == 20


def refuse(cache):
    raise AssertionError("nothing is to be downloaded")


def test_the_cache_comes_before_a_download(official, monkeypatch):
    folder, checksums, _ = official
    monkeypatch.setenv("COMPOPT_CACHE", str(folder.parent / "cache"))
    fetched = []

    def fetch(cache):
        fetched.append(cache)
        cache.mkdir(parents=True)
        return folder.rename(cache / FOLDER)

    first = load_images(checksums=checksums, fetch=fetch)
    second = load_images(checksums=checksums, fetch=refuse)
    assert fetched == [folder.parent / "cache" / "data"]
    assert torch.equal(first.train, second.train)


def test_nothing_there_is_said_with_where_it_was_looked_for(tmp_path, monkeypatch):
    with pytest.raises(BenchmarkError, match=r"no images at .*empty \(--data\)"):
        load_images(tmp_path / "empty")
    monkeypatch.setenv("COMPOPT_DATA", str(tmp_path))
    with pytest.raises(BenchmarkError, match=r"\(COMPOPT_DATA\)"):
        load_images()


def test_a_truncated_file_is_refused_before_it_is_unpickled(official):
    folder, checksums, _ = official
    file = folder / TRAIN[2]
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(BenchmarkError, match=rf"{TRAIN[2]} .*must have {checksums[TRAIN[2]]}"):
        load_images(folder, checksums=checksums)


def test_a_file_that_is_not_the_published_one_is_refused(official):
    folder, _, _ = official
    with pytest.raises(BenchmarkError, match=f"must have {MD5[TRAIN[0]]}"):
        load_images(folder)


def test_a_missing_file_is_named(official):
    folder, checksums, _ = official
    (folder / TRAIN[4]).unlink()
    with pytest.raises(BenchmarkError, match=f"{TRAIN[4]} cannot be read"):
        load_images(folder, checksums=checksums)


def test_a_pickle_cannot_run_code(official, tmp_path):
    folder, checksums, _ = official
    mark = tmp_path / "mark"

    class Evil:
        def __reduce__(self):
            return Path.touch, (mark,)

    content = pickle.dumps({b"data": Evil()}, protocol=2)
    (folder / TEST).write_bytes(content)
    checksums[TEST] = hashlib.md5(content).hexdigest()
    with pytest.raises(BenchmarkError, match="no place in a batch"):
        load_images(folder, checksums=checksums)
    assert not mark.exists()


def test_a_tree_of_images_is_read(tree):
    found = load_images(tree)
    assert found.train.shape == (48, 3, 32, 32)
    assert found.test.shape == (16, 3, 32, 32)
    assert found.source == "image folder"
    assert found.sha256 == load_images(tree).sha256
    # In the order of paths: class a has indices 0, 3, 6, ...
    expected = random_images(48, seed=48)
    assert torch.equal(found.train[1], expected[3])
    assert torch.equal(found.train[16], expected[1])


def test_images_of_other_sizes_are_cropped_and_resized(tmp_path):
    picture = np.zeros((64, 128, 3), dtype=np.uint8)
    picture[:, 32:96] = 200
    (tmp_path / "train").mkdir()
    Image.fromarray(picture).save(tmp_path / "train" / "wide.png")
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "train" / "grey.png")
    found = load_images(tmp_path)
    assert found.test is None
    assert found.train.shape == (2, 3, 32, 32)
    assert (found.train == 200).all()


def test_a_damaged_image_and_an_empty_tree_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(BenchmarkError, match="no image below"):
        load_images(tmp_path)
    (tmp_path / "train" / "a.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(BenchmarkError, match=r"a\.png is not a whole image"):
        load_images(tmp_path)


def test_the_digest_tells_data_sets_apart(images):
    other = images.train.clone()
    other[3, 1, 5, 5] ^= 1
    assert Images(other, None, "CIFAR-10").sha256 != images.sha256
    assert Images(images.train.clone(), None, "other").sha256 == images.sha256


def test_pixels_are_scaled_to_both_ends():
    values = to_float(torch.tensor([0, 255], dtype=torch.uint8))
    assert values.tolist() == [-1.0, 1.0]
