"""Training of visual prompts: all runs of a pack, step by step."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

import torch
from torch import Tensor

from hiddencost.messages import describe_unknown_name
from hiddencost.methods.method import Method
from hiddencost.methods.registry import METHODS, run_by
from hiddencost.prompting.chunk import Chunk, of_runs, runs_of_images, stacked, to_device
from hiddencost.prompting.engine import PromptedNetwork
from hiddencost.prompting.prompt import Parameters
from hiddencost.prompting.run import Run, State, TrainedPrompt, end_epoch, pair, part, share, states_of
from hiddencost.prompting.schedule import epoch_batches, optimiser, stream
from hiddencost.study.recipes import PromptingProtocol

T = TypeVar("T")
Progress = Callable[[int], object]  # gets the number of images trained on since the last call
Keep = Callable[[Callable[[], dict[int, State]]], object]  # given, after each step, the way to the states of all runs
Predictions = Tensor | tuple[Tensor, Tensor]  # source classes, or the highest and their probabilities


@lru_cache(maxsize=64)
def _weights(counts: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return 1 / counts[r] for each image of run r, on the device."""
    return to_device((1 / torch.tensor(counts, dtype=torch.float64))[runs_of_images(counts)].to(dtype), device)


def train_prompts(
    prompted: PromptedNetwork,
    images: Tensor,
    labels: Tensor,
    classes: int,
    runs: Sequence[tuple[str, Sequence[int]]],
    seed: int,
    protocol: PromptingProtocol,
    progress: Progress = lambda images: None,
    states: dict[int, State] | None = None,
    keep: Keep = lambda states: None,
    batch_sizes: Sequence[int] | None = None,
    similarities: Tensor | None = None,
) -> Iterator[tuple[int, TrainedPrompt]]:
    """Train prompts with label mappings, as published (arXiv 2308.14969; ILM-VP, arXiv 2211.11635), side by side.

    W starts at zero. The method draws the mapping under the untrained prompt and, if it redraws, under the current
    one at the start of each `mapping_interval`-th epoch. Cross-entropy on the mapped logits, the protocol's optimiser
    on W. The random streams depend on `seed` alone: one for mappings, one for the order of the batches. So a run sees
    the same batches alone and beside others, and runs on the same images see the same whatever their method: until
    its mapping changes, a run of ilm is that of flm, and is not computed twice.

    With `steps` in the protocol, in place of epochs, a run ends after so many, within a pass over its images or not.
    A pass begins as an epoch does.

    Args:
        prompted: the network.
        images: uint8 [M, 3, s, s], on the device or on the host.
        labels: int64 [M].
        classes: the number of target classes.
        runs: the name of each one's method, and the indices of its images. Each step takes every run's next batch
            through the network.
        seed: of all random streams.
        protocol: the recipe.
        progress: called with the number of images that were trained on since its last call.
        states: by number, of runs to go on from, on the network's device. With those of all runs the result is that
            of a run that was not interrupted, on a CPU to the bit (a GPU adds up in no certain order); with some (as
            others have finished) up to the rounding of other chunks.
        keep: called after each step. What it is given returns the states, by number, of the runs under way, to be
            stored at once, as the next step changes them.
        batch_sizes: of each run, where they are not all the protocol's.
        similarities: of the names of target and source classes, float32 [classes, source classes] on the host, for
            methods that read them.

    Returns:
        An iterator over the runs as they finish: a run's number, and what it has learned. A run whose loss is not
        finite ends with its epoch (`diverged`).

    Raises:
        ValueError: a run's method is no prompting method.
    """
    pack = _Pack(prompted, images, labels.cpu(), classes, seed, protocol, batch_sizes, similarities)
    return pack.train(runs, states or {}, progress, keep)


@dataclass(frozen=True)
class _Pack:
    """What the runs of a pack share (see `train_prompts`), and what is done for several of them at once."""

    prompted: PromptedNetwork
    images: Tensor
    labels: Tensor  # on the host
    classes: int
    seed: int
    protocol: PromptingProtocol
    batch_sizes: Sequence[int] | None
    similarities: Tensor | None

    def train(
        self, runs: Sequence[tuple[str, Sequence[int]]], states: dict[int, State], progress: Progress, keep: Keep
    ) -> Iterator[tuple[int, TrainedPrompt]]:
        """See `train_prompts`."""
        active = self.begin(runs, states)
        progress(sum(run.outcome.images for run in active))
        while active:
            self.begin_epochs([run for run in active if not run.batches])
            start = time.perf_counter()
            counts = self.step(active)
            ended = [run for run in active if not run.batches]
            end_epoch(ended)
            share(active, counts, start)
            progress(sum(counts))
            active = [run for run in active if run.steps_left() and not run.outcome.diverged]
            for run in ended:
                if run not in active:
                    yield run.number, run.finish()
            keep(partial(states_of, active))

    def begin(self, runs: Sequence[tuple[str, Sequence[int]]], states: dict[int, State]) -> list[Run]:
        """Return the runs at their beginning, with their first mappings, or where `states` were taken of them."""
        if strange := [name for name, _ in runs if name not in run_by("train")]:
            raise ValueError(f"method {describe_unknown_name(strange[0], run_by('train'))}")
        methods = [METHODS[name] for name, _ in runs]
        chosen = [torch.as_tensor(indices) for _, indices in runs]
        new = [number for number in range(len(runs)) if number not in states]
        start = time.perf_counter()
        drawn = self._draw_first({number: (methods[number], chosen[number]) for number in new})
        begun = []
        for number, method in enumerate(methods):
            mapping = drawn[number] if number in drawn else states[number]["mapping"].cpu()
            own = {"batch_size": self.batch_sizes[number]} if self.batch_sizes else {}
            run = self._new(number, method, self.protocol.model_copy(update=own), chosen[number], mapping)
            if number in states:
                run.resume(states[number])
            begun.append(run)
        pair(begun)
        passes = [len(chosen[number]) * methods[number].first_pass for number in new]
        share([begun[number] for number in new], passes, start)
        return begun

    def _new(self, number: int, method: Method, recipe: PromptingProtocol, chosen: Tensor, mapping: Tensor) -> Run:
        """Return a run at its beginning."""
        parameters = self.prompted.new_prompt(stream(self.seed, "prompt"))
        settings = {name: recipe.settings_of(name) for name in parameters.keys() - self.prompted.prompt.not_trained}
        if method.learning_rate is not None:
            parameters["mapping"] = mapping.to(self.prompted.device)
            settings["mapping"] = {"learning_rate": method.learning_rate}
        alike: dict[tuple, list[Tensor]] = {}
        for name, tensor in parameters.items():
            if name in settings:
                alike.setdefault(tuple(settings[name].items()), []).append(tensor.requires_grad_())
        steps = [
            optimiser(tensors, recipe.model_copy(update=dict(own)), len(chosen)) for own, tensors in alike.items()
        ]
        training = parameters, steps, stream(self.seed, "batches"), TrainedPrompt(parameters, mapping)
        return Run(number, method, recipe, chosen, *training)

    def _draw_first(self, runs: dict[int, tuple[Method, Tensor]]) -> dict[int, Tensor]:
        """Return the first mappings of runs, by number, of their methods and chosen images.

        Under the new prompt, which is the same for all runs, each image goes through the network once for all that
        want its class, and once for all that want its highest classes.
        """
        new_prompt, drawn = stacked([self.prompted.new_prompt()]), {}
        for highest, some in _by_highest(runs.items(), lambda one: self._highest(one[1][0])):
            if used := [chosen for _, (method, chosen) in some if method.first_pass]:
                images = torch.cat(used).unique()
                predictions = self._predict([images], new_prompt, highest)
            for number, (method, chosen) in some:
                of_run: Predictions | None = self.similarities if method.reads_names else None
                if method.first_pass:
                    of_run = _of(predictions, torch.searchsorted(images, chosen))
                drawn[number] = self._draw_mapping(method, chosen, of_run)
        return drawn

    def _highest(self, method: Method) -> int:
        return method.highest(self.prompted.source_classes, self.classes)

    def _predict(self, chosen: list[Tensor], prompts: Parameters, highest: int) -> Predictions:
        """Return the source class of each chosen image, run after run, or so many of the highest."""
        if highest:
            return self.prompted.highest(self.images, chosen, prompts, highest)
        return self.prompted.predict(self.images, chosen, prompts)

    def _draw_mapping(self, method: Method, chosen: Tensor, predictions: Predictions | None) -> Tensor:
        sizes = self.prompted.source_classes, self.classes
        mapping = method.draw_mapping(predictions, self.labels[chosen], *sizes, stream(self.seed, "mapping"))
        return mapping.to(self.prompted.mean.dtype) if method.weighted else mapping

    def begin_epochs(self, runs: list[Run]) -> None:
        """Draw the batches of the runs that begin an epoch, and the mappings that are due anew."""
        self._map_anew([run for run in runs if run.method.redraws_at(run.epoch, run.recipe.mapping_interval)])
        part(runs)
        for run in runs:
            if not run.method.learns_mapping:
                run.outcome.mappings.append(run.method.sources_of(run.outcome.mapping).tolist())
            run.batches = list(epoch_batches(len(run.chosen), run.recipe, run.shuffle))[: run.steps_left()]

    def _map_anew(self, runs: list[Run]) -> None:
        if not runs:
            return
        start = time.perf_counter()
        for highest, some in _by_highest(runs, lambda run: self._highest(run.method)):
            computed = list(dict.fromkeys(run.twin or run for run in some))
            counts = [len(run.chosen) for run in computed]
            prompts = stacked([run.prompt for run in computed])
            predictions = self._predict([run.chosen for run in computed], prompts, highest)
            places = dict(zip(computed, torch.arange(sum(counts)).split(counts), strict=True))
            for run in some:
                run.map_by(self._draw_mapping(run.method, run.chosen, _of(predictions, places[run.twin or run])))
        share(runs, [len(run.chosen) for run in runs], start)

    def step(self, runs: list[Run]) -> list[int]:
        """Take one step of each run, with one batch of its own. Returns the sizes of the batches."""
        batches = {run: run.chosen[run.batches.pop(0)] for run in runs}
        computed = [run for run in runs if not run.twin]
        losses, gradients = self._gradients(computed, [batches[run] for run in computed])
        place = {run: number for number, run in enumerate(computed)}
        for run in runs:
            at = place[run.twin or run]
            run.advance(losses[at], {name: gradients[name][at] for name in run.parameters}, len(batches[run]))
            self.prompted.constrain(run.parameters)
        return [len(batch) for batch in batches.values()]

    def _gradients(self, runs: list[Run], batches: list[Tensor]) -> tuple[Tensor, Parameters]:
        """Return the mean loss of each run on its batch, [R], and its gradients, [R, ...] each."""
        prompted, counts, together = self.prompted, [len(batch) for batch in batches], torch.cat(batches)
        columns = self.labels[together], runs_of_images(counts), *self._draw_views(runs, counts)
        read = prompted.reader(self.images, together, *columns)
        weights = _weights(tuple(counts), prompted.device, prompted.mean.dtype)
        parameters, mappings = stacked([run.prompt for run in runs]), self._mappings(runs)
        of_step = prompted, read, counts, parameters
        whole = prompted.prompt.whole_batches(*of_step) if prompted.prompt.of_batches else None

        def compute(part: slice, present: slice) -> tuple[Tensor, Parameters]:
            pictures, labels, of_run, *drawn = read(part)
            own = of_runs(parameters, present)
            if whole:
                pictures, own = prompted.prompt.view(pictures, drawn), whole.in_chunk(part, own)
            inputs = pictures, labels, weights[part], of_run - present.start
            return prompted.gradients(Chunk(*inputs, mappings[present], own))

        losses = weights.new_zeros(len(runs))
        gradients: Parameters = {}
        for (loss, of_chunk), images, present in prompted.in_chunks(counts, compute, gradient=True):
            losses[present] += loss
            for name, gradient in of_chunk.items():
                each, places = (len(together), images) if whole and name == whole.name else (len(runs), present)
                if name not in gradients:
                    gradients[name] = gradient.new_zeros(each, *gradient.shape[1:])
                gradients[name][places] += gradient
        if whole:
            gradients |= whole.gradients(gradients.pop(whole.name)) | whole.kept
        return losses, gradients

    def _draw_views(self, runs: list[Run], counts: list[int]) -> Sequence[Tensor]:
        """Return what is drawn of how training sees the images of a step, of most prompts nothing: int64 [N] each, on
        the host. What a run draws is a function of the seed and of its step."""
        prompt = self.prompted.prompt
        if not prompt.of_batches:
            return ()
        streams = [stream(self.seed, f"augmentation of step {run.step}") for run in runs]
        return torch.cat([prompt.draw(count, one) for count, one in zip(counts, streams, strict=True)], 1).unbind()

    def _mappings(self, runs: list[Run]) -> Tensor:
        """Return the mappings of runs, as a Chunk has them, on the device."""
        if not any(run.method.weighted for run in runs):
            return to_device(torch.stack([run.outcome.mapping for run in runs]), self.prompted.device)
        columns = self.prompted.source_classes + any(run.method.learns_mapping for run in runs)
        return torch.stack([run.matrix(columns) for run in runs])


def _by_highest(runs: Iterable[T], highest: Callable[[T], int]) -> list[tuple[int, list[T]]]:
    """Return runs by how many of the highest source classes of an image they want."""
    groups: dict[int, list[T]] = {}
    for run in runs:
        groups.setdefault(highest(run), []).append(run)
    return list(groups.items())


def _of(predictions: Predictions, places: Tensor) -> Predictions:
    """Return the predictions of some images."""
    if isinstance(predictions, Tensor):
        return predictions[places]
    classes, probabilities = predictions
    return classes[places], probabilities[places]
