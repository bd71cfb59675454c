package scratch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"example.com/penny/internal/scratch"
)

func TestNewRemovesTheFoldersOfOwnersThatHaveEnded(t *testing.T) {
	parent := t.TempDir()
	folder := func() *scratch.Folder {
		t.Helper()
		f, err := scratch.New(parent, "test")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	killed, alive := folder(), folder()
	killed.Lock.Close() // the system does it when a process ends
	other := filepath.Join(parent, "penny-my-thesis")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	last := folder()
	if _, err := os.Stat(killed.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of an owner that was killed is left: %v", err)
	}
	for _, path := range []string{alive.Path, last.Path, other} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(alive.Remove(), last.Remove()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(parent, "*")); !slices.Equal(left, []string{other}) {
		t.Errorf("got the folders %v, want only %s", left, other)
	}
}

func TestAFolderInARelativeTMPDIRHasAnAbsolutePath(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("TMPDIR", ".")
	t.Setenv("TMP", ".")
	f, err := scratch.New("", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Remove()
	if !filepath.IsAbs(f.Path) {
		t.Errorf("got %s, want an absolute path", f.Path)
	}
}

func TestFoldersThatAreMadeAtOnceDoNotRemoveOneAnother(t *testing.T) {
	parent := t.TempDir()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				folder, err := scratch.New(parent, "test")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(folder.Lock.Name()); err != nil {
					t.Error(err)
				}
				if err := folder.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestWaitEndsWithItsContext(t *testing.T) {
	open := func() *os.File {
		t.Helper()
		file, err := os.OpenFile(filepath.Join(t.TempDir(), "..", "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	first, second := open(), open()
	if err := scratch.Wait(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := scratch.Wait(ctx, second); !errors.Is(err, context.Canceled) || !errors.Is(err, scratch.ErrLocked) {
		t.Errorf("got %v, want context.Canceled and ErrLocked", err)
	}
	first.Close()
	if err := scratch.Wait(t.Context(), second); err != nil {
		t.Error(err)
	}
}
