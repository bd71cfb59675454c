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
	"testing"

	"example.com/penny/internal/localpg"
)

func TestAStickHasAllThatAComputerWithoutANetworkNeeds(t *testing.T) {
	var wrong string // the archive whose checksum is wrong
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, isSum := strings.CutSuffix(r.URL.Path, ".sha256")
		if !isSum || wrong != "" && strings.Contains(path, wrong) {
			w.Write([]byte(path))
			return
		}
		sum := sha256.Sum256([]byte(path))
		w.Write([]byte(hex.EncodeToString(sum[:])))
	}))
	defer repository.Close()
	t.Setenv(localpg.RepositoryVariable, repository.URL+"/")

	folder := filepath.ToSlash(t.TempDir())
	if out, errs, status := lab(t, "", "stick", "-to", folder); status != 0 || !strings.Contains(out, "docs/offline.md") {
		t.Fatalf("status %d, %q, %q", status, out, errs)
	}
	// Go takes the modules from the stick alone, and finds their checksums in go.sum.
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
				t.Errorf("on %s it lacks a module: %v", system, err)
			}
		}
	}
	archives, err := filepath.Glob(folder + "/postgresql/io/zonky/test/postgres/embedded-postgres-binaries-*/*/*.jar")
	if err != nil || len(archives) != 5 {
		t.Errorf("it has %d archives of PostgreSQL, %v", len(archives), err)
	}

	wrong = "windows"
	if _, errs, status := lab(t, "", "stick", "-to", folder); status != 1 || !strings.Contains(errs, "its published checksum is not") {
		t.Errorf("a wrong checksum: status %d, %s", status, errs)
	}
}
