package edge

import (
	"bytes"
	"strings"
	"testing"
)

func TestFlushWritesTheLinesThatCameBeforeIt(t *testing.T) {
	var written bytes.Buffer
	log := NewLogWriter(&written)
	for range 500 {
		_, _ = log.Write([]byte("before\n"))
	}
	log.Flush()
	_, _ = log.Write([]byte("after\n")) // a request that is still running may log, and must not panic
	if want := strings.Repeat("before\n", 500); written.String() != want {
		t.Errorf("got %d bytes, want %d", written.Len(), len(want))
	}
}
