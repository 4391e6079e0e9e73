"""Seedbed: declarative JAX and Flax experiments, all runs of one shape in one compiled program."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import pandas as pd


def read(folder: "str | os.PathLike[str]") -> "pd.DataFrame":
    """The table of a study, in run order and with the dtypes that its values had.

    `folder` is that of the study, such as `outputs/lr_scan`. Seeds are uint32, floats float32, words
    strings, and the cells of array outputs are arrays again. Runs without a result have missing values. Raises
    `runner.errors.InvalidInputError` for a folder that holds no study.
    """
    from pathlib import Path

    from runner.storage import manifest as record
    from runner.storage import table
    from runner.storage.folder import Folder

    place = Folder(Path(folder))
    return table.frame(place.results, record.required(place.record).columns)
