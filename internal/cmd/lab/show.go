package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const showAbout = `Prints a function, a method or a type of the stages, the pool or pennyapp with its line numbers, for a projector. NAME is
its name, such as Acquire, or says more, such as Conn.Release, database2/books.Open or pool.New.`

func runShow(_ context.Context, env *environment, args []string) error {
	f := flags(env, "show", showAbout)
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		if err := parse(f, args); err != nil {
			return err
		}
		return wrong(f, "which function?")
	}
	folder, err := root()
	if err != nil {
		return err
	}
	shown := 0
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		relative, _ := filepath.Rel(folder, path)
		relative = filepath.ToSlash(relative)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (relative == "internal" || relative == "exercises" || relative == ".git" || relative == "docs"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(relative, "pooltest"):
			return nil
		}
		n, err := show(env, path, relative, args[0])
		shown += n
		return err
	})
	if err == nil && shown == 0 {
		return &hinted{fmt.Errorf("nothing is called %s", args[0]), "go tool lab show Acquire"}
	}
	return err
}

// show prints the declarations of a file that are called name, and returns how many there are.
func show(env *environment, path, relative, name string) (shown int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, parser.ParseComments)
	if err != nil {
		return 0, errors.New("go vet ./... says what is wrong with " + relative)
	}
	lines := strings.Split(string(text), "\n")
	for _, decl := range file.Decls {
		full, doc := "", (*ast.CommentGroup)(nil)
		switch d := decl.(type) {
		case *ast.FuncDecl:
			full, doc = d.Name.Name, d.Doc
			if d.Recv != nil {
				receiver := d.Recv.List[0].Type
				if star, ok := receiver.(*ast.StarExpr); ok {
					receiver = star.X
				}
				full = fmt.Sprint(receiver) + "." + full
			}
		case *ast.GenDecl:
			if len(d.Specs) == 1 {
				switch s := d.Specs[0].(type) {
				case *ast.TypeSpec:
					full, doc = s.Name.Name, d.Doc
				case *ast.ValueSpec:
					full, doc = s.Names[0].Name, d.Doc
				}
			}
		}
		// The name can say more in front: the type, the package, or its folder.
		whole := strings.TrimSuffix(relative, "/"+filepath.Base(relative)) + "." + full
		if full == "" || whole != name && !strings.HasSuffix(whole, "."+name) && !strings.HasSuffix(whole, "/"+name) {
			continue
		}
		from, to := set.Position(decl.Pos()).Line, set.Position(decl.End()).Line
		if doc != nil {
			from = set.Position(doc.Pos()).Line
		}
		if shown++; shown > 1 {
			fmt.Fprintln(env.stdout)
		}
		fmt.Fprintln(env.stdout, relative)
		for n := from; n <= to; n++ {
			fmt.Fprintf(env.stdout, "%4d  %s\n", n, strings.ReplaceAll(lines[n-1], "\t", "    "))
		}
	}
	return shown, nil
}
