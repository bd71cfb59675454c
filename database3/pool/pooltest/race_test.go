//go:build race

package pooltest_test

func init() { raceDetector = true }
