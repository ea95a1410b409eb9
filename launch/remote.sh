#!/usr/bin/env bash
# The other end of tpu_vm.sh and gpu_vm.sh: runs on the machine with the accelerators, called through ssh.
#
#   setup EXTRAS     environment and packages (EXTRAS as in pyproject.toml, such as demo,tpu)
#   mount BUCKET     the bucket (NAME or NAME/FOLDER) becomes the folder runs/
#   start ARG...     python -m dream_jax.main ARG..., detached; leaves a run of the same command alone
#   state            one line: dream-state running | exit CODE [asked] | lost | none
#   follow OFFSET    the log from that byte on, until the run ends
#   stop             SIGTERM: the run saves and ends
#   idle             fails while a run goes on
#   pack [FOLDER]    packs runs/ or a folder of it for fetching
#
# Layout: dream_launch/NAME/{tree,venv,runs,job}; tree/runs is a link to runs, so that a new tree keeps the results.
# --dry-run before the word prints what setup, mount and start would run.
set -euo pipefail
base=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
job=$base/job
dry_run=

say() { echo "# $(hostname): $*"; }
refuse() {
  echo "remote.sh: $*" >&2
  exit 2
}
run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

find_python() {
  local python
  # 3.11 first: constraints.txt was made on it. ensurepip: Debian splits it off, and a venv without it has no pip.
  for python in python3.11 python3.12 python3.13 python3; do
    if "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$python"
      return
    fi
  done
}

setup() {
  local python extras=$1 driver
  if [[ ,$extras, == *,cuda* ]]; then
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) ||
      refuse 'nvidia-smi does not run: this machine has no NVIDIA driver; install version 525 or newer, or take an image that has it'
    [ "${driver%%.*}" -ge 525 ] || refuse "the NVIDIA driver is $driver; CUDA 12 needs 525 or newer"
  fi
  mkdir -p "$base/runs" "$job"
  if [ ! -e "$base/tree/runs" ]; then run ln -s ../runs "$base/tree/runs"; fi
  if [ ! -x "$base/venv/bin/python" ]; then
    python=$(find_python)
    if [ -n "$python" ]; then
      run "$python" -m venv "$base/venv"
    else
      # Ubuntu 22.04, which TPU images are made of, has Python 3.10; uv brings one of its own without root.
      say 'no Python 3.11 or newer here; fetching one with uv'
      run python3 -m pip install --quiet --user --upgrade uv
      run python3 -m uv venv --seed --python 3.11 "$base/venv"
    fi
  fi
  cd "$base/tree"
  rm -f "$base/venv/ready"
  # constraints.txt pins jax; the extras of jax name the libtpu or CUDA packages of exactly that version.
  run "$base/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt ".[$extras]"
  if [[ ,$extras, == *,cuda* ]]; then
    run "$base/venv/bin/python" -c 'import jax; assert jax.default_backend() == "gpu", "jax sees no GPU"; print("#", jax.devices())'
  fi
  [ -n "$dry_run" ] || touch "$base/venv/ready"
  say 'installed'
}

mount_bucket() {
  local name=${1%%/*} folder='' options
  [[ $1 == */?* ]] && folder=${1#*/}
  if mountpoint -q "$base/runs"; then return; fi
  if [ -n "$(ls -A "$base/runs" 2>/dev/null)" ]; then
    refuse "$base/runs holds files already and would be hidden by the bucket; move them away"
  fi
  if ! command -v gcsfuse >/dev/null; then
    local codename list=/etc/apt/sources.list.d/gcsfuse.list key=/usr/share/keyrings/cloud.google.asc
    codename=$(lsb_release -cs)
    run sudo sh -c "curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg >$key &&
      echo 'deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$codename main' >$list"
    run sudo apt-get -qq update
    run sudo DEBIAN_FRONTEND=noninteractive apt-get -qq install -y gcsfuse
  fi
  # rename-dir-limit: a checkpoint is complete when its folder is renamed, which a plain bucket refuses by default.
  # ttl 0: every host sees at once what another one wrote.
  options=(--implicit-dirs --rename-dir-limit=200000 --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0)
  [ -z "$folder" ] || options+=("--only-dir=${folder%/}")
  run gcsfuse "${options[@]}" "$name" "$base/runs"
  run touch "$base/runs/.writable" || refuse "gs://$name cannot be written: give the machine's service account roles/storage.objectUser on it"
}

# Prints the process id of the run, where it runs. After a reboot the number may belong to someone else.
running() {
  local pid boot
  [ -e "$job/pid" ] && [ ! -e "$job/exit" ] || return 1
  read -r pid boot <"$job/pid"
  [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] && kill -0 "$pid" 2>/dev/null || return 1
  echo "$pid"
}

state() {
  if running >/dev/null; then
    echo 'dream-state running'
  elif [ -e "$job/exit" ]; then
    echo "dream-state exit $(cat "$job/exit")$([ "$(cat "$job/exit")" != 75 ] || [ ! -e "$job/asked" ] || echo ' asked')"
  elif [ -e "$job/pid" ]; then
    echo 'dream-state lost'
  else
    echo 'dream-state none'
  fi
}

start() {
  local command
  command=$(printf '%q ' "$@")
  [ -e "$base/venv/ready" ] || [ -n "$dry_run" ] || refuse 'nothing is installed here; run setup first'
  if [ -n "$dry_run" ]; then
    run "$base/venv/bin/python" -m dream_jax.main "$@"
    return
  fi
  mkdir -p "$job"
  if running >/dev/null; then
    [ "$command" = "$(cat "$job/command")" ] || refuse "another run goes on here: $(cat "$job/command"); stop it first"
    say 'the run goes on already'
    return
  fi
  rm -f "$job/exit" "$job/asked" "$job/pid"
  if [ -e "$job/log" ]; then mv "$job/log" "$job/log.old"; fi
  : >"$job/log"
  printf '%s' "$command" >"$job/command"
  # A session of its own: it stays when the connection goes, and one signal reaches all of it.
  setsid nohup bash "${BASH_SOURCE[0]}" supervise "$@" </dev/null >>"$job/log" 2>&1 &
  local tenths
  for ((tenths = 0; tenths < 100; tenths++)); do
    if [ -e "$job/pid" ]; then
      say "started: python -m dream_jax.main $command"
      return
    fi
    sleep 0.1
  done
  refuse "the run did not start; see $job/log"
}

supervise() {
  local code=0 stopped=''
  # The signal goes to the whole group, so nothing is passed on. Whoever starts it again must tell a run that saved and
  # stopped, which ends with 0, from one that is done.
  trap stopped=1 TERM
  echo "$$ $(cat /proc/sys/kernel/random/boot_id)" >"$job/pid.partial"
  mv "$job/pid.partial" "$job/pid"
  cd "$base/tree"
  PYTHONUNBUFFERED=1 "$base/venv/bin/python" -m dream_jax.main "$@" || code=$?
  # 143: it came before anything could handle it, while modules were imported for instance.
  case $stopped,$code in 1,0 | 1,143) code=75 ;; esac
  echo "$code" >"$job/exit.partial"
  mv "$job/exit.partial" "$job/exit"
}

follow() {
  local pid
  [ -e "$job/log" ] || return 0
  if pid=$(running); then
    tail -c "+$(($1 + 1))" -f -s 0.2 --pid="$pid" "$job/log"
  else
    tail -c "+$(($1 + 1))" "$job/log"
  fi
}

stop() {
  local pid
  pid=$(running) || { say 'no run goes on here'; return 0; }
  touch "$job/asked"
  kill -TERM -- "-$pid"
  say 'told to stop; it saves and ends'
}

if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi
word=${1:---help}
[ $# -eq 0 ] || shift
case $word in
  --help) sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0" ;;
  setup) setup "${1:?}" ;;
  mount) mount_bucket "${1:?}" ;;
  start) start "$@" ;;
  supervise) supervise "$@" ;;
  state) state ;;
  follow) follow "${1:-0}" ;;
  stop) stop ;;
  idle) if running >/dev/null; then refuse 'a run goes on here; stop it first'; fi ;;
  pack)
    [ -d "$base/runs/${1:-.}" ] || refuse "there is no runs/${1:-}; there is: $(cd "$base/runs" && echo *)"
    # Compiled programs are of no use elsewhere. 1: a file changed meanwhile, as files of a run that goes on do.
    tar -C "$base/runs" --exclude=xla_cache -czf "$base/results.tgz" -- "${1:-.}" || [ $? -eq 1 ]
    ;;
  *) refuse "unknown word $word; expected setup, mount, start, state, follow, stop, idle or pack" ;;
esac
