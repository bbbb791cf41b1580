"""What compressing a pretrained vision network costs when it is later adapted by visual prompting.

`hiddencost.load` turns what a run has learned into a torch module that classifies images, and `hiddencost.push` puts
that on the Hugging Face Hub (`hiddencost.runs.trained`).
"""


def __getattr__(name: str) -> object:
    if name not in ("load", "push"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not an import statement, and not before it is asked for: `import hiddencost` stays light, and the digests of
    # the code that trains (digest.code_digest), which follow import statements from here, stay without it.
    from importlib import import_module

    return getattr(import_module("hiddencost.runs.trained"), name)
