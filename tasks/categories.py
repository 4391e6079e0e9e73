"""Categorical results of a task: one of several texts."""

from dataclasses import dataclass, field
from functools import partial

import jax


@partial(jax.tree_util.register_dataclass, data_fields=["code"], meta_fields=["categories"])
@dataclass(frozen=True)
class Category:
    """One of `categories`, by its place `code`, an int32 scalar that may be traced."""

    code: jax.Array
    categories: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.categories[int(self.code)]
