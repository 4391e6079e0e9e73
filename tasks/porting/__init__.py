"""Linen models in NNX: their variables both ways, and layers that give the same bits."""

from tasks.porting.bridges import linen_variables, to_linen, to_nnx
from tasks.porting.layers import PORTS, Ported, port_layer
from tasks.porting.models import Entry, Model, PortedModel, port_model
from tasks.porting.optimizers import dump_optimizer, load_optimizer
from tasks.porting.variables import Misfit, dump, load, shaped

__all__ = [
    "PORTS",
    "Entry",
    "Misfit",
    "Model",
    "Ported",
    "PortedModel",
    "dump",
    "dump_optimizer",
    "linen_variables",
    "load",
    "load_optimizer",
    "port_layer",
    "port_model",
    "shaped",
    "to_linen",
    "to_nnx",
]
