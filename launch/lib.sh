# shellcheck shell=bash
# What the launchers share: exact quoting, dry runs, and a run on another machine that survives this one's absence.
# Sourced, never run. The sourcing script defines the functions named under "a run on other machines" below.

if [ "${BASH_VERSINFO[0]}${BASH_VERSINFO[1]}" -lt 44 ]; then
  echo "$(basename "$0"): needs bash 4.4 or newer, this is $BASH_VERSION (macOS: brew install bash)" >&2
  exit 2
fi

# Set by the sourcing script: the machine's name and the bucket's, which may be none.
name=${name:-}
bucket=${bucket:-}
# What to say where copying fails.
copy_hint=''
me=$(basename "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=
# Seconds between looks at a machine; tests make them short.
poll=${DREAM_POLL_SECONDS:-20}
retry_after=${DREAM_RETRY_SECONDS:-300}

say() { echo "#${dry_run:+ dry run:} $*" >&2; }

# The user's to mend: exit code 2, as in dream_jax.main.
refuse() {
  echo "$me: $*" >&2
  exit 2
}

fail() {
  echo "$me: $*" >&2
  exit 1
}

# usage SCRIPT: the comment at the head of the script is its help.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$1"; }

# quote WORD...: one line that any POSIX shell splits into the same words again. printf %q would write $'...', which the
# login shell of another machine need not know.
quote() {
  local word separator='' escaped="'\\''"
  for word in "$@"; do
    printf '%s' "$separator"
    if [ -n "$word" ] && [[ $word != *[!A-Za-z0-9_@%+=:,./-]* ]]; then
      printf '%s' "$word"
    else
      printf "'%s'" "${word//\'/$escaped}"
    fi
    separator=' '
  done
}

# run COMMAND...: what changes anything goes through here, or through a function that looks at dry_run itself.
run() {
  if [ -n "$dry_run" ]; then
    quote "$@"
    echo
  else
    "$@"
  fi
}

# need TOOL HOW-TO-GET-IT
need() {
  [ -n "$dry_run" ] || command -v "$1" >/dev/null || refuse "$1 is not installed; $2"
}

# value FLAG=VALUE: what stands after the first equals sign.
value() {
  local text=${1#*=}
  [[ $1 == *=* && -n $text ]] || refuse "${1%%=*} has no value; write ${1%%=*}=VALUE"
  printf '%s' "$text"
}

# machine_flag FLAG: a flag that scripts of a machine share; false for any other.
# shellcheck disable=SC2034  # The scripts read what is set here.
machine_flag() {
  # An exit of its own: `set -e` sleeps in a function whose answer is looked at.
  case $1 in
    --name | --name=*) name=$(value "$1") || exit ;;
    --zone | --zone=*) zone=$(value "$1") || exit ;;
    --project | --project=*) project=$(value "$1") || exit ;;
    --attempts | --attempts=*) attempts=$(value "$1") || exit ;;
    --run | --run=*) run_folder=$(value "$1") || exit ;;
    --to | --to=*) to=$(value "$1") || exit ;;
    --create-flag | --create-flag=*)
      local flag
      flag=$(value "$1") || exit
      create_flags+=("$flag")
      ;;
    --spot) spot=1 ;;
    --dry-run) dry_run=1 ;;
    *) return 1 ;;
  esac
}

# unknown_flag FLAG: says why not.
unknown_flag() {
  case $1 in
    --config* | --workdir* | --mode*) refuse "$1 is for dream_jax.main; write it after --" ;;
    *) refuse "unknown flag $1; --help lists them" ;;
  esac
}

# check_machine: what `machine_flag` took.
check_machine() {
  check_name "$name"
  [[ $attempts =~ ^[1-9][0-9]*$ ]] || refuse "--attempts=$attempts is no positive whole number"
  [[ -z $run_folder || $run_folder =~ ^[A-Za-z0-9][-_.,=+A-Za-z0-9/]*$ && $run_folder != *..* ]] || refuse "--run=$run_folder must name a folder below runs/"
}

# check_after ARGUMENT...: what stands after --, for the word.
check_after() {
  case $word in
    run | all)
      [ $# -gt 0 ] || refuse 'nothing to run; write the flags of dream_jax.main after --, such as -- --config=configs/digits.py'
      check_arguments "$@"
      ;;
    *) [ $# -eq 0 ] || refuse "$word takes nothing after --" ;;
  esac
}

check_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || refuse "--name=$1 must be lower-case letters, digits and hyphens, at most 40, a letter first"
}

# check_arguments ARGUMENT...: what is refused before anything is created or paid for.
check_arguments() {
  local argument workdir='' expect=
  for argument in "$@"; do
    if [ -n "$expect" ]; then
      workdir=$argument expect=
      continue
    fi
    case $argument in
      --distributed* | --coordinator* | --num_processes* | --process_id*)
        refuse "$argument is added by this script where it is needed; leave it out"
        ;;
      --workdir=*) workdir=${argument#*=} ;;
      --workdir) expect=1 ;;
    esac
  done
  # `runs` is the folder that is fetched, and the bucket where there is one.
  case $workdir in
    '' | runs/?*) ;;
    *) refuse "--workdir=$workdir must be below runs/, such as --workdir=runs/digits: only that folder is kept and fetched" ;;
  esac
  case "/$workdir/" in */../*) refuse "--workdir=$workdir must be below runs/" ;; esac
}

# --- the tree -------------------------------------------------------------------------------------------------------

scratch=
make_scratch() {
  [ -n "$scratch" ] && return
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
}

# pack_tree FILE: what git tracks and is there, as it is now, so that no data, runs or secrets lying about travel along.
pack_tree() {
  if [ -n "$dry_run" ]; then
    echo "git -C $(quote "$root") ls-files -z | tar -C $(quote "$root") --null --ignore-failed-read -czf $(quote "$1") -T -"
    return
  fi
  git -C "$root" rev-parse --git-dir >/dev/null 2>&1 || fail "$root is no git checkout; the files to copy are those that git tracks"
  local file untracked
  untracked=$(git -C "$root" ls-files --others --exclude-standard | head -n 5 | tr '\n' ' ')
  [ -z "$untracked" ] || say "not copied, as git does not track it (git add brings it along): $untracked"
  git -C "$root" ls-files -z |
    while IFS= read -r -d '' file; do [ -e "$root/$file" ] && printf '%s\0' "$file"; done |
    tar -C "$root" --null -czf "$1" -T -
}

# --- a run on other machines ----------------------------------------------------------------------------------------
# The sourcing script defines, for the machine called $name (several hosts where it has several):
#   on_all COMMAND      the command on every host; 255 where ssh itself failed
#   on_first COMMAND    the same on the first host
#   send FILE NAME      a file into every home folder
#   receive NAME FILE   a file from the first home folder
#   look                prints READY, or GONE, or any other state in one word; fails where it could not ask
#   create_machine      creates it or starts it, and waits until it is ready

# The words that call remote.sh on the other side. All of it lies below one folder that nothing else uses.
there() { quote bash "dream_launch/$name/tree/launch/remote.sh" "$@"; }

# persist COMMAND...: again where ssh itself failed; only for what may be done twice.
persist() {
  local tries=4 code
  while true; do
    code=0
    "$@" || code=$?
    tries=$((tries - 1))
    [ "$code" -eq 255 ] && [ "$tries" -gt 0 ] || return "$code"
    say "ssh failed; trying again in $poll s"
    sleep "$poll"
  done
}

# set_up EXTRAS: copies the tree and installs it on every host; refuses while a run goes on there.
set_up() {
  local archive unpack
  if [ -n "$dry_run" ]; then
    archive="/tmp/$name.tgz"
  else
    make_scratch
    archive="$scratch/$name.tgz"
  fi
  say "copying the tree to $name and installing it (a few minutes)"
  pack_tree "$archive" || return
  persist_copy send "$archive" "dream_launch_$name.tgz" || { say "could not copy the tree to $name$copy_hint"; return 1; }
  unpack="set -e; cd; base=dream_launch/$name; "
  unpack+="if [ -e \$base/tree/launch/remote.sh ]; then bash \$base/tree/launch/remote.sh idle; fi; "
  unpack+="rm -rf \$base/tree; mkdir -p \$base/tree; tar -xzf dream_launch_$name.tgz -C \$base/tree; "
  unpack+="$(there setup "$1")"
  persist on_all "bash -c $(quote "$unpack")" || { say "could not install on $name"; return 1; }
  mount_bucket
}

# Copying fails with other codes than ssh; what was copied half is copied again.
persist_copy() {
  "$@" && return
  say "copying failed; once more in $poll s"
  sleep "$poll"
  "$@"
}

mount_bucket() {
  [ -z "$bucket" ] || persist on_all "$(there mount "$bucket")" || { say "could not mount gs://$bucket on $name"; return 1; }
}

# bring_up EXTRAS: the machine is ready, the tree is on it and the bucket mounted, whatever of it was there before.
bring_up() {
  local code=0
  create_machine || return
  if [ -n "$dry_run" ] && [ -n "${set_up_done:-}" ]; then
    return
  fi
  persist on_all "test -e dream_launch/$name/venv/ready" || code=$?
  if [ -n "$dry_run" ] || [ "$code" -eq 1 ]; then
    set_up "$1"
  elif [ "$code" -ne 0 ]; then
    say "$name does not answer"
    return 1
  else
    mount_bucket
  fi
}

# watch: shows the log until the run ends; `outcome` is then finished, asked, stopped, lost, unreachable or an exit code.
watch() {
  local machine states code misses=0 offset
  make_scratch
  : >"$scratch/log"
  while true; do
    offset=$(wc -c <"$scratch/log")
    # The connection may drop at any time: the log goes on where it was cut.
    on_first "$(there follow $((offset)))" | tee -a "$scratch/log" || true
    machine=$(look) || machine=UNKNOWN
    case $machine in
      READY | UNKNOWN) ;;
      *)
        outcome=lost
        return
        ;;
    esac
    code=0
    states=$(on_all "$(there state)") || code=$?
    if [ "$machine" = UNKNOWN ] || [ "$code" -ne 0 ]; then
      misses=$((misses + 1))
      if [ "$misses" -ge "${DREAM_MISSES:-15}" ]; then
        outcome=unreachable
        return
      fi
      sleep "$poll"
      continue
    fi
    misses=0
    outcome=$(judge "$states")
    [ "$outcome" = running ] || return 0
    sleep "$poll"
  done
}

# judge STATES: one word for all hosts. An exit code of 75 is a stop after SIGTERM, saved and not finished; where one
# host was told to stop all stop with it, and the others end with 0.
judge() {
  local state worst=finished
  while read -r _ state; do
    case $state in
      running)
        echo running
        return
        ;;
      'exit 0') ;;
      'exit 75 asked') worst=asked ;;
      'exit 75') [ "$worst" = asked ] || worst=stopped ;;
      exit\ *)
        # All others fail with the one that failed; wrong input is told by 2.
        [ "$worst" = 2 ] || worst=${state#exit }
        ;;
      *) [[ $worst =~ ^[0-9]+$ ]] || worst=lost ;;
    esac
  done < <(grep '^dream-state ' <<<"$1")
  echo "$worst"
}

# run_until_done EXTRAS ATTEMPTS ARGUMENT...: starts, watches, and starts again on a new machine where one was taken away.
run_until_done() {
  local extras=$1 attempts=$2 attempt
  shift 2
  if [ -n "$dry_run" ]; then
    bring_up "$extras"
    on_all "$(there start "$@")"
    on_first "$(there follow 0)"
    on_all "$(there state)"
    return 0
  fi
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    [ "$attempt" -eq 1 ] || say "attempt $attempt of $attempts"
    if ! bring_up "$extras"; then
      [ "$attempt" -gt 1 ] || return 1
      say "next try in $retry_after s"
      sleep "$retry_after"
      continue
    fi
    persist on_all "$(there start "$@")" || { say "could not start on $name; --dry-run shows the command"; return 1; }
    watch
    case $outcome in
      finished)
        say "finished"
        return 0
        ;;
      asked)
        say "stopped as asked; the same command continues from what was saved"
        return 75
        ;;
      unreachable)
        say "$name does not answer, though it is said to be there; the run may go on: $me status --name=$name"
        return 1
        ;;
      stopped | lost) ;;
      *)
        # A machine that is being taken away can look like a crash first.
        sleep "$poll"
        if [ "$(look || echo READY)" = READY ]; then
          say "the run ended with exit code $outcome; the log is above"
          return "$outcome"
        fi
        ;;
    esac
    say "the machine was taken away or restarted; the run continues from what was saved"
    # Its state is told with a delay.
    sleep "$poll"
  done
  say "given up after $attempts attempts; the same command continues"
  return 1
}

# --- gcloud ---------------------------------------------------------------------------------------------------------

# ask COMMAND...: the state that a describe command prints; GONE where there is no such thing.
ask() {
  local answer code=0
  make_scratch
  answer=$("$@" 2>"$scratch/ask") || code=$?
  if [ "$code" -eq 0 ]; then
    echo "${answer:-UNKNOWN}"
  elif grep -qiE 'NOT_FOUND|was not found' "$scratch/ask"; then
    echo GONE
  else
    # A passing fault of the network must not look like a machine that is gone.
    say "gcloud: $(head -n 8 "$scratch/ask")"
    if grep -qi 'attribute \[project\]' "$scratch/ask"; then
      say 'no project is set: gcloud config set project ID'
    fi
    return 1
  fi
}

# explain FILE: what gcloud said when it could not create something, and what helps.
explain() {
  say "gcloud: $(grep -m 1 -iE 'error|quota|capacity|exhaust|denied' "$1" || tail -n 1 "$1")"
  if grep -qi quota "$1"; then
    say 'ask for more quota in the console (IAM & Admin, Quotas), or take another --zone or a smaller machine'
  elif grep -qiE 'capacity|exhaust|stockout' "$1"; then
    say 'nothing is free there now: try another zone, or wait in the queue (TPU: --queued)'
  elif grep -qiE 'permission|denied|not been used|disabled' "$1"; then
    say 'the account or the project may not do this: gcloud auth login, gcloud config set project ID, and enable the API it names'
  fi
}

need_gcloud() { need gcloud 'see https://cloud.google.com/sdk/docs/install, then: gcloud init'; }
