"""List what an image holds, as JSON. Run by the image's own interpreter, so only the standard library is used."""

import json
import os
import shutil
from importlib.metadata import distributions

BUILD_TOOLS = ("gcc", "g++", "cc", "c++", "clang", "ld", "as", "make", "cmake", "ninja", "nvcc", "rustc", "cargo")
OTHER_TOOLS = ("uv", "git", "curl", "wget", "sudo")

if __name__ == "__main__":
    packages = {d.metadata["Name"].lower().replace("_", "-").replace(".", "-"): d.version for d in distributions()}
    tools = [name for name in BUILD_TOOLS + OTHER_TOOLS if shutil.which(name)]
    revision = os.environ.get("SRA_BENCH_REVISION")
    print(json.dumps({"uid": os.getuid(), "revision": revision, "tools": tools, "packages": packages}))
