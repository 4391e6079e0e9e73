"""Data sets that installed packages carry, so that no network is needed: those of scikit-learn (extra `data`).

Each takes the keywords of `make_splits`, which say how it is divided and standardised.
"""

from importlib import import_module
from typing import Any

from tasks.training.splits import Kind, Part, Splits, make_splits

__all__ = [
    "Part",
    "Splits",
    "load_breast_cancer",
    "load_diabetes",
    "load_digits",
    "load_iris",
    "load_linnerud",
    "load_olivetti",
    "load_wine",
    "make_splits",
]


def load_digits(**split: Any) -> Splits:
    """1,797 images of 8 × 8 handwritten digits from 0 to 16, flat; `shape=(8, 8, 1)` for a convolution. 10 classes."""
    return _load("load_digits", "classes", split)


def load_iris(**split: Any) -> Splits:
    """150 flowers of 3 species with 4 measures."""
    return _load("load_iris", "classes", split)


def load_wine(**split: Any) -> Splits:
    """178 wines of 3 cultivators with 13 measures."""
    return _load("load_wine", "classes", split)


def load_breast_cancer(**split: Any) -> Splits:
    """569 tumours, malignant (0) or benign (1), with 30 measures."""
    return _load("load_breast_cancer", "classes", split)


def load_diabetes(**split: Any) -> Splits:
    """442 patients with 10 measures; the target is the progression of the disease after a year, from 25 to 346."""
    return _load("load_diabetes", "regression", split, scaled=False)


def load_linnerud(**split: Any) -> Splits:
    """20 men with 3 exercises; the 3 targets are weight, waist and pulse."""
    return _load("load_linnerud", "regression", split)


def load_olivetti(**split: Any) -> Splits:
    """400 faces of 40 people, 64 × 64, flat; `shape=(64, 64, 1)` for a convolution.

    Scikit-learn downloads them once; here nothing is downloaded. Raises ValueError where they are not in its folder.
    """
    sets = _import_sets()
    try:
        bunch = sets.fetch_olivetti_faces(download_if_missing=False)
    except OSError:
        raise ValueError(
            f"the data set olivetti is not in scikit-learn's folder {sets.get_data_home()}; where there is a network, "
            "sklearn.datasets.fetch_olivetti_faces() puts it there"
        ) from None
    return make_splits(bunch.data, bunch.target, kind="classes", **split)


def _load(name: str, kind: Kind, split: dict[str, Any], **options: Any) -> Splits:
    bunch = getattr(_import_sets(), name)(**options)
    return make_splits(bunch.data, bunch.target, kind=kind, columns=list(bunch.feature_names), **split)


def _import_sets() -> Any:
    try:
        return import_module("sklearn.datasets")
    except ModuleNotFoundError:
        raise ValueError(
            "these data are scikit-learn's, which is not installed: pip install scikit-learn, or the extra 'data'"
        ) from None
