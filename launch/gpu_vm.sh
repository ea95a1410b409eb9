#!/usr/bin/env bash
# dream_jax.main on one machine with NVIDIA GPUs: a Compute Engine VM that this script makes, or any host that ssh reaches.
#
#   launch/gpu_vm.sh run --host=me@machine -- --config=configs/digits.py
#   launch/gpu_vm.sh run --name=dream --zone=us-central1-a -- --config=configs/digits.py
#   launch/gpu_vm.sh fetch --name=dream --zone=us-central1-a
#   launch/gpu_vm.sh delete --name=dream --zone=us-central1-a
#
# create   creates the VM, or starts the one of that name, and waits until it runs
# setup    copies the tree (what git tracks) and installs it with CUDA 12 in an environment of its own
# run      whatever of create and setup is missing, then the command, detached; shows the log; a VM that is taken away is
#          started again and the run continues. Stop watching with Ctrl-C: the run goes on; run again watches.
# status   state of the machine and of the run
# logs     the log, until the run ends
# stop     SIGTERM: the run saves and ends
# fetch    copies the results here
# delete   deletes the VM and its disk
# all      run, fetch, delete (with --host: run, fetch)
#
# --host=[USER@]HOST     a machine of your own; no --zone then. Keys and ports are those of ~/.ssh/config
# --name=NAME            of the VM, and of the folder dream_launch/NAME there (default: dream)
# --zone=ZONE            such as us-central1-a
# --project=ID           default: that of gcloud
# --machine=TYPE         machine type (default g2-standard-8: one L4)
# --gpu=TYPE:COUNT       for machine types that come without GPU, such as --gpu=nvidia-tesla-t4:1
# --image-family=FAMILY --image-project=ID   an image with the driver (default: a Deep Learning VM image)
# --disk=SIZE            of the boot disk (default 100GB)
# --spot                 cheaper, can be taken away at any time; its disk stays
# --create-flag=FLAG     passed on when creating (again for more)
# --attempts=N           starts of the run, the first included (default 10)
# --run=FOLDER           fetch only runs/FOLDER
# --to=FOLDER            where fetch copies to (default runs/fetched/NAME)
# --dry-run              prints every command and runs none
#
# After -- come the flags of dream_jax.main. --workdir must be below runs/. All GPUs of the machine are used.
# Needed there: Linux x86-64, an NVIDIA driver of version 525 or newer (nvidia-smi tells; CUDA itself comes with the
# packages), Python 3.11 or newer or an internet connection that brings it.
# Exit code: that of the run; 75 after stop; 2: wrong input; 1: something else failed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=dream zone='' project='' host='' machine=g2-standard-8 gpu='' disk=100GB spot='' attempts=10 run_folder='' to=''
image_family=common-cu129-ubuntu-2204-nvidia-580 image_project=deeplearning-platform-release
create_flags=() arguments=()

parse() {
  [ $# -gt 0 ] || { usage "$0"; exit 2; }
  word=$1
  shift
  case $word in
    --help | -h) usage "$0"; exit 0 ;;
    create | setup | run | status | logs | stop | fetch | delete | all) ;;
    *) refuse "unknown word $word; expected create, setup, run, status, logs, stop, fetch, delete or all (--help tells more)" ;;
  esac
  while [ $# -gt 0 ]; do
    case $1 in
      --help) usage "$0"; exit 0 ;;
      --host | --host=*) host=$(value "$1") ;;
      --machine | --machine=*) machine=$(value "$1") ;;
      --gpu | --gpu=*) gpu=$(value "$1") ;;
      --image-family | --image-family=*) image_family=$(value "$1") ;;
      --image-project | --image-project=*) image_project=$(value "$1") ;;
      --disk | --disk=*) disk=$(value "$1") ;;
      --)
        shift
        arguments=("$@")
        break
        ;;
      *) machine_flag "$1" || unknown_flag "$1" ;;
    esac
    shift
  done
}

check() {
  check_machine
  [[ -z $gpu || $gpu =~ ^[-a-z0-9]+:[1-9][0-9]*$ ]] || refuse "--gpu=$gpu must look like nvidia-tesla-t4:1"
  if [ -n "$host" ]; then
    [[ $host != -* ]] || refuse "--host=$host must look like user@machine"
    [ -z "$zone" ] || refuse "--zone is for Compute Engine; leave it out with --host"
    case $word in
      create | delete) refuse "$word is for Compute Engine; $host is a machine of your own" ;;
    esac
    need ssh 'install the OpenSSH client'
    need scp 'install the OpenSSH client'
  else
    [ -n "$zone" ] || refuse "--zone=ZONE (Compute Engine) or --host=user@machine is missing"
    need_gcloud
    place=("--zone=$zone")
    [ -z "$project" ] || place+=("--project=$project")
  fi
  check_after ${arguments[@]+"${arguments[@]}"}
}

# Connections through which nothing comes for three minutes are given up: the machine may be gone.
on_all() {
  if [ -n "$host" ]; then
    run ssh -oServerAliveInterval=30 -oServerAliveCountMax=6 "$host" "$1"
  else
    run gcloud compute ssh "$name" "${place[@]}" --quiet --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=6 "--command=$1"
  fi
}
on_first() { on_all "$1"; }
send() {
  if [ -n "$host" ]; then run scp -q "$1" "$host:$2"; else run gcloud compute scp "$1" "$name:$2" "${place[@]}" --quiet; fi
}
receive() {
  if [ -n "$host" ]; then run scp -q "$host:$1" "$2"; else run gcloud compute scp "$name:$1" "$2" "${place[@]}" --quiet; fi
}

look() {
  local state
  if [ -n "$host" ]; then
    echo READY
    return
  fi
  state=$(ask gcloud compute instances describe "$name" "${place[@]}" '--format=value(status)') || return
  if [ "$state" = RUNNING ]; then echo READY; else echo "$state"; fi
}

create_machine() {
  local state seen='' flags
  [ -z "$host" ] || return 0
  # TERMINATE: a machine with GPUs cannot be moved while it runs.
  flags=("--machine-type=$machine" "--image-family=$image_family" "--image-project=$image_project" "--boot-disk-size=$disk" --maintenance-policy=TERMINATE)
  [ -z "$gpu" ] || flags+=("--accelerator=type=${gpu%:*},count=${gpu#*:}")
  [ -z "$spot" ] || flags+=(--provisioning-model=SPOT --instance-termination-action=STOP)
  flags+=(${create_flags[@]+"${create_flags[@]}"} --quiet)
  if [ -n "$dry_run" ]; then
    say "where no VM $name is there yet:"
    run gcloud compute instances create "$name" "${place[@]}" "${flags[@]}"
    say 'waits until it is RUNNING, asking with:'
    run gcloud compute instances describe "$name" "${place[@]}" '--format=value(status)'
    return
  fi
  make_scratch
  while true; do
    state=$(look) || return
    if [ "$state" != "$seen" ]; then say "VM $name: $state"; fi
    seen=$state
    case $state in
      READY) return ;;
      GONE)
        say "creating VM $name ($machine); it costs money from now on until it is deleted"
        if ! gcloud compute instances create "$name" "${place[@]}" "${flags[@]}" 2>"$scratch/create" >&2; then
          if ! grep -qi 'already exists' "$scratch/create"; then
            explain "$scratch/create"
            return 1
          fi
        fi
        ;;
      TERMINATED | STOPPED)
        say "starting VM $name"
        if ! gcloud compute instances start "$name" "${place[@]}" --quiet 2>"$scratch/create" >&2; then
          explain "$scratch/create"
          return 1
        fi
        ;;
      SUSPENDED)
        say "VM $name is suspended; resume it: gcloud compute instances resume $(quote "$name" "${place[@]}")"
        return 1
        ;;
      *) sleep "$poll" ;;
    esac
  done
}

delete_machine() {
  run gcloud compute instances delete "$name" "${place[@]}" --quiet ||
    fail "could not delete $name, WHICH GOES ON COSTING; look at https://console.cloud.google.com/compute/instances"
  say 'deleted'
}

fetch() {
  local target=${to:-runs/fetched/$name} archive
  run mkdir -p "$target"
  persist on_first "$(there pack ${run_folder:+"$run_folder"})" || fail "could not pack the results of $name"
  archive=/tmp/results.tgz
  if [ -z "$dry_run" ]; then
    make_scratch
    archive=$scratch/results.tgz
  fi
  receive "dream_launch/$name/results.tgz" "$archive" || fail "could not copy the results of $name"
  run tar -xzf "$archive" -C "$target"
  say "the results are in $target"
}

parse "$@"
check
case $word in
  create) create_machine || fail "VM $name is not ready" ;;
  setup) set_up demo,cuda12 || exit 1 ;;
  run) run_until_done demo,cuda12 "$attempts" "${arguments[@]}" ;;
  status)
    if [ -n "$dry_run" ]; then
      [ -n "$host" ] || run gcloud compute instances describe "$name" "${place[@]}" '--format=value(status)'
      on_all "$(there state)"
    else
      state=$(look) || fail "could not ask for VM $name"
      echo "${host:-VM $name}: $state"
      [ "$state" != READY ] || persist on_all "$(there state)" || fail "${host:-VM $name} does not answer, or setup did not run"
    fi
    ;;
  logs) persist on_first "$(there follow 0)" || fail "no log on ${host:-VM $name}" ;;
  stop) persist on_all "$(there stop)" || fail "could not stop the run on ${host:-VM $name}" ;;
  fetch) fetch ;;
  delete) delete_machine ;;
  all)
    code=0
    run_until_done demo,cuda12 "$attempts" "${arguments[@]}" || code=$?
    if [ "$code" -ne 0 ]; then
      [ -n "$host" ] || say "not deleted, so that you can look; it goes on costing until: $me delete $(quote "--name=$name" "${place[@]}")"
      exit "$code"
    fi
    fetch
    [ -n "$host" ] || delete_machine
    ;;
esac
