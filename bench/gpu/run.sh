#!/usr/bin/env bash
# run.sh OUT [--dry]: check and measure this project on the GPU of this machine in eight minutes at most, and write
# OUT/records.json and OUT/gpu.md. See README.md. PYTHON: a Python with PyTorch; LIMIT: seconds (480).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-python3}"
out="${1:?run.sh OUT [--dry]: the folder for what is found}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
cd "$here/../.."

export PYTHONPATH="$PWD/src:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if ! "$python" -c 'import open_clip, pydantic, snakemake, torchao' 2>/dev/null; then
	[ -e "$here/site" ] ||
		"$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$here/site" "$here"/wheels/*.whl
	export PYTHONPATH="$here/site:$PYTHONPATH"
fi
exec "$python" "$here/check.py" "$out" --limit "${LIMIT:-480}" "${@:2}"
