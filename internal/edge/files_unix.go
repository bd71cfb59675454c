//go:build unix

package edge

import "syscall"

// MostConnections returns how many visitors may be connected at once if the server itself needs others files at most: the
// system limits the files of a process, and each connection is one.
func MostConnections(others int64) int64 {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 1000
	}
	return min(10_000, max(int64(files.Cur)-others, int64(files.Cur)/2))
}
