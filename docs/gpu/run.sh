#!/usr/bin/env bash
# run.sh OUT [FLAGS]: unpacks what pack.sh put beside this file and runs gpu-check, results below OUT. No network is used.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "${1:?a folder for the results}" && cd "$1" && pwd)
shift
work=${TMPDIR:-/tmp}/voxalign-gpu
mkdir -p "$work/cache" "$work/kernels" "$work/links"
unxz() {
  if command -v xz >/dev/null; then xz -dc "$1"; else
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer, 1 << 20)' "$1"
  fi
}
unxz "$here/deno.xz" >"$work/deno" && chmod +x "$work/deno"
unxz "$here/npm.tar.xz" | tar -C "$work/cache" -x
unxz "$here/voxalign.tar.xz" | tar -C "$work" -x
export DENO_DIR=$work/cache DENO_NO_UPDATE_CHECK=1
# cuBLASLt and NVRTC of the Python wheels, under the names that are looked for; never the stubs of the driver.
folders=$(python3 -c 'import glob, importlib.util as u, os
s = u.find_spec("nvidia")
found = {os.path.dirname(f) for r in (s.submodule_search_locations if s else []) for f in glob.glob(r + "/**/*.so*", recursive=True)}
print(*sorted(f for f in found if not f.endswith("stubs")))' || true)
for folder in $folders; do
  for name in libcublasLt libnvrtc; do
    for file in "$folder/$name".so.[0-9]*; do [ -e "$file" ] && ln -sf "$file" "$work/links/$name.so"; done
  done
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$work/links:${folders// /:}"
cd "$work"
library=$(echo "$work"/native/target/*/libvoxalign.so | tr ' ' ,)
# With LD_LIBRARY_PATH set Deno starts programs (itself, python3, compute-sanitizer) for an unlimited --allow-run alone.
exec ./deno run --no-prompt --cached-only "--allow-read=$work,$out" "--allow-write=$out,$work/kernels" "--allow-ffi=$library" \
  --allow-run scripts/gpu-check.ts --out "$out" --kernels "$work/kernels" "$@"
