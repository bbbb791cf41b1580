# What a product was made for is kept beside it, and held against what is asked: see `hiddencost.jobs.requests`.

from functools import cache

from snakemake import io
from snakemake import persistence as records

from hiddencost.jobs import requests


async def is_newer(self, time):
    """Say that no file is newer than another: what they hold decides, which the requests have."""
    return False


@cache  # Snakemake asks some ten times for each product
def is_ours(product):
    """Whether a file is of this workflow's rules, as others may write into the same folders, and have params of any kind."""
    return any(rule.is_producer(product) for held in records.PersistenceBase.our_rules for rule in held)


def ours(products):
    """Whether the products of a job are this workflow's."""
    return any(is_ours(str(product)) for product in products)


def hold_requests():
    """Let the requests of products stand for the records in .snakemake/, and for time stamps."""
    base = records.PersistenceBase
    started, finished, metadata = base.started, base.finished, base.metadata

    def begin(self, job, external_jobid=None):
        if ours(job.output) and not workflow.touch:  # which makes nothing
            requests.begin(job.output, self._input(job))
        started(self, job, external_jobid)

    async def keep(self, job):
        try:
            await finished(self, job)
            if ours(job.output) and not workflow.touch:
                requests.keep(job.output, sorted(job.non_derived_params), self._input(job))
        except OSError:  # of a full disk: Snakemake ends at once, without onerror
            print(ending.failure(CALL, CONCLUDED_BEFORE))
            raise

    def of_product(self, product):
        if not ours([product]):
            return metadata(self, product)
        held = dict(requests.as_recorded(CALL, str(product)))
        if held:
            # as the Snakemake of this call writes them, whichever it was that the product was made with
            held["params"] = [self._serialize_param(param) for param in held["params"]]
            held["record_format_version"] = records.RECORD_FORMAT_VERSION
        known = metadata(self, product) or records.MetadataRecord()
        return records.MetadataRecord(**known.model_dump() | held)

    base.started, base.finished, base.metadata = begin, keep, of_product
    base.our_rules = []
    if not IS_MODULE:  # other rules may go by time stamps
        io._IOFile.is_newer = is_newer


# read once for each `use rule` of a workflow that has this one as a module, each with rules of its own
if workflow.is_main_process:
    if not hasattr(records.PersistenceBase, "our_rules"):
        hold_requests()
    records.PersistenceBase.our_rules.append(workflow.modifier.rules)  # all of them, once the workflow is read
