package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/penny/internal/pgtest"
)

func TestTheDemoDrawsItsPictures(t *testing.T) {
	t.Parallel()
	address := pgtest.BooksURL(t)
	folder := t.TempDir()
	args := []string{"demo", "-url", "-n", "12", "-c", "6", "-pool", "2", "-rtt", "2ms", "-pictures"}
	if _, errs, status := lab(t, address, "", append(args, folder)...); status != 0 {
		t.Fatal(errs)
	}
	for name, want := range map[string]string{"timeline.svg": "6 round trips against 1, 2 ms apart", "slots.svg": "6 callers at once, a pool of 2"} {
		if drawing, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !strings.Contains(string(drawing), want) {
			t.Errorf("%s lacks %q (%v)", name, want, err)
		}
	}
	if _, errs, status := lab(t, address, "", append(args, filepath.Join(folder, "missing"))...); status != 1 || !strings.Contains(errs, "name another folder") {
		t.Errorf("a missing folder: got status %d and %q, want 1 and a hint", status, errs)
	}
}
