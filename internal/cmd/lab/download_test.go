//go:build unix

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
)

// archive is what the embedded-postgres project publishes, made of the PostgreSQL that is installed here.
func archive(t *testing.T) []byte {
	t.Helper()
	bin, err := localpg.FindBinaries()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "postgres.txz")
	tar := exec.Command("tar", "-C", filepath.Dir(bin), "-cJf", file, "bin/postgres", "bin/initdb", "bin/pg_ctl", "lib")
	tar.Env = append(os.Environ(), "XZ_OPT=-0") // quickly, rather than small
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	w := zip.NewWriter(&jar)
	entry, err := w.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(packed); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

func TestWhereNoneIsInstalledPostgreSQLIsDownloadedOnceByAnOrdinaryUser(t *testing.T) {
	pgtest.Admin(t) // skips where there is no PostgreSQL to make the archive of
	jar := archive(t)
	sum := sha256.Sum256(jar)
	var downloads atomic.Int64
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			w.Write([]byte(hex.EncodeToString(sum[:])))
			return
		}
		downloads.Add(1)
		w.Write(jar)
	}))
	defer repository.Close()

	folder, err := os.MkdirTemp("", "penny-download-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	program := filepath.Join(folder, "lab")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	home := filepath.Join(folder, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	attributes := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(home, uid, gid); err != nil {
			t.Fatal(err)
		}
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	command := func(ctx context.Context, source string) (*exec.Cmd, *syncBuffer) {
		cmd := exec.CommandContext(ctx, program, "postgres", "-download")
		cmd.Dir, cmd.SysProcAttr = home, attributes
		cmd.Env = []string{"HOME=" + home, "XDG_CACHE_HOME=" + home, "PATH=" + os.Getenv("PATH"), "PENNY_POSTGRES_REPOSITORY=" + source}
		out := &syncBuffer{}
		cmd.Stdout, cmd.Stderr = out, out
		return cmd, out
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	cmd, out := command(ctx, "http://127.0.0.1:1") // where nobody answers
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "hint: without a network, install it: ") {
		t.Errorf("without a network: %v, %s", err, out)
	}
	for range 2 {
		cmd, out := command(ctx, repository.URL)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(out.String())
			}
		})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, 2*time.Minute, "the server is ready", func() bool { return strings.Contains(out.String(), "Ctrl-C stops it.") })
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ended with %v: %s", err, out)
		}
	}
	if downloads.Load() != 1 {
		t.Errorf("PostgreSQL was downloaded %d times", downloads.Load())
	}
}
