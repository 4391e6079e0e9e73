"""Whole columns of text cells, as Arrow has them; single cells are those of `runner.storage.text_cells`."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.storage.text_cells import MARK, decode_text, encode_text


def encode_texts(texts: np.ndarray) -> pa.Array:
    """The cells of some texts, objects `(rows,)`; each distinct text is looked at once."""
    coded = pa.array(texts, pa.string()).dictionary_encode()
    cells = [encode_text(text) for text in coded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(coded.indices, pa.array(cells, pa.string())).dictionary_decode()


def decode_texts(column: pa.Array) -> pa.Array:
    """The texts of some cells, strings or a dictionary of strings."""
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, decode_texts(column.dictionary))
    if not pc.any(pc.starts_with(column, MARK)).as_py():
        return column
    return pa.array([None if cell is None else decode_text(cell) for cell in column.to_pylist()], pa.string())
