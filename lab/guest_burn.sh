#!/bin/sh
# As `burn`, keeps all CPUs of the tiny guest busy; as `rest`, no longer. Port 80 has both.
printf 'Content-Type: text/plain\r\n\r\n'
[ ! -e /burners ] || while read -r burner; do kill "$burner"; done </burners
rm -f /burners
[ "${0##*/}" = burn ] || exit 0
cpus=$(nproc)
while [ "$cpus" -gt 0 ]; do
	# Away from who asked, or the answer would not end before the burner.
	(while :; do :; done) </dev/null >/dev/null 2>&1 &
	echo $! >>/burners
	cpus=$((cpus - 1))
done
