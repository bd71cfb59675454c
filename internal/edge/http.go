package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
)

// forwardedProto finds the protocol in a hop of the header Forwarded, such as for=192.0.2.1;proto="http".
var forwardedProto = regexp.MustCompile(`(?i)\bproto="?(\w+)`)

// Proto returns how the visitor's browser speaks to the host's router, as the router says in X-Forwarded-Proto or Forwarded:
// "http", "https", or nothing if there is no router.
func Proto(r *http.Request) string {
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",") // the first hop is the browser's
	if proto == "" {
		first, _, _ := strings.Cut(r.Header.Get("Forwarded"), ",")
		if found := forwardedProto.FindStringSubmatch(first); found != nil {
			proto = found[1]
		}
	}
	return strings.ToLower(strings.TrimSpace(proto))
}

// Static returns a handler that serves an embedded file. Browsers keep it for an hour, and then ask whether it has changed.
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
