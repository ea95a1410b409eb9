#!/usr/bin/env bash
# dream_jax.main on a Cloud TPU VM, one host or a slice of many:
#
#   launch/tpu_vm.sh run --name=dream --zone=us-central2-b --type=v4-8 -- --config=configs/digits.py
#   launch/tpu_vm.sh fetch --name=dream --zone=us-central2-b
#   launch/tpu_vm.sh delete --name=dream --zone=us-central2-b
#
# create   creates the TPU, or uses the one of that name, and waits until it is ready
# setup    copies the tree (what git tracks) and installs it on every host
# run      whatever of create and setup is missing, then the same command on every host; shows the log; a TPU that is
#          taken away is made anew and the run continues. Stop watching with Ctrl-C: the run goes on; run again watches.
# status   state of the TPU and of the run
# logs     the log, until the run ends
# stop     SIGTERM: the run saves and ends
# fetch    copies the results here
# delete   deletes the TPU; the bucket stays
# all      run, fetch, delete
#
# --name=NAME        of the TPU
# --zone=ZONE        such as us-central2-b
# --project=ID       default: that of gcloud
# --type=TYPE        accelerator type, such as v4-8, v5litepod-4, v5p-8, v6e-8 (create, run, all)
# --runtime=VERSION  runtime image; default: what fits the type
# --hosts=N          hosts of the type, for types this script does not know
# --bucket=gs://B[/FOLDER]   becomes the folder runs/ on every host; required for several hosts
# --spot             cheaper, can be taken away at any time
# --queued           as a queued resource: waits until one is free
# --create-flag=FLAG passed on when creating (again for more), such as --create-flag=--internal-ips
# --attempts=N       starts of the run, the first included (default 10)
# --run=FOLDER       fetch only runs/FOLDER
# --to=FOLDER        where fetch copies to (default runs/fetched/NAME)
# --dry-run          prints every command and runs none
#
# After -- come the flags of dream_jax.main; --distributed is added for several hosts. --workdir must be below runs/.
# Exit code: that of the run; 75 after stop; 2: wrong input; 1: something else failed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name='' zone='' project='' type='' runtime='' hosts='' bucket='' spot='' queued='' attempts=10 run_folder='' to=''
create_flags=() arguments=()

# Types count TensorCores up to v4 and for v5p (8 a host), chips for v5e and v6e (8 on a single host, else 4 a host).
hosts_of() {
  local size=${1##*-}
  [[ $size =~ ^[0-9]+$ ]] || return 0
  case $1 in
    v2-* | v3-* | v4-* | v5p-*) echo $(((size + 7) / 8)) ;;
    v5litepod-* | v6e-*) echo $((size <= 8 ? 1 : size / 4)) ;;
  esac
}

runtime_of() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
  esac
}

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
      --type | --type=*) type=$(value "$1") ;;
      --runtime | --runtime=*) runtime=$(value "$1") ;;
      --hosts | --hosts=*) hosts=$(value "$1") ;;
      --bucket | --bucket=*) bucket=$(value "$1") ;;
      --queued) queued=1 ;;
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
  [ -n "$name" ] || refuse "--name=NAME is missing"
  [ -n "$zone" ] || refuse "--zone=ZONE is missing, such as --zone=us-central2-b"
  check_machine
  [[ -z $hosts || $hosts =~ ^[1-9][0-9]*$ ]] || refuse "--hosts=$hosts is no positive whole number"
  if [ -n "$bucket" ]; then
    [[ $bucket =~ ^gs://[a-z0-9][-_.a-z0-9]*(/[-_.A-Za-z0-9/]*)?$ ]] || refuse "--bucket=$bucket must look like gs://NAME or gs://NAME/FOLDER; a NAME is lower-case letters, digits and -_."
    bucket=${bucket#gs://}
    bucket=${bucket%/}
  fi
  case $word in
    create | run | all)
      [ -n "$type" ] || refuse "--type=TYPE is missing, such as --type=v4-8"
      [ -n "$runtime" ] || runtime=$(runtime_of "$type")
      [ -n "$runtime" ] || refuse "--type=$type is unknown here; name its image with --runtime=VERSION, and --hosts=N"
      [ -n "$hosts" ] || hosts=$(hosts_of "$type")
      [ -n "$hosts" ] || refuse "--type=$type: say how many hosts it has with --hosts=N"
      # Before anything is created, and paid for.
      if [ "$hosts" -gt 1 ] && [ -z "$bucket" ]; then
        refuse "$type has $hosts hosts, which must share the workdir: --bucket=gs://NAME is required (gcloud storage buckets create gs://NAME --location=${zone%-*} --uniform-bucket-level-access --enable-hierarchical-namespace)"
      fi
      if [ -n "$spot" ] && [ -z "$bucket" ]; then
        say 'without --bucket the results lie on the disk of the TPU: when a spot TPU is taken away the run starts from zero'
      fi
      ;;
  esac
  check_after ${arguments[@]+"${arguments[@]}"}
  if [ ${#arguments[@]} -gt 0 ] && [ "$hosts" -gt 1 ]; then arguments=(--distributed "${arguments[@]}"); fi
  need_gcloud
  place=("--zone=$zone")
  [ -z "$project" ] || place+=("--project=$project")
  # shellcheck disable=SC2016  # For the reader to type.
  [ "${hosts:-2}" -eq 1 ] || copy_hint='; gcloud copies to several hosts only with its key in the agent: eval "$(ssh-agent)"; ssh-add ~/.ssh/google_compute_engine'
}

# Connections through which nothing comes for three minutes are given up: the TPU may be gone.
alive=(--ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=6)
vm() { gcloud compute tpus tpu-vm "$@"; }
on_all() { run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --quiet "${alive[@]}" --worker=all "--command=$1"; }
on_first() { run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --quiet "${alive[@]}" --worker=0 "--command=$1"; }
send() { run gcloud compute tpus tpu-vm scp "$1" "$name:$2" "${place[@]}" --quiet --worker=all; }
receive() { run gcloud compute tpus tpu-vm scp "$name:$1" "$2" "${place[@]}" --quiet --worker=0; }

look() {
  local state
  if [ -n "$dry_run" ]; then
    echo GONE
    return
  fi
  state=$(ask gcloud compute tpus tpu-vm describe "$name" "${place[@]}" '--format=value(state)') || return
  echo "$state"
}

look_queue() { ask gcloud compute tpus queued-resources describe "$name" "${place[@]}" '--format=value(state.state)'; }

create_machine() {
  local state flags=("${place[@]}" "--accelerator-type=$type") seen=''
  [ -z "$spot" ] || flags+=(--spot)
  flags+=(${create_flags[@]+"${create_flags[@]}"} --quiet)
  if [ -n "$dry_run" ]; then
    say "where no TPU $name is there yet:"
    if [ -n "$queued" ]; then
      run gcloud compute tpus queued-resources create "$name" "--node-id=$name" "--runtime-version=$runtime" "${flags[@]}"
      say 'waits until it is ACTIVE, asking with:'
      run gcloud compute tpus queued-resources describe "$name" "${place[@]}" '--format=value(state.state)'
    else
      run gcloud compute tpus tpu-vm create "$name" "--version=$runtime" "${flags[@]}"
    fi
    say 'waits until it is READY, asking with:'
    run gcloud compute tpus tpu-vm describe "$name" "${place[@]}" '--format=value(state)'
    return
  fi
  while true; do
    state=$(look) || return
    if [ "$state" != "$seen" ]; then say "TPU $name: $state"; fi
    seen=$state
    case $state in
      READY)
        check_type
        return
        ;;
      GONE)
        if [ -n "$queued" ]; then
          request_queued || return
        else
          create_now || return
        fi
        # What was just made may not be listed yet, and what just went may still be.
        sleep "$poll"
        ;;
      PREEMPTED | TERMINATED)
        say "TPU $name was taken away; deleting what is left of it"
        delete_machine || return
        ;;
      STOPPED)
        say "TPU $name is stopped; start it: gcloud compute tpus tpu-vm start $(quote "$name" "${place[@]}")"
        return 1
        ;;
      *) sleep "$poll" ;;
    esac
  done
}

check_type() {
  local is
  is=$(ask gcloud compute tpus tpu-vm describe "$name" "${place[@]}" '--format=value(acceleratorType)') || return
  # Some versions of the tool answer with the whole name of the resource.
  [ "${is##*/}" = "$type" ] || refuse "there is a TPU $name already, a ${is##*/} and no $type; choose another --name or delete it"
}

create_now() {
  say "creating TPU $name ($type, $hosts host(s)); it costs money from now on until it is deleted"
  make_scratch
  vm create "$name" "--version=$runtime" "${flags[@]}" 2>"$scratch/create" && return
  # Someone else, or an earlier try whose answer was lost, was faster.
  if grep -qi 'already exists\|ALREADY_EXISTS' "$scratch/create"; then return; fi
  explain "$scratch/create"
  return 1
}

# Requests TPU $name where no request waits, and waits until it is served.
request_queued() {
  local state seen=''
  make_scratch
  while true; do
    state=$(look_queue) || return
    if [ "$state" != "$seen" ]; then say "request $name: $state"; fi
    seen=$state
    case $state in
      ACTIVE) return ;;
      GONE)
        say "requesting TPU $name ($type, $hosts host(s)); it costs money from when it is served until it is deleted"
        if ! gcloud compute tpus queued-resources create "$name" "--node-id=$name" "--runtime-version=$runtime" "${flags[@]}" 2>"$scratch/create"; then
          if ! grep -qi 'already exists\|ALREADY_EXISTS' "$scratch/create"; then
            explain "$scratch/create"
            return 1
          fi
        fi
        ;;
      # What was served once is not served again.
      SUSPENDED) delete_machine || return ;;
      FAILED)
        say "the request failed; look why: gcloud compute tpus queued-resources describe $(quote "$name" "${place[@]}"); then: $me delete $(quote "--name=$name" "${place[@]}")"
        return 1
        ;;
      *) sleep "$poll" ;;
    esac
  done
}

# A request in the queue owns its TPU and goes with it; what cannot be deleted goes on costing.
delete_machine() {
  local request state
  if [ -n "$dry_run" ]; then
    say 'where it was made with --queued:'
    run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
    say 'else:'
    run gcloud compute tpus tpu-vm delete "$name" "${place[@]}" --quiet
    return
  fi
  request=$(look_queue) || return
  if [ "$request" != GONE ]; then
    gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet || return
  fi
  state=$(look) || return
  if [ "$state" != GONE ]; then
    vm delete "$name" "${place[@]}" --quiet || return
  fi
}

fetch() {
  local target=${to:-runs/fetched/$name} archive
  run mkdir -p "$target"
  if [ -n "$bucket" ]; then
    run gcloud storage rsync --recursive '--exclude=(.*/)?xla_cache/.*' "gs://$bucket${run_folder:+/$run_folder}" "$target"
  else
    persist on_first "$(there pack ${run_folder:+"$run_folder"})" || fail "could not pack the results of $name"
    archive=/tmp/results.tgz
    if [ -z "$dry_run" ]; then
      make_scratch
      archive=$scratch/results.tgz
    fi
    receive "dream_launch/$name/results.tgz" "$archive" || fail "could not copy the results of $name"
    run tar -xzf "$archive" -C "$target"
  fi
  say "the results are in $target"
}

parse "$@"
check
case $word in
  create) create_machine || fail "TPU $name is not ready" ;;
  setup) set_up demo,tpu || exit 1 ;;
  run) run_until_done demo,tpu "$attempts" "${arguments[@]}" ;;
  status)
    if [ -n "$dry_run" ]; then
      run gcloud compute tpus tpu-vm describe "$name" "${place[@]}" '--format=value(state)'
      on_all "$(there state)"
    else
      state=$(look) || fail "could not ask for TPU $name"
      echo "TPU $name: $state"
      request=$(look_queue) || request=UNKNOWN
      [ "$request" = GONE ] || echo "request $name: $request"
      [ "$state" != READY ] || persist on_all "$(there state)" || fail "TPU $name does not answer, or setup did not run"
    fi
    ;;
  logs) persist on_first "$(there follow 0)" || fail "no log of TPU $name" ;;
  stop) persist on_all "$(there stop)" || fail "could not stop the run on $name" ;;
  fetch) fetch ;;
  delete)
    delete_machine || fail "could not delete $name, WHICH GOES ON COSTING; look at https://console.cloud.google.com/compute/tpus"
    say "deleted${bucket:+; gs://$bucket is kept}"
    ;;
  all)
    code=0
    run_until_done demo,tpu "$attempts" "${arguments[@]}" || code=$?
    if [ "$code" -ne 0 ]; then
      say "not deleted, so that you can look; it goes on costing until: $me delete $(quote "--name=$name" "${place[@]}")"
      exit "$code"
    fi
    fetch
    delete_machine || fail "could not delete $name, WHICH GOES ON COSTING; look at https://console.cloud.google.com/compute/tpus"
    ;;
esac
