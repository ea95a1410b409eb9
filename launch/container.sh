#!/usr/bin/env bash
# Entry point of the container: python -m dream_jax.main with these arguments.
#
# Kubernetes counts a pod that ends with 0 as done, and after SIGTERM a run saves and ends with 0. So this ends with 75
# where SIGTERM came before the end, else with the run's own code. Only the first process of a container gets the signal,
# so it is passed on. DREAM_PYTHON names the interpreter (default: python).
set -euo pipefail

if [ $# -eq 0 ]; then set -- --help; fi
child='' stopped='' signalled='' code=0
trap 'stopped=1 signalled=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
"${DREAM_PYTHON:-python}" -m dream_jax.main "$@" &
child=$!
wait "$child" || code=$?
# The signal ends `wait`, not the command. 127: it had ended already and the first code was its own.
while [ -n "$signalled" ]; do
  signalled='' again=0
  wait "$child" || again=$?
  [ "$again" -eq 127 ] || code=$again
done
# 143: the signal came before anything could handle it, while modules were imported for instance.
case $stopped,$code in 1,0 | 1,143) code=75 ;; esac
exit "$code"
