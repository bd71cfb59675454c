package exercise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A Progress is what a student has done so far. It is in the file .exercises in Penny's folder; Git ignores that file.
type Progress struct {
	Solved map[int]bool `json:"solved"`
	Hints  map[int]int  `json:"hints"` // how many were shown
	file   string
}

// Load reads the progress in Penny's folder root. If the file is missing, nothing is solved.
func Load(root string) (*Progress, error) {
	p := &Progress{Solved: make(map[int]bool), Hints: make(map[int]int), file: filepath.Join(root, ".exercises")}
	text, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err != nil {
		return nil, fmt.Errorf("read your progress in %s: %w", p.file, err)
	}
	if p.Solved == nil || p.Hints == nil {
		return nil, fmt.Errorf("read your progress in %s: solved or hints is missing", p.file)
	}
	for number, shown := range p.Hints {
		p.Hints[number] = max(shown, 0)
	}
	return p, nil
}

// Save writes the progress.
func (p *Progress) Save() error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(p.file, append(text, '\n'), 0o644)
}

// Next returns the number of the first exercise that is not solved, or 0.
func (p *Progress) Next() int {
	for _, e := range All() {
		if !p.Solved[e.Number] {
			return e.Number
		}
	}
	return 0
}
