//go:build unix

package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/skip"
)

// archive is what the repository has, made of the PostgreSQL that is installed here.
func archive(t *testing.T) []byte {
	t.Helper()
	pgtest.Admin(t) // skips the test if there is no PostgreSQL
	bin := localpg.Installed()
	if bin == "" {
		skip.Test(t, "no PostgreSQL is installed to make an archive of")
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
	_, err = entry.Write(packed)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// An ordinary is an ordinary user with an empty home, who has the lab.
type ordinary struct {
	program, home string
	attributes    *syscall.SysProcAttr
}

func newOrdinary(t *testing.T) *ordinary {
	t.Helper()
	folder := pgtest.Folder(t)
	o := &ordinary{filepath.Join(folder, "lab"), filepath.Join(folder, "home"), &syscall.SysProcAttr{}}
	if out, err := exec.Command("go", "build", "-o", o.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.Mkdir(o.home, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		o.attributes.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(o.home, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// start starts lab postgres -download, with PostgreSQL's archive from a repository.
func (o *ordinary) start(t *testing.T, repository string) (*exec.Cmd, *syncBuffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), o.program, "postgres", "-download")
	cmd.Dir, cmd.SysProcAttr = o.home, o.attributes
	cmd.Env = []string{"HOME=" + o.home, "XDG_CACHE_HOME=" + o.home, "TMPDIR=" + o.home, "PATH=" + os.Getenv("PATH"), "PENNY_POSTGRES_REPOSITORY=" + repository}
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func TestIfNoneIsInstalledPostgreSQLIsDownloadedOnce(t *testing.T) {
	jar := archive(t)
	var downloads atomic.Int64
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			fmt.Fprintf(w, "%x", sha256.Sum256(jar))
			return
		}
		downloads.Add(1)
		w.Write(jar)
	}))
	defer repository.Close()
	user := newOrdinary(t)
	cmd, out := user.start(t, "http://127.0.0.1:1") // nobody answers there
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "connection refused") || !strings.Contains(out.String(), "hint: install PostgreSQL: ") {
		t.Errorf("without a network: %v, %s", err, out)
	}
	for range 2 {
		cmd, out := user.start(t, repository.URL)
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

func TestCtrlCEndsADownloadAtOnceAndLeavesNothing(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			fmt.Fprint(w, strings.Repeat("00", 32))
			return
		}
		w.Write(make([]byte, 100000))
		w.(http.Flusher).Flush()
		close(begun)
		<-end
	}))
	defer repository.Close()
	defer close(end)
	user := newOrdinary(t)
	cmd, out := user.start(t, repository.URL)
	<-begun
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("%v: %s", cmd.ProcessState, out)
	}
	var left []string
	err := filepath.WalkDir(user.home, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "download.lock" {
			left = append(left, path)
		}
		return err
	})
	if err != nil || left != nil {
		t.Errorf("left are %v, %v", left, err)
	}
}
