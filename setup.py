# SPDX-License-Identifier: Apache-2.0
"""Builds pcmig._core and pcmig._tunnel. Everything else about the package is in pyproject.toml.

Environment:
    PCMIG_WERROR=1     compiler warnings are errors (CI sets it; a newer compiler should not break a build)
    PCMIG_SANITIZE=... value for -fsanitize=, e.g. "address,undefined"
    PCMIG_COVERAGE=1   build with gcov instrumentation
"""

import os
import pathlib
import shlex
import subprocess
import sys

from setuptools import Extension, find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
DEBIAN = {"libvirt-qemu": "libvirt-dev", "openssl": "libssl-dev"}  # where the package is not called after it


def sources(*patterns: str) -> list[str]:
    """Files below csrc/, in an order that does not depend on the file system."""
    return sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in (ROOT / "csrc").glob(pattern))


def pkg_config(option: str, libraries: dict[str, str]) -> list[str]:
    """Flags of all LIBRARIES; stops with the missing package's name when one is not there."""
    flags: list[str] = []
    for name, version in libraries.items():
        query = ["pkg-config", option, f"{name} >= {version}"]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            sys.exit("pcmig: pkg-config is not installed (Debian: apt-get install pkg-config)")
        if answer.returncode:
            sys.exit(
                f"pcmig: {name} >= {version} was not found "
                f"(Debian: apt-get install {DEBIAN.get(name, f'{name}-dev')}): "
                f"{answer.stderr.strip()}"
            )
        flags += shlex.split(answer.stdout)
    return flags


compile_args = [
    "-std=c11",
    "-O2",
    "-g",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
]
link_args: list[str] = []
if os.environ.get("PCMIG_WERROR") == "1":
    compile_args.append("-Werror")
if sanitize := os.environ.get("PCMIG_SANITIZE"):
    compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
    link_args.append(f"-fsanitize={sanitize}")
if os.environ.get("PCMIG_COVERAGE") == "1":
    # Some files are in both extensions, and are compiled for each; without a seed each compilation has
    # notes of its own, and counts of the one do not fit those of the other, whichever came last.
    compile_args += ["--coverage", "-O0", "-frandom-seed=pcmig"]
    link_args.append("--coverage")

# What only asks for the name or packs the sources needs no libraries.
asks_only = not {"--version", "--name", "sdist", "egg_info"}.isdisjoint(sys.argv)


def extension(name: str, libraries: dict[str, str], *patterns: str) -> Extension:
    return Extension(
        name,
        sources=sources(*patterns),
        depends=[*sources("**/*.h"), "VERSION"],
        include_dirs=["csrc"],
        define_macros=[("_GNU_SOURCE", None), ("PCMIG_VERSION", f'"{VERSION}"')],
        extra_compile_args=compile_args + ([] if asks_only else pkg_config("--cflags", libraries)),
        extra_link_args=link_args + ([] if asks_only else pkg_config("--libs", libraries)),
    )


setup(
    # Nova looks for its drivers in its own package nova.virt and nowhere else; see pcmig/nova/shim.
    packages=[*find_packages(include=["pcmig*"]), "nova.virt.pcmig"],
    package_dir={"nova.virt.pcmig": "pcmig/nova/shim"},
    ext_modules=[
        extension(
            "pcmig._core",
            {"libvirt": "8.0.0", "libvirt-qemu": "8.0.0"},
            "core/*.c",
            "edge/*.c",
            "engine/*.c",
            "python/*.c",
        ),
        extension(
            "pcmig._tunnel",
            {"openssl": "3.0.0"},
            "core/tunnel_*.c",
            "edge/clock.c",
            "tunnel/**/*.c",
            "tunnel_python/*.c",
        ),
    ],
)
