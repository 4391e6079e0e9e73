"""Generates the reference pages that the code knows: settings and the Python interface.

python docs/reference.py
"""

import ast
import inspect
from dataclasses import fields
from pathlib import Path

from runner.analysis.comparison import Comparison, compare_studies
from runner.analysis.load import read_study
from runner.config.settings import Settings
from tasks import porting
from tasks.porting import checkpoints

HERE = Path(__file__).parent / "reference"
PORTING = (
    porting.load,
    porting.dump,
    porting.port_layer,
    porting.port_model,
    porting.make_abstract,
    porting.load_optimizer,
    porting.dump_optimizer,
    porting.to_linen,
    porting.to_nnx,
    porting.linen_variables,
    checkpoints.read,
    checkpoints.write,
    checkpoints.save_nnx,
    checkpoints.load_nnx,
)


def describe_settings() -> str:
    rows = [
        f"| `{setting.name}` | `{str(setting.metadata['values']).replace('|', '&#124;')}` "
        f"| `{str(setting.default).lower() if isinstance(setting.default, bool) else setting.default}` "
        f"| {setting.metadata['help']} |"
        for setting in fields(Settings)
    ]
    table = "\n".join(["| setting | values | default | meaning |", "|---|---|---|---|", *rows])
    return f"""# Settings

Settings are top-level keys beside the task's parameters: `study=lr_scan`. They are declared in
`runner/config/settings.py`, from which this page is generated.

{table}

Those of the sweeper:

| setting | meaning |
|---|---|
| `hydra.sweeper.params` | what a YAML sweeps, as on the command line |
| `hydra.sweeper.zip` | keys that vary together: a list of keys, or a list of such lists |
| `hydra.sweeper.shards` | processes among which the launcher `hydra/launcher=…` divides the sweep |
"""


def describe_function(name: str, function: object) -> str:
    # from the source, because the representation of annotations depends on the versions of Python and JAX
    (definition,) = ast.parse(inspect.getsource(function)).body
    signature = f"({ast.unparse(definition.args)}) -> {ast.unparse(definition.returns)}"
    doc = inspect.getdoc(function) or ""
    return f"## `{name}`\n\n```text\n{name}{signature}\n```\n\n{doc}\n"


def describe_python() -> str:
    library = [describe_function(f"{f.__module__.rpartition('.')[2]}.{f.__name__}", f) for f in PORTING]
    return "\n".join(
        [
            "# Python interface",
            "\nGenerated from the docstrings.\n",
            describe_function("runner.read", read_study),
            describe_function("runner.compare_studies", compare_studies),
            f"## `Comparison`\n\n{inspect.getdoc(Comparison)}\n",
            "# Porting: `tasks.porting`\n",
            *library,
        ]
    )


PAGES = {"settings.md": describe_settings, "python.md": describe_python}

if __name__ == "__main__":
    for name, describe in PAGES.items():
        (HERE / name).write_text(describe())
