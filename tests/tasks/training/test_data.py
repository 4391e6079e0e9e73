"""Data: how they are divided and standardised, what is refused, and that they are the same bytes everywhere."""

import hashlib
import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tasks.training import data, files, synthetic
from tasks.training.splits import make_splits

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal((100, 4))
Y = np.repeat([0, 1, 2], [70, 20, 10])
PARTS = ("train", "validation", "test")


def parts(made):
    return [getattr(made, name) for name in PARTS]


def sizes(made):
    return tuple(len(part.y) for part in parts(made))


def find_rows(made):
    """Which examples of X each part has."""
    return [
        [int(np.flatnonzero((X.astype(np.float32) == row).all(axis=1))[0]) for row in part.x] for part in parts(made)
    ]


@pytest.mark.parametrize(
    ("validation", "test", "expected"),
    [
        (0.2, 0.1, (70, 20, 10)),
        (20, 10, (70, 20, 10)),
        (0, 0, (100, 0, 0)),
        (0.0, 0.005, (99, 0, 1)),
        (98, 1, (1, 98, 1)),
    ],
)
def test_parts_are_fractions_or_numbers_of_examples(validation, test, expected):
    made = make_splits(X, Y, validation=validation, test=test)
    assert sizes(made) == expected
    rows = np.concatenate(find_rows(made)).astype(int).tolist()
    assert sorted(rows) == list(range(100))
    for part, numbers in zip(parts(made), find_rows(made), strict=True):
        np.testing.assert_array_equal(part.y, Y[numbers])
        assert part.x.dtype == np.float32
        assert part.y.dtype == np.int32
        assert part.x.shape == (len(part.y), 4)


def test_the_seed_divides_and_the_test_part_does_not_depend_on_the_size_of_the_validation():
    first, again = (find_rows(make_splits(X, Y, seed=3)) for _ in range(2))
    other = find_rows(make_splits(X, Y, seed=4))
    assert first == again
    assert first[2] != other[2]
    assert find_rows(make_splits(X, Y, seed=3, validation=0.5))[2] == first[2]


@pytest.mark.parametrize("seed", range(5))
def test_stratified_parts_have_classes_in_proportion(seed):
    made = make_splits(X, Y, validation=0.3, test=0.2, seed=seed, stratify=True)
    counts = [np.bincount(part.y, minlength=3).tolist() for part in parts(made)]
    assert counts == [[35, 10, 5], [21, 6, 3], [14, 4, 2]]


def test_stratified_parts_have_their_sizes_where_proportions_are_no_whole_numbers():
    labels = np.repeat(np.arange(7), [13, 11, 7, 5, 3, 2, 59])
    made = make_splits(X, labels, validation=17, test=13, stratify=True)
    assert sizes(made) == (70, 17, 13)
    exact = np.bincount(labels) * 0.13
    assert (abs(np.bincount(made.test.y, minlength=7) - exact) < 1).all()


@given(
    labels=st.lists(st.integers(0, 3), min_size=3, max_size=60),
    validation=st.one_of(st.integers(0, 30), st.floats(0, 0.6)),
    test=st.one_of(st.integers(0, 30), st.floats(0, 0.6)),
    stratify=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_parts_are_a_partition_of_the_examples(labels, validation, test, stratify, seed):
    """Or they are refused."""
    numbers = np.arange(len(labels))[:, None]
    try:
        made = make_splits(numbers, labels, validation=validation, test=test, stratify=stratify, seed=seed)
    except ValueError:
        return
    rows = [part.x[:, 0].astype(int) for part in parts(made)]
    assert sorted(np.concatenate(rows)) == list(range(len(labels)))
    for size, found in ((validation, rows[1]), (test, rows[2])):
        assert len(found) == (size if isinstance(size, int) else math.floor(size * len(labels) + 0.5))
    if stratify:
        known = np.unique(labels, return_inverse=True)[1]
        assert set(known[rows[0]]) == set(known)
        shares = np.bincount(known) * len(rows[2]) / len(labels)
        assert (abs(np.bincount(known[rows[2]], minlength=len(shares)) - shares) < 1).all()


def test_standardisation_knows_the_training_part_alone():
    made = make_splits(5 * X + 3, Y, standardize=True)
    plain = make_splits(5 * X + 3, Y)
    mean, deviation = plain.train.x.mean(axis=0), plain.train.x.std(axis=0)
    for part, raw in zip(parts(made), parts(plain), strict=True):
        np.testing.assert_allclose(part.x, (raw.x - mean) / deviation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.train.x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(made.train.x.std(axis=0), 1, atol=1e-6)


def test_one_mean_and_deviation_for_images():
    made = make_splits(X * [1, 2, 3, 4], Y, standardize="whole")
    assert made.train.x.mean() == pytest.approx(0, abs=1e-6)
    assert made.train.x.std() == pytest.approx(1, abs=1e-6)
    ratio = made.train.x.std(axis=0)
    assert ratio[3] > 2 * ratio[0]


def test_a_feature_that_is_constant_is_only_shifted():
    """Also where the mean of equal floats is not their value."""
    constant = np.column_stack([X[:, 0], np.full(100, 0.1), np.full(100, 7)])
    made = make_splits(constant, Y, standardize=True)
    np.testing.assert_allclose(made.test.x[:, 1:], 0, atol=1e-12)
    train = find_rows(make_splits(X, Y))[0]
    constant[[row for row in range(100) if row not in train], 2] = 9
    assert (make_splits(constant, Y, standardize=True).test.x[:, 2] == 2).all()


def test_targets_are_standardised_on_request():
    made = make_splits(X, 10 * X[:, :2] + 5, kind="regression", standardize_targets=True)
    np.testing.assert_allclose(made.train.y.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(made.train.y.std(axis=0), 1, atol=1e-6)
    assert made.classes.shape == (0,)


def test_targets_of_a_regression_have_an_axis_of_outputs():
    made = make_splits(X, X[:, 0], kind="regression")
    assert made.train.y.shape == (60, 1)
    assert made.train.y.dtype == np.float32


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["b", "a", "c", "a"] * 5), [0, 1, 2]),
        (np.array(["b", "a", "c", "a"] * 5, object), [0, 1, 2]),
        (np.array([7, -3, 20, -3] * 5), [-3, 7, 20]),
        (np.array([7.0, -3.0, 20.0, -3.0] * 5), [-3, 7, 20]),
        (np.array([[7], [3], [20], [3]] * 5, np.uint64), [3, 7, 20]),
        ([True, False, True, False] * 5, [0, 1]),
    ],
    ids=["texts", "objects", "integers", "whole floats", "a column of unsigned ones", "booleans"],
)
def test_labels_of_any_type_become_numbers_in_their_order(labels, classes):
    made = make_splits(X[:20], labels)
    assert made.classes.tolist() == classes
    assert made.classes.dtype == np.float32
    flat = np.asarray(labels).ravel()
    expected = np.searchsorted(np.unique(flat), flat)
    seen = np.concatenate([part.y for part in parts(made)])
    order = np.concatenate(find_rows(made))
    np.testing.assert_array_equal(seen, expected[order])


def test_a_number_of_classes_keeps_labels_as_they_are():
    made = make_splits(X, Y, classes=5)
    assert made.classes.tolist() == [0, 1, 2, 3, 4]


def test_examples_have_the_shape_that_is_asked_for():
    pytest.importorskip("sklearn")
    made = data.load_digits(shape=(8, 8, 1), standardize="whole")
    assert made.train.x.shape == (1079, 8, 8, 1)
    np.testing.assert_array_equal(made.test.x.reshape(-1, 64), data.load_digits(standardize="whole").test.x)


NAN = np.where(np.arange(400).reshape(100, 4) % 97 == 5, np.nan, X)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (NAN, Y),
            {},
            r"x must be finite in float32; it is not in column 0 \(1 of 100\), 1 \(2 of 100\), 2 .* and 1 more",
        ),
        ((NAN, Y), {"columns": list("abcd")}, r"not in column 'a' \(1 of 100\), 'b' "),
        ((X * 1e39, Y), {}, r"x must be finite in float32; it is not in column 0 \(\d+ of 100\)"),
        (
            (X, np.where(Y == 2, np.nan, 1.0)),
            {"kind": "regression"},
            r"y must be finite in float32; .* 0 \(10 of 100\)",
        ),
        (
            (X, Y + 0.5),
            {},
            "labels of classes must be integers or texts, got 100 others of 100, as 0.5; .* kind=regression",
        ),
        ((X, np.where(Y == 2, np.nan, Y)), {}, "10 of 100 labels are not finite"),
        ((X, np.array(["a"] * 98 + [None, math.nan], object)), {}, "2 of 100 labels are missing"),
        ((X, np.array(["a"] * 99 + [(1, 2)], object)), {}, r"integers or texts, got 1 others of 100, as \(1, 2\)"),
        ((X, Y + 1), {"classes": 3}, "labels must be 0 … 2 for 3 classes, got 10 others, as 3"),
        ((X, Y - 1), {"classes": 3}, "labels must be 0 … 2 for 3 classes, got 70 others, as -1"),
        ((X, Y.astype(str)), {"classes": 3}, "labels must be integers if their number of classes is given"),
        ((X, Y[:90]), {}, "x and y must have as many examples, got 100 and 90"),
        ((X[:, 0], Y), {}, r"x must have examples and features, got shape \(100,\)"),
        ((X[:0], Y[:0]), {}, r"x must have examples and features, got shape \(0, 4\)"),
        ((X, X), {}, r"labels must have the shape \(examples,\), got \(100, 4\)"),
        ((X, X[:, None]), {"kind": "regression"}, r"targets must have the shape .* got \(100, 1, 4\)"),
        ((X.astype(str), Y), {}, "x must be an array of numbers, got <U"),
        (([[1, 2], [3]], Y), {}, "x must be an array of numbers: "),
        ((X, Y), {"validation": 0.5, "test": 0.5}, "leaves nothing for training: .* 50 and 50 of 100 examples"),
        ((X, Y), {"validation": 0, "test": 100}, "leaves nothing for training"),
        ((X, Y), {"validation": 0.001}, "validation=0.001 of 100 examples leaves none for it"),
        ((X, Y), {"test": 1.5}, "test must be a fraction below 1 or a whole number of examples, got 1.5"),
        ((X, Y), {"test": -1}, "test must be a fraction below 1 .* got -1"),
        ((X, Y), {"test": -0.1}, "test must be a fraction below 1 .* got -0.1"),
        ((X, Y), {"test": True}, "test must be a fraction below 1 .* got True"),
        ((X, Y), {"test": math.nan}, "test must be a fraction below 1 .* got nan"),
        ((X, X[:, 0]), {"kind": "regression", "stratify": True}, "stratify needs classes"),
        ((X, np.arange(100)), {"stratify": True}, "leaves no example for training of 40 of 100 classes"),
        ((X, Y), {"standardize": "rows"}, "standardize must be true, false or whole, got 'rows'"),
        ((X, Y), {"kind": "ranking"}, "kind must be classes or regression, got 'ranking'"),
        ((X, Y), {"shape": (2, 3)}, r"shape must have as many elements as an example of \(4,\), got \(2, 3\)"),
        ((X, Y), {"tokens": True}, "tokens must be integers, got float64"),
        ((np.full((100, 2), -1), Y), {"tokens": True}, "tokens must be integers from 0 on, got -1 … -1"),
        ((np.ones((100, 2), int), Y), {"tokens": True, "standardize": True}, "tokens cannot be standardized"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(arguments, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        make_splits(*arguments, **options)
    assert "\n" not in str(raised.value)


@dataclass(frozen=True)
class Known:
    """What a data set is: its sizes, features, classes, and the beginning of the SHA-256 of its bytes."""

    sizes: tuple
    x: tuple
    classes: int
    digest: str


SETS = {
    "digits": Known((1079, 359, 359), (64,), 10, "d2656d49bdfd4bdb"),
    "iris": Known((90, 30, 30), (4,), 3, "70f2f74d3b085ac2"),
    "wine": Known((106, 36, 36), (13,), 3, "63213b3d431f491b"),
    "breast_cancer": Known((341, 114, 114), (30,), 2, "6d644c2b1614ceab"),
    "diabetes": Known((266, 88, 88), (10,), 0, "5e987e7768bfda38"),
    "linnerud": Known((12, 4, 4), (3,), 0, "a00e51f7731bb805"),
    "linear": Known((308, 102, 102), (8,), 0, "ed5cda47d3ac2458"),
    "spirals": Known((600, 200, 200), (2,), 2, "0b52a7d76c653edc"),
    "moons": Known((600, 200, 200), (2,), 2, "d919f2f175eb674b"),
    "gaussians": Known((600, 200, 200), (2,), 2, "e30e3ca0189301c7"),
    "modular": Known((4705, 2352, 2352), (2,), 97, "93ec06f66e257fee"),
    "parity": Known((2458, 819, 819), (20,), 2, "949316a48fcd0373"),
}


def load(name):
    description = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "data" / f"{name}.yaml"))
    module, _, function = description.pop("_target_").rpartition(".")
    if module == data.__name__:
        pytest.importorskip("sklearn")
    return getattr({m.__name__: m for m in (data, synthetic, files)}[module], function)(**description)


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_that_ships_has_the_same_bytes_everywhere(name):
    made, known = load(name), SETS[name]
    assert sizes(made) == known.sizes
    assert made.train.x.shape[1:] == known.x
    assert made.classes.shape == (known.classes,)
    assert all(np.isfinite(part.x).all() for part in parts(made))
    digest = hashlib.sha256(b"".join(array.tobytes() for part in parts(made) for array in part)).hexdigest()
    assert digest[:16] == known.digest


def test_each_data_set_that_ships_is_tested():
    shipped = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    assert shipped == {*SETS, "olivetti", "file"}


def test_faces_are_not_downloaded(monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"olivetti is not in scikit-learn's folder {tmp_path}"):
        load("olivetti")


def test_scikit_learn_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match="not installed: pip install scikit-learn, or the extra 'data'"):
        data.load_iris()


def test_data_need_neither_jax_nor_scikit_learn_before_they_are_loaded():
    code = (
        "import sys, tasks.training.data, tasks.training.synthetic, tasks.training.files\n"
        "sys.exit(bool({'jax', 'sklearn', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_weights_of_the_linear_data_are_known():
    made = synthetic.make_linear(2000, 5, 2, noise=0.01, sample_seed=3, validation=0, test=0)
    design = np.column_stack([made.train.x, np.ones(2000)])
    found, residual, _, _ = np.linalg.lstsq(design, made.train.y, rcond=None)
    weights, bias = synthetic.draw_weights(5, 2, 3)
    np.testing.assert_allclose(found, [*weights, bias], atol=2e-3)
    np.testing.assert_allclose(residual / 2000, 1e-4, rtol=0.1)


def test_the_best_accuracy_of_the_gaussians_is_known():
    made = synthetic.make_gaussians(20000, 3, distance=2.0, validation=0, test=0)
    found = np.mean((made.train.x[:, 0] > 0) == made.train.y)
    assert found == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=0.01)


@pytest.mark.parametrize(("operation", "expected"), [("add", 4), ("subtract", 1), ("multiply", 2)])
def test_modular_data_are_all_pairs(operation, expected):
    made = synthetic.make_modular(7, operation, equals=True)
    x = np.concatenate([part.x for part in parts(made)])
    y = np.concatenate([part.y for part in parts(made)])
    assert x.dtype == np.int32
    assert {tuple(pair) for pair in x[:, :2]} == {(a, b) for a in range(7) for b in range(7)}
    assert (x[:, 2] == 7).all()
    assert y[(x[:, 0] == 6) & (x[:, 1] == 5)] == expected


def test_the_parity_is_that_of_the_relevant_bits():
    made = synthetic.make_parity(200, 6, 2)
    np.testing.assert_array_equal(made.train.y, (made.train.x[:, :2] == 1).sum(axis=1) % 2)
    assert set(np.unique(made.train.x)) == {-1, 1}


def test_the_arms_of_spirals_do_not_meet():
    made = synthetic.make_spirals(noise=0.0, validation=0, test=0)
    gaps = np.linalg.norm(made.train.x[:, None] - made.train.x[None], axis=-1)
    assert gaps[made.train.y[:, None] != made.train.y[None]].min() > 0.02
    assert np.bincount(made.train.y).tolist() == [500, 500]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            synthetic.make_modular,
            {"operation": "power"},
            "operation must be one of add, subtract, multiply, got 'power'",
        ),
        (synthetic.make_parity, {"relevant": 21}, "relevant must be 1 to bits=20, got 21"),
    ],
)
def test_options_of_synthetic_data_are_checked(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
