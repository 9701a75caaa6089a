"""Real 8x8 digits, and scores of samples against them."""

import numpy as np
import torch
from torch import Tensor

CONFIDENCE = 0.9
SHARE_COVERED = 0.02


def real_digits() -> tuple[Tensor, Tensor]:
    """Return the images [1797, 64], pixels from 0 to 16, and their classes [1797]."""
    # Imported here because it takes seconds, which would delay `--help`.
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32), torch.tensor(classes)


class Judge:
    """Compares samples [n, 64] with the real digits, on their scale of 0 to 16.

    A class is covered if at least 2 % of all samples fall in it with a probability of 0.9 or more,
    by a support vector classifier of the real digits.
    """

    def __init__(self) -> None:
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.svm import SVC

        self.images, classes = real_digits()
        # scikit-learn has no type annotations: checkers infer wrong ones from the defaults.
        self.classifier = CalibratedClassifierCV(SVC(), ensemble=False)  # pyright: ignore
        self.classifier.fit(self.images.numpy(), classes.numpy())

    def distance(self, samples: Tensor) -> float:
        """Return the mean Euclidean distance to the nearest real digit."""
        return float(torch.cdist(samples, self.images).amin(dim=1).mean())

    def real_distance(self) -> float:
        """Return the mean distance of a real digit to its nearest other digit."""
        distances = torch.cdist(self.images, self.images).fill_diagonal_(torch.inf)
        return float(distances.amin(dim=1).mean())

    def classify(self, samples: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the most probable class of each sample [n] and its probability [n]."""
        probabilities = self.classifier.predict_proba(samples.numpy())
        return probabilities.argmax(axis=1), probabilities.max(axis=1)

    def scores(self, samples: Tensor) -> dict[str, float]:
        """Return the columns of the table that are computed from samples."""
        classes, confidence = self.classify(samples)
        counts = np.bincount(classes[confidence >= CONFIDENCE], minlength=10)
        return {
            "distance": round(self.distance(samples), 1),
            "real to real": round(self.real_distance(), 1),
            "classes of 10": int((counts >= SHARE_COVERED * len(samples)).sum()),
        }

    def mosaic(self, samples: Tensor, rows: int) -> np.ndarray:
        """Tile the first ``rows`` samples classified as each class, a column per class."""
        classes, _ = self.classify(samples)
        tiles = np.zeros((rows, 9, 10, 9))
        for digit in range(10):
            column = samples[classes == digit][:rows].reshape(-1, 8, 8).numpy()
            tiles[: len(column), :8, digit, :8] = column
        return tiles.reshape(rows * 9, 90)
