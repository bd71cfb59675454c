package pgtest

import "golang.org/x/sys/unix"

// memory returns a folder in memory for the servers' data, which lives for a test. It returns "" for the usual temporary folder
// if memory is short: a container has 64 MB there.
func memory() string {
	const folder, enough = "/dev/shm", 2 << 30
	var free unix.Statfs_t
	if err := unix.Statfs(folder, &free); err != nil || free.Bavail*uint64(free.Bsize) < enough || unix.Access(folder, unix.W_OK) != nil {
		return ""
	}
	return folder
}
