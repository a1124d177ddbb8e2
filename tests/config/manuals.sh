#!/bin/bash
# The manual pages are without warnings.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
bad=0
if ! command -v mandoc >/dev/null; then
	echo "mandoc is missing (sudo tests/need test)"
	exit 77
fi
for page in docs/*.[158]; do
	if mandoc -Tlint -Wwarning "$page"; then echo "ok - $page"; else echo "not ok - $page"; bad=1; fi
done
exit $bad
