package freestanding_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// hosted lists what this module offers to goroutines alone, with the reason.
var hosted = map[string]string{
	"futex.Error.Error":          "joins the text of an error that the package has not made",
	"futex.NewBarrier":           "allocates; Barrier.Init does not",
	"tls.NewKey":                 "ErrThread",
	"tls.Key.Delete":             "ErrThread",
	"lwp.Error.Error":            "joins its text",
	"lwp.AllFlags":               "allocates",
	"lwp.AllThreadsSyscall":      "stops the world",
	"lwp.AllThreadsSyscall6":     "stops the world",
	"lwp.CloneError.Error":       "joins its text",
	"lwp.CloneError.Unwrap":      "allocates",
	"lwp.ExecError.Error":        "joins its text",
	"lwp.ExecError.Unwrap":       "allocates",
	"lwp.Flags.String":           "joins its text",
	"lwp.GoneFlags":              "allocates",
	"lwp.Process.WaitContext":    "waits for a context",
	"lwp.RuleError.Error":        "joins its text",
	"lwp.Shares.String":          "joins its text",
	"lwp.Sharing":                "reads /proc",
	"lwp.SharingOf":              "reads /proc",
	"lwp.SpawnExec":              "allocates",
	"lwp.State.String":           "joins its text",
	"lwp.ThreadsError.Error":     "joins its text",
	"lwp.Fault.Error":            "symbolizes",
	"lwp.Fault.Frames":           "symbolizes",
	"lwp.Fault.Registers":        "allocates",
	"lwp.Fault.Stack":            "symbolizes",
	"lwp.Handler.CallContext":    "ErrHosted",
	"lwp.Handler.Close":          "ErrHosted",
	"lwp.Handler.CloseContext":   "ErrHosted",
	"lwp.Gate.Free":              "for goroutines alone",
	"lwp.NewGate":                "ErrHosted",
	"lwp.NewHandler":             "ErrHosted",
	"lwp.NewHandlerConfig":       "ErrHosted",
	"lwp.NewPool":                "ErrHosted",
	"lwp.NewRing":                "ErrHosted",
	"lwp.Ring.RecvContext":       "ErrHosted",
	"lwp.Ring.SendContext":       "ErrHosted",
	"lwp.Pool.Close":             "ErrHosted",
	"lwp.SetChecker":             "allocates",
	"lwp.Supported":              "looks at the runtime",
	"lwp.Thread.Done":            "returns nil",
	"lwp.Thread.JoinContext":     "ErrHosted",
	"lwp.Thread.Name":            "allocates",
	"lwp.Threads":                "allocates; AppendThreads need not",
	"lwp.UnsupportedError.Error": "joins its text",
}

// TestHouseIsWhole finds the exported functions and methods of the packages for
// threads in their source. Each must be checked, or be named as one for
// goroutines.
func TestHouseIsWhole(t *testing.T) {
	checked := map[string]bool{}
	for _, h := range house {
		checked[h.name] = true
	}
	found := map[string]bool{}
	for _, room := range []string{"futex", "tls", "lwp"} {
		files, err := filepath.Glob("../../" + room + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.IsExported() {
					if name, ok := exported(fn); ok {
						found[room+"."+name] = true
					}
				}
			}
		}
	}
	if len(found) < 100 {
		t.Errorf("only %d functions found", len(found))
	}
	for name := range found {
		if checked[name] == (hosted[name] != "") {
			t.Errorf("%s: checked %v, for goroutines: %q", name, checked[name], hosted[name])
		}
	}
	for _, list := range []map[string]bool{checked, keys(hosted)} {
		for name := range list {
			if !found[name] {
				t.Errorf("%s is listed and does not exist", name)
			}
		}
	}
}

// exported returns the name of a function, or of a method with its type, if
// the type is exported.
func exported(fn *ast.FuncDecl) (name string, ok bool) {
	if fn.Recv == nil {
		return fn.Name.Name, true
	}
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name + "." + fn.Name.Name, x.IsExported()
		default:
			return "", false
		}
	}
}

func keys(m map[string]string) map[string]bool {
	s := map[string]bool{}
	for k := range m {
		s[k] = true
	}
	return s
}
