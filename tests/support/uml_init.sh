#!/bin/bash
# Init of a user-mode Linux guest that shares the host's root by hostfs, so that a job runs beside a
# real cgroup v2 memory controller. The kernel argument job=PATH names the job; its output goes to
# PATH.out and its exit code to PATH.rc (through hostfs: a console loses lines when the guest stops).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmp /run
mount -t tmpfs shm /dev/shm 2>/dev/null || { mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm; }
mount -t cgroup2 none /sys/fs/cgroup && echo +memory +cpu > /sys/fs/cgroup/cgroup.subtree_control
ip link set lo up 2>/dev/null
job=$(sed -n 's/.*job=\([^ ]*\).*/\1/p' /proc/cmdline)
bash "$job" > "$job.out" 2>&1
echo $? > "$job.rc"
sync
echo o > /proc/sysrq-trigger
sleep 5
