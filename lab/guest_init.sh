#!/bin/sh
# First and only process tree of the tiny guest: says on the serial console that it lives, and how.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
exec </dev/ttyS0 >/dev/ttyS0 2>&1
while read -r module; do
	insmod "/modules/$module" || echo "ppn-guest error module=$module"
done </modules/order
mkdir -p /etc/acpi/PWRF
ln -s /bin/power-button /etc/acpi/PWRF/00000080
acpid -l /dev/null

read -r boot_id </proc/sys/kernel/random/boot_id
cpus=$(nproc)
echo "ppn-guest ready boot_id=$boot_id cpus=$cpus"

case " $(cat /proc/cmdline) " in
*" ppn.burn=1 "*)
	burners=0
	while [ "$burners" -lt "$cpus" ]; do
		(while :; do :; done) &
		burners=$((burners + 1))
	done
	;;
esac

# Beats come before all burners, so that a busy guest is still seen to live.
renice -n -20 $$ >/dev/null 2>&1
n=0
while :; do
	n=$((n + 1))
	total=0
	free=0
	while read -r key value _; do
		case $key in
		MemTotal:) total=$value ;;
		MemFree:) free=$value ; break ;;
		esac
	done </proc/meminfo
	disks=
	for disk in /sys/block/vd*; do
		[ -e "$disk" ] && disks=${disks:+$disks,}${disk##*/}
	done
	echo "ppn-guest beat boot_id=$boot_id n=$n mem_total_kib=$total mem_free_kib=$free disks=$disks"
	sleep 1
done
