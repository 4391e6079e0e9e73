"""The runs that an expression selects, and what that leaves out."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.reductions import is_reduction
from runner.contract.task import Output
from runner.errors import InvalidInputError

NAME = re.compile(r"[A-Za-z_][\w]*(?:\.\w+(?:-?\d)?)*")
QUOTED = re.compile(r"""('[^']*'|"[^"]*"|`[^`]*`)""")


def list_names(keep: str) -> list[str]:
    """The names in an expression, and what stands between backticks."""
    parts = QUOTED.split(keep)
    names = [name for part in parts[::2] for name in NAME.findall(part)]
    return list(dict.fromkeys([*names, *(part[1:-1] for part in parts[1::2] if part.startswith("`"))]))


def list_filtered(keep: str | None, outputs: Mapping[str, Output], metrics: Sequence[str]) -> list[str]:
    """The outputs, or numbers of arrays, that a filter names and that are not among the metrics."""
    found = []
    for name in list_names(keep or ""):
        base, _, part = name.partition(".")
        output = outputs.get(name) or outputs.get(base)
        is_scalar = name in outputs and output is not None and output.shape == () and not output.is_categorical
        is_number = output is not None and output.shape != () and is_reduction(part)
        if name not in metrics and (is_scalar or is_number):
            found.append(name)
    return found


def evaluate_filter(keep: str, codes: Any, labels: Any, seed: np.ndarray, values: Any) -> np.ndarray:
    """Which runs an expression such as `lr < 0.1 and seed < 10` selects, bool `(runs,)`."""
    names = set(list_names(keep))
    columns = {name: np.array(labels[name], dtype=object)[codes[name]] for name in codes if name in names}
    columns = {name: pd.Series(column).infer_objects() for name, column in columns.items()}
    columns |= {name: pd.Series(column) for name, column in {"seed": seed, **values}.items() if name in names}
    has = ", ".join([*codes, "seed", *values])
    try:
        found = pd.DataFrame(columns).eval(_quote_names(keep, columns), engine="python")
    except Exception as error:  # an expression can raise anything
        raise InvalidInputError(
            f"the filter {keep!r} cannot be evaluated ({str(error).splitlines()[0]}); there are: {has}; words stand in "
            "quotes, as in \"task == 'train'\""
        ) from error
    if not isinstance(found, pd.Series) or found.dtype != bool:
        raise InvalidInputError(f"the filter {keep!r} is not a condition; there are: {has}")
    if not found.any():
        raise InvalidInputError(f"the filter {keep!r} selects none of {len(seed):,} runs")
    return found.to_numpy()


def _quote_names(keep: str, columns: Collection[str]) -> str:
    """The expression with names that have a dot between backticks, as pandas requires them."""
    parts = QUOTED.split(keep)
    parts[::2] = [
        NAME.sub(lambda found: f"`{found[0]}`" if "." in found[0] and found[0] in columns else found[0], part)
        for part in parts[::2]
    ]
    return "".join(parts)


def describe_filter(keep: str, kept: np.ndarray, outcomes: Sequence[str]) -> list[str]:
    """What a filter leaves out; one on outcomes leaves no fair sample."""
    sentence = f"the filter {keep!r} leaves out {len(kept) - int(kept.sum()):,} of {len(kept):,} runs"
    by = [name for name in list_names(keep) if name in outcomes]
    if not by:
        return [sentence]
    return [
        f"{sentence}, by their outcome ({', '.join(by)}): estimates, intervals and p-values are of what was selected, "
        "and do not hold for new runs"
    ]


def list_words(keep: str, outputs: Mapping[str, Output]) -> list[str]:
    """The categorical outputs that a filter names."""
    return [name for name in list_names(keep) if name in outputs and outputs[name].is_categorical]
