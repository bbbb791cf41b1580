import json

from hiddencost.figures import draw
from hiddencost.logs import log_to

log_to(snakemake.log[0])
settings = json.loads(snakemake.params.settings)
figure = settings["figure"] | {"backbones": dict(settings["figure"]["backbones"])}
draw.draw(figure, dict(snakemake.input.items()), settings["style"], list(snakemake.output))
