"""What several devices bring, and whether the bytes stay those of one.

    python benchmarks/devices.py [--quick]

Sweeps are executed on 1, 2 and 4 devices, taken in turn, as whole processes that read their programs from the cache; of
several rounds the median of the ratios to one device counts. The bytes are those of `results.csv`. A machine without an
accelerator pretends to have four CPU devices, which share its cores: then the ratio says what the division costs, and a
device has no thread of its own beyond the cores. With accelerators, as many of 1, 2, 4 and 8 as there are.
"""

import argparse
import tempfile
from pathlib import Path

import jax
from cores import compare, execute

PRETENDED = 4


def list_sweeps(quick):
    runs, layers = (20_000, 50) if quick else (2_000_000, 2_000)
    return {
        f"`mixed_train`, {runs:,} runs": ("task=mixed_train", f"seed=range(0,{runs})"),
        f"`dense_forward` 64×512 to 512, {layers:,} runs": (
            *("task=dense_forward", "x.shape=[64,512]", "features=512"),
            f"seed=range(0,{layers})",
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    kind, found = jax.devices()[0].device_kind, len(jax.devices())
    is_accelerated = jax.default_backend() != "cpu"
    counts = [count for count in (1, 2, 4, 8) if count <= (found if is_accelerated else PRETENDED)]
    pretended = {} if is_accelerated else {"XLA_FLAGS": f"--xla_force_host_platform_device_count={PRETENDED}"}
    print(f"device: {kind}{'' if is_accelerated else f', {PRETENDED} pretended'}\n")
    print("| sweep | devices | s | against 1 | bytes of 1 |\n|---|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory() as name:
        for sweep, arguments in list_sweeps(quick).items():
            words = ("-m", *arguments)
            compare(
                sweep,
                counts,
                lambda n, words=words: execute(Path(name), (*words, f"devices={n}"), **pretended),
                1 if quick else 3,
            )


if __name__ == "__main__":
    main()
