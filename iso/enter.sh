#!/bin/sh
# Runs a program in a file tree: enter.sh TREE [FOLDER PLACE]... -- PROGRAM [ARGUMENT]...
# Starts as the first process of its own namespaces; the tree gets a layer in memory for what is written.
set -eu
umask 022
tree=$1
shift
mount --make-rprivate /
hostname localhost
here=$(mktemp -d /tmp/ppn-tools.XXXXXX)
mount -t tmpfs -o mode=0755 ppn "$here"
trap 'umount --lazy "$here"; rmdir "$here"' EXIT
mkdir "$here/tree" "$here/upper" "$here/work" "$here/root"
# Bound to a plain name: a colon or comma in the tree's own would mean something to the overlay.
mount --bind "$tree" "$here/tree"
mount -t overlay -o "lowerdir=$here/tree,upperdir=$here/upper,workdir=$here/work" ppn "$here/root"
mount -t proc proc "$here/root/proc"
mount --rbind /sys "$here/root/sys"
mount --rbind /dev "$here/root/dev"
# Names in there hold numbers of processes, which other namespaces use too.
mount -t tmpfs -o mode=1777 ppn "$here/root/dev/shm"
mount -t tmpfs -o mode=1777 ppn "$here/root/tmp"
while [ "$1" != -- ]; do
	place=$here/root$2
	if [ -d "$1" ]; then
		mkdir -p "$place"
	else
		mkdir -p "${place%/*}"
		: >"$place"
	fi
	mount --bind "$1" "$place"
	shift 2
done
shift
status=0
chroot "$here/root" "$@" || status=$?
exit "$status"
