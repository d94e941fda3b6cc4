# What a host's first process does before it becomes process 1 of the host, in
# namespaces of its own. It runs with the machine's tools in the machine's files
# until pivot_root, then in the host's own.
#
# $1 directory of the host: up and work of the overlay, home, root
# $2 lower layer   $3 name
# $4 if process 1 is systemd, the kind of control groups, "cgroup" or "cgroup2"
# $5 script for the host's own shell at its first boot, or empty
# $6 script that process 1 of the host is
#
# stdin: a line "ADDRESS" once the host's network card is there
# stdout: a line "ready" once everything is mounted
set -eu
d=$1 lower=$2 name=$3 groups=$4 setup=$5 first=$6
r=$d/root
hostname "$name"
mount -t overlay -o "lowerdir=$lower,upperdir=$d/up,workdir=$d/work" lab "$r"
mkdir -p "$r/proc" "$r/sys" "$r/dev" "$r/run" "$r/home" "$r/tmp"
chmod 1777 "$r/tmp"
mount --bind "$d/home" "$r/home"
mount -t proc -o nosuid,nodev,noexec proc "$r/proc"
mount -t sysfs -o ro sysfs "$r/sys"
mount -t tmpfs -o mode=755,size=64m tmpfs "$r/run" # systemd wants 16 MiB free
mkdir "$r/run/sshd" "$r/run/lock"
mount -t tmpfs -o mode=755,size=4m tmpfs "$r/dev"
for node in null zero full random urandom tty; do
	: >"$r/dev/$node"
	mount --bind "/dev/$node" "$r/dev/$node"
done
mkdir -m 1777 "$r/dev/shm"
mkdir "$r/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$r/dev/pts"
ln -s pts/ptmx "$r/dev/ptmx"
ln -s /proc/self/fd "$r/dev/fd"
ln -s fd/0 "$r/dev/stdin"
ln -s fd/1 "$r/dev/stdout"
ln -s fd/2 "$r/dev/stderr"
if [ -n "$groups" ]; then
	if [ "$groups" = cgroup2 ]; then
		mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$r/sys/fs/cgroup"
	else
		mount -t tmpfs -o mode=755,size=1m tmpfs "$r/sys/fs/cgroup"
		mkdir "$r/sys/fs/cgroup/systemd"
		mount -t cgroup -o none,name=systemd,xattr cgroup "$r/sys/fs/cgroup/systemd"
	fi
	: >"$r/dev/console"
	mount --bind /dev/null "$r/dev/console"
	mkdir -p "$r/run/systemd/journal"
fi
echo ready
read -r address
ip link set lo up
ip addr add "$address/16" dev eth0
ip link set eth0 up
cd "$r"
pivot_root . .
umount -l .
cd /
exec </dev/null
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ ${groups:+container=lab} \
	/bin/sh -c 'set -eu
[ -z "$1" ] || /bin/sh -euc "$1"
exec /bin/sh -c "$2"' sh "$setup" "$first"
