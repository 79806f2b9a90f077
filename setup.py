"""What pyproject.toml cannot say: the cffi module, BPF objects compiled by clang, systemd's units."""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

ARCHITECTURES = {"x86": "x86", "arm64": "arm64"}  # directory name -> __TARGET_ARCH_ suffix
UNITS = ["watch", "alloc", "maps", "growth", "peek"]


class build_bpf(Command):
    """Compile bpf/*.bpf.c to CO-RE objects under mwtrace/_bpf/, one per architecture.

    BPF code itself is the same everywhere; what differs is where a traced function's registers
    are, so each architecture gets its own object and every wheel carries all of them.

    The sources go along, for the engine that compiles them on the host.
    """

    description = "compile the BPF programs"
    user_options = [("inplace", "i", "put the objects into the source tree")]
    boolean_options = ["inplace"]
    editable_mode = False  # set by setuptools

    def initialize_options(self):
        self.build_lib = None
        self.inplace = False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def _folder(self):
        root = Path() if self.inplace or self.editable_mode else Path(self.build_lib)
        return root / "mwtrace" / "_bpf"

    def _target(self, architecture, unit):
        return self._folder() / architecture / f"{unit}.bpf.o"

    def _copies(self):
        sources = [Path(name) for name in self.get_source_files()]
        return {source: self._folder() / "source" / source.relative_to("bpf") for source in sources}

    def get_outputs(self):
        objects = [self._target(a, u) for a in ARCHITECTURES for u in UNITS]
        return [str(path) for path in [*objects, *self._copies().values()]]

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return sorted(str(path) for path in Path("bpf").rglob("*.[ch]"))

    def run(self):
        clang = os.environ.get("CLANG", "clang")
        strip = os.environ.get("LLVM_STRIP", "llvm-strip")
        for source, copy in self._copies().items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        for architecture, define in ARCHITECTURES.items():
            for unit in UNITS:
                target = self._target(architecture, unit)
                target.parent.mkdir(parents=True, exist_ok=True)
                # Relative paths and no host: BTF.ext holds both, and builds should be equal.
                command = [clang, "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra"]
                command += os.environ.get("MW_BPF_CFLAGS", "").split()
                command += [
                    f"-D__TARGET_ARCH_{define}",
                    "-Ibpf",
                    "-c",
                    f"bpf/{unit}.bpf.c",
                    "-o",
                    str(target),
                ]
                subprocess.run(command, check=True)
                subprocess.run([strip, "-g", str(target)], check=True)


class build_units(Command):
    """Copy systemd/* into the package: a wheel cannot put files where systemd looks for them, so
    ``mwtrace service install`` does."""

    description = "copy the units of systemd"
    user_options = [("inplace", "i", "put them into the source tree")]
    boolean_options = ["inplace"]
    editable_mode = False  # set by setuptools

    def initialize_options(self):
        self.build_lib = None
        self.inplace = False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def _copies(self):
        root = Path() if self.inplace or self.editable_mode else Path(self.build_lib)
        folder = root / "mwtrace" / "_systemd"
        return {Path(name): folder / Path(name).name for name in self.get_source_files()}

    def get_outputs(self):
        return [str(path) for path in self._copies().values()]

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return sorted(str(path) for path in Path("systemd").glob("mwtrace*"))

    def run(self):
        for source, copy in self._copies().items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


class build_all(build):
    # After build_py, which copies whatever an editable installation left under mwtrace/_bpf/.
    sub_commands = [*build.sub_commands, ("build_bpf", None), ("build_units", None)]


setup(
    cffi_modules=["cext/build.py:ffibuilder"],
    cmdclass={"build": build_all, "build_bpf": build_bpf, "build_units": build_units},
)
