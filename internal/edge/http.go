package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"strings"
)

// Proto returns how the visitor's browser speaks to the host's router, as the router says in X-Forwarded-Proto or Forwarded:
// "http", "https", or nothing if there is no router.
func Proto(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	if first == "" {
		forwarded, _, _ := strings.Cut(r.Header.Get("Forwarded"), ",")
		for pair := range strings.SplitSeq(forwarded, ";") {
			if name, value, _ := strings.Cut(pair, "="); strings.EqualFold(strings.TrimSpace(name), "proto") {
				first = strings.Trim(strings.TrimSpace(value), `"`)
			}
		}
	}
	return strings.ToLower(strings.TrimSpace(first))
}

// Static returns a handler that serves a file that is embedded. Browsers keep it for an hour, and then ask whether it has changed.
func Static(files fs.FS, name string) http.Handler {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		panic(err) // the file is part of the program
	}
	sum := sha256.Sum256(data)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("ETag", tag)
		http.ServeFileFS(w, r, files, name)
	})
}
