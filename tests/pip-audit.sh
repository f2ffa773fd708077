#!/bin/sh
# Known vulnerabilities of the locked packages. Part of `make lint`, which it never holds up for long and never fails offline:
# it skips with one line where pip-audit is not there (make sbom brings it), where its data cannot be reached in 8 s, and where
# this very lock was found clean within the last day. A vulnerability fails it. pip-audit also ends with status 0 where its data
# knows a package not at all, as behind a mirror of the package index: that is no clean lock, and is said.
tool=$1
lock=$2
clean=$3
if [ ! -x "$tool" ]; then
  echo "pip-audit: skipped, it is not installed here; make sbom sets it up"
  exit 0
fi
if [ -n "$(find "$clean" -newer "$lock" -mmin -1440 2>/dev/null)" ]; then
  exit 0
fi
said=$(timeout 8 "$tool" --progress-spinner off --timeout 3 --disable-pip --require-hashes --requirement "$lock" 2>&1)
status=$?
unknown=$(echo "$said" | grep -c "could not be audited")
if [ $status -eq 0 ] && [ "$unknown" -gt 0 ]; then
  echo "pip-audit: skipped, its data knows nothing of $unknown of $(grep -c "==" "$lock") locked packages here (none of the others is known to be vulnerable)"
elif [ $status -eq 0 ]; then
  touch "$clean"
  echo "pip-audit: $(echo "$said" | tail -1)"
elif echo "$said" | grep -q "^Found [0-9]* known vulnerabilit"; then
  echo "$said"
  exit 1
else
  echo "pip-audit: skipped, its data could not be reached within 8 s"
fi
