"""Inputs and settings of the rules in analyses.smk: what is asked of networks and finished runs, without training."""

from itertools import product

from hiddencost.digest import code_digest, module_file
from hiddencost.files import canonical, sha256_text
from hiddencost.jobs import layout
from hiddencost.jobs.call import Call, code
from hiddencost.jobs.grid import methods_of, pack_table, to_run
from hiddencost.jobs.training import texts
from hiddencost.methods.registry import JOBS
from hiddencost.results.analyses import ANALYSES


def asked(call: Call) -> list[str]:
    """Return the analyses of a call, by name; a partial one, which makes nothing for its tables, has none."""
    return [] if call.partial else call.study.analysis


def evaluated(call: Call, analysis: str) -> list[str]:
    """Return the files of all jobs of an analysis."""
    of, names = ANALYSES[analysis].of, to_run(call)
    pattern = layout.ANALYSIS[of].replace("{analysis}", analysis)
    each = product(*(names[wildcard] for wildcard in of))
    return [call.path(pattern, **dict(zip(of, values, strict=True))) for values in each]


def tables(call: Call, analysis: str) -> dict[str, str]:
    """Return the tables of an analysis, by name."""
    return {name: f"{call.output}/{layout.TABLES[name]}" for name in ANALYSES[analysis].tables}


def all_tables(call: Call) -> list[str]:
    """Return the tables of all analyses of a call."""
    return [path for analysis in asked(call) for path in tables(call, analysis).values()]


def tabulate(call: Call, analysis: str) -> dict:
    """Return which analysis makes tables, and the digest of the code that does."""
    module = module_file(ANALYSES[analysis].tabulated_by.partition(":")[0])
    return {"analysis": analysis, "code": sha256_text(canonical([code(call.root, "tabulate"), code_digest(module)]))}


def networks_to_measure(call: Call, backbone: str) -> dict[str, list[str]]:
    """Return the files of a backbone, and of the dense one that it is measured beside, if there is one, by name."""
    of_network = [f"{layout.BACKBONE}/{file}" for file in layout.NETWORK_FILES]
    named = {"backbone": backbone, "dense": _dense_of(call, backbone)}
    return {
        key: [call.path(path, backbone=name) for path in of_network] if name else [] for key, name in named.items()
    }


def _dense_of(call: Call, backbone: str) -> str | None:
    name = call.study.dense_of(call.study.backbone(backbone))
    return name if name != backbone and name in to_run(call)["backbone"] else None


def latency(call: Call, backbone: str) -> dict:
    """Return the sides of the inputs, in pixels, of a backbone and of the dense one that it is measured beside."""
    named = {"canvas": backbone, "dense_canvas": _dense_of(call, backbone)}
    return {key: call.study.canvas(call.study.backbone(name)) for key, name in named.items() if name}


def shifted_images(call: Call, backbone: str, dataset: str) -> dict[str, str]:
    """Return the folder of the images that are corrupted, by the size at which a backbone sees them: as published,
    where they are squares of one size, else prepared at that size."""
    study, native = call.study, call.datasets[dataset].native_size
    sizes = study.sizes(dataset, study.backbone(backbone))
    seen = {sizes[job] for job in _shifted_jobs(call, backbone)}
    return {size: call.prepared_folder(dataset, native or size) for size in sorted(seen)}


def _shifted_jobs(call: Call, backbone: str) -> list[str]:
    """Return the jobs of a backbone whose runs keep what they have learned."""
    return [job for job, of_job in JOBS.items() if not of_job.crops and methods_of(call.study, job, backbone)]


def shift(call: Call, backbone: str, dataset: str) -> dict:
    """Return which images a backbone's finished runs are scored on, and where they are."""
    return call.study.shift.model_dump() | {"images": shifted_images(call, backbone, dataset)}


def shift_inputs(call: Call, backbone: str, dataset: str) -> dict[str, list[str]]:
    """Return the files of a backbone's finished runs on a dataset, and of the images to corrupt, by name."""
    folders = shifted_images(call, backbone, dataset).values()
    packs = [{"backbone": backbone, "dataset": dataset, "seed": seed} for seed in call.study.seeds]
    jobs = _shifted_jobs(call, backbone)
    prompted, probed = (
        [pack_table(call, job, pack) for job in jobs if JOBS[job].prompts == prompts for pack in packs]
        for prompts in (True, False)
    )
    return {
        "images": [f"{folder}/{file}" for folder in dict.fromkeys(folders) for file in layout.PREPARED_FILES],
        "prompted": prompted,
        "probed": probed,
        "texts": texts(call, backbone, dataset) if prompted else [],
    }
