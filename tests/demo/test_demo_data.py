"""The demo's data: the same for everybody, prepared without looking at anybody else's records."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.demo.data import CLASSES, FEATURES, HELD_OUT, LEAST_RECORDS, deal, edge_features, load_split
from gateway.demo.errors import UnplannableRun


def test_the_split_is_stratified_and_loses_no_record() -> None:
    """Held-out data are 360 of the 1,797 digits, each digit in its share."""
    training, held_out = load_split()

    shares = np.array(held_out.label_counts()) / HELD_OUT
    overall = (np.array(held_out.label_counts()) + training.label_counts()) / 1797

    assert (len(training), len(held_out)) == (1437, HELD_OUT)
    assert np.abs(shares - overall).max() < 1 / HELD_OUT


def test_the_records_are_those_that_scikit_learn_loads() -> None:
    """We read scikit-learn's file ourselves, for speed; what we read is what its own function gives."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    training, held_out = load_split()

    ours = np.concatenate([training.features, held_out.features])
    theirs = edge_features(bundle.images)

    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))
    assert sorted([*training.labels, *held_out.labels]) == sorted(bundle.target)


def test_no_feature_depends_on_another_record() -> None:
    """Feature scaling needs no private statistics: a record alone gets the features it gets among others."""
    images = np.random.default_rng(5).uniform(0, 16, size=(6, 8, 8))

    together = edge_features(images)
    alone = np.concatenate([edge_features(image[None]) for image in images])

    assert np.allclose(together, alone, rtol=0, atol=1e-15)
    assert together.shape == (6, FEATURES)
    assert np.allclose(np.linalg.norm(together, axis=1), 1)


def test_a_blank_image_has_zero_features_and_no_nan() -> None:
    """A degenerate record must not poison a sum."""
    features = edge_features(np.zeros((1, 8, 8)))

    assert np.array_equal(features, np.zeros((1, FEATURES)))


@pytest.mark.parametrize("silos", [1, 2, 10, 35])
def test_dealing_gives_every_record_to_one_silo_and_every_silo_some(silos: int) -> None:
    """The silos are a partition of the training records, none with fewer than ten."""
    training, _ = load_split()

    shares = deal(training, silos)

    dealt = [record for share in shares for record in map(bytes, share.features)]
    assert sorted(dealt) == sorted(map(bytes, training.features))
    assert min(map(len, shares)) >= LEAST_RECORDS


def test_dealing_is_the_same_each_time_and_skewed_by_label() -> None:
    """A fixed seed; Dirichlet 0.5 leaves silos without some of the digits."""
    training, _ = load_split()

    first, second = deal(training, 10), deal(training, 10)

    assert all(np.array_equal(a.features, b.features) for a, b in zip(first, second, strict=True))
    missing = sum(share.label_counts().count(0) for share in first)
    assert 5 <= missing < 10 * CLASSES / 2


@pytest.mark.parametrize("silos", [0, 36])
def test_too_many_silos_are_refused(silos: int) -> None:
    """A number of silos that leaves some without records is an error of the caller, and says so."""
    training, _ = load_split()

    with pytest.raises(UnplannableRun, match="1 to 35"):
        deal(training, silos)
