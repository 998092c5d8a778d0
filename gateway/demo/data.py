"""The demo's data: scikit-learn's digits as edge features, a held-out part, and the rest dealt to silos.

Every feature of a record is computed from that record alone, so that preparing the data costs no privacy.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.demo.errors import DemoError, UnplannableRun

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CLASSES = 10
SIDE = 8  # an image is 8 x 8 pixels of 0 to 16
DIRECTIONS = 8
CELL = 2  # edges are counted in cells of 2 x 2 pixels
FEATURES = DIRECTIONS * (SIDE // CELL) ** 2
HELD_OUT = 360
SPLIT_SEED = 7
SKEW = 0.5  # the Dirichlet parameter: small means that a silo sees few of the digits
LEAST_RECORDS = 10  # of every silo


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one owner: a row of unit norm and a label each."""

    features: Floats
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Labels) -> Records:
        """The records in these rows."""
        return Records(self.features[rows], self.labels[rows])

    def label_counts(self) -> list[int]:
        """How many records of each digit there are."""
        return [int(count) for count in np.bincount(self.labels, minlength=CLASSES)]


@cache
def load_split() -> tuple[Records, Records]:
    """The training records and the held-out ones: each digit divided alike, always in the same way."""
    images, labels = _digits()
    records = Records(edge_features(images), labels)
    held_out = _stratified_rows(labels, HELD_OUT)
    training = np.setdiff1d(np.arange(len(labels)), held_out)
    return records.take(training), records.take(held_out)


def edge_features(images: Floats) -> Floats:
    """How strongly the ink's edges run in each of 8 directions in each cell, as vectors of norm 1.

    A fixed transform (histograms of oriented gradients, square-rooted, centred by the record's own mean).
    """
    padded = np.pad(images / 16.0, ((0, 0), (1, 1), (1, 1)))
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    votes = _direction_votes(np.arctan2(down, across)) * np.hypot(across, down)[..., None]
    cells = votes.reshape(len(images), SIDE // CELL, CELL, SIDE // CELL, CELL, DIRECTIONS).sum(axis=(2, 4))
    rooted = np.sqrt(cells.reshape(len(images), FEATURES))
    centred = rooted - rooted.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))


def deal(training: Records, silos: int, *, seed: int = SPLIT_SEED) -> list[Records]:
    """Deal the records to silos, skewed by label (Dirichlet 0.5), none with fewer than ten records.

    Raises:
        UnplannableRun: there are too few records for so many silos.
    """
    if silos < 1 or silos * LEAST_RECORDS * 4 > len(training):
        raise UnplannableRun(f"{len(training)} records cannot be dealt to {silos} silos: take 1 to 35")
    randomness = np.random.default_rng(seed)
    owner = np.empty(len(training), dtype=np.int64)
    for digit in range(CLASSES):
        rows = randomness.permutation(np.flatnonzero(training.labels == digit))
        shares = randomness.dirichlet(np.full(silos, SKEW))
        cuts = (np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for silo, part in enumerate(np.split(rows, cuts)):
            owner[part] = silo
    _top_up(owner, silos)
    return [training.take(np.flatnonzero(owner == silo)) for silo in range(silos)]


def _top_up(owner: Labels, silos: int) -> None:
    """Move records from the fullest silo to each that has too few."""
    for silo in range(silos):
        while (missing := LEAST_RECORDS - int(np.sum(owner == silo))) > 0:
            fullest = int(np.bincount(owner, minlength=silos).argmax())
            owner[np.flatnonzero(owner == fullest)[:missing]] = silo


def _direction_votes(angles: Floats) -> Floats:
    """Each angle's vote, shared between the two nearest of the directions."""
    position = (angles % (2 * np.pi)) * DIRECTIONS / (2 * np.pi)
    distance = np.abs(position[..., None] - np.arange(DIRECTIONS))
    around = np.minimum(distance, DIRECTIONS - distance)
    return np.asarray(np.maximum(0.0, 1.0 - around))


def _stratified_rows(labels: Labels, count: int) -> Labels:
    """`count` rows, of each digit as large a share as it has of all (largest remainders)."""
    sizes = np.bincount(labels, minlength=CLASSES)
    exact = sizes * count / len(labels)
    quotas = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: count - int(quotas.sum())]] += 1
    randomness = np.random.default_rng(SPLIT_SEED)
    chosen = [
        randomness.permutation(np.flatnonzero(labels == digit))[: quotas[digit]] for digit in range(CLASSES)
    ]
    return np.sort(np.concatenate(chosen))


def _digits() -> tuple[Floats, Labels]:
    """Out of scikit-learn's own file: importing scikit-learn would cost each evaluation a second."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DemoError("The demo needs scikit-learn's digits data: install scikit-learn")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1].astype(np.int64)
