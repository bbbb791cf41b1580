#!/usr/bin/env bash
# wheels.sh: fill bench/gpu/wheels with what a machine that has torch, torchvision, timm, pandas and pytest lacks of
# this project's dependencies (Python 3.12, Linux, x86-64; 16 MB), in the versions of constraints.txt. run.sh installs them
# there without a network. PYTHON: any Python with pip.
set -euo pipefail
cd "$(dirname "$0")"

# without what only reports and tests of the workflow need; pip cannot resolve it against what is on another machine
packages='altair annotated-types argparse-dataclass conda-inject ConfigArgParse connection_pool docutils dpath
fastjsonschema ftfy gitdb GitPython humanfriendly immutables jsonschema jsonschema-specifications jupyter_core nbformat
open_clip_torch parameterized platformdirs pydantic pydantic_core referencing rpds-py smart_open smmap snakemake
snakemake-interface-common snakemake-interface-executor-plugins snakemake-interface-logger-plugins
snakemake-interface-report-plugins snakemake-interface-scheduler-plugins snakemake-interface-storage-plugins SQLAlchemy
sqlmodel tenacity throttler torchao traitlets typing-inspection tzdata wcwidth yte'

pinned=$(mktemp)
trap 'rm -f "$pinned"' EXIT
for package in $packages; do
	grep -ix "$package==.*" ../../constraints.txt >>"$pinned" ||
		{ echo "wheels.sh: constraints.txt has no version of $package" >&2; exit 1; }
done

platforms=()
for platform in manylinux_2_28 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
	platforms+=(--platform "${platform}_x86_64")
done
rm -rf wheels
source=$(grep -ix 'connection_pool==.*' "$pinned") # which is published as source alone
"${PYTHON:-python3}" -m pip wheel --quiet --no-deps --wheel-dir wheels "$source"
grep -vx "$source" "$pinned" | "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: \
	--python-version 3.12 --implementation cp "${platforms[@]}" --dest wheels --requirement /dev/stdin
du -sh wheels
