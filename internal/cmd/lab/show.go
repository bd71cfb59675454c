package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
)

const showAbout = `Prints a function, a method or a type of the stages, the pool or pennyapp with its line numbers, for a projector. NAME is
its name, such as Acquire, or says more, such as Conn.Release, database2/books.Open or pool.New.`

func runShow(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "show NAME", showAbout)
	name, err := parseName(f, args, "which function?")
	if err != nil {
		return err
	}
	folder, err := root(ctx)
	if err != nil {
		return err
	}
	shown := 0
	for _, place := range []string{"*.go", "database?/*.go", "database?/books/*.go", "database3/pool/*.go", "pennyapp/*.go"} {
		files, _ := filepath.Glob(filepath.Join(folder, place)) // it fails only for a malformed pattern
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			n, err := show(env, folder, file, name)
			if err != nil {
				return err
			}
			shown += n
		}
	}
	if shown == 0 {
		return &hinted{fmt.Errorf("nothing is called %s", name), "go tool lab show Acquire"}
	}
	return nil
}

// show prints the functions and types of a file that are called name, and returns how many there are.
func show(env *environment, folder, file, name string) (shown int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	relative, err := filepath.Rel(folder, file)
	if err != nil {
		return 0, err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, parser.ParseComments)
	if err != nil {
		return 0, &hinted{errors.New(relative + " is not valid Go"), "go vet ./... says what is wrong"}
	}
	lines := strings.Split(string(text), "\n")
	for _, decl := range parsed.Decls {
		full, doc := nameOf(decl)
		whole := filepath.ToSlash(filepath.Dir(relative)) + "." + full // the name can say more in front: the type, the package, its folder
		if full == "" || !strings.HasSuffix("/"+whole, "/"+name) && !strings.HasSuffix(whole, "."+name) {
			continue
		}
		from, to := set.Position(decl.Pos()).Line, set.Position(decl.End()).Line
		if doc != nil {
			from = set.Position(doc.Pos()).Line
		}
		fmt.Fprintln(env.stdout, filepath.ToSlash(relative))
		for n := from; n <= to; n++ {
			fmt.Fprintf(env.stdout, "%4d  %s\n", n, strings.ReplaceAll(lines[n-1], "\t", "    "))
		}
		shown++
	}
	return shown, nil
}

// nameOf returns the name of a function, a method with its type, or a type, and its comment.
func nameOf(decl ast.Decl) (string, *ast.CommentGroup) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return d.Name.Name, d.Doc
		}
		receiver := d.Recv.List[0].Type
		if star, ok := receiver.(*ast.StarExpr); ok {
			receiver = star.X
		}
		return fmt.Sprint(receiver) + "." + d.Name.Name, d.Doc
	case *ast.GenDecl:
		if d.Tok == token.TYPE && len(d.Specs) == 1 {
			return d.Specs[0].(*ast.TypeSpec).Name.Name, d.Doc
		}
	}
	return "", nil
}
