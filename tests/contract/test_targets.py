"""Which `_target_`s are allowed, for tasks and for arguments."""

import math
import os
import shutil

import jax
import numpy as np
import pytest
import toys
from hydra.utils import get_method

from runner.contract.targets import check_object, check_target, list_targets
from runner.errors import InvalidInputError

REFUSED_BY_HYDRA = {
    "_asyncio": "Task.get_stack",
    "_frozen_importlib_external": "ExtensionFileLoader.exec_module FileLoader.load_module _LoaderBasics.exec_module",
    "_functools": "reduce",
    "_operator": "attrgetter call contains delitem getitem itemgetter methodcaller setitem",
    "_pickle": "Unpickler load loads",
    "_sitebuiltins": "Quitter _Helper",
    "abc": "abstractmethod",
    "annotationlib": "ForwardRef._evaluate ForwardRef.evaluate get_annotations",
    "asyncio": "base_tasks._task_get_stack tasks.Task.get_stack",
    "bdb": "Bdb.run",
    "builtins": "__build_class__ __import__ classmethod compile eval exec exit filter frame.clear "
    "getset_descriptor.__get__ help locals map member_descriptor.__get__ property property.__get__ quit staticmethod "
    "str.format str.format_map type.__call__ type.__new__ vars iter getattr setattr delattr open input globals",
    "cProfile": "Profile.run Profile.runctx run runctx",
    "cloudpickle": "load loads",
    "code": "InteractiveConsole.push InteractiveInterpreter.runcode InteractiveInterpreter.runsource interact",
    "concurrent": "futures._base.Executor.map futures.process.ProcessPoolExecutor.submit "
    "futures.thread.ThreadPoolExecutor.submit",
    "contextlib": "AsyncContextDecorator.__call__ ContextDecorator.__call__ asynccontextmanager contextmanager",
    "ctypes": "CDLL LibraryLoader.LoadLibrary OleDLL PyDLL WinDLL cdll.LoadLibrary pydll.LoadLibrary",
    "dataclasses": "make_dataclass",
    "dill": "load loads",
    "distutils": "spawn.spawn",
    "doctest": "testmod",
    "functools": "cache cached_property lru_cache partial.__call__ partialmethod partialmethod.__get__ reduce "
    "singledispatch singledispatchmethod singledispatchmethod.__get__ update_wrapper wraps",
    "gc": "get_objects",
    "hydra": "_internal.utils._locate utils.call utils.instantiate main",
    "importlib": "import_module machinery.ExtensionFileLoader.create_module machinery.SourceFileLoader.exec_module "
    "machinery.SourcelessFileLoader.load_module",
    "inspect": "getsource",
    "itertools": "accumulate dropwhile filterfalse groupby starmap takewhile",
    "logging": "Formatter StrFormatStyle config.dictConfig",
    "marshal": "load loads",
    "multiprocessing": "pool.Pool._map_async pool.Pool.apply pool.Pool.imap pool.Pool.map pool.Pool.starmap",
    "operator": "attrgetter call contains delitem getitem itemgetter methodcaller setitem",
    "optparse": "Values.read_file Values.read_module",
    "os": "chdir chmod chown chroot execv fchdir fchmod fchown fork forkpty kill killpg lchflags lchmod lchown popen "
    "posix_spawn posix_spawnp putenv remove removedirs rename renames replace rmdir setuid spawnl startfile system "
    "truncate unlink unsetenv",
    "pdb": "run",
    "pickle": "Unpickler _Unpickler _load _loads load loads",
    "posix": "system",
    "profile": "Profile.run Profile.runctx run runctx",
    "pty": "spawn",
    "pydoc": "locate",
    "runner": "pipeline.run_call",
    "runpy": "run_module run_path",
    "shelve": "open",
    "shutil": "chown move rmtree",
    "string": "Formatter._vformat Formatter.format Formatter.get_field Formatter.vformat",
    "subprocess": "Popen call check_call check_output getoutput getstatusoutput run",
    "sys": "_current_exceptions _current_frames _getframe exc_info exception exit",
    "timeit": "Timer.autorange Timer.repeat Timer.timeit main repeat timeit",
    "trace": "Trace",
    "traceback": "_walk_tb_with_full_positions clear_frames walk_stack walk_tb",
    "tracemalloc": "Snapshot.load",
    "types": "ClassMethodDescriptorType.__get__ FunctionType FunctionType.__get__ MethodType coroutine new_class",
    "typing": "ForwardRef._evaluate _eval_type evaluate_forward_ref get_type_hints",
    "unittest": "mock.AsyncMock mock.MagicMock mock.Mock mock.create_autospec mock.mock_open mock.patch "
    "mock.patch.dict",
    "yaml": "load unsafe_load safe_load",
}


@pytest.mark.parametrize("module", REFUSED_BY_HYDRA)
def test_what_executes_its_arguments_is_refused(module):
    for name in REFUSED_BY_HYDRA[module].split():
        for is_task in (False, True):
            with pytest.raises(InvalidInputError, match="is not allowed"):
                check_target("o", f"{module}.{name}", is_task=is_task)


@pytest.mark.parametrize(
    "target",
    ["builtins.dict", "math.sin", "functools.partial", "collections.OrderedDict", "operator.add", "decimal.Decimal"],
)
def test_plain_values_can_be_built_but_are_no_tasks(target):
    check_target("o", target)
    check_object("o", target, get_method(target))
    with pytest.raises(InvalidInputError, match="standard library, which has no tasks"):
        check_target("o", target, is_task=True)


@pytest.mark.parametrize(
    "value", [jax.nn.relu, jax.numpy.sin, np.sin, jax.jit(toys.line), toys.line, toys.Category, {}]
)
def test_functions_and_values_of_others_are_allowed(value):
    check_object("o", "lab.x", value)


@pytest.mark.parametrize(
    "value", [os.system, shutil.rmtree, os, "{}".format, eval, math.__loader__.load_module, [].sort]
)
def test_an_alias_is_known_by_its_own_name(value):
    with pytest.raises(InvalidInputError, match=r"_target_ 'lab.x', which is '.*', is not allowed"):
        check_object("o", "lab.x", value)


def test_a_task_by_its_own_name():
    check_object("o", "toys.line", toys.line, is_task=True)
    with pytest.raises(InvalidInputError, match=r"which is 'math.sin', is not allowed: math is of Python's standard"):
        check_object("o", "toys.sine", math.sin, is_task=True)


def test_every_path_of_a_description_is_listed():
    description = {
        "_target_": "a.b",
        "x": [{"_target_": "c.d", "_args_": [{"_target_": "e.f"}]}, 3],
        "y": {"z": {"_target_": "hydra.utils.get_method", "path": "g.h"}},
        "w": {"_target_": "hydra.utils.get_object", "_args_": ["i.j"]},
    }
    found = ["a.b", "c.d", "e.f", "hydra.utils.get_method", "g.h", "hydra.utils.get_object", "i.j"]
    assert list(list_targets("o", description)) == found


@pytest.mark.parametrize(
    ("description", "rule"),
    [
        ({"_target_": 3}, "_target_ must be a dotted path, got 3"),
        ({"_target_": ""}, "_target_ must be a dotted path"),
        ({"_target_": "hydra.utils.get_class"}, "needs its path as text, got none"),
        ({"_target_": "hydra.utils.get_method", "path": {"_target_": "builtins.str"}}, "needs its path as text"),
    ],
)
def test_a_description_names_its_paths(description, rule):
    with pytest.raises(InvalidInputError, match=rule):
        list(list_targets("o", {"nested": [description]}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("task=line", "task._target_=os.system"),
            "task 'line': _target_ 'os.system' is not allowed: os is of Python's",
        ),
        (("task=line", "task._target_=toys.jax._src.xla_bridge.os.remove"), "which is 'posix.remove', is not allowed"),
        (("task=line", "task._target_=toys"), "'toys' is not a function but a module"),
        (("task=line", "task._target_=toys.Category"), "'toys.Category' is not a function but a class"),
        (("task=line", "task._target_=toys.TRACES"), "'toys.TRACES' is not a function but a list"),
        (
            ("task=apply", "act={_target_: os.mkdir, path: made}"),
            "task 'apply': act: _target_ 'os.mkdir' is not allowed",
        ),
        (("task=apply", "act.path=os.mkdir"), "task 'apply': act: _target_ 'os.mkdir' is not allowed"),
        (("task=apply", "act.path=hydra.utils.instantiate"), "hydra executes what its arguments describe"),
        (("task=apply", "act.path=toys.jax._src.xla_bridge.os.mkdir"), "which is 'posix.mkdir', is not allowed"),
        (
            ("task=apply", "act={_target_: toys.nothing}"),
            "cannot import 'toys.nothing': module 'toys' has no attribute",
        ),
        (
            ("task=apply", "++act={_target_: functools.partial, _args_: [{_target_: os.mkdir}]}"),
            "'os.mkdir' is not allowed",
        ),
    ],
)
def test_the_command_refuses_them_in_a_line(toy, tmp_path, arguments, message):
    called = toy(*arguments, "dry_run=true")
    assert (called.status, called.out) == (2, "")
    assert message in called.err
    assert len(called.err.splitlines()) == 1
    assert not (tmp_path / "made").exists()
