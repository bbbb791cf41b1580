"""Does bf16 move the results? The accuracies of the same runs in fp32 and in bf16, over seeds.

    python bench/precision.py

Takes the dense backbone of the quickstart (config.yaml) through the workflow, at its largest shots value, once in
each precision, and writes bench/results/precision.{json,md}. A CPU without bf16 arithmetic emulates it: its
accuracies count, its speed does not.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import yaml
from throughput import machine, publish

ROOT = Path(__file__).parents[1]
PRECISIONS = ("fp32", "bf16")
SEEDS = range(6)


def run(precision: str, folder: Path) -> pd.DataFrame:
    """Run the study in one precision. Returns its runs."""
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    study |= {"study": f"precision-{precision}", "methods": ["flm", "ilm"]}
    study |= {"shots": study["shots"][-1:], "backbones": study["backbones"][:1], "seeds": list(SEEDS)}
    study["protocol"]["precision"] = precision
    file = folder / f"{precision}.yaml"
    file.write_text(yaml.safe_dump(study))
    table = f"results/{study['study']}/tables/runs.parquet"
    subprocess.run([sys.executable, "-m", "snakemake", table, "--configfile", file], cwd=ROOT, check=True)
    return pd.read_parquet(ROOT / table)


def compare(fp32: pd.DataFrame, bf16: pd.DataFrame) -> pd.DataFrame:
    """Return a row a method: accuracies in %, mean and standard deviation over seeds, and their paired difference."""
    if not (pd.concat([fp32, bf16])["status"] == "ok").all():
        raise SystemExit("a run has no result: see results/precision-*/tables/runs.csv")
    pairs = fp32.merge(bf16, on=["method", "seed"], suffixes=("_fp32", "_bf16"))
    pairs = pairs.assign(difference=pairs["accuracy_bf16"] - pairs["accuracy_fp32"])
    columns = ["accuracy_fp32", "accuracy_bf16", "difference"]
    table = 100 * pairs.groupby("method", sort=False)[columns].agg(["mean", "std"])
    table.columns = [f"{column}_{statistic}" for column, statistic in table.columns]
    return table.assign(seeds=pairs.groupby("method")["seed"].count()).reset_index()


def main() -> None:
    with TemporaryDirectory() as folder:
        table = compare(*(run(precision, Path(folder)) for precision in PRECISIONS))
    lines = [f"Test accuracy in %, mean ± standard deviation over seeds; measured on {machine()}.", ""]
    lines += ["| method | seeds | fp32 | bf16 | bf16 minus fp32, paired by seed |", "|---|---|---|---|---|"]
    row = "| {method} | {seeds} | {accuracy_fp32_mean:.1f} ± {accuracy_fp32_std:.1f} "
    row += "| {accuracy_bf16_mean:.1f} ± {accuracy_bf16_std:.1f} | {difference_mean:+.2f} ± {difference_std:.2f} |"
    lines += [row.format(**record) for record in table.to_dict("records")]
    publish("precision", {"device": machine(), "methods": table.to_dict("records")}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
