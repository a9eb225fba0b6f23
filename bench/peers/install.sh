#!/usr/bin/env bash
# Installs what Tessera is measured beside into a Python environment of its own.
#     install.sh DIR [PACKAGE...]      packages: all, if none is named
# Each is optional: one that can't be installed is reported and skipped, and run.py leaves it out.
# llama-cpp-python is compiled for this machine, which takes 10 to 30 minutes.
set -u
dir=${1:?usage: install.sh DIR [PACKAGE...]}
shift
packages=("$@")
if [ ${#packages[@]} -eq 0 ]; then
  packages=("torch==2.13.0" transformers soundfile "onnxruntime onnx onnxscript" "openvino openvino-genai" faster-whisper pywhispercpp
            "gguf llama-cpp-python")
fi
[ -x "$dir/bin/python" ] || python3 -m venv "$dir" || exit 1
export CMAKE_ARGS="-DGGML_NATIVE=ON ${CMAKE_ARGS:-}" MAX_JOBS=${MAX_JOBS:-1}
export CMAKE_BUILD_PARALLEL_LEVEL=$MAX_JOBS
missing=()
for package in "${packages[@]}"; do
  echo "== $package"
  options=(--quiet --disable-pip-version-check)
  [[ $package == torch* && -n ${TORCH_INDEX:-} ]] && options+=(--index-url "$TORCH_INDEX")  # of builds without CUDA
  # shellcheck disable=SC2086  # several packages in one word
  nice "$dir/bin/pip" install "${options[@]}" $package || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  printf 'not installed, and left out of the comparison: %s\n' "${missing[*]}" >&2
fi
