"""What a study asks of people and machines, before anything runs: runs, what is left out, downloads, disk, time."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from hiddencost.catalog.entries import UNCOMPRESSED, DatasetEntry, NetworkEntry, PhotosEntry
from hiddencost.datasets.prepare import sized
from hiddencost.jobs import analyses, cost, places, rates, upstream
from hiddencost.jobs.call import Call
from hiddencost.jobs.checkpoints import published_backbones
from hiddencost.jobs.grid import axes, left_out, methods_of, pack_table, packs, to_run, why_no_names
from hiddencost.jobs.layout import BACKBONE, PACK
from hiddencost.jobs.rates import JobArithmetic
from hiddencost.jobs.training import ABSENT, why_made
from hiddencost.jobs.upstream import trainings
from hiddencost.messages import counted, listed
from hiddencost.methods.registry import JOBS, METHODS, run_by
from hiddencost.study.parts import Backbone, TargetDataset

TRAINED_BYTES = 5  # of a weight of a network that the study trains: a float32, and its mask


def describe(
    call: Call, planned: Collection[str], bench: Path, gpus: int, at_a_time: int | None, is_whole: bool = True
) -> str:
    """Return the outlook of a study as a table in text, or of the part of it that a call makes.

    Args:
        call: the call.
        planned: the files that Snakemake is going to make.
        bench: throughput.json of `make bench`, whose rates stand in for those that no job has measured.
        gpus: how many there are here.
        at_a_time: how many jobs a scheduler gets, None without one.
        is_whole: whether all of the study is asked for; else what is not among the planned files is not counted.
    """
    planned = set(planned)
    made = (lambda path: True) if is_whole else planned.__contains__
    remaining = {
        job: [(pack, why) for pack, why in each if made(pack_table(call, job, pack))]
        for job, each in packs_left(call, planned).items()
    }
    count, left = sum(len(packs(call, job)) for job in PACK), sum(map(len, remaining.values()))
    part = f"Study {call.study.study}: of its {counted(count, 'pack')} this call makes {left:,}"
    lines = _grid(call, count, count - left) if is_whole else [part]
    lines += [*_stale(remaining), *(_left_out(call) if is_whole else [])]
    trained = {folder: one for folder, one in trainings(call).items() if made(f"{folder}/manifest.json")}
    if trained:
        lines.append(_upstream(trained, planned, set(call.upstream_counts.values())))
    work = arithmetic_left(call, remaining) + arithmetic_of_analyses(call, planned, made)
    times = rates.device_times(work, bench, gpus, at_a_time)
    lines += [
        f"  downloads  {_downloads(call, made)}",
        f"  disk       {_disk(call, made)}",
        "  time       " + ("beside upstream training " if trained else "") + ";\n             ".join(times),
    ]
    return "\n".join(lines)


def _grid(call: Call, count: int, current: int) -> list[str]:
    """Return the lines of a study's runs, which are so many packs, of which so many are current."""
    study, names = call.study, to_run(call)
    total, runs = count_runs(call, names["backbone"], names["dataset"])
    words = {"shots": "budget"}
    grid = " x ".join(counted(len(values), words.get(axis, axis)) for axis, values in axes(study).items())
    has_all = all(len(study.methods_of(backbone)) == len(study.methods) for backbone in study.backbones)
    return [
        f"Study {study.study}: {counted(total, 'run')} = {grid}"
        + ("" if has_all else ", less those of methods that are not there for a backbone"),
        f"  to run     {counted(runs, 'run')} in {counted(count, 'pack')}, of which {current:,} "
        f"{'is' if current == 1 else 'are'} up to date",
        *_distinct(call, names, runs),
    ]


def count_runs(call: Call, backbones: Collection[str], datasets: Collection[str]) -> tuple[int, int]:
    """Return how many runs the study has, and how many of them are of these backbones and datasets."""
    study, budgets = call.study, len(call.study.shots) * len(call.study.seeds)
    of_backbone = {backbone.name: len(study.methods_of(backbone)) * budgets for backbone in study.backbones}
    counted = sum(of_backbone[name] for name in backbones) * len(datasets)
    return sum(of_backbone.values()) * len(study.datasets), counted


def _distinct(call: Call, names: Mapping[str, Collection[str]], runs: int) -> list[str]:
    """Return a line with how many of the runs of backbones and datasets are trainings of their own, where some are
    not (see `results.cells`)."""
    study = call.study
    datasets, distinct = [(call.datasets[name], study.dataset(name).batch_size) for name in names["dataset"]], 0
    for backbone in map(study.backbone, names["backbone"]):
        for method in (METHODS[name] for name in study.methods_of(backbone)):
            recipe = getattr(study, study.family(backbone).recipe if method.prompts else method.recipe)
            budgets = (len(cost.distinct_shots(study.shots, dataset, recipe, own)) for dataset, own in datasets)
            distinct += len(study.seeds) * sum(budgets) if method.trains else len(datasets)
    if distinct == runs:
        return []
    return [
        f"  distinct   {distinct:,} of them: numbers of shots that choose all images of a dataset are one training, "
        "and what does not train is one run"
    ]


def packs_left(call: Call, planned: Collection[str]) -> dict[str, list[tuple[dict, str]]]:
    """Return the packs that are to be made, with why (see `training.why_made`), by kind of job.

    planned: the files that Snakemake is going to make. It knows of inputs that have changed; of a pack that it was
    not asked for, the request that its table answers tells.
    """
    planned = set(planned)
    left: dict[str, list[tuple[dict, str]]] = {job: [] for job in PACK}
    for job in PACK:
        for pack in packs(call, job):
            if why := why_made(call, job, pack, pack_table(call, job, pack) in planned):
                left[job].append((pack, why))
    return left


def _stale(remaining: Mapping[str, list[tuple[dict, str]]]) -> list[str]:
    """Return a line for each reason to make packs again."""
    reasons = Counter(why for each in remaining.values() for _, why in each)
    return [f"  stale      {count:,}: packs that {why}" for why, count in reasons.items() if why != ABSENT]


def _left_out(call: Call) -> list[str]:
    """Return the lines of what is not run, with each reason and the backbones or datasets that it is of, and of what
    is not whole: budgets that have too few images, networks that have none to compare them with."""
    study, every = call.study, axes(call.study)
    reasons_of = left_out(call)
    total, runs = count_runs(call, *to_run(call).values())
    lines = [f"  left out   {counted(total - runs, 'run')}"]
    for axis, reasons in reasons_of.items():
        for reason in dict.fromkeys(reasons.values()):
            names = [name for name in reasons if reasons[name] == reason]
            _, runs = count_runs(call, *(names if other == axis else every[other] for other in reasons_of))
            lines.append(f"    {', '.join(names)} ({counted(runs, 'run')}): {reason}")
    if why := why_no_names(call):
        reading = listed((name for name in study.methods if METHODS[name].reads_names), "and")
        lines.append(f"  no names   {reading}: not run, as nothing reads the names of classes: {why}")
    lines += _short_of_images(call)
    if alone := [backbone.name for backbone in study.backbones if not study.dense_of(backbone)]:
        lines.append(f"  no dense   {', '.join(alone)}: the study has no network to compare them with")
    if empty := _analyses_of_nothing(call):
        lines.append(
            f"  empty      {', '.join(empty)}: they compare compressed networks with their dense ones under a "
            "prompt, and the study has no such two"
        )
    return lines


def _analyses_of_nothing(call: Call) -> list[str]:
    """Return the analyses that compare networks, where the study has none compressed beside its dense one."""
    compared = map(call.study.backbone, analyses.compared(call))
    stated = (call.study.declared(one, call.checkpoints[one.checkpoint]) for one in compared)
    has_some = any(one["compression"] != UNCOMPRESSED and not one["control"] for one in stated)
    return [] if has_some else analyses.comparing(call)


def _short_of_images(call: Call) -> list[str]:
    """Return a line for each dataset that has fewer training images than a number of shots asks for, as far as the
    catalog counts them: of one class there can be fewer yet."""
    lines = []
    numbers = [shots for shots in call.study.shots if isinstance(shots, int)]
    for name, entry in call.targets.items():
        if entry.counts and entry.classes:
            images, classes = entry.counts.train, len(entry.classes)
            if short := [str(shots) for shots in numbers if shots * classes > images]:
                lines.append(
                    f"  few images {name}: {', '.join(short)} shots are more than its {images:,} training images in "
                    f"{classes} classes: classes give all that they have, and such cells are marked"
                )
    return lines


def _upstream(
    trains_upstream: Mapping[str, tuple[str, float]], planned: Collection[str], images: Collection[int] = ()
) -> str:
    """Return the line of the networks that the study trains: see `upstream.trainings`; images: how many there are in
    folders of the user's."""
    manifests = {Path(folder, "manifest.json"): one for folder, one in trains_upstream.items()}
    left = [one for path, one in manifests.items() if not path.exists() or str(path) in planned]
    total, by_network = sum(gflop for _, gflop in left), dict[str, list[float]]()
    for name, gflop in left:
        by_network.setdefault(name, []).append(gflop)
    of_images = f" with {listed((f'{count:,}' for count in sorted(images)), 'and')} training images" if images else ""
    text = (
        f"  upstream   {counted(len(manifests), 'training')}, of which {len(manifests) - len(left)} are there; the "
        f"others: {float(f'{total / 1e6:.3g}'):,g} PFLOP{of_images},\n"
        f"             {_gpu_time(total, ' of a GPU that reaches')}"
        " (both assumed: an old GPU, and the most of a present-day one)"
    )
    for name, each in by_network.items() if len(by_network) > 1 else ():
        text += f"\n               {name} ({len(each)}): {_gpu_time(sum(each))}"
    return text


def _gpu_time(gflop: float, reaches: str = "") -> str:
    """Return how long a GPU trains, at the least and at the most that is assumed."""
    least, most = cost.GPU_RATE, 1e3 * rates.GPU_TFLOPS["training"]
    times = (
        f"{rates.duration(gflop / rate)}" + (f"{what} {rate / 1e3:g} TFLOP/s" if reaches else "")
        for rate, what in ((least, reaches), (most, " at"))
    )
    return "about " + " or ".join(times)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _downloads(call: Call, made: Callable[[str], bool]) -> str:
    """Return what is to be downloaded for the backbones and datasets that are not left out, with the photos that
    published ones are shown; made: whether what a file is for is counted."""
    study, names = call.study, to_run(call)
    used = _checkpoints_used(call)
    seen = (study.calibration(study.backbone(name)) for name in names["backbone"])
    images = {
        *names["dataset"],
        *(study.upstream_datasets() if trainings(call) else ()),
        *(one[0] for one in seen if one),
    }
    entries: list[tuple[str, NetworkEntry | DatasetEntry | PhotosEntry]]
    # with the weights of those that were counted
    entries = [(places.fetched(call, "checkpoints", name), call.checkpoints[name]) for name in sorted(used)]
    entries += [(places.fetched(call, "datasets", name), call.datasets[name]) for name in sorted(images)]
    if set(names["backbone"]) & set(published_backbones(call)):
        entries.append((places.fetched(call, "photos", study.verification.photos), study.photos_entry()))
    files = [
        (file, getattr(entry, "weights_mb", None))
        for report, entry in entries
        for file in entry.files.values()
        if made(report) and not Path(report).with_name(file.name).exists() and not file.user_paths
    ]
    unknown = [megabytes for file, megabytes in files if file.size is None]
    total = sum(file.size if file.size is not None else 1e6 * (megabytes or 0) for file, megabytes in files)
    several = "files that are" if len(files) != 1 else "file that is"
    text = f"{_size(total)} in {len(files)} {several} not here yet"
    if not unknown:
        return text
    weighed = len(unknown) - unknown.count(None)
    notes = [f"of {weighed} without a published size the weights alone are counted"] if weighed else []
    notes += [f"{unknown.count(None)} of unknown size not counted"] if None in unknown else []
    return f"at least {text}, {', '.join(notes)}"


def _checkpoints_used(call: Call) -> set[str]:
    """Return the published checkpoints of what is not left out."""
    used = call.study.published_checkpoints(map(call.study.backbone, to_run(call)["backbone"]))
    return used - {call.study.text_encoder} if why_no_names(call) else used


def _disk(call: Call, made: Callable[[str], bool]) -> str:
    """Return the disk that arrays, networks and prompts take, of what is not left out; made: see `_downloads`."""
    study, names = call.study, to_run(call)
    backbones = [study.backbone(name) for name in names["backbone"]]
    trained = {folder: name for folder, (name, _) in trainings(call).items()}
    images = {
        (name, size)
        for name in names["dataset"]
        for backbone in backbones
        for size in study.sizes(name, backbone).values()
    }
    images |= {
        (one.dataset, str(one.image_size)) for one in study.upstream if one.name in trained.values() and one.dataset
    }
    images |= {each for backbone in backbones if (each := study.calibration(backbone))}
    arrays = sum(
        counts.total * 3 * sized(size)[0] ** 2
        for name, size in images
        # the user's own are counted when they are prepared
        if (counts := call.datasets[name].counts) and made(f"{places.prepared_folder(call, name, size)}/dataset.json")
    )
    weights = {
        name: max((file.size or 1e6 * (entry.weights_mb or 0) for file in entry.files.values()), default=0)
        # with the weights of those that were counted
        for name, entry in ((name, call.checkpoints[name]) for name in call.published)
    }
    weights |= {name: TRAINED_BYTES * upstream.arithmetic(call, name)[1] for name in set(trained.values())}
    folders = {places.imported_folder(call, name): name for name in _checkpoints_used(call)} | trained
    folders |= {call.path(BACKBONE, backbone=one.name): one.checkpoint for one in backbones}
    networks = sum(weights[name] for folder, name in folders.items() if made(f"{folder}/manifest.json"))
    prompts = sum(
        len([name for name in methods_of(study, job, pack["backbone"]) if METHODS[name].prompts])
        * len(study.shots)
        * (3 * study.canvas(study.backbone(pack["backbone"])) ** 2 * 4)
        for job in PACK
        for pack in packs(call, job)
        if made(pack_table(call, job, pack))
    )
    parts = f"datasets {_size(arrays)}, networks {_size(networks)}, prompts {_size(prompts)}"
    return f"about {_size(arrays + networks + prompts)}, beside the downloads: {parts}"


def arithmetic_left(call: Call, remaining: Mapping[str, list[tuple[dict, str]]]) -> list[JobArithmetic]:
    """Return the arithmetic of the jobs that compute much: of the packs that remain (see `packs_left`), and of the
    features of their probes.

    A job whose arithmetic is not known, as the catalog counts neither that of the network nor the dataset's images,
    is none of them.
    """
    study, jobs, featured = call.study, [], set()
    for job, each in remaining.items():
        for pack, _ in each:
            backbone, target = study.backbone(pack["backbone"]), study.dataset(pack["dataset"])
            network, dataset = call.checkpoints[backbone.checkpoint], call.datasets[target.name]
            gflop = cost.pack_gflop(study, backbone, run_by(job), network, dataset, target.batch_size)
            share = _share(call, backbone, target) if JOBS[job].prompts else 1.0
            if JOBS[job].on_features:
                if (backbone.name, target.name) in featured:
                    continue
                featured.add((backbone.name, target.name))
                gflop["mapping and test"] = cost.features_gflop(study, backbone, network, dataset)
            if sum(gflop.values()):
                image = 2 * cost.image_gflop(study, backbone, network)
                precision = study.prompting_recipe(backbone).precision
                jobs.append(JobArithmetic(gflop["training"], gflop["mapping and test"], image, share, precision))
    return jobs


def _share(call: Call, backbone: Backbone, target: TargetDataset) -> float:
    """Return the side of a prompted image, of the canvas's: 1 where the border is not computed once."""
    family, canvas = call.study.family(backbone), call.study.canvas(backbone)
    is_shared = call.study.shape(backbone) == family.prompt
    return family.prompted_side(target.image_size, canvas) / canvas if is_shared else 1.0


def arithmetic_of_analyses(call: Call, planned: Collection[str], made: Callable[[str], bool]) -> list[JobArithmetic]:
    """Return the arithmetic of the jobs of analyses that are not there, or that Snakemake is going to make again.

    made: whether what a file is for is counted.
    """
    jobs = []
    left = analyses.left(call, lambda path: made(path) and (path in planned or not Path(path).exists()))
    for name, dataset, gflop in left:
        backbone, target = call.study.backbone(name), call.study.dataset(dataset)
        if gflop:
            image = 2 * cost.image_gflop(call.study, backbone, call.checkpoints[backbone.checkpoint])
            precision = call.study.prompting_recipe(backbone).precision
            jobs.append(JobArithmetic(0.0, gflop, image, _share(call, backbone, target), precision))
    return jobs
