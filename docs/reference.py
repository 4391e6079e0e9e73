"""Generates the reference pages that the code knows: settings and the Python interface.

python docs/reference.py
"""

import ast
import inspect
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from runner.analysis.comparison import Comparison, compare_studies
from runner.analysis.load import read_study
from runner.analysis.study import Study
from runner.config.settings import Settings
from runner.notebook import run
from tasks import porting
from tasks.porting import checkpoints
from tasks.training import files, splits, synthetic

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


CONF = Path(__file__).parents[1] / "conf"
NO_SCHEDULE = ("polyak_sgd", "rprop", "sm3")
"""Optimizers that compute with the learning rate itself and refuse a function of the step."""
LEFT_OUT = {
    "differentially_private_aggregate": "needs the gradient of each example",
    "dpsgd": "needs the gradient of each example",
    "normalize": "is a step of others, no optimizer",
    "optimistic_adam": "`optimistic_adam_v2` has replaced it",
    "reduce_on_plateau": "is no optimizer, and compares its factor and tolerances in Python, where no tracer can be",
    "sam": "evaluations between its updates would see its perturbed parameters",
    "schedule_free": "`schedule_free_sgd` and `schedule_free_adamw` are made of it",
    "sophia": "needs the loss as a function of all examples, to estimate its Hessian",
    "split_real_and_imaginary": "is for complex parameters",
}
"""What optax has besides, and why it does not ship."""


def format_default(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(list(value) if isinstance(value, tuple) else value)


def describe_settings() -> str:
    rows = [
        f"| `{setting.name}` | `{str(setting.metadata['values']).replace('|', '&#124;')}` "
        f"| `{format_default(setting.default)}` "
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
| `hydra.sweeper.samples` | how many points are drawn from all intervals together |
| `hydra.sweeper.sampler` | `sobol` (default), `halton`, `lhs` or `random` |
| `hydra.sweeper.sampler_seed` | the seed of the sampler, by default 0 |
| `hydra.sweeper.halving` | `{{budget: steps, eta: 3}}`, with `least` and `method`: only the best points get all of it |
| `hydra.sweeper.objective`, `direction`, `reduce` | what halving compares points by, as below |

Those of `hydra/sweeper=optuna`, beside `params` and `shards`:

| setting | default | meaning |
|---|---|---|
| `hydra.sweeper.sampler` | `tpe` | `tpe`, `cmaes`, `gp`, `nsga2`, `nsga3`, `qmc` or `random` |
| `hydra.sweeper.trials` | 100 | how many points are proposed |
| `hydra.sweeper.batch` | 10 | how many of them at once; the population of `cmaes`, `nsga2` and `nsga3` |
| `hydra.sweeper.sampler_seed` | 0 | the seed of the sampler |
| `hydra.sweeper.objective` | the task's first metric | an output, or a list of several |
| `hydra.sweeper.direction` | that of the metric | `minimize` or `maximize`, one for each objective |
| `hydra.sweeper.reduce` | `mean` | one value of the seeds of a point: `mean`, `median`, `iqm`, `worst` or `upper` |
| `hydra.sweeper.constraints` | none | texts such as `train_loss<=0.5`, about the mean over the seeds |
| `hydra.sweeper.options` | none | further arguments of Optuna's sampler |

That of `hydra/launcher=lanes`: `hydra.launcher.objective`, the output that a sweeper is told, or several.
"""


def describe_function(name: str, function: object) -> str:
    # from the source, because the representation of annotations depends on the versions of Python and JAX
    (definition,) = ast.parse(inspect.getsource(function)).body
    signature = f"({ast.unparse(definition.args)}) -> {ast.unparse(definition.returns)}"
    doc = inspect.getdoc(function) or ""
    return f"## `{name}`\n\n```text\n{name}{signature}\n```\n\n{doc}\n"


def describe_member(owner: str, name: str) -> str:
    member = getattr(Study, name)
    return f"### `{owner}.{name}`\n\n{inspect.getdoc(getattr(member, 'func', member))}\n"


def describe_python() -> str:
    library = [describe_function(f"{f.__module__.rpartition('.')[2]}.{f.__name__}", f) for f in PORTING]
    return "\n".join(
        [
            "# Python interface",
            "\nGenerated from the docstrings.\n",
            describe_function("runner.run", run),
            f"## `runner.Study`\n\n{inspect.getdoc(Study)}\n",
            *(describe_member("Study", name) for name in ("frame", "programs", "compare")),
            describe_function("runner.read", read_study),
            describe_function("runner.compare_studies", compare_studies),
            f"## `Comparison`\n\n{inspect.getdoc(Comparison)}\n",
            "# Porting: `tasks.porting`\n",
            *library,
        ]
    )


def find_rate(description: dict[str, Any]) -> str | None:
    """The argument that takes the learning rate at the top of an optimizer's YAML, None if there is none."""
    return next((name for name in ("learning_rate", "max_learning_rate") if description.get(name) is not None), None)


def describe_optimizer(path: Path) -> str:
    description = yaml.safe_load(path.read_text())
    rate = find_rate(description)
    schedule = "no" if rate is None or path.stem in NO_SCHEDULE else "yes"
    decay = "biases and norms left out" if any(name.endswith("mask") for name in description) else ""
    if not decay and any("weight_decay" in name for name in description):
        decay = "all parameters"
    given = f"`{rate}: {description[rate]}`" if rate else "within"
    return f"| `{path.stem}` | `{description['_target_']}` | {given} | {schedule} | {decay} |"


def describe_optimizers() -> str:
    rows = "\n".join(describe_optimizer(path) for path in sorted((CONF / "optimizer").glob("*.yaml")))
    others = "\n".join(f"| `{name}` | {reason} |" for name, reason in LEFT_OUT.items())
    schedules, clips = (
        ", ".join(f"`{path.stem}`" for path in sorted((CONF / group).glob("*.yaml"))) for group in ("schedule", "clip")
    )
    return f"""# Optimizers, schedules and clipping

Generated from `conf/`. Arguments have optax's names and defaults. Each float of them is traced, so that all its values
share one program. `lr` is the learning rate.

## `optimizer=`

| optimizer | function | learning rate | takes a schedule | weight decay |
|---|---|---|---|---|
{rows}

Optimizers with `learning_rate: 1.0` find their own rate. `lbfgs`, `lbfgs_zoom` and `rprop` are for batches of all
examples. `lbfgs_zoom` fits neither `parts` nor `frozen` nor `accumulate`, because its line search evaluates the whole
model. Some decay all parameters, as optax has no mask for them.

## What of optax does not ship

| function | reason |
|---|---|
{others}

## `schedule=`

{schedules}:
the value of `optimizer.learning_rate`, so that `optimizer.learning_rate.alpha=0.1` sets an argument. Arguments have
optax's names where optax has them, and all numbers may be tracers, which optax refuses for some.

## `clip=`

{clips}:
what happens to gradients before the optimizer sees them.
"""


def describe_set(path: Path) -> str:
    target = yaml.safe_load(path.read_text())["_target_"]
    module, _, name = target.rpartition(".")
    first = (inspect.getdoc(getattr(import_module(module), name)) or "").partition("\n\n")[0].replace("\n", " ")
    return f"| `{path.stem}` | `{target}` | {first} |"


def describe_data() -> str:
    rows = "\n".join(describe_set(path) for path in sorted((CONF / "data").glob("*.yaml")))
    functions = "\n".join(
        describe_function(f"{f.__module__.rpartition('.')[2]}.{f.__name__}", f)
        for f in (splits.make_splits, files.load_file, synthetic.draw_weights)
    )
    return f"""# Data

Generated from `conf/data/` and the docstrings. Nothing is downloaded; scikit-learn's sets need the extra `data`.

## `data=`

| data | function | what they are |
|---|---|---|
{rows}

All take the keywords of `make_splits`, as in `data.test=0.1 data.stratify=true`. Data of your own are a function that
ends in it, which a YAML names by `_target_`:

```python
import numpy as np
from tasks.training.splits import make_splits


def load_waves(examples=200, **split):
    x = np.random.RandomState(0).uniform(-3, 3, (examples, 1))
    return make_splits(x, np.sin(x), kind="regression", **split)


waves = load_waves(test=50, standardize=True)
assert waves.test.x.shape == (50, 1)
```

{functions}"""


PAGES = {
    "settings.md": describe_settings,
    "python.md": describe_python,
    "optimizers.md": describe_optimizers,
    "data.md": describe_data,
}

if __name__ == "__main__":
    for name, describe in PAGES.items():
        (HERE / name).write_text(describe())
