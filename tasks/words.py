"""Results of a task that are words."""

from dataclasses import dataclass, field
from functools import partial

import jax


@partial(jax.tree_util.register_dataclass, data_fields=["code"], meta_fields=["words"])
@dataclass(frozen=True)
class Word:
    """One of `words`, by its place `code`, an int32 scalar that may be traced."""

    code: jax.Array
    words: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.words[int(self.code)]
