//go:build !linux

package pgtest

// memory returns "": the servers' data goes to the usual temporary folder.
func memory() string { return "" }
