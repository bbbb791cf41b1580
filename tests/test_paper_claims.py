"""What the paper says has its entry in the catalog, or a reason why not; and how a study relates to the paper's."""

from hiddencost.results import claims

# What arXiv 2308.14969 says, in our words: the entries that test it, or why there is none
SAID = {
    "Compression costs accuracy under visual prompting": ["compression-accuracy"],
    "Compression costs calibration under visual prompting": ["compression-calibration"],
    "Of dense networks, ILM-VP > FLM-VP > RLM-VP (figures 1 to 4)": ["mapping-ilm-flm", "mapping-flm-rlm"],
    "GMP, ResNet-18: dense is better for each dataset, budget and method": ["gmp-resnet18"],
    "GMP, ResNet-34: dense is better for each dataset, budget and method": ["gmp-resnet34"],
    "Dense ResNet-18 and 34: ILM-VP is better than FLM-VP but on SVHN and GTSRB": ["order-ilm-flm"],
    "Dense ResNet-18 and 34: RLM-VP is far behind but on SVHN and GTSRB": ["order-flm-rlm"],
    "Dense ResNet-18 and 34, SVHN, GTSRB: the three are close": ["close-ilm-flm", "close-flm-rlm", "close-ilm-rlm"],
    "GMP ResNet-18: no clear order of the three": ["no-order-ilm-flm", "no-order-ilm-rlm", "no-order-flm-rlm"],
    "GMP ResNet-34: ILM-VP stays the best": ["resnet34-gmp-ilm-flm", "resnet34-gmp-ilm-rlm"],
    "Pets, ResNet-18: dense is more than 50 points better at all budgets": ["gmp-pets"],
    "ResNet-34 reaches more than ResNet-18 on all data": ["resnet34-over-resnet18", "resnet34-over-resnet18-gmp"],
    "GMP networks keep the dense ones' ImageNet accuracy (69.8 and 73.3 %)": "no run measures it: the catalog of "
    "checkpoints has it as published",
    "AC/DC and RigL, four datasets: dense is better": ["acdc-accuracy", "rigl-accuracy"],
    "AC/DC and RigL, the other four: sparse matches dense in some settings": ["acdc-some-match", "rigl-some-match"],
    "Flowers102: AC/DC and RigL are better than dense": ["acdc-flowers", "rigl-flowers"],
    "Flowers102: by about 2 points": ["acdc-flowers-by-2", "rigl-flowers-by-2"],
    "AC/DC and RigL go alike": ["acdc-like-rigl-80", "acdc-like-rigl-90"],
    "Sparsity costs ResNet-50 less than ResNet-18 and 34": ["resnet50-smaller-gap"],
    "Tickets, CIFAR-10: dense is better under ILM-VP and FLM-VP at every budget": ["lth-accuracy"],
    "Tickets, CIFAR-10: ILM-VP is better than FLM-VP always, dense and sparse": ["lth-ilm-flm", "lth-dense-ilm-flm"],
    "Tickets, CIFAR-10: RLM-VP is the lowest": ["lth-rlm-lowest"],
    "Tickets, CIFAR-10, RLM-VP: tickets match dense at high budgets": ["lth-rlm-alike"],
    "Tickets, CIFAR-10: they hurt ILM-VP most": ["lth-ilm-most"],
    "Tickets, CIFAR-10, ILM-VP, 20 shots: 20 points are lost, the mean of all states": ["lth-ilm-20"],
    "Tickets, CIFAR-10, FLM-VP, 1 and 2 shots: tickets are better": ["lth-flm-few"],
    "Tickets, other datasets": "no statement of theirs is known",
    "Sparsity worsens calibration under visual prompting": ["sparsity-calibration"],
    "Sparsity worsens calibration under the linear probe": ["sparsity-calibration-probe"],
    "Quantisation lowers accuracy": ["quantisation-accuracy"],
    "Quantisation does not worsen calibration": ["quantisation-calibration"],
    "CLIP, compressed by UPop": "none known of its own: it is among the compressed networks of the first two",
}


def test_each_claim_of_the_paper_has_its_entry_or_the_reason_why_not():
    listed = [name for entries in SAID.values() if isinstance(entries, list) for name in entries]
    assert sorted(listed) == sorted(name for name, one in claims.load().items() if "2308.14969" in one.source)
    assert all(entries for entries in SAID.values())


def test_a_margin_of_ours_is_said_to_be_ours():
    for name, one in claims.load().items():
        if one.within is not None or (one.order is None and not {0, 50} & {one.more_than, one.less_than}):
            assert "our margin" in one.text or "published" in one.text.lower(), name
