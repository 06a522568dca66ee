#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Collects programs and the libraries that Debian gave them in one folder, for a
# machine (Ubuntu 24.04 or newer) that has libtorch and CUDA but none of the
# rest: collect.sh OUT_FOLDER PROGRAM...
#
# libc, libstdc++, libgomp, libtorch and CUDA stay behind: the machine has its
# own, and run.sh finds them.
set -euo pipefail
readonly out=$1
shift
readonly skip='^(linux-vdso|ld-linux|libc\.|libm\.|libdl|libpthread|librt\.|libstdc|libgcc_s|libgomp|libc10|libtorch|libcu|libnv|libcaffe2)'
# $ORIGIN is the loader's, not the shell's.
# shellcheck disable=SC2016
readonly rpath='$ORIGIN/../lib'

mkdir -p "$out/bin" "$out/lib"
libraries=$(ldconfig -p)
readonly libraries

needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

collect() {  # copies what a file needs, and what that needs
  local name path
  for name in $(needed "$1"); do
    [[ $name =~ $skip || -e $out/lib/$name ]] && continue
    path=$(awk -v n="$name" '$1 == n && !found {print $NF; found = 1}' \
             <<<"$libraries")
    if [[ -z $path ]]; then
      echo "bundle: $1 needs $name, which is nowhere" >&2
      exit 1
    fi
    cp -L "$path" "$out/lib/$name"
    chmod u+w "$out/lib/$name"
    strip --strip-unneeded "$out/lib/$name"
    collect "$out/lib/$name"
  done
}

for program in "$@"; do
  to="$out/bin/$(basename "$program")"
  cp "$program" "$to"
  strip --strip-unneeded "$to"
  patchelf --force-rpath --set-rpath "$rpath" "$to"
  collect "$to"
done
for library in "$out"/lib/*; do
  # shellcheck disable=SC2016
  patchelf --force-rpath --set-rpath '$ORIGIN' "$library"
done
printf 'bundle: %s programs, %s libraries, %s\n' "$(ls "$out/bin" | wc -l)" \
  "$(ls "$out/lib" | wc -l)" "$(du -sh "$out" | cut -f1)"
