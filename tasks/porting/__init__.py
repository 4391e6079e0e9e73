"""Linen models in NNX: their variables both ways, and layers that give the same bits."""

from tasks.porting.layers import PORTS, Ported, port_layer
from tasks.porting.variables import Misfit, dump, load

__all__ = ["PORTS", "Misfit", "Ported", "dump", "load", "port_layer"]
