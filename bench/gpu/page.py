"""The page of what was found: Markdown, of the records."""

from collections.abc import Iterable

Record = dict[str, object]


def page(records: list[Record]) -> str:
    """Return the records as a page."""
    parts = [machine, tests, parity, precision, speed, clip, kernels, studies, times]
    found = ["\n".join(part(records)) for part in parts]
    return "# On a GPU\n\n" + "\n\n".join(text for text in found if text) + "\n"


def of(records: Iterable[Record], stage: str, *keys: str) -> list[Record]:
    """Return the records of a stage that have all of some keys."""
    return [record for record in records if record["stage"] == stage and all(key in record for key in keys)]


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return a Markdown table, or nothing where it has no row."""
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    names = list(head)
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|", *lines, ""] if lines else []


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def machine(records: list[Record]) -> list[str]:
    """What was measured on."""
    for record in of(records, "machine", "packages"):
        versions = ", ".join(f"{name} {version}" for name, version in record["packages"].items() if version)
        lines = [f"{record['device']} ({record.get('nvidia_smi', 'no GPU')}); Python {record['python']}, {versions}."]
        if "cuda" in record:
            lines += [f"CUDA {record['cuda']}, cuDNN {record['cudnn']}, {record['total_gb']:.0f} GB."]
        weights = "published" if record["published weights"] else "random"
        return [*lines, f"MobileNetV2 has its {weights} weights; the other networks random ones."]
    return []


def tests(records: list[Record]) -> list[str]:
    """The tests marked cuda."""
    found = of(records, "tests", "last")
    return [f"## Tests\n\n`pytest -m cuda`: {one['last'].strip('= ')}\n" for one in found] + [
        f"- `{line}`" for one in found for line in one["wrong"]
    ]


def parity(records: list[Record]) -> list[str]:
    """Float32 against the CPU's float64."""
    rows = [
        [
            *(_plan(one), one["off"]["logits"], one["off"]["gradient"], one["off"]["loss"]),
            *(one["losses of all"], one["prompts"], f"{one['mappings equal']} of 3", one["prompts repeat"]),
            one["passed"],
        ]
        for one in of(records, "parity", "off")
    ]
    head = ["", "logits", "gradient", "first loss", "all losses", "prompts", "mappings as the CPU's"]
    lines = table([*head, "repeats to the bit", "passed"], rows)
    text = "## float32 against float64 on the CPU\n\nDifferences as a part of the norm; MobileNetV2.\n"
    return [text, *lines] if lines else []


def _plan(record: Record) -> str:
    cover = "whole canvases" if record["cover"] is None else "border once"
    return cover + (", graphs" if record.get("graphs") else "")


def precision(records: list[Record]) -> list[str]:
    """Lower precisions against float32."""
    keys = "precision", "logits", "gradient"
    rows = [
        [_plan(one), *map(one.get, keys), f"{one['first classes changed']} of {one['of']}"]
        for one in of(records, "precision", "logits")
    ]
    lines = table(["", "precision", "logits", "gradient", "first classes changed"], rows)
    found = of(records, "precision", "certified")
    rows = [[_plan(one), one["precision"], f"{one['differ']} of {one['of']}", one["certified"]] for one in found]
    lines += table(["", "precision", "certified classes changed", "how"], rows)
    runs = of(records, "precision", "method")
    rows = [[_plan(one), one["method"], *one["accuracy"].values(), one["first mappings equal"]] for one in runs]
    lines += table(["", "method", "accuracy, fp32", "bf16", "same first mapping"], rows)
    return ["## Lower precisions against float32\n", *lines] if lines else []


RATIOS = {
    "step": "step",
    "step without loader": "step, loop without its loader",
    "test": "test",
    "full pack": "full pack",
    "1-shot pack, a test in the end": "1-shot pack, a test in the end",
    "1-shot pack, a test an epoch": "a test an epoch",
    "1-shot pack without tests": "without tests",
}


def speed(records: list[Record]) -> list[str]:
    """The engine beside the published loop."""
    every = of(records, "speed", "network")
    cases = {(one["network"], one["size"]): {} for one in every}
    for one in every:
        if "what" in one:
            cases[one["network"], one["size"]][one["what"]] = one
    whole = {case: found for case, found in cases.items() if "ratios" in found}
    if not whole:
        return []
    ratios = [[*case, *(found["ratios"][key] for key in RATIOS)] for case, found in whole.items()]
    text = "How many times faster the engine is; the loop under {} with loader workers, the engine in {}.\n"
    precisions = [next(iter(whole.values()))[side]["precision"] for side in ("published loop", "engine")]
    lines = ["## Beside the published loop\n", text.format(*precisions)]
    lines += table(["network", "image", *RATIOS.values()], ratios)
    rows = [_row(case, found) for case, found in whole.items()]
    return [*lines, "Of an image, but kernels of a step:\n", *table(["network", "image", *COLUMNS], rows)]


COLUMNS = [
    *("loop's step, ms", "without loader", "engine's step, ms", "ILM epoch, ms", "gradient of 3 x 128, ms", "GFLOP"),
    *("of the matrix rate", "kernels, loop", "engine", "peak MB, loop", "engine", "plan"),
]


def _row(case: tuple, found: dict[str, Record]) -> list[object]:
    loop, ours = found["published loop"], found["engine"]
    return [
        *case,
        *(loop["step_ms"], loop["bare_step_ms"], ours["step_ms"], ours["ilm_ms"], ours["gradient_ms"], ours["gflop"]),
        *(f"{ours['share']:.0%}", loop["kernels"], ours["kernels"]),
        *(loop["peak_mb_an_image"], ours["peak_mb_an_image"], _planned(found["plan"], ours)),
    ]


def _planned(plan: Record, ours: Record) -> str:
    return f"{plan['plan']}, shared up to {ours['ends']}, chosen in {plan['seconds']:.0f} s"


def clip(records: list[Record]) -> list[str]:
    """CLIP."""
    steps = of(records, "clip", "gradient_ms")
    rows = [
        [one["network"], one["plan"], one["gradient_ms"], one["gflop"], f"{one['share']:.0%}", one["kernels"]]
        for one in steps
    ]
    lines = table(["network", "plan", "gradient, ms", "GFLOP", "of the matrix rate", "kernels"], rows)
    keys = "network", "what", "baseline_ms", "engine_ms", "ratio"
    rows = [[one[key] for key in keys] for one in of(records, "clip", *keys)]
    lines += table(["network", "what", "published loop, ms", "engine, ms", "ratio"], rows)
    return ["## CLIP\n", *lines] if lines else []


def kernels(records: list[Record]) -> list[str]:
    """Ceilings and settings."""
    lines = []
    for one in of(records, "kernels", "tflops"):
        rates = ", ".join(f"{name} {rate:,.0f} TFLOP/s" for name, rate in one["tflops"].items())
        lines += [f"Matrix products of side 8192: {rates}; copies {one['copy_tb_s']:.2f} TB/s.\n"]
    found = of(records, "kernels", "gradient_ms")
    rows = [[one["network"], one["way"], one["gradient_ms"], one["no graphs"]] for one in found]
    lines += table(["network", "", "gradient, ms an image", "why no graphs"], rows)
    found = of(records, "kernels", "pass")
    rows = [[one["network"], one["pass"], one["ms"], f"{one['changed']} of {one['of']}"] for one in found]
    lines += table(["network", "pass in", "ms an image", "classes that change"], rows)
    shape = "inputs", "outputs", "kernel", "side"
    shapes = {tuple(one[key] for key in shape): {} for one in of(records, "kernels", *shape)}
    for one in of(records, "kernels", *shape):
        shapes[tuple(one[key] for key in shape)] |= one
    keys = "convolution_ms", "three_ms", "cudnn_ms"
    rows = [[*case, *(found.get(key) for key in keys)] for case, found in shapes.items()]
    lines += table([*shape, "convolution, ms", "with bias and ReLU", "cuDNN's fused"], rows)
    return ["## The device and its settings\n", *lines] if lines else []


def studies(records: list[Record]) -> list[str]:
    """The quickstart beside a CPU, and what there was time for."""
    keys = "backbone", "method", "shots", "accuracy", "accuracy_cpu", "difference"
    rows = [[one[key] for key in keys] for one in of(records, "quickstart", *keys)]
    lines = table(["backbone", "method", "shots", "accuracy", "on a CPU", "difference"], rows)
    for one in of(records, "quickstart", "seconds", "code"):
        lines.insert(0, f"## The quickstart study\n\n{one['seconds']:.0f} s, exit code {one['code']}.\n")
    for one in of(records, "small", "runs"):
        lines += [f"studies/small.yaml: {one['runs']} runs in the ledger after {one['seconds']:.0f} s."]
    return lines


def times(records: list[Record]) -> list[str]:
    """How long the stages took, and what failed or was left out."""
    rows = [[one["stage"], one["seconds"]] for one in records if one.get("what") == "stage"]
    lines = ["## Stages\n", *table(["stage", "seconds"], rows)]
    for one in records:
        if why := one.get("failed") or one.get("skipped"):
            what = ", ".join(str(one[key]) for key in one if key not in ("failed", "skipped"))
            lines += [f"- {what}: {why}"]
    return lines
