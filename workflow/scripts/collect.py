from dataclasses import fields

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results import tables

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
study = tables.CollectedStudy(**{field.name: settings[field.name] for field in fields(tables.CollectedStudy)})
runs = tables.collect(list(snakemake.input if study.so_far is None else study.so_far), study)
summary = tables.summarise(runs)
tables.write(runs[tables.run_columns()], snakemake.output.runs_csv)
tables.write(runs[tables.run_columns()], snakemake.output.runs)
tables.write(summary, snakemake.output.summary)
tables.write(tables.bins(runs), snakemake.output.bins)
tables.write(tables.against_published(summary, study.expectations), snakemake.output.expectations)
