# What a product was made for is kept beside it, and held against what is asked: see `hiddencost.jobs.requests`.

from snakemake import persistence as records

from hiddencost.jobs import requests


def hold_requests():
    """Let the requests of products stand for the records in .snakemake/."""
    base = records.PersistenceBase
    started, finished, metadata = base.started, base.finished, base.metadata

    def forget(self, job, external_jobid=None):
        requests.forget(job.output)
        started(self, job, external_jobid)

    async def keep(self, job):
        await finished(self, job)
        requests.keep(job.output, self._params(job), self._input(job))

    def of_product(self, product):
        known = metadata(self, product) or records.MetadataRecord()
        fields = known.model_dump() | requests.as_recorded(CALL, str(product))
        return records.MetadataRecord(**fields | {"record_format_version": records.RECORD_FORMAT_VERSION})

    base.started, base.finished, base.metadata = forget, keep, of_product


if workflow.is_main_process:
    hold_requests()
