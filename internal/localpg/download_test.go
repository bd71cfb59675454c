package localpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/penny/internal/skip"
)

// jar returns an archive like the repository's. Its programs are empty, which is enough for a download.
func jar(t *testing.T) []byte {
	t.Helper()
	compressor, err := exec.LookPath("xz")
	if err != nil {
		skip.Test(t, err)
	}
	var unpacked bytes.Buffer
	files := tar.NewWriter(&unpacked)
	for _, program := range []string{"initdb", "postgres"} {
		if err := files.WriteHeader(&tar.Header{Name: "bin/" + executable(program), Typeflag: tar.TypeReg, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	xz := exec.Command(compressor, "--check=crc32")
	xz.Stdin = &unpacked
	packed, err := xz.Output()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	entry, err := w.Create("postgres-linux-x86_64.txz")
	if err != nil {
		t.Fatal(err)
	}
	_, err = entry.Write(packed)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// serve starts a repository that has file under every name, with a checksum unless that is empty, and counts the downloads.
func serve(t *testing.T, file []byte, checksum string) (repository, *atomic.Int64) {
	t.Helper()
	var downloads atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasSuffix(r.URL.Path, ".sha256"):
			downloads.Add(1)
			w.Write(file)
		case checksum == "":
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, checksum)
		}
	}))
	t.Cleanup(server.Close)
	return repository(server.URL), &downloads
}

// names returns the names of the files and folders in a folder.
func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestConcurrentCallersShareADownload(t *testing.T) {
	file := jar(t)
	from, downloads := serve(t, file, fmt.Sprintf("%x", sha256.Sum256(file)))
	cache := filepath.Join(t.TempDir(), "new", "penny")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if bin, err := download(t.Context(), cache, from, Search{}); err != nil || !complete(bin) {
				t.Errorf("%s: %v", bin, err)
			}
		})
	}
	all.Wait()
	if downloads.Load() != 1 {
		t.Errorf("it was downloaded %d times, want once", downloads.Load())
	}
	if left := names(t, cache); !slices.Equal(left, []string{"download.lock", "postgresql-" + release}) {
		t.Errorf("the cache has %v, want the lock and the programs", left)
	}
}

func TestAUSBStickServesAsARepository(t *testing.T) {
	file := jar(t)
	from, downloads := serve(t, file, fmt.Sprintf("%x", sha256.Sum256(file)))
	t.Setenv(RepositoryVariable, string(from)+"/")
	stick := t.TempDir()
	if err := Stick(t.Context(), stick, nil); err != nil || downloads.Load() != int64(len(systems)) {
		t.Fatalf("got %d downloads and %v, want %d", downloads.Load(), err, len(systems))
	}
	if !slices.Contains(systems, thisSystem()) {
		t.Skip("there is no PostgreSQL for " + thisSystem())
	}
	for _, from := range []string{stick, "file://" + filepath.ToSlash(stick), "file:///" + strings.TrimPrefix(filepath.ToSlash(stick), "/")} {
		if bin, err := download(t.Context(), t.TempDir(), repository(from), Search{}); err != nil || !complete(bin) {
			t.Errorf("from %s: %v", from, err)
		}
	}
	damaged := filepath.Join(stick, filepath.FromSlash(archive(thisSystem())))
	if err := os.WriteFile(damaged, file[1:], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := download(t.Context(), t.TempDir(), repository(stick), Search{}); err == nil {
		t.Error("no error for a damaged archive")
	}
}

func TestADownloadDoesNotReplaceADamagedPostgreSQL(t *testing.T) {
	file := jar(t)
	from, downloads := serve(t, file, fmt.Sprintf("%x", sha256.Sum256(file)))
	cache := t.TempDir()
	folder := filepath.Join(cache, "postgresql-"+release)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := download(t.Context(), cache, from, Search{}); err == nil || !strings.Contains(err.Error(), "delete it") || downloads.Load() != 0 {
		t.Errorf("got %v after %d downloads, want an error that says what to delete", err, downloads.Load())
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if _, err := download(t.Context(), cache, from, Search{}); err != nil {
		t.Errorf("after the folder was deleted: %v", err)
	}
}

func TestADownloadWithoutItsPublishedChecksumIsRefused(t *testing.T) {
	file := jar(t)
	for checksum, want := range map[string]string{
		"":                       "404",
		"<html>":                 "does not match",
		strings.Repeat("00", 32): "does not match",
	} {
		from, _ := serve(t, file, checksum)
		cache := t.TempDir()
		if _, err := download(t.Context(), cache, from, Search{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with the checksum %.6q: got %v, want %q", checksum, err, want)
		}
		if left := names(t, cache); !slices.Equal(left, []string{"download.lock"}) {
			t.Errorf("the cache has %v, want only the lock", left)
		}
	}
}

// hanging starts a repository that sends half of an archive, closes begun, and then sends nothing.
func hanging(t *testing.T) (from repository, begun chan struct{}) {
	t.Helper()
	begun = make(chan struct{})
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			fmt.Fprint(w, strings.Repeat("00", 32))
			return
		}
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 500000))
		w.(http.Flusher).Flush()
		close(begun)
		<-end
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(end) })
	return repository(server.URL), begun
}

func TestACancelledDownloadEndsAtOnceAndLeavesNothing(t *testing.T) {
	from, begun := hanging(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	cache := t.TempDir()
	if _, err := download(ctx, cache, from, Search{Once: "this run"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if left := names(t, cache); !slices.Equal(left, []string{"download.lock"}) {
		t.Errorf("the cache has %v, want only the lock", left)
	}
}

func TestADownloadFromASilentServerFails(t *testing.T) {
	defer func(before *http.Client) { client = before }(client)
	client = impatientClient(500 * time.Millisecond)
	from, _ := hanging(t)
	if _, err := download(t.Context(), t.TempDir(), from, Search{}); err == nil || !strings.Contains(err.Error(), "i/o timeout") {
		t.Errorf("got %v, want an i/o timeout", err)
	}
}

func TestAFailedDownloadIsNotTriedAgainInTheSameRun(t *testing.T) {
	file := jar(t)
	from, downloads := serve(t, file, strings.Repeat("00", 32))
	cache := t.TempDir()
	for range 3 {
		if _, err := download(t.Context(), cache, from, Search{Once: "this run"}); err == nil || !strings.Contains(err.Error(), "does not match") {
			t.Errorf("got %v, want \"does not match\"", err)
		}
	}
	if downloads.Load() != 1 {
		t.Errorf("it was tried %d times, want once", downloads.Load())
	}
	from, _ = serve(t, file, fmt.Sprintf("%x", sha256.Sum256(file)))
	if _, err := download(t.Context(), cache, from, Search{Once: "the next run"}); err != nil {
		t.Error(err)
	}
}

func TestUnpackingStaysInItsFolder(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"a name with ..":            {{Name: "bin/../../evil", Typeflag: tar.TypeReg}},
		"an absolute name":          {{Name: "/tmp/penny-evil", Typeflag: tar.TypeReg}},
		"a folder above":            {{Name: "../evil", Typeflag: tar.TypeDir}},
		"a link to above":           {{Name: "lib/evil", Typeflag: tar.TypeSymlink, Linkname: "../../evil"}},
		"an absolute link":          {{Name: "evil", Typeflag: tar.TypeSymlink, Linkname: "/etc"}},
		"a link and a file at once": {{Name: "evil", Typeflag: tar.TypeSymlink, Linkname: "."}, {Name: "evil", Typeflag: tar.TypeReg}},
		"a hard link":               {{Name: "evil", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}},
		"a device":                  {{Name: "evil", Typeflag: tar.TypeChar}},
	} {
		t.Run(name, func(t *testing.T) {
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			for _, header := range headers {
				if err := w.WriteHeader(&header); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			parent := t.TempDir()
			if err := os.Mkdir(filepath.Join(parent, "inside"), 0o700); err != nil {
				t.Fatal(err)
			}
			root, err := os.OpenRoot(filepath.Join(parent, "inside"))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if err := untar(t.Context(), tar.NewReader(&archive), root); err == nil {
				t.Error("no error")
			}
			if outside := names(t, parent); len(outside) != 1 {
				t.Errorf("outside the folder: got %v, want only the folder", outside)
			}
		})
	}
}

func TestTheCauseIsTheFirstFailureNotTheCleanUp(t *testing.T) {
	for said, want := range map[string]string{
		"creating configuration files ... ok\nrunning bootstrap script ... 2026-11-25 06:00:00.000 UTC [7] FATAL:  could not create shared memory segment: Cannot allocate memory\n" +
			"2026-11-25 06:00:00.000 UTC [7] DETAIL:  Failed system call was shmget(key=5432001, size=56, 03600).\nchild process exited with exit code 1\n" +
			"initdb: removing contents of data directory \"/x/data\"\n": "could not create shared memory segment: Cannot allocate memory; Failed system call was shmget(key=5432001, size=56, 03600).",
		"fixing permissions on existing directory /x/data ... initdb: error: could not change permissions of directory \"/x/data\": Operation not permitted\n": "could not change permissions of directory \"/x/data\": Operation not permitted",
		"LOG:  starting\nFATAL:  the database system is starting up\nFATAL:  could not open file\r\n":                                                          "could not open file",
		"something else\n": "something else",
	} {
		if got := cause(said); got != want {
			t.Errorf("the cause of %q: got %q, want %q", said, got, want)
		}
	}
}
