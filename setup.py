"""The native step, trainer/core/native: once for each kind of processor; where a compiler refuses, torch trains.

All else stands in pyproject.toml. `library.load` chooses among them: a wheel runs on any processor.
"""

import platform
import runpy

from setuptools import Extension, setup

LIBRARY = runpy.run_path("trainer/core/native/library.py")
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math"]  # both forbid vectors, and change no number
PROCESSORS = {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}
IS_X86 = platform.machine() in ("x86_64", "AMD64")

setup(
    ext_modules=[
        Extension(
            f"trainer.core.native.{version}",
            ["trainer/core/native/step.cpp"],
            depends=[f"trainer/core/native/{name}" for name in LIBRARY["SOURCES"]],
            define_macros=[("SOURCE", LIBRARY["source_hash"]())],
            extra_compile_args=[*FLAGS, *PROCESSORS.get(version, [])],
            optional=True,
            language="c++",
        )
        for version in LIBRARY["VERSIONS"]
        if IS_X86 or version not in PROCESSORS
    ]
)
