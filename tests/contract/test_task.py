"""The contract with a task: what is refused in its module, its outputs and its metrics."""

import pytest

pytestmark = pytest.mark.slow

YAML = """
    # @package _global_
    task: {{name: own, _target_: {target}{more}}}
    seed: 0
"""


@pytest.fixture
def own(lab, toy, tmp_path):
    """The command on one function of a module that the test writes."""

    def call(module, *arguments, more="", target="lab_own.task"):
        lab({"lab_own.py": module, "my_conf/task/own.yaml": YAML.format(target=target, more=more)})
        tasks = () if any(argument.startswith("task=") for argument in arguments) else ("task=own",)
        return toy("--config-dir", str(tmp_path / "my_conf"), *arguments, *tasks)

    return call


@pytest.mark.parametrize(
    ("module", "lines"),
    [
        ("RATE = 1 / 0", ["ZeroDivisionError: division by zero", "  lab_own.py:1: RATE = 1 / 0"]),
        ("import sys\nsys.exit(7)", ["SystemExit: 7", "  lab_own.py:2: sys.exit(7)"]),
        ("def task(:", ["SyntaxError: invalid syntax (lab_own.py, line 1)", "  lab_own.py:1: def task(:"]),
        (
            "import no_such_lab",
            ["ModuleNotFoundError: No module named 'no_such_lab'", "  lab_own.py:1: import no_such_lab"],
        ),
        ("class Ends(BaseException): ...\nraise Ends(3)", ["Ends: 3", "  lab_own.py:2: raise Ends(3)"]),
        (
            "import json\ndef load():\n    return json.loads('{')\nload()",
            [
                "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
                "  lab_own.py:4: load()",
                "  lab_own.py:3: return json.loads('{')",
            ],
        ),
    ],
    ids=["error", "exit", "syntax", "dependency", "base", "library"],
)
@pytest.mark.parametrize("is_certain", [True, False])
def test_a_module_that_raises_is_told_with_the_users_own_frames(own, module, lines, is_certain):
    """Whether the signature was read from the source before, or the import was needed for it."""
    called = own(module + ("\ndef task(seed: int): ...\n" if is_certain else ""))
    assert called.status == 2
    assert called.err.splitlines() == [f"error: task 'own': importing 'lab_own' raised {lines[0]}", *lines[1:]]


def test_a_module_that_imports_itself(own):
    called = own("from lab_own import task\ndef task(seed: int): ...\n")
    assert called.status == 2
    assert "importing 'lab_own' raised ImportError: cannot import name 'task'" in called.err
    assert called.err.splitlines()[1:] == ["  lab_own.py:1: from lab_own import task"]


def test_ctrl_c_within_a_module_interrupts_the_command(own):
    assert own("raise KeyboardInterrupt").status == 130


def test_a_module_that_raises_refuses_a_sweep_over_tasks(own):
    called = own("def task(seed: int): ...\nraise ValueError\n", "-m", "task=dense_forward,own")
    assert called.status == 2
    assert "importing 'lab_own' raised ValueError: no message" in called.err


def test_what_a_task_raises_is_told_with_its_place_and_recorded_without(own):
    module = (
        "def check(n):\n    raise ValueError(f'no {n}')\ndef task(seed: int, n: int = 3):\n    return n or check(n)\n"
    )
    alone = own(module, "+n=0")
    assert alone.status == 2
    assert alone.err.splitlines() == [
        "error: task 'own' with seed=0, n=0: ValueError: no 0",
        "  lab_own.py:2: raise ValueError(f'no {n}')",
    ]
    swept = own(module, "-m", "+n=0,1")
    assert swept.frame["reason"].tolist()[0] == "task 'own' with seed=0, n=0: ValueError: no 0"


RULE = "the name of an output is printable text that does not begin with =, +, - or @"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("3", "outputs must be a name, or a list of names, got 3"),
        ("true", "outputs must be a name, or a list of names, got True"),
        ("[1, 2]", "outputs must be a name, or a list of names, got [1, 2]"),
        ("[[a], b]", "outputs must be a name, or a list of names, got [['a'], 'b']"),
        ("{a: b}", "outputs must be a name, or a list of names, got {'a': 'b'}"),
        ("[a, b, a]", "outputs has 'a' more than once"),
        ('["=1+1", b]', f"{RULE}, got '=1+1' in outputs"),
        ('["@b"]', f"{RULE}, got '@b' in outputs"),
        ('["-b"]', f"{RULE}, got '-b' in outputs"),
        ('["+b"]', f"{RULE}, got '+b' in outputs"),
        ('["\\tb"]', f"{RULE}, got '\\tb' in outputs"),
        ('["a\\rb"]', f"{RULE}, got 'a\\rb' in outputs"),
        ('[""]', f"{RULE}, got '' in outputs"),
    ],
)
def test_names_of_outputs_in_the_yaml(own, outputs, message):
    called = own("def task(seed: int):\n    return 1.0, 2.0\n", more=f", outputs: {outputs}")
    assert (called.status, called.err) == (2, f"error: task 'own': {message}\n")


@pytest.mark.parametrize("name", ["'=1+1'", "'@x'", "'-x'", "'+x'", "'\\tx'", "3", "''"])
def test_names_of_outputs_in_a_returned_dict(own, name):
    called = own(f"def task(seed: int):\n    return {{{name}: 1.0}}\n")
    assert called.status == 2
    assert called.err == f"error: task 'own' with seed=0: TypeError: returns an output named {name}; {RULE}\n"


def test_metrics_of_a_returned_dict(own):
    module = "def task(seed: int):\n    return {'loss': 1.0, 'size': 2}\n"
    for mode in ((), ("dry_run=true",)):
        called = own(module, *mode, more=", metrics: {los: minimize}")
        assert (called.status, called.folder) == (2, None)
        assert called.err == "error: task 'own': metrics names 'los'; the outputs are: loss, size\n"
    assert own(module, more=", metrics: {loss: minimize}").status == 0


def test_a_metric_that_some_runs_return_is_one(own):
    module = "def task(seed: int, n: int = 3):\n    return {'size': n, 'loss': 1.0} if n else {'size': n}\n"
    call = ("study=mine", "+n=1"), ("study=mine", "+n=0")
    assert [own(module, *arguments, more=", metrics: {loss: minimize}").status for arguments in call] == [0, 0]
