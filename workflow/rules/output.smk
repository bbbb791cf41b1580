# What `snakemake --report` shows, and what a call says in its terminal where a profile has `quiet: [host, reason]`, as those
# here have: a line for each job that begins, and what has failed. `--quiet host` gives all that Snakemake says.

import time

from snakemake.logging import ColorizingTextHandler, logger
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

SHOWN = {name: {"heading": heading, "caption": text} for name, heading, text in results.report(CALL)["captions"]}
config["captions"] = {name: figure["caption"] for name, figure in SHOWN.items()}


def heading(wildcards):
    """What `snakemake --report` calls a figure."""
    return {"figure": SHOWN[wildcards.figure]["heading"]}


def table(path, what):
    """A table that `snakemake --report` shows."""
    return report(path, caption="../report/table.rst", category="Tables", labels={"table": what})


UNSAID = (
    *("Building DAG", "Using shell", "Rules claiming more threads", "Conda environments: ignored"),
    *("Select jobs", "Reasons:", "Some jobs were triggered", "Rules with provenance", "Exiting because a job"),
    "WorkflowError:\nAt least one job did not complete",
)
EVENTS_UNSAID = {LogEvent.GROUP_INFO, LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.SHELLCMD}
SILENCE = 60  # seconds, after which the next finished job is told


class OneLineAJob(ColorizingTextHandler):
    """A terminal that is told less than Snakemake says, with the settings of another."""

    def __init__(self, other):
        super().__init__(other.nocolor, other.stream, other.formatter, *other.filters)
        self.name, self.started, self.total, self.told = other.name, 0, 0, time.monotonic()

    def emit(self, record):
        if text := self.text_of(record):
            self.told = time.monotonic()
            self.stream.write(f"{self.decorate(record, text)}\n")
            self.flush()

    def text_of(self, record):
        """Return what is said of a record, "" if nothing."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            return self.job(record)
        if event == LogEvent.RUN_INFO:
            counted, self.total = self.total, record.stats["total"]
            return f"\n{record.msg}" if workflow.dryrun and not counted else ""
        if event == LogEvent.PROGRESS:
            is_silent = time.monotonic() - self.told > SILENCE
            return f"{time.strftime('%H:%M:%S')}  {record.done} of {record.total} jobs are done" if is_silent else ""
        if event == LogEvent.JOB_ERROR and record.rule_name == concluding():
            return ""  # a run without a result is one: the call ends with why
        text = self.format(record)
        # of a job's script: what the job's own error tells, with its log, without the shell's command
        is_unsaid = event in EVENTS_UNSAID or text.startswith(UNSAID) or "\nCalledProcessError in" in text
        return "" if is_unsaid else re.sub(r'Resource\("\w+", (\w+)\)', r"\1", text)  # as Snakemake 9.27 has them

    def job(self, record):
        """Return the line of a job that begins; in a dry run of one that has run before, with what has changed."""
        self.started += 1
        if not record.rule_msg or (workflow.dryrun and "changed" not in record.reason):
            return ""
        if workflow.dryrun:
            return f"{record.rule_msg}\n    {record.reason}"
        count = f"{self.started:>{len(str(self.total))}}/{self.total}"
        return f"{time.strftime('%H:%M:%S')} {count}  {record.rule_msg}"


def say_less():
    """Put a handler in the place of Snakemake's own, where that writes to the terminal."""
    for handler in list(logger.handlers):
        if handler.name == "DefaultStreamHandler" and Quietness.REASON in (workflow.output_settings.quiet or ()):
            logger.removeHandler(handler)
            logger.addHandler(OneLineAJob(handler))


if workflow.is_main_process and not IS_MODULE:
    say_less()
