#!/usr/bin/env bash
# Everything that needs a GPU, by one command, in at most 40 minutes: bash tools/gpu_day.sh OUT [options]
#
# For a machine with a GPU, PyTorch, SciPy, OpenCV, matplotlib and pytest (see gpu_day/carried.txt), which may have no
# network and nothing of OpenMMLab. What is missing there is
# carried as wheels (a few MB; no torch among them), collected beforehand on a machine that has pip and a network:
#
#     bash tools/gpu_day.sh --collect-wheels wheels            # for Python 3.12 on Linux; PYTHON_VERSION=3.11 for another
#     bash tools/gpu_day.sh OUT --coco128 DIR                  # takes ./wheels, or WHEELS=DIR
#
# Options: see python -m tools.gpu_day.command --help (--parts to run some, --rehearse for tiny sizes on a CPU).
# Results: OUT/gpu_day.json, rewritten after each part, and each part's own files and log beside it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
version=${PYTHON_VERSION:-3.12}

if [ "${1:-}" = --collect-wheels ]; then
  folder=${2:?usage: gpu_day.sh --collect-wheels DIR}
  platforms=()
  for glibc in 2_5 2_12 2_17 2_24 2_26 2_27 2_28; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
  grep -v '^#' "$root/tools/gpu_day/carried.txt" | xargs "$python" -m pip download --quiet --no-deps \
    --only-binary=:all: --python-version "$version" --implementation cp "${platforms[@]}" \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "$folder"
  du -sh "$folder"
  exit 0
fi

case "${1:-}" in
  -h|--help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
out=${1:?usage: gpu_day.sh OUT [--rehearse] [--parts PART ...] [--coco128 DIR]}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
wheels=${WHEELS:-$root/wheels}
if compgen -G "$wheels/*.whl" >/dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" "$wheels"/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 MPLBACKEND=Agg
"$python" -m tools.gpu_day.command "$out" "$@"
