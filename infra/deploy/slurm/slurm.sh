#!/usr/bin/env bash
# A throw-away SLURM on this machine: four virtual nodes, no systemd, no cgroups, as root or not, ready in a second.
#
#   eval "$(infra/deploy/slurm/slurm.sh start [FOLDER])"    starts it and sets SLURM_CONF, which every client needs
#   infra/deploy/slurm/slurm.sh status [FOLDER]             says which daemons and nodes are up; 1 if one is not
#   infra/deploy/slurm/slurm.sh stop [FOLDER]               cancels the jobs, ends the daemons; the folder can go then
#
# Everything it writes is in FOLDER (default .twin/slurm). SLURM_NODES (4), SLURM_CPUS of a node (2; they may exceed the
# real ones) and SLURM_PORT, the first of SLURM_NODES + 1 free ports (default: found), are read when FOLDER is new.
# Needs slurm-wlm and munge: apt-get install --no-install-recommends slurm-wlm munge
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

verb=${1:-status}
folder=$(realpath -m "${2:-.twin/slurm}")
export SLURM_CONF=$folder/slurm.conf
nodes=${SLURM_NODES:-4}
host=$(hostname -s)

fail() { echo "slurm.sh: $*" >&2; exit 1; }

alive() { # whether the process of that pid file runs; a zombie does not
  local pid
  pid=$(cat "$folder/run/$1.pid" 2>/dev/null) && [[ -n $pid ]] &&
    [[ $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) == [^Z]* ]]
}

node_names() { sed -n 's/^NodeName=\(\S*\).*/\1/p' "$SLURM_CONF" 2>/dev/null || true; }

daemons() { node_names && echo slurmctld munged; } # in the order they end

free_ports() { # the first of n free ports in a row, below those that systems hand out
  local first port
  for _ in $(seq 200); do
    first=$((15000 + RANDOM % 15000))
    for ((port = first; port < first + $1; port++)); do
      (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue 2
    done
    echo $first && return
  done
  fail "expected $1 free ports in a row from 15000 to 30000, found none"
}

configure() {
  local port memory
  port=${SLURM_PORT:-$(free_ports $((nodes + 1)))}
  memory=$(awk -v n="$nodes" '/MemTotal/ {print int($2 / 1024 * 0.9 / n)}' /proc/meminfo)
  (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
  {
    cat <<END
ClusterName=virtual
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
# jobs are followed by their processes: nothing here needs root, cgroups, a database or mail
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobs.txt
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
# several jobs share a node by cores and memory; what is submitted starts at once
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=30
KillWait=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
END
    for ((n = 1; n <= nodes; n++)); do
      echo "NodeName=n$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + n)) CPUs=${SLURM_CPUS:-2} RealMemory=$memory"
    done
  } >"$SLURM_CONF"
}

start() {
  for program in munged slurmctld slurmd sbatch; do
    command -v $program >/dev/null || fail "expected $program on the PATH, found none: install slurm-wlm and munge"
  done
  ((${#folder} < 85)) || fail "expected a folder of fewer than 85 characters (sockets), found $folder"
  (umask 022 && mkdir -p "$folder"/{run,log,state,spool})
  [[ -s $SLURM_CONF ]] || configure
  alive munged || munged --force --key-file="$folder/munge.key" --socket="$folder/run/munge.sock" \
    --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" >&2
  alive slurmctld || slurmctld -i >&2
  for node in $(node_names); do
    alive "$node" || slurmd -N "$node" >&2
  done
  for _ in $(seq 100); do
    up && echo "export SLURM_CONF=$SLURM_CONF" && return
    sleep 0.1
  done
  fail "expected every node up within 10 s, found $(sinfo -h -o '%n %T' 2>&1 | tr '\n' ','), see $folder/log"
}

up() { # every daemon runs and every node takes work
  for name in $(daemons); do alive "$name" || return; done
  [[ -n $(sinfo -h -N -o %T 2>/dev/null) ]] && ! sinfo -h -N -o %T | grep -qvE '^(idle|mixed|allocated|completing)$'
}

stop() {
  if alive slurmctld; then scancel --user "$(id -un)" 2>/dev/null || true; fi
  for name in $(daemons); do
    if alive "$name"; then kill "$(cat "$folder/run/$name.pid")"; fi
  done
  for _ in $(seq 100); do
    left=$(for name in $(daemons); do if alive "$name"; then echo "$name"; fi; done)
    [[ -n $left ]] || return 0
    sleep 0.1
  done
  fail "expected every daemon to end within 10 s, found" $left
}

status() {
  for name in $(daemons); do alive "$name" && echo "$name up" || echo "$name down"; done
  sinfo -N -o '%N %T %C' 2>/dev/null || true
  up
}

case $verb in
start | stop | status) $verb ;;
*) fail "expected start, stop or status, found $verb" ;;
esac
