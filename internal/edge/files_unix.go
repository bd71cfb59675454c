//go:build unix

package edge

import "syscall"

// MostConnections returns how many visitors may be connected at once. The system limits the files of a process, and each
// connection is one: half of them are for visitors, the others for the database.
func MostConnections() int64 {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 1000
	}
	return int64(min(10_000, files.Cur/2))
}
