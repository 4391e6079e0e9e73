"""Linen models in NNX: variables and checkpoints both ways, and layers that give the same bits."""

from tasks.porting.bridges import linen_variables, to_linen, to_nnx
from tasks.porting.differences import VERDICTS, Difference, find_tolerance, find_worst, measure_difference
from tasks.porting.layers import LEAF_LAYERS, PORTS, Ported, PortKind, port_layer
from tasks.porting.models import Entry, Model, PortedModel, call_layer, port_model
from tasks.porting.optimizers import dump_optimizer, load_optimizer
from tasks.porting.traces import COMPUTING_METHODS
from tasks.porting.variables import (
    Mismatch,
    MismatchKind,
    VariableMismatchError,
    dump,
    flatten_variables,
    load,
    make_abstract,
    name_modules,
)

__all__ = [
    "COMPUTING_METHODS",
    "LEAF_LAYERS",
    "PORTS",
    "VERDICTS",
    "Difference",
    "Entry",
    "Mismatch",
    "MismatchKind",
    "Model",
    "PortKind",
    "Ported",
    "PortedModel",
    "VariableMismatchError",
    "call_layer",
    "dump",
    "dump_optimizer",
    "find_tolerance",
    "find_worst",
    "flatten_variables",
    "linen_variables",
    "load",
    "load_optimizer",
    "make_abstract",
    "measure_difference",
    "name_modules",
    "port_layer",
    "port_model",
    "to_linen",
    "to_nnx",
]
