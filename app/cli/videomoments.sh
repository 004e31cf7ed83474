#!/bin/sh
# `python -m app …` as a program of `.venv/bin`, whose arguments a shell can complete.
root=$(dirname "$(readlink -f "$0")")/../..
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$root/.venv/bin/python" -m app "$@"
