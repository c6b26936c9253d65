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
# All but one processor are off until here; a machine of one has no such file.
for switch in /sys/devices/system/cpu/cpu[0-9]*/online; do
	[ ! -e "$switch" ] || [ "$(cat "$switch")" = 1 ] || echo 1 >"$switch"
done
mkdir -p /etc/acpi/PWRF
ln -s /bin/power-button /etc/acpi/PWRF/00000080
acpid -l /dev/null

# What a seed disk says of the network, as cloud-init would read it; JSON, one value to a line.
value_of() { awk -F'"' -v key="$1" '$2 == key { print $4; exit }' /seed/network-config; }
for disk in /sys/block/vd*; do
	[ "$(cat "$disk/serial" 2>/dev/null)" = seed ] || continue
	seed=/dev/${disk##*/}
	mount -t iso9660 -o ro "$seed" /seed
	[ -e /seed/network-config ] || continue
	mac=$(value_of macaddress)
	for link in /sys/class/net/*; do
		[ "$(cat "$link/address")" = "$mac" ] || continue
		address=$(awk -F'"' '/^ *"[0-9.]+\/[0-9]+"/ { print $2; exit }' /seed/network-config)
		ip address add "$address" dev "${link##*/}"
		ip link set "${link##*/}" up
		ip route add default via "$(value_of via)"
		echo "ppn-guest network address=$address"
	done
	umount /seed
done

# A data disk called `keep` holds who the guest is, and content whose sum it knows: at each later boot
# the guest says whether all of it is still what it wrote.
sum_of() { dd if="$1" bs=65536 skip=16 count=16 2>/dev/null | sha256sum; }
for disk in /sys/block/vd*; do
	[ "$(cat "$disk/serial" 2>/dev/null)" = keep ] || continue
	device=/dev/${disk##*/}
	# Of a disk that was never written there are zeros alone, which a shell drops.
	head=$(dd if="$device" bs=512 count=1 2>/dev/null)
	read -r mark machine_id sum boots <<-EOF
		$head
	EOF
	if [ "$mark" = ppn-keep ]; then
		check=bad
		now=$(sum_of "$device")
		[ "${now%% *}" = "$sum" ] && check=ok
	else
		read -r machine_id </proc/sys/kernel/random/uuid
		dd if=/dev/urandom of="$device" bs=65536 seek=16 count=16 2>/dev/null
		sum=$(sum_of "$device")
		sum=${sum%% *} boots=0 check=new
	fi
	boots=$((boots + 1))
	echo "ppn-keep $machine_id $sum $boots" | dd of="$device" conv=sync 2>/dev/null
	sync
	echo "ppn-guest data machine_id=$machine_id boots=$boots check=$check"
done

read -r boot_id </proc/sys/kernel/random/boot_id
cpus=$(nproc)
# Whoever reaches port 80 hears which boot of which guest answers.
echo "ppn-guest boot_id=$boot_id" >/www/index.html
[ -z "$address" ] || httpd -h /www
# Its NUMA nodes: CPUs and memory in KiB of each.
nodes=
for node in /sys/devices/system/node/node[0-9]*; do
	[ -e "$node/cpulist" ] || continue
	list=$(cat "$node/cpulist")
	while read -r _ _ key value _; do
		[ "$key" != MemTotal: ] || break
	done <"$node/meminfo"
	nodes=${nodes:+$nodes/}$list:$value
done
echo "ppn-guest ready boot_id=$boot_id cpus=$cpus nodes=$nodes"

case " $(cat /proc/cmdline) " in
*" ppn.burn=1 "*) /www/cgi-bin/burn >/dev/null ;;
esac

# ppn.show=1: all that a guest can see of the machine it is in, as a tar archive in base64.
show() {
	[ -z "$seed" ] || { mount -t iso9660 -o ro "$seed" /seed && cp -r /seed /seen/; umount /seed; }
	gateway=$(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p')
	[ -z "$gateway" ] || ping -c 1 -w 5 "$gateway" >/seen/ping
	{ ip -o address; ip route; ip neigh; } | sed 's/ tentative//; s/ ref .*//' >/seen/network
	dmesg >/seen/dmesg
	cat /proc/cmdline /proc/version /proc/cpuinfo /proc/iomem /proc/ioports >/seen/proc
	# Without what counts or measures, and with what is binary in an archive of its own.
	find /sys/devices /sys/hypervisor /sys/class/dmi/id/ /sys/firmware/qemu_fw_cfg -type f \
		! -name config ! -name 'resource*' ! -name rom ! -name raw ! -name '*stat*' \
		! -name inflight ! -name '*time*' ! -name since_epoch ! -name '*_count' \
		! -name '*active*' ! -name meminfo ! -path '*/power/*' ! -path '*/queues/*' \
		! -path '/sys/devices/virtual/tty/*' ! -path '/sys/devices/virtual/mem/*' \
		! -path '/sys/devices/virtual/bdi/*' ! -path '/sys/devices/system/memory/*' \
		! -path '*/statistics/*' -print0 2>/dev/null |
		xargs -0 grep -H '' >/seen/sys 2>/dev/null
	# Only what has the size it says.
	find /sys/firmware/dmi/tables /sys/firmware/acpi/tables /sys/firmware/qemu_fw_cfg/by_key \
		-type f ! -name key ! -name name ! -name size -print0 |
		xargs -0 tar cf /seen/firmware
	tar c -C / seen | gzip | base64 | sed 's/^/ppn-view /'
	echo "ppn-view end"
}
case " $(cat /proc/cmdline) " in
*" ppn.show=1 "*) show ;;
esac

# ppn.reach=ADDRESS:PORT: says again and again whether a connection there comes about.
# ppn.beat=SECONDS: between two beats, 1 to 99; with any other word it is one.
read -r cmdline </proc/cmdline
beat=1
for word in $cmdline; do
	case $word in
	ppn.beat=[1-9] | ppn.beat=[1-9][0-9]) beat=${word#ppn.beat=} ;;
	ppn.reach=*)
		target=${word#ppn.reach=}
		while :; do
			answer=no
			nc -w 2 "${target%:*}" "${target#*:}" </dev/null >/dev/null 2>&1 && answer=yes
			echo "ppn-guest reach target=$target answer=$answer"
			sleep 2
		done &
		;;
	esac
done

# Beats come before all burners, so that a busy guest is still seen to live.
renice -n -20 $$ >/dev/null 2>&1
# Nobody writes there, and to wait for it needs no program to be started.
mkfifo /never
exec 3<>/never
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
	# shellcheck disable=SC3045 # busybox has it
	read -r -t "$beat" _ <&3
done
