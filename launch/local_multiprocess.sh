#!/usr/bin/env bash
# dream_jax.main in N processes of this machine, on the CPU, as on N hosts: to try a configuration before paying for hosts.
#
#   launch/local_multiprocess.sh [--dry-run] N [flags of dream_jax.main]
#   launch/local_multiprocess.sh 2 --config=configs/digits.py:quick --workdir=runs/two
#
# The output of process 0 comes here, that of the others goes to files, shown where something failed. SIGTERM and SIGINT
# go to all processes; a second one kills them. Where one process fails and the others do not end within a minute, they
# are killed. Exit code: 0 where all end with 0, else that of the process that failed first.
# DREAM_PYTHON names the interpreter (default: python).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage "$0"; exit 0 ;;
    --dry-run) dry_run=1 ;;
    *) break ;;
  esac
  shift
done
[ $# -gt 0 ] || refuse 'expected a number of processes and the flags of dream_jax.main; --help tells more'
count=$1
shift
[[ $count =~ ^[1-9][0-9]{0,2}$ ]] || refuse "expected a number of processes first, found $count"
[ $# -gt 0 ] || refuse 'nothing to run; write the flags of dream_jax.main after the number, such as --config=configs/digits.py:quick'
for argument in "$@"; do
  case $argument in
    --distributed* | --coordinator* | --num_processes* | --process_id*) refuse "$argument is added by this script; leave it out" ;;
  esac
done
arguments=("$@")
python=${DREAM_PYTHON:-python}
need "$python" 'activate the environment that dream_jax is installed in, or set DREAM_PYTHON'

# Below the range that outgoing connections take their ports from. A free port refuses the connection.
free_port() {
  local port
  while true; do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

# One device a process: two CPU devices a process, with gloo between the processes, hang on jax 0.10.2. And a single
# process would otherwise cut the CPU into several devices by itself.
one_device=--xla_force_host_platform_device_count=1
flags=''
for flag in ${XLA_FLAGS:-}; do
  case $flag in
    --xla_force_host_platform_device_count=*) ;;
    *) flags+="$flag " ;;
  esac
done
export XLA_FLAGS="$flags$one_device" JAX_PLATFORMS=cpu

port=$(free_port)
# Sets `command` to that of process $1.
command_of() {
  command=("$python" -m dream_jax.main "${arguments[@]}" "--coordinator=127.0.0.1:$port" "--num_processes=$count" "--process_id=$1")
}

if [ -n "$dry_run" ]; then
  for ((i = 0; i < count; i++)); do
    command_of "$i"
    echo "$(quote env "XLA_FLAGS=$XLA_FLAGS" "JAX_PLATFORMS=$JAX_PLATFORMS" "${command[@]}") &"
  done
  echo wait
  exit 0
fi

output=$(mktemp -d)
keep=
children=()
signals=0
# shellcheck disable=SC2329  # The traps call both functions.
finish() {
  local child
  # Whatever ends this script, no process stays behind. Each child leads a process group of its own.
  for child in ${children[@]+"${children[@]}"}; do kill -KILL -- "-$child" 2>/dev/null || true; done
  [ -n "$keep" ] || rm -rf "$output"
}
trap finish EXIT
# shellcheck disable=SC2329
pass_on() {
  local child signal=$1
  signals=$((signals + 1))
  [ "$signals" -eq 1 ] || signal=KILL
  for child in ${children[@]+"${children[@]}"}; do kill "-$signal" "$child" 2>/dev/null || true; done
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

# Job control: without it the shell starts background processes deaf to SIGINT.
set -m
for ((i = 0; i < count; i++)); do
  command_of "$i"
  if [ "$i" -eq 0 ]; then
    "${command[@]}" </dev/null &
  else
    "${command[@]}" </dev/null >"$output/process_$i.log" 2>&1 &
  fi
  children+=($!)
done
set +m

codes=()
left=$count first=0 deadline=''
while [ "$left" -gt 0 ]; do
  for ((i = 0; i < count; i++)); do
    [ -z "${codes[i]:-}" ] || continue
    # An ended child is gone for kill, and its code stays for wait.
    if kill -0 "${children[i]}" 2>/dev/null; then continue; fi
    code=0
    wait "${children[i]}" || code=$?
    codes[i]=$code
    left=$((left - 1))
    if [ "$code" -ne 0 ] && [ "$first" -eq 0 ]; then
      first=$code
      deadline=$((SECONDS + ${DREAM_GRACE_SECONDS:-60}))
      say "process $i ended with exit code $code"
    fi
  done
  if [ "$left" -gt 0 ] && [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
    say "$left process(es) did not end after that; killing them"
    # In distributed runs SIGTERM asks for an orderly stop, for which it is too late.
    for ((i = 0; i < count; i++)); do
      [ -n "${codes[i]:-}" ] || kill -KILL -- "-${children[i]}" 2>/dev/null || true
    done
    deadline=
  fi
  [ "$left" -eq 0 ] || sleep 0.1 || true
done

if [ "$first" -ne 0 ]; then
  keep=1
  for ((i = 1; i < count; i++)); do
    say "output of process $i (exit code ${codes[i]}), whole in $output/process_$i.log:"
    tail -n 20 "$output/process_$i.log" >&2
  done
fi
exit "$first"
