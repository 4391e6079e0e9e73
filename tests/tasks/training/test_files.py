"""Data in files: which columns are read, and what is refused."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.training.files import load_file
from tasks.training.splits import make_splits

RANDOM = np.random.RandomState(0)
FRAME = pd.DataFrame(
    {
        "age": RANDOM.randint(20, 60, 30),
        "weight": RANDOM.standard_normal(30),
        "smokes": RANDOM.randint(0, 2, 30).astype(bool),
        "city": RANDOM.choice(["Ulm", "Bonn"], 30),
        "score": RANDOM.standard_normal(30),
        "kind": RANDOM.choice(["b", "a", "c"], 30),
    }
)
FEATURES = FRAME[["age", "weight", "smokes"]].to_numpy(np.float64)


@pytest.fixture(autouse=True)
def _files():
    """In the test's own working directory."""
    FRAME.to_csv("table.csv", index=False)
    FRAME.to_parquet("table.parquet")
    np.savez("arrays.npz", images=FEATURES.reshape(30, 3, 1), labels=FRAME["kind"].to_numpy(str), other=np.ones(3))
    np.save("array.npy", np.column_stack([FEATURES, FRAME["score"]]))


def assert_same(made, expected):
    for part, other in zip(made[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(part.x, other.x)
        np.testing.assert_array_equal(part.y, other.y)
    np.testing.assert_array_equal(made.classes, expected.classes)


@pytest.mark.parametrize("path", ["table.csv", "table.parquet"])
@pytest.mark.parametrize(
    "columns", [{"features": ["age", "weight", "smokes"]}, {"drop": ["city", "score"]}], ids=["features", "drop"]
)
def test_a_table_has_columns_by_name(path, columns):
    made = load_file(path, "kind", **columns, standardize=True, stratify=True, seed=2)
    assert_same(made, make_splits(FEATURES, FRAME["kind"].to_numpy(str), standardize=True, stratify=True, seed=2))


@pytest.mark.parametrize("path", ["table.csv", "table.parquet"])
def test_a_regression_may_have_several_targets(path):
    made = load_file(path, ["score", "weight"], features="age", kind="regression")
    expected = make_splits(FRAME[["age"]], FRAME[["score", "weight"]].to_numpy(), kind="regression")
    assert_same(made, expected)
    assert made.train.y.shape == (18, 2)


def test_arrays_have_names():
    made = load_file("arrays.npz", "labels", features="images")
    assert_same(made, make_splits(FEATURES.reshape(30, 3, 1), FRAME["kind"].to_numpy(str)))


@pytest.mark.parametrize("target", [3, -1])
def test_an_array_has_columns_by_number(target):
    made = load_file("array.npy", target, kind="regression")
    assert_same(made, make_splits(FEATURES, FRAME["score"], kind="regression"))


def test_labels_may_be_categories_and_numbers_may_be_decimals():
    frame = FRAME[["age", "kind"]].astype({"kind": "category"})
    frame["price"] = [Decimal(n) / 4 for n in range(30)]
    frame.to_parquet("typed.parquet")
    expected = make_splits(np.column_stack([FRAME["age"], np.arange(30) / 4]), FRAME["kind"].to_numpy(str))
    assert_same(load_file("typed.parquet", "kind"), expected)


def write_damaged():
    FRAME.assign(age=FRAME["age"].where(FRAME.index > 2)).to_csv("missing.csv", index=False)
    FRAME.assign(kind=FRAME["kind"].where(FRAME.index > 3)).to_csv("unlabelled.csv", index=False)
    np.save("objects.npy", np.array([{}, 1], object), allow_pickle=True)
    np.save("flat.npy", np.arange(9.0))
    np.savez("arrays2.npz", x=np.ones((30, 2)), y=np.ones(20), z=np.ones((30, 2)))
    pd.DataFrame({"day": [pd.Timestamp("2020-01-01")] * 9, "kind": list("abcabcabc")}).to_parquet("dates.parquet")
    Path("twice.csv").write_text("a,b,a\n1,2,3\n")
    for name in ("empty.csv", "no.parquet", "no.npz", "no.npy"):
        Path(name).touch()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("absent.csv", "kind"), "there is no data file 'absent.csv' in /"),
        (("table.txt", "kind"), "data files are .csv, .parquet, .npz, .npy, got 'table.txt'"),
        (("table.csv", "species"), "table.csv has no column 'species'; it has: age, weight, smokes, city, score, kind"),
        (("table.csv", "kind", ["height"]), "table.csv has no column 'height'; it has: age"),
        (("table.csv", "kind", None, "height"), "table.csv has no column 'height'; it has: age"),
        (("array.npy", 4), "array.npy has no column 4; it has: 0, 1, 2, 3"),
        (
            ("table.csv", "kind"),
            r"column 'city' of table.csv must have numbers, got '(Ulm|Bonn)'; drop and features choose",
        ),
        (("missing.csv", "kind", ["age", "weight"]), r"x must be finite .* not in column 'age' \(3 of 30\)"),
        (("unlabelled.csv", "kind", ["age"]), "4 of 30 labels are missing"),
        (("table.csv", "score", ["age"]), "labels of classes must be integers or texts"),
        (("table.csv", "kind", ["age"], (), "regression"), "column 'kind' of table.csv must have numbers, got '[abc]'"),
        (("table.csv", ["kind", "city"], ["age"]), r"labels must have the shape \(examples,\), got \(30, 2\)"),
        (("table.csv", "kind", []), r"table.csv needs a target and features, got target=\['kind'\] and features=\[\]"),
        (("objects.npy", 0), "objects.npy cannot be read: Object arrays cannot be loaded"),
        (("flat.npy", 0), r"flat.npy cannot be read: it must have two axes, examples and columns, got shape \(9,\)"),
        (("arrays2.npz", "y", "x"), "x and y must have as many examples, got 30 and 20"),
        (
            ("arrays2.npz", "y", ["x", "z"]),
            r"arrays2.npz: several columns .* with one axis each, got x \(30, 2\), z \(30, 2\)",
        ),
        (("dates.parquet", "kind"), "column 'day' of dates.parquet must have numbers, got '2020-01-01"),
        (("twice.csv", "a"), "twice.csv cannot be read: column 'a' is there 2 times"),
        (("empty.csv", "kind"), "empty.csv cannot be read: "),
        (("no.parquet", "kind"), "no.parquet cannot be read: "),
        (("no.npz", "kind"), "no.npz cannot be read: "),
        (("no.npy", "kind"), "no.npy cannot be read: "),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(call, message):
    write_damaged()
    with pytest.raises(ValueError, match=message) as raised:
        load_file(*call)
    assert "\n" not in str(raised.value)
