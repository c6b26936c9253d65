#!/bin/sh
# Puts ppn into a folder of a node, or of a node's root that is being built:
#   install_software.sh FOLDER DEPENDENCIES [RELEASE LINK]
# The third-party packages are a layer of their own, named by the digest DEPENDENCIES and made once.
# RELEASE, ppn's own code, is a virtual environment over it; LINK becomes the command `ppn`.
# What is missing is taken from FOLDER/dependencies-DIGEST.tar.gz and FOLDER/venv-DIGEST.tar.gz.
set -eu
umask 022
cd "$1"
python=/usr/bin/python3
half=

# shellcheck disable=SC2317,SC2329  # called by the trap
clean_up() {
  status=$?
  [ -z "$half" ] || rm -rf "$half"
  [ "$status" = 0 ] || echo "ppn was not installed: what was in use stays in use" >&2
  exit "$status"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

is_whole() { [ -e "$1/INSTALLED" ] && [ "$(cat "$1/INSTALLED")" = "$2" ]; }

unpack() {
  if ! [ -e "$1.tar.gz" ]; then
    echo "$PWD has neither a whole $1 nor its archive" >&2
    return 1
  fi
  tar -xf "$1.tar.gz" --no-same-owner -C "$2"
  # Now, for services run as users who may not write here. Without times, so that an image of it is
  # the same bytes each time; lexers and styles are many, and hardly any is ever read.
  "$python" -I -B -m compileall -q --invalidation-mode unchecked-hash \
    -x 'pygments/(lexers|styles)/' "$2" >&2
}

# The mark comes last, when all the rest is on the disk: nothing without it is ever used.
mark() {
  sync -f .
  echo "$2" > "$1/INSTALLED"
  sync -f .
}

dependencies=dependencies-$2
if ! is_whole "$dependencies" "$2"; then
  half=$dependencies
  rm -rf "$half"
  mkdir -p "$half/site"
  unpack "$half" "$half/site"
  mark "$half" "$2"
  half=
fi
if [ $# -eq 2 ]; then
  rm -f "$dependencies.tar.gz"
  exit 0
fi

release=venv-$3
if ! is_whole "$release" "$3"; then
  half=$release
  rm -rf "$half"
  # What `python3 -m venv` makes of it, in a hundredth of the time.
  version=$(readlink -f "$python")
  site=$half/lib/${version##*/}/site-packages
  mkdir -p "$half/bin" "$site"
  ln -s "$python" "$half/bin/python"
  printf '%s\n' 'home = /usr/bin' 'include-system-site-packages = true' > "$half/pyvenv.cfg"
  echo "$1/$dependencies/site" > "$site/dependencies.pth"
  printf '%s\n' "#!$1/venv/bin/python" 'import sys' 'from ppn.cli import main' \
    'sys.exit(main())' > "$half/bin/ppn"
  chmod 0755 "$half/bin/ppn"
  unpack "$half" "$site"
  mark "$half" "$3"
  half=
fi
ln -sfn "$release" venv.new
mv -T venv.new venv
ln -sfn "$1/venv/bin/ppn" "$4"
for old in venv-* dependencies-* *.tar.gz; do
  [ "$old" = "$release" ] || [ "$old" = "$dependencies" ] || rm -rf "$old"
done
