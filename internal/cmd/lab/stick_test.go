package main

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/skip"
)

func TestAStickHasAllThatAComputerWithoutANetworkNeeds(t *testing.T) {
	skip.Long(t)
	t.Parallel()
	var wrong atomic.Bool // the checksum of Windows' archive
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, isSum := strings.CutSuffix(r.URL.Path, ".sha256")
		if !isSum || wrong.Load() && strings.Contains(path, "windows") {
			w.Write([]byte(path))
			return
		}
		sum := sha256.Sum256([]byte(path))
		w.Write([]byte(hex.EncodeToString(sum[:])))
	}))
	defer repository.Close()
	stick := func(folder string) (string, error) {
		cmd, out := process([]string{localpg.RepositoryVariable + "=" + repository.URL + "/"}, "stick", "-to", folder)
		err := cmd.Run()
		return out.String(), err
	}
	folder := filepath.ToSlash(t.TempDir())
	if out, err := stick(folder); err != nil || !strings.Contains(out, "docs/offline.md") {
		t.Fatalf("%v: %s", err, out)
	}
	// Go takes the modules only from the stick, and finds their checksums in go.sum.
	proxy := "file:///" + strings.TrimPrefix(folder, "/") + "/go"
	for _, args := range [][]string{{"mod", "graph"}, {"mod", "download", "github.com/joho/godotenv"}} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "GOPROXY="+proxy, "GOMODCACHE="+t.TempDir(), "GOFLAGS=-modcacherw")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go %v: %v: %s", args, err, out)
		}
	}
	for _, system := range []string{"linux", "darwin", "windows"} {
		list := exec.Command("go", "list", "-deps", "-test", "-f", "{{with .Module}}{{if not (or .Main .Replace)}}{{.Path}}/@v/{{.Version}}.zip{{end}}{{end}}", "../../../...")
		list.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		out, err := list.Output()
		if err != nil || len(out) == 0 {
			t.Fatal(err)
		}
		for _, file := range slices.Compact(strings.Fields(string(out))) {
			if _, err := os.Stat(filepath.Join(folder, "go", file)); err != nil {
				t.Errorf("for %s the stick lacks a module: %v", system, err)
			}
		}
	}
	archives, err := filepath.Glob(folder + "/postgresql/io/zonky/test/postgres/embedded-postgres-binaries-*/*/*.jar")
	if err != nil || len(archives) != 5 {
		t.Errorf("the stick has %d archives of PostgreSQL, want 5 (%v)", len(archives), err)
	}

	wrong.Store(true)
	if out, err := stick(folder); err == nil || !strings.Contains(out, "does not match its published checksum") {
		t.Errorf("a wrong checksum: got %v, want an error about it: %s", err, out)
	}
}
