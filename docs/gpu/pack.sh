#!/usr/bin/env bash
# pack.sh FOLDER [emulated]: what `run.sh` needs on a machine with a GPU and nothing else: Deno, its cached packages, our library
# with the kernels in it, scripts. Below 64 MiB. Run it where the library is built (`deno task build`, with nvcc); `emulated` packs
# that of `deno task shim` beside it, to try `run.sh OUT --emulate` without a GPU.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
to=$(mkdir -p "${1:?a folder}" && cd "$1" && pwd)
deno=$(deno eval 'console.log(Deno.execPath())')
cache=$(deno info --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["npmCache"])')
libraries=(native/target/release/libvoxalign.so ${2:+"native/target/$2/libvoxalign.so"})
xz -T0 -6 -c "$deno" >"$to/deno.xz"
tar -C "$(dirname "$cache")" -cJf "$to/npm.tar.xz" npm
(cd "$root" && tar -cJf "$to/voxalign.tar.xz" deno.json deno.lock types lib scripts docs/gpu "${libraries[@]}")
cp "$root/docs/gpu/run.sh" "$to/run.sh"
du -sh "$to"/*
