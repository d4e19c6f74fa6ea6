#!/usr/bin/env bash
# run.sh OUT [FLAGS]: unpacks what pack.sh put beside this file and runs gpu-check, results below OUT. No network is used.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "${1:?a folder for the results}" && cd "$1" && pwd)
shift
work=${TMPDIR:-/tmp}/voxalign-gpu
mkdir -p "$work/cache"
unxz() { python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer, 1 << 20)' "$1"; }
unxz "$here/deno.xz" >"$work/deno" && chmod +x "$work/deno"
unxz "$here/npm.tar.xz" | tar -C "$work/cache" -x
unxz "$here/voxalign.tar.xz" | tar -C "$work" -x
export DENO_DIR=$work/cache DENO_NO_UPDATE_CHECK=1
cd "$work"
tools=python3
command -v compute-sanitizer >/dev/null && tools+=,compute-sanitizer
library=$work/native/target/release/libvoxalign.so
exec ./deno run --no-prompt --cached-only "--allow-read=$work,$out" "--allow-write=$out" "--allow-ffi=$library" \
  "--allow-run=$tools" scripts/gpu-check.ts --out "$out" "$@"
