package localpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/xi2/xz"

	"example.com/penny/internal/scratch"
)

// Where none is installed, PostgreSQL comes from the archives of the project zonkyio/embedded-postgres-binaries, which
// hold its server for one system each and lie in Maven's central repository, with a checksum beside each.
const (
	release = "18.3.0"
	maven   = "https://repo1.maven.org/maven2"

	// RepositoryVariable in the environment names a copy of the repository: a URL, or a folder that Stick has filled.
	RepositoryVariable = "PENNY_POSTGRES_REPOSITORY"
)

// systems are those that a lecture hall has, in the repository's words.
var systems = []string{"linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8", "windows-amd64"}

// thisSystem is the name of this computer's system in the repository.
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

// archive is the path of a system's archive in the repository.
func archive(system string) string {
	name := "embedded-postgres-binaries-" + system
	return path.Join("io/zonky/test/postgres", name, release, name+"-"+release+".jar")
}

// Stick downloads the archives for all systems into folder, which RepositoryVariable can name afterwards.
func Stick(ctx context.Context, folder string, progress func(io.Reader, int64) io.Reader) error {
	for _, system := range systems {
		name := archive(system)
		file := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := repository(os.Getenv(RepositoryVariable)).fetch(ctx, name, file, progress); err != nil {
			return err
		}
	}
	return nil
}

// download returns the programs' folder of the PostgreSQL that is downloaded below cache, now if it is not there yet.
// Processes that come at once wait for the first, and share what it gets.
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
	jar, unpacked := filepath.Join(work.Path, "archive.jar"), filepath.Join(work.Path, "unpacked")
	if err := from.fetch(ctx, archive(thisSystem()), jar, search.Progress); err != nil {
		return "", err
	}
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

// fetch writes a file of the repository to disk, with its checksum beside it. It refuses a file without a published
// checksum, or with another one, and leaves nothing of it.
func (r repository) fetch(ctx context.Context, name, file string, progress func(io.Reader, int64) io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("download %s: %w", path.Base(name), err)
		}
	}()
	published, _, err := r.open(ctx, name+".sha256")
	if err != nil {
		return fmt.Errorf("its checksum: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(published, 1000))
	published.Close()
	if err != nil {
		return fmt.Errorf("its checksum: %w", err)
	}
	digits, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte(" "))
	want, err := hex.DecodeString(string(digits))
	if err != nil || len(want) != sha256.Size {
		return errors.New("its published checksum is not a SHA-256")
	}
	body, size, err := r.open(ctx, name)
	if err != nil {
		return err
	}
	defer body.Close()
	part, err := os.Create(file + ".part")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	var from io.Reader = body
	if progress != nil {
		from = progress(body, size)
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(part, hash), from)
	if err := errors.Join(err, part.Close()); err != nil {
		return err
	}
	if !bytes.Equal(hash.Sum(nil), want) {
		return errors.New("it does not match its published checksum")
	}
	if err := os.WriteFile(file+".sha256", text, 0o644); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}

// open opens a file of the repository, and returns its size, which is -1 if unknown.
func (r repository) open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if r == "" {
		r = maven
	}
	if strings.HasPrefix(string(r), "http://") || strings.HasPrefix(string(r), "https://") {
		return get(ctx, strings.TrimSuffix(string(r), "/")+"/"+name)
	}
	folder := strings.TrimPrefix(string(r), "file://")
	if runtime.GOOS == "windows" && folder != string(r) {
		folder = strings.TrimPrefix(folder, "/") // file:///D:/stick
	}
	file, err := os.Open(filepath.Join(folder, filepath.FromSlash(name)))
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

// stall is how long a server may say nothing before a download is given up.
var stall = 10 * time.Second

// client gives up on a server that it cannot reach or that stops in the middle.
var client = &http.Client{Transport: func() http.RoundTripper {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: stall}).DialContext(ctx, network, address)
		return impatient{conn}, err
	}
	return transport
}()}

// An impatient connection waits only so long for what comes next.
type impatient struct{ net.Conn }

func (c impatient) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// get asks for a URL.
func get(ctx context.Context, url string) (io.ReadCloser, int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := client.Do(request)
	if e, ok := errors.AsType[*neturl.Error](err); ok {
		return nil, 0, e.Err // without the long URL
	}
	if err != nil {
		return nil, 0, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, 0, fmt.Errorf("%s: %s", url, response.Status)
	}
	return response.Body, response.ContentLength, nil
}

// unpack unpacks the one .txz in a jar into a new folder, and nothing outside it.
func unpack(ctx context.Context, jar, folder string) error {
	packed, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer packed.Close()
	for _, entry := range packed.File {
		if path.Ext(entry.Name) != ".txz" {
			continue
		}
		file, err := entry.Open()
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
	return errors.New("the archive has no .txz in it")
}

// untar writes the archive's files below root.
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
		folder := path.Dir(name)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%s lies outside the archive's folder", name)
		}
		if header.Typeflag == tar.TypeDir {
			folder = name
		}
		if err := root.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		switch header.Typeflag {
		case tar.TypeDir:
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
			if path.IsAbs(header.Linkname) || !filepath.IsLocal(path.Join(folder, header.Linkname)) {
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
