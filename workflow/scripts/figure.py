from hiddencost.figures import draw
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results.gallery import StudyFigure

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
content = StudyFigure.from_json(settings["figure"])
draw.draw(content, dict(snakemake.input.items()), settings["style"], list(snakemake.output))
