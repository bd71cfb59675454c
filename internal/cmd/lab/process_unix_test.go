//go:build unix

package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/race"
	"example.com/penny/internal/skip"
)

// archive returns an archive like the repository's, made from the installed PostgreSQL without its JIT compiler.
func archive(t *testing.T) []byte {
	t.Helper()
	pgtest.Programs(t) // skips the test if there is no PostgreSQL
	bin := localpg.Installed()
	if bin == "" {
		skip.Test(t, "no PostgreSQL is installed to make an archive of")
	}
	file := filepath.Join(t.TempDir(), "postgres.txz")
	tar := exec.Command("tar", "-C", filepath.Dir(bin), "-cJf", file, "--exclude=bitcode", "--exclude=llvmjit*", "bin/postgres", "bin/initdb", "bin/pg_ctl", "lib")
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

// An ordinaryUser is a user other than root, with the lab and an empty home folder.
type ordinaryUser struct {
	program, home string
	attributes    *syscall.SysProcAttr
}

func newOrdinary(t *testing.T) *ordinaryUser {
	t.Helper()
	folder := pgtest.Folder(t)
	o := &ordinaryUser{filepath.Join(folder, "lab"), filepath.Join(folder, "home"), &syscall.SysProcAttr{}}
	// The test program is in a folder that others may not enter.
	program, err := os.ReadFile(os.Args[0])
	if err := errors.Join(err, os.WriteFile(o.program, program, 0o755), os.Mkdir(o.home, 0o700)); err != nil {
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
func (o *ordinaryUser) start(t *testing.T, repository string) (*exec.Cmd, *syncBuffer) {
	t.Helper()
	cmd, out := process([]string{"HOME=" + o.home, "XDG_CACHE_HOME=" + o.home, "TMPDIR=" + o.home, "PENNY_POSTGRES_REPOSITORY=" + repository},
		"postgres", "-download")
	cmd.Path, cmd.Dir, cmd.SysProcAttr = o.program, o.home, o.attributes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func TestPostgreSQLIsDownloadedOnceIfNoneIsInstalled(t *testing.T) {
	t.Parallel()
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
	cmd, out := user.start(t, "http://127.0.0.1:1") // nothing listens there
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "connection refused") || !strings.Contains(out.String(), "hint: install PostgreSQL: ") {
		t.Errorf("without a network: got %v and %s, want the reason and a hint", err, out)
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
		t.Errorf("PostgreSQL was downloaded %d times, want once", downloads.Load())
	}
}

func TestCtrlCEndsADownloadAtOnceAndLeavesNothing(t *testing.T) {
	t.Parallel()
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
		t.Errorf("got %v, want status 1 and interrupted: %s", cmd.ProcessState, out)
	}
	var left []string
	err := filepath.WalkDir(user.home, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "download.lock" {
			left = append(left, path)
		}
		return err
	})
	if err != nil || left != nil {
		t.Errorf("the download left %v (%v)", left, err)
	}
}

func TestTheDemoServesItsPageAndLeavesNothing(t *testing.T) {
	t.Parallel()
	pgtest.Programs(t) // skips if there is no PostgreSQL
	folder := pgtest.Folder(t)
	temporary := filepath.Join(folder, "tmp")
	if err := os.Mkdir(temporary, 0o755); err != nil {
		t.Fatal(err)
	}
	// Another program or this listener has the demo's port when the demo starts.
	if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", demoPort)); err == nil {
		defer listener.Close()
	}
	cmd, out := process([]string{"TMPDIR=" + temporary, "DATABASE_URL=postgres://127.0.0.1:1/nobody"}, // the demo asks its own server
		"demo", "-open=false", "-n", "24", "-c", "12", "-pool", "3", "-rtt", "5ms", "-max-connections", "10")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	pgtest.Eventually(t, time.Minute, "the page is served", func() bool { return strings.Contains(out.String(), "Ctrl-C") })
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(out.String())
	if address == "" || strings.HasSuffix(address, fmt.Sprint(":", demoPort)) {
		t.Errorf("it printed %q, want an address with another port than %d", out, demoPort)
	}
	var recording race.Recording
	pgtest.Eventually(t, time.Minute, "the first recording is there", func() bool {
		response, err := http.Get(address + "/recording.json")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK && json.NewDecoder(response.Body).Decode(&recording) == nil
	})
	if recording.Calls != 24 || recording.Workers != 12 || recording.Pool != 3 || recording.RTTms != 5 || recording.Most != 10 || len(recording.Lanes) != 2 {
		t.Errorf("got the conditions %+v, want those of the flags, and 2 lanes", recording.Conditions)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v (%v)", left, err)
	}
}
