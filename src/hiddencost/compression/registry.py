"""The kinds of compression made here, and what they are called."""

# what each algorithm is told
SETTINGS = {
    "magnitude": ("sparsity", "scope"),
    "random": ("sparsity", "scope"),
    "nm": ("n", "m"),
    "channel": ("sparsity",),
    "quantise": ("bits",),
}


def label(settings: dict) -> str:
    """Return what tables and figures call a compression: "magnitude", "magnitude-erk", "2:4", "channel", "int8"."""
    match settings["algorithm"]:
        case "nm":
            return f"{settings['n']}:{settings['m']}"
        case "quantise":
            return f"int{settings['bits']}"
        case algorithm:
            return "-".join([algorithm, *({settings.get("scope")} - {None, "global"})])


def sparsity(settings: dict, before: float | None) -> float | None:
    """Return the share of zeros that a compression states; of a quantisation the one `before`."""
    match settings["algorithm"]:
        case "nm":
            return 1 - settings["n"] / settings["m"]
        case "quantise":
            return before
        case _:
            return settings["sparsity"]
