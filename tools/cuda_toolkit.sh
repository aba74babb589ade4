#!/usr/bin/env bash
# Prints the folder of the CUDA toolkit: CUDA_HOME, /usr/local/cuda, the one that nvcc on the PATH belongs to, or what `cuda_toolkit.sh install FOLDER` has put into CAMBIUM_CUDA or ~/.cache/cambium/cuda.
# `install FOLDER` takes the parts that are needed from PyPI at pinned versions: compiler, runtime, cuBLAS and cuSOLVER (about 1.2 GB). No driver, no GPU is needed to build.
set -euo pipefail
installed=${CAMBIUM_CUDA:-${XDG_CACHE_HOME:-$HOME/.cache}/cambium/cuda}
packages=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
          nvidia-cublas==13.1.0.3 nvidia-cusolver==12.0.4.66 nvidia-cusparse==12.6.3.3 nvidia-nvjitlink==13.0.88)

complete() { [ -f "$1/include/cuda_runtime_api.h" ] && [ -f "$1/include/cublas_v2.h" ] && [ -f "$1/include/cusolverDn.h" ]; }

if [ "${1:-}" = install ]; then
  folder=${2:-$installed}
  if ! complete "$folder"; then
    mkdir -p "$folder"
    python3 -m pip install --quiet --no-deps --target "$folder/packages" "${packages[@]}" >&2
    for part in bin include lib nvvm; do ln -sfn "packages/nvidia/cu13/$part" "$folder/$part"; done
    ln -sfn lib "$folder/lib64"
    # The packages hold libraries by their full name only; the linker looks for the short one.
    for library in "$folder"/lib/lib*.so.*; do
      short=${library%%.so.*}.so
      [ -e "$short" ] || ln -s "$(basename "$library")" "$short"
    done
  fi
  complete "$folder" || { echo "cuda_toolkit: $folder: headers are missing after the installation" >&2; exit 1; }
  echo "$folder"
  exit
fi

nvcc=$(command -v nvcc || true)
for folder in "${CUDA_HOME:-}" /usr/local/cuda "${nvcc:+$(dirname "$(dirname "$(readlink -f "$nvcc")")")}" "$installed"; do
  if [ -n "$folder" ] && complete "$folder"; then
    echo "$folder"
    exit
  fi
done
echo "cuda_toolkit: no CUDA toolkit in CUDA_HOME, /usr/local/cuda, beside nvcc on the PATH or in $installed: tools/cuda_toolkit.sh install fetches it from PyPI" >&2
exit 1
