#!/bin/sh
# status.sh JOB: one of running (also: waiting), success, failed, as Snakemake's executor cluster-generic asks it.
# PBS Pro tells of a finished job with -x alone.
told=$(qstat -f "$1" 2>/dev/null || qstat -x -f "$1" 2>/dev/null)
case $? in
    0) ;;
    153) echo failed; exit ;; # an unknown job: forgotten, or deleted before it ran
    *) echo running; exit ;; # the scheduler does not answer: ask again
esac
state=$(echo "$told" | sed -n 's/.*job_state = //p')
code=$(echo "$told" | sed -n 's/.*[Ee]xit_status = //p')
case $state in
    C | F) [ "$code" = 0 ] && echo success || echo failed ;;
    *) echo running ;;
esac
