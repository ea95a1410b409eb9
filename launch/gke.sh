#!/usr/bin/env bash
# dream_jax.main on a TPU slice on GKE, as a JobSet:
#
#   launch/gke.sh run --name=dream --image=IMAGE --accelerator=tpu-v5-lite-podslice --topology=4x4 --bucket=gs://NAME \
#     -- --config=configs/digits.py --workdir=runs/digits
#
# run      fills in launch/gke_jobset.yaml and applies it
# status   the JobSet and its pods
# logs     the log of the first host, until it ends
# delete   deletes the JobSet: a run saves and ends, and the same command continues it; the bucket stays
#
# --name=NAME             of the JobSet
# --image=IMAGE           built from launch/Dockerfile and pushed
# --accelerator=LABEL     of the node pool, such as tpu-v4-podslice, tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice
# --topology=SHAPE        of the node pool, such as 2x2x2 or 4x4
# --chips=N               chips a host (default: 4; all of them where the slice has no more than 4)
# --bucket=gs://B[/FOLDER]   becomes the folder runs/ of every host
# --service-account=NAME  Kubernetes account that may write the bucket (default: default)
# --namespace=NAME        (default: default)
# --restarts=N            (default: 20)
# --dry-run               prints the manifest and the command and runs nothing
#
# Results: gcloud storage rsync --recursive gs://B runs/fetched/NAME
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name='' image='' accelerator='' topology='' chips='' bucket='' service_account=default namespace=default restarts=20
arguments=()

[ $# -gt 0 ] || { usage "$0"; exit 2; }
word=$1
shift
case $word in
  --help | -h) usage "$0"; exit 0 ;;
  run | status | logs | delete) ;;
  *) refuse "unknown word $word; expected run, status, logs or delete (--help tells more)" ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage "$0"; exit 0 ;;
    --name | --name=*) name=$(value "$1") ;;
    --image | --image=*) image=$(value "$1") ;;
    --accelerator | --accelerator=*) accelerator=$(value "$1") ;;
    --topology | --topology=*) topology=$(value "$1") ;;
    --chips | --chips=*) chips=$(value "$1") ;;
    --bucket | --bucket=*) bucket=$(value "$1") ;;
    --service-account | --service-account=*) service_account=$(value "$1") ;;
    --namespace | --namespace=*) namespace=$(value "$1") ;;
    --restarts | --restarts=*) restarts=$(value "$1") ;;
    --dry-run) dry_run=1 ;;
    --)
      shift
      arguments=("$@")
      break
      ;;
    *) unknown_flag "$1" ;;
  esac
  shift
done

[ -n "$name" ] || refuse '--name=NAME is missing'
check_name "$name"
label='^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'
[[ $namespace =~ $label ]] || refuse "--namespace=$namespace is no name of a namespace"
need kubectl 'see https://kubernetes.io/docs/tasks/tools, then: gcloud container clusters get-credentials CLUSTER'

# json WORD...: a JSON list, which is YAML. Kubernetes expands $(NAME) in arguments; $$ is a plain $.
json() {
  local word separator='' dollars='$$'
  printf '['
  for word in "$@"; do
    [[ $word != *[[:cntrl:]]* ]] || refuse 'an argument holds a control character'
    word=${word//\\/\\\\}
    word=${word//\"/\\\"}
    word=${word//\$/"$dollars"}
    printf '%s"%s"' "$separator" "$word"
    separator=', '
  done
  printf ']'
}

manifest() {
  local text key
  text=$(cat "$root/launch/gke_jobset.yaml")
  # Its comments speak of the template.
  text=$(grep -v '^#' <<<"$text")
  declare -A values=(
    [NAME]=$name [NAMESPACE]=$namespace [IMAGE]=$image [ACCELERATOR]=$accelerator [TOPOLOGY]=$topology [CHIPS]=$chips
    [HOSTS]=$hosts [BUCKET]=${bucket%%/*} [MOUNT_OPTIONS]=$mount_options [SERVICE_ACCOUNT]=$service_account
    [RESTARTS]=$restarts [ARGUMENTS]=$(json "${arguments[@]}")
  )
  for key in "${!values[@]}"; do
    # The arguments last: they may hold anything.
    [ "$key" = ARGUMENTS ] || text=${text//"\${$key}"/"${values[$key]}"}
  done
  printf '%s\n' "${text//"\${ARGUMENTS}"/"${values[ARGUMENTS]}"}"
}

run_jobset() {
  local product=1 side text
  [ -n "$image" ] || refuse '--image=IMAGE is missing; build it from launch/Dockerfile, whose head says how'
  [[ $image =~ ^[A-Za-z0-9][-A-Za-z0-9._/:@]*$ ]] || refuse "--image=$image is no name of an image"
  [ -n "$accelerator" ] || refuse '--accelerator=LABEL is missing, such as --accelerator=tpu-v5-lite-podslice'
  [[ $accelerator =~ $label ]] || refuse "--accelerator=$accelerator must look like tpu-v5-lite-podslice"
  [[ $topology =~ ^[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*)?$ ]] || refuse "--topology=$topology must look like 4x4 or 2x2x2"
  [[ -z $chips || $chips =~ ^[1-9][0-9]?$ ]] || refuse "--chips=$chips is no number of chips"
  [[ $restarts =~ ^[0-9]+$ ]] || refuse "--restarts=$restarts is no whole number"
  [[ $service_account =~ $label ]] || refuse "--service-account=$service_account is no name of an account; expected lower-case letters, digits and -"
  [[ $bucket =~ ^gs://[a-z0-9][-_.a-z0-9]*(/[-_.A-Za-z0-9/]*)?$ ]] || refuse "--bucket=gs://NAME is missing: the hosts must share the workdir, and pods keep nothing"
  bucket=${bucket#gs://}
  bucket=${bucket%/}
  [ ${#arguments[@]} -gt 0 ] || refuse 'nothing to run; write the flags of dream_jax.main after --, such as -- --config=configs/digits.py'
  check_arguments "${arguments[@]}"
  for side in ${topology//x/ }; do product=$((product * side)); done
  [ -n "$chips" ] || chips=$((product < 4 ? product : 4))
  [ $((product % chips)) -eq 0 ] || refuse "--topology=$topology has $product chips, no multiple of --chips=$chips"
  hosts=$((product / chips))
  [ "$hosts" -eq 1 ] || arguments=(--distributed "${arguments[@]}")
  mount_options=implicit-dirs,rename-dir-limit=200000,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0
  [[ $bucket != */* ]] || mount_options+=",only-dir=${bucket#*/}"
  text=$(manifest)
  if [ -n "$dry_run" ]; then
    echo "kubectl apply -f - <<'MANIFEST'"
    printf '%s\nMANIFEST\n' "$text"
    return
  fi
  kubectl apply -f - <<<"$text"
  say "$hosts host(s) of $chips chips; watch: $me logs --name=$name --namespace=$namespace"
}

[ "$word" = run ] || [ ${#arguments[@]} -eq 0 ] || refuse "$word takes nothing after --"
pods="--selector=jobset.sigs.k8s.io/jobset-name=$name"
case $word in
  run) run_jobset ;;
  status)
    run kubectl get jobset "$name" "--namespace=$namespace"
    run kubectl get pods "$pods" "--namespace=$namespace" -o wide
    ;;
  logs) run kubectl logs "$pods,batch.kubernetes.io/job-completion-index=0" "--namespace=$namespace" -c dream --tail=-1 --follow ;;
  delete) run kubectl delete jobset "$name" "--namespace=$namespace" ;;
esac
