#!/usr/bin/env bash
# A real Slurm on this one machine, with two pretend GPUs: for the tests beside this file.
#
#   start.sh          install (Debian), configure and start; does nothing where it runs already
#   start.sh stop     cancel all jobs, stop the daemons and remove their configuration; what is installed stays
#
# The pretend GPUs are character devices: Slurm hands them out and sets CUDA_VISIBLE_DEVICES, but nothing can compute
# on them. Its 16 CPUs and 64 GB are pretended too, so that jobs queue alike on any machine.
set -euo pipefail
unset SLURM_CONF

MARK="# written by hiddencost's tests/slurm/start.sh"
STATE=/var/lib/hiddencost-slurm
HOST=$(hostname -s)

refuse() { echo "start.sh: $1" >&2; exit 1; }

[ "$(id -u)" = 0 ] || refuse "needs root: it installs Slurm and starts its daemons"
command -v apt-get >/dev/null || refuse "needs Debian's apt-get, to install slurm-wlm and munge"
exec 9>/run/lock/hiddencost-slurm
flock -n 9 || refuse "another start.sh is at work"
for file in slurm.conf gres.conf; do
    [ ! -e /etc/slurm/$file ] || grep -qF "$MARK" /etc/slurm/$file || \
        refuse "/etc/slurm/$file is not ours: a Slurm is configured here"
done

end() { # the daemon of a pid file, and wait until it is gone
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ "$(cat /proc/"$pid"/comm 2>/dev/null)" = "$2" ] || return 0
    kill "$pid"
    for _ in $(seq 100); do [ -e /proc/"$pid" ] || return 0; sleep 0.1; done
    kill -KILL "$pid"
}

end_all() {
    end $STATE/slurmd.pid slurmd
    end $STATE/slurmctld.pid slurmctld
    end $STATE/munge/munged.pid munged
}

runs() { [ -e /etc/slurm/slurm.conf ] && sinfo --noheader --format %T 2>/dev/null | grep -qE '^(idle|mixed|allocated)$'; }

if [ "${1:-}" = stop ]; then
    if runs; then
        squeue --noheader --format %A | sort -u | xargs --no-run-if-empty scancel
        for _ in $(seq 100); do [ -n "$(squeue --noheader)" ] || break; sleep 0.1; done
    fi
    end_all
    # with it, each start of Snakemake would wait 9 s for the controller: its plugin asks for the settings
    rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
    exit
fi
[ -z "${1:-}" ] || refuse "'$1' is unknown; expected nothing, or stop"

if ! { command -v slurmctld && command -v slurmd && command -v munged && command -v qsub; } >/dev/null; then
    echo "installing slurm-wlm, its commands for users of Torque, and munge"
    # installing starts no daemon: here they are started by hand, with or without systemd
    policy=/usr/sbin/policy-rc.d
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap "rm -f $policy" EXIT; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurm-wlm slurm-wlm-torque munge >/dev/null
fi

runs && exit
end_all # what is left of one that does not run whole

mkdir -p $STATE/spool $STATE/state /etc/slurm
for number in 0 1; do [ -c $STATE/gpu$number ] || mknod -m 666 $STATE/gpu$number c 1 3; done
cat >/etc/slurm/slurm.conf <<CONF
$MARK
ClusterName=hiddencost
SlurmctldHost=$HOST(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$STATE/munge/socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
MinJobAge=3600
ReturnToService=2
KillWait=5
SchedulerParameters=defer,sched_interval=2,bf_interval=2
StateSaveLocation=$STATE/state
SlurmdSpoolDir=$STATE/spool
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:fake:2
PartitionName=gpu Nodes=ALL
PartitionName=cpu Nodes=ALL Default=YES
CONF
cat >/etc/slurm/gres.conf <<CONF
$MARK
AutoDetect=off
NodeName=$HOST Name=gpu Type=fake File=$STATE/gpu[0-1]
CONF

# a munge of our own, with its own key and socket: one of the machine's is left alone
install -d -m 755 -o munge -g munge $STATE/munge
[ -s $STATE/munge/key ] || (umask 377 && head -c 1024 /dev/urandom >$STATE/munge/key)
chown munge:munge $STATE/munge/key
exec 9>&- # the daemons must not inherit the lock
runuser -u munge -- munged --key-file=$STATE/munge/key --socket=$STATE/munge/socket \
    --pid-file=$STATE/munge/munged.pid --log-file=$STATE/munge/log --seed-file=$STATE/munge/seed
slurmctld -c
slurmd -N "$HOST"
for _ in $(seq 200); do runs && exit; sleep 0.1; done
refuse "the node did not come up in 20 s; see $STATE/slurmctld.log and $STATE/slurmd.log"
