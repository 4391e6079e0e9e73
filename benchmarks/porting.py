"""What porting a checkpoint costs beyond reading it.

    python benchmarks/porting.py [--quick]

A model of 100 million float32 parameters, from an orbax checkpoint into an NNX model that was only shaped:
- the time against that of restoring the checkpoint by orbax alone: at most 1.3;
- the peak of memory beyond the libraries against the size of the parameters: at most 1.3.

Each is a process of its own, in turn; the median of the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

CHILD = """
import json, resource, sys, time
import jax, jax.numpy as jnp, numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from tasks import porting
from tasks.porting import checkpoints
what, path, width, depth = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

class Model(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])

def layer(seed):
    kernel = np.random.default_rng(seed).random((width, width), np.float32)
    return {"kernel": kernel, "bias": np.ones(width, np.float32)}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

if what == "write":
    checkpoints.write(path, {"params": {f"layers_{i}": layer(i) for i in range(depth)}})
    sys.exit()
jax.block_until_ready(jnp.ones(8) + 1)
model = nnx.eval_shape(lambda: Model(nnx.Rngs(0)))
before, begun = peak(), time.perf_counter()
if what == "port":
    porting.load(model, checkpoints.read(path))
    tree = nnx.state(model)
else:
    with ocp.PyTreeCheckpointer() as checkpointer:
        known = checkpointer.metadata(path).item_metadata.tree
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        how = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=place), known)
        tree = checkpointer.restore(path, args=ocp.args.PyTreeRestore(known, restore_args=how))
jax.block_until_ready(jax.tree.leaves(tree))
print(json.dumps([time.perf_counter() - begun, (peak() - before) / (4 * depth * (width * width + width))]))
"""


def child(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", CHILD, *map(str, arguments)]
    out = subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1]) if out.strip() else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model and one round: the script works, no more")
    quick = parser.parse_args().quick
    width, depth, rounds = (256, 4, 1) if quick else (3162, 10, 5)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "checkpoint"
        child("write", path, width, depth)
        pairs = [(child("read", path, width, depth), child("port", path, width, depth)) for _ in range(rounds)]
    ratio = statistics.median(port[0] / read[0] for read, port in pairs)
    read, port = (statistics.median(pair[i][0] for pair in pairs) for i in (0, 1))
    size = width * width * depth / 1e6
    print(f"| reading {size:.0f} million parameters, and porting them, s | {read:.2f}, {port:.2f} | |")
    print(f"| ratio | {ratio:.2f} | ≤ 1.30 |")
    memory = [statistics.median(pair[i][1] for pair in pairs) for i in (0, 1)]
    print(f"| peak beyond the libraries, in sizes of the parameters: reading | {memory[0]:.2f} | |")
    print(f"| porting | {memory[1]:.2f} | ≤ 1.30 |")


if __name__ == "__main__":
    main()
