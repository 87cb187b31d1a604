#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Types what README.md tells a newcomer to type, in a copy of the tree, from top to bottom.
#
#   <!-- run -->          before a ```sh block: its commands are run; a leading "$ " is dropped
#   <!-- file: NAME -->   before a block: it is written to NAME, relative to the tree
set -eu
cd "$(dirname "$0")/../.."
if [ ! -e README.md ] || ! grep -q '^<!-- run -->$' README.md; then
	echo "README.md marks no commands to run"
	exit 77
fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
scripts/sources | tar -cf - -T - | tar -xf - -C "$copy"
mkdir "$copy/.readme" "$copy/.home"
python3 - "$copy" <<'EOF'
import os
import re
import sys

top = sys.argv[1]
text = open("README.md", encoding="utf-8").read()
blocks = re.findall(r"^<!-- (run|file: (\S+)) -->\n+```\w*\n(.*?)^```$", text, re.M | re.S)
for nr, (_, name, body) in enumerate(blocks):
    # files are written in turn with the commands, so that each block finds what stands above it
    if name:
        body = f"cat >{name} <<'END_OF_README_FILE'\n{body}END_OF_README_FILE\n"
    else:
        body = re.sub(r"^\$ ", "", body, flags=re.M)
    with open(os.path.join(top, ".readme", f"{nr:02}.sh"), "w", encoding="utf-8") as script:
        script.write(body)
EOF
export HOME=$copy/.home
cd "$copy"
for script in .readme/*.sh; do
	echo "==== $script"
	cat "$script"
	echo "----"
	bash -eu "$script" </dev/null || {
		echo "README.md: this block failed"
		exit 1
	}
done
