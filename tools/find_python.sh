#!/bin/sh
# Print the path of a Python that this project runs on, or say which ones were found and why not.
# PYTHON=... in the environment names the only candidate.

probe='import sys; v = sys.version_info
print("%d.%d.%d" % v[:3])
print((3, 11) <= v[:2] < (3, 14))
print(getattr(sys, "_base_executable", "") or sys.executable)'

found=""
if [ -n "$PYTHON" ]; then
    set -- "$PYTHON"
else
    # 3.13 last: python-rapidjson < 1.15, which ZenML wants, has no wheel for it and must be built.
    set -- python3.12 python3.11 python3.13 python3 python
fi
for name in "$@"; do
    path=$(command -v "$name" 2>/dev/null) || continue
    # A shim in PATH (pyenv, the macOS stub) may exist and still not run.
    if ! answer=$("$path" -c "$probe" 2>/dev/null); then
        found="$found
  $path: does not run"
        continue
    fi
    version=$(printf '%s\n' "$answer" | sed -n 1p)
    if [ "$(printf '%s\n' "$answer" | sed -n 2p)" = True ]; then
        printf '%s\n' "$answer" | sed -n 3p
        exit 0
    fi
    found="$found
  $path: Python $version"
done

{
    echo "No suitable Python: CV Factory needs Python 3.11, 3.12 or 3.13. Found${found:- none.}"
    if [ -n "$PYTHON" ]; then
        echo "(only PYTHON=$PYTHON was tried)"
    fi
    echo "Install one (Debian: apt install python3 python3-venv; macOS: brew install python@3.12)"
    echo "or name it: make setup PYTHON=/path/to/python3.12"
} >&2
exit 1
