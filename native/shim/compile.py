"""compile.py nvcc|nvrtc|any INCLUDE ARCHITECTURES FILE...: compiles kernels and says what they need.

One JSON line {compiler} and one per kernel and architecture {file, architecture, kernel, registers, stack, spills,
notes}; {file, architecture, error} where one does not compile. Exit 1 with one sentence when there is no compiler.
nvcc from PATH or from the wheels nvidia-cuda-nvcc, nvidia-nvvm, nvidia-cuda-crt, nvidia-cuda-runtime; NVRTC from
nvidia-cuda-nvrtc or nvidia-cuda-nvrtc-cu12. Neither needs a GPU or a driver.
"""

import ctypes
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ENTRY = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers", re.S)
NOTE = re.compile(r"\((?:C7508|C7515)\)[^\n]*|\(C\d+\)[^\n]*are serialized[^\n]*")  # setmaxnreg ignored; wgmma waits for each product


def wheels():
    """Folders of the nvidia wheels."""
    spec = importlib.util.find_spec("nvidia")
    return [pathlib.Path(p) for p in spec.submodule_search_locations] if spec else []


def find_nvcc():
    found = shutil.which("nvcc")
    return found or next((str(p) for w in wheels() for p in sorted(w.glob("*/bin/nvcc"))), None)


def with_nvcc(nvcc, include, arch, path):
    with tempfile.TemporaryDirectory() as folder:
        line = [nvcc, "-cubin", f"-arch={arch}", "-std=c++17", "-Xptxas", "-v", "-I", include, "-o", folder + "/k.cubin", path]
        done = subprocess.run(line, capture_output=True, text=True)
        return done.returncode == 0, done.stdout + done.stderr


def find_nvrtc():
    """The loaded library; its builtins have to be loaded first (no RUNPATH in release 13)."""
    for folder in [w / d for w in wheels() for d in ("cu13/lib", "cuda_nvrtc/lib")]:
        for library in folder.glob("libnvrtc.so.*"):
            for builtins in folder.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(library))
    return None


def with_nvrtc(nvrtc, include, arch, path):
    program = ctypes.c_void_p()
    text = pathlib.Path(path).read_bytes()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, path.encode(), 0, None, None)
    options = [f"-arch={arch}", "-std=c++17", "-default-device", f"-I{include}", "--ptxas-options=-v"]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*[o.encode() for o in options]))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return status == 0, log.value.decode()


def main(wanted, include, architectures, files):
    nvcc = find_nvcc() if wanted in ("nvcc", "any") else None
    nvrtc = find_nvrtc() if not nvcc and wanted in ("nvrtc", "any") else None
    if nvcc:
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        print(json.dumps({"compiler": "nvcc " + re.search(r"V([\d.]+)", version).group(1)}))
    elif nvrtc:
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        print(json.dumps({"compiler": f"NVRTC {major.value}.{minor.value}"}))
    else:
        name = {"any": "CUDA compiler", "nvcc": "nvcc", "nvrtc": "NVRTC"}[wanted]
        sys.exit(f"no {name} is found: put nvcc on PATH or run pip install nvidia-cuda-nvrtc-cu12==12.4.127")
    for path in files:
        for arch in architectures.split(","):
            ok, log = with_nvcc(nvcc, include, arch, path) if nvcc else with_nvrtc(nvrtc, include, arch, path)
            about = {"file": path, "architecture": arch}
            if not ok:
                print(json.dumps({**about, "error": log.strip()}))
            for kernel, stack, stores, loads, registers in ENTRY.findall(log) if ok else []:
                notes = [n for n in NOTE.findall(log) if f"'{kernel}'" in n or "function '" not in n]
                need = {"registers": int(registers), "stack": int(stack), "spills": int(stores) + int(loads)}
                print(json.dumps({**about, "kernel": kernel, **need, "notes": notes}))


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
