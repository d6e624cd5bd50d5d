"""In-tree build backend: setuptools, with mypyc for the modules that are worth compiling.

`BORDER0_BUILD=auto|native|pure` chooses: auto (the default for wheels) compiles when there are
modules to compile and a C compiler works, and falls back to pure Python with one line that says
why; native fails instead; pure never compiles. An editable install is pure unless told otherwise.
"""

import ast
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  every hook not defined below is setuptools' own
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent.parent
MODES = ("auto", "native", "pure")
# What the running hook decided, for setup.py: metadata hooks see no extension modules.
_decided = {"ext_modules": [], "options": {}, "reason": ""}


def say(line):
    """One line for the person who builds; pip shows it only with -v."""
    print(f"border0: {line}", file=sys.stderr, flush=True)


def build_mode(editable):
    """The mode asked for, from the environment."""
    value = os.environ.get("BORDER0_BUILD") or ("pure" if editable else "auto")
    if value not in MODES:
        raise SystemExit(f"border0: BORDER0_BUILD={value!r}: expected one of {', '.join(MODES)}")
    return value


def native_modules():
    """NATIVE_MODULES, read and not imported: the dependencies are absent while building."""
    tree = ast.parse((ROOT / "border0/_build_info.py").read_text("utf-8"))
    for node in tree.body:
        target = getattr(node, "target", None)
        if isinstance(node, ast.AnnAssign) and getattr(target, "id", "") == "NATIVE_MODULES":
            return ast.literal_eval(node.value)
    raise SystemExit("border0: NATIVE_MODULES is missing from border0/_build_info.py")


def compiler_problem():
    """Why a C compiler cannot be used, or ""; compiles and links one file that needs Python.h."""
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(
            "#include <Python.h>\nint border0_probe(void) { return PY_MAJOR_VERSION; }\n"
        )
        try:
            compiler = new_compiler()
            customize_compiler(compiler)
            compiler.add_include_dir(sysconfig.get_paths()["include"])
            objects = compiler.compile([str(source)], output_dir=folder)
            compiler.link_shared_object(objects, f"{folder}/probe.so")
        except Exception as error:
            say(f"compiler probe: {error}")
            return "no working C compiler with Python.h found"
    return ""


def pure_reason(editable):
    """Why this build stays pure Python, or "" when it compiles."""
    if build_mode(editable) == "pure":
        return "BORDER0_BUILD=pure" if os.environ.get("BORDER0_BUILD") else "editable install"
    if not native_modules():
        return "no compiled modules yet"
    return compiler_problem()


def translate(folder):
    """Turn the native modules into C extensions."""
    from mypyc.build import mypycify

    # The project's own strict settings would fail here: third-party packages are absent.
    flags = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    flags.append(f"--cache-dir={folder}/mypy")
    paths = [name.replace(".", "/") + ".py" for name in native_modules()]
    extensions = mypycify(flags + paths, target_dir=f"{folder}/c", group_name="border0")
    for extension in extensions:
        extension.extra_compile_args = [a for a in extension.extra_compile_args if a != "-Werror"]
    return extensions


def requires(editable):
    """mypy only when this build will compile."""
    return [] if pure_reason(editable) else ["mypy>=2.4"]


def attempt(hook, arguments, build_base, extensions, reason):
    """Run setuptools' hook with a private build_base, so that nothing stale gets in."""
    options = {"build": {"build_base": build_base}}
    _decided.update(ext_modules=extensions, options=options, reason=reason)
    return hook(*arguments)


def run_build(hook, editable, *arguments):
    """Native if wanted and possible, else pure."""
    wanted = build_mode(editable)
    reason = pure_reason(editable)
    with tempfile.TemporaryDirectory() as folder:
        if not reason:
            try:
                compiled = translate(folder)
                name = attempt(hook, arguments, f"{folder}/native", compiled, "compiled with mypyc")
            except (Exception, SystemExit) as error:  # mypyc reports bad sources by SystemExit
                if wanted == "native":
                    raise
                say(repr(error))
                reason = (
                    "mypyc is missing" if isinstance(error, ImportError) else "compiling failed"
                )
            else:
                say(f"native build: {len(native_modules())} modules compiled with mypyc")
                return name
        if wanted == "native":
            raise SystemExit(f"border0: BORDER0_BUILD=native, but {reason}")
        name = attempt(hook, arguments, f"{folder}/pure", [], reason)
        say(f"pure Python build: {reason}")
        return name


# Hook parameters keep their PEP 517 names: pip passes them by position, tox by keyword.
def get_requires_for_build_wheel(config_settings=None):
    """PEP 517."""
    return build_meta.get_requires_for_build_wheel(config_settings) + requires(False)


def get_requires_for_build_editable(config_settings=None):
    """PEP 660."""
    return build_meta.get_requires_for_build_editable(config_settings) + requires(True)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 517."""
    arguments = (wheel_directory, config_settings, metadata_directory)
    return run_build(build_meta.build_wheel, False, *arguments)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 660."""
    arguments = (wheel_directory, config_settings, metadata_directory)
    return run_build(build_meta.build_editable, True, *arguments)


class BuildPy(build_py):
    """Stores why the build is native or pure, because pip hides what a backend prints."""

    def run(self):
        """Copy the modules, then add `_built.py`."""
        super().run()
        if not self.editable_mode:
            text = f'"""Written by the build."""\n\nREASON = {_decided["reason"]!r}\n'
            Path(self.build_lib, "border0/_built.py").write_text(text)


def setup_arguments():
    """What setup.py hands to setuptools.setup."""
    return {
        "cmdclass": {"build_py": BuildPy},
        "ext_modules": _decided["ext_modules"],
        "options": _decided["options"],
    }
