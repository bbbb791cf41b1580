"""Methods of adapting a network to a task: visual prompting with label mapping, probe, fine-tuning, zero-shot.

In: a method's name, as a study has it; predictions and labels of the images that a run chooses.
Out: what the rest of the code asks of a method (`registry.METHODS`: label, colour, job, recipe, passes), and label
mappings (`mapping`), int64 [target classes].
Here alone methods are told apart by name.
"""
