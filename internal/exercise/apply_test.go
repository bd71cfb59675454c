package exercise

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// apply makes a change in Penny's folder root. A block "diff file=NAME" replaces its lines that begin with a space or a minus
// by those that begin with a space or a plus. A block "new file=NAME" is the whole file. The line "copy FROM TO" copies the
// Go files of a package.
func apply(root, change string) error {
	var kind, name, before, after string
	for _, line := range strings.Split(change, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		copied := strings.Fields(line)
		switch {
		case fence && kind == "":
			kind, name, _ = strings.Cut(info, " file=")
			before, after = "", ""
		case fence && name != "":
			if err := replace(filepath.Join(root, name), kind, before, after); err != nil {
				return err
			}
			kind, name = "", ""
		case fence:
			kind = ""
		case kind == "" && len(copied) == 3 && copied[0] == "copy":
			if err := copyPackage(filepath.Join(root, copied[1]), filepath.Join(root, copied[2])); err != nil {
				return err
			}
		case kind == "diff" && line != "" && line[0] != '+':
			before += line[1:] + "\n"
			if line[0] == ' ' {
				after += line[1:] + "\n"
			}
		case kind == "diff" && line != "":
			after += line[1:] + "\n"
		case kind == "diff":
			before, after = before+"\n", after+"\n"
		default:
			after += line + "\n"
		}
	}
	return nil
}

// replace replaces one text of a file with another. The file must have the old text exactly once. If kind is "new", replace
// writes a new file.
func replace(file, kind, before, after string) error {
	if kind == "new" {
		return os.WriteFile(file, []byte(after), 0o644)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(text), before); n != 1 {
		return fmt.Errorf("%s has these lines %d times, not once:\n%s", file, n, before)
	}
	return os.WriteFile(file, []byte(strings.Replace(string(text), before, after, 1)), 0o644)
}

// copyPackage copies a package's Go files, without its tests.
func copyPackage(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
