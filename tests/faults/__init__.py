"""What a run has to survive: kills, damaged files, mutated inputs, wrong settings, a machine that is full or lies.

The program is treated as its users treat it: commands, the files they leave, and the functions that read inputs.

server     starts commands in milliseconds: children of a process that has imported everything and used nothing
place      small data, a small model, and the commands that are tried on them
essence    what of a workdir must not depend on how often a run was interrupted
tally      counts, failures with what repeats them, the table at the end

kills      SIGKILL, SIGTERM and SIGINT at random moments, then the same command until it is done
damage     every file of a workdir spoiled, then read by every command
mutants    inputs of every format, spoiled by byte and by structure
overrides  every field of the config with values that nobody should accept
pressure   full disks, read-only folders, no home, little memory, a clock set back, two at once

code       faults planted in the package itself, and the tests that must notice them

The tests beside these modules run a small share of it, with fixed seeds; `benchmarks/soak.py` and
`benchmarks/mutants_of_inputs.py` run the same for as long as you like. `benchmarks/mutants_of_code.py` plants the
faults of `code`.
"""
