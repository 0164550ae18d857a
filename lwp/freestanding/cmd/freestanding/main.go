// The command freestanding checks whether functions can run on a freestanding
// thread.
//
//	go run lwprt/lwp/freestanding/cmd/freestanding [flags] package func...
//
// A func is an expression as it could stand in the package, unexported names
// included: Func, '(*T).Method', T.Method, 'Generic[int]'. The package is
// compiled as go test does it, with a file that exists only for the compiler,
// and the check runs in that program. The module that the command is run in
// must be lwprt or require it.
//
// Flags:
//
//	-capacity       append, map insertion and short strings have the room they need
//	-except name    do not follow calls of the function with this full name; may be repeated
//	-tests          keep the package's test files, to check functions in them
//	-gcflags, -tags, -buildmode
//	                as for go build: the code is checked as it is compiled
//
// The exit status is 1 when faults are found, 2 when the check could not be made.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const (
	clean  = 0
	faults = 1
	failed = 2
)

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("freestanding", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: freestanding [flags] package func...")
		fs.PrintDefaults()
	}
	capacity := fs.Bool("capacity", false, "append, map insertion and short strings have the room they need")
	tests := fs.Bool("tests", false, "keep the package's test files")
	var except list
	fs.Var(&except, "except", "do not follow calls of the function with this full `name`")
	build := map[string]*string{}
	for _, name := range []string{"gcflags", "tags", "buildmode"} {
		build[name] = fs.String(name, "", "as for go build")
	}
	if err := fs.Parse(args); err != nil {
		return failed
	}
	if fs.NArg() < 2 {
		fs.Usage()
		return failed
	}
	j := job{pkg: fs.Arg(0), funcs: fs.Args()[1:], capacity: *capacity, except: except, tests: *tests}
	for name, v := range build {
		if *v != "" {
			j.flags = append(j.flags, "-"+name+"="+*v)
		}
	}
	text, found, err := j.check()
	if err != nil {
		fmt.Fprintln(stderr, "freestanding:", err)
		return failed
	}
	fmt.Fprint(stdout, text)
	if found {
		return faults
	}
	return clean
}

type job struct {
	pkg      string
	funcs    []string
	flags    []string // for the go command
	capacity bool
	except   []string
	tests    bool
}

// What the generated test writes in front of its report.
const (
	markClean  = "clean\n"
	markFaults = "faults\n"
)

// check builds and runs the check; found says that there are faults.
func (j *job) check() (text string, found bool, err error) {
	for _, f := range j.funcs {
		if _, err := parser.ParseExpr(f); err != nil {
			return "", false, fmt.Errorf("%q is not an expression: %v", f, err)
		}
	}
	var p struct {
		Dir, Name                 string
		TestGoFiles, XTestGoFiles []string
	}
	out, err := exec.Command("go", "list", "-json=Dir,Name,TestGoFiles,XTestGoFiles", j.pkg).Output()
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err != nil {
		return "", false, fmt.Errorf("go list %s: %w%s", j.pkg, err, errorText(err))
	}
	tmp, err := os.MkdirTemp("", "freestanding")
	if err != nil {
		return "", false, err
	}
	defer os.RemoveAll(tmp)
	source, result, overlay := filepath.Join(tmp, "check.go"), filepath.Join(tmp, "result"), filepath.Join(tmp, "overlay.json")
	replace := map[string]string{filepath.Join(p.Dir, "freestanding_check_test.go"): source}
	if !j.tests {
		for _, f := range append(p.TestGoFiles, p.XTestGoFiles...) {
			replace[filepath.Join(p.Dir, f)] = "" // not there
		}
	}
	o, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", false, err
	}
	if err := errors.Join(os.WriteFile(source, []byte(j.source(p.Name, result)), 0o600), os.WriteFile(overlay, o, 0o600)); err != nil {
		return "", false, err
	}
	cmd := exec.Command("go", append(append([]string{"test", "-overlay=" + overlay, "-vet=off", "-count=1", "-run=^" + testName + "$"}, j.flags...), j.pkg)...)
	out, err = cmd.CombinedOutput()
	b, readErr := os.ReadFile(result)
	if readErr != nil {
		return "", false, fmt.Errorf("%v\n%s", err, out)
	}
	text = string(b)
	if cwd, err := os.Getwd(); err == nil {
		text = strings.ReplaceAll(text, cwd+string(filepath.Separator), "")
	}
	if rest, ok := strings.CutPrefix(text, markFaults); ok {
		return rest, true, nil
	}
	rest, ok := strings.CutPrefix(text, markClean)
	if !ok {
		return "", false, errors.New(strings.TrimSpace(text))
	}
	return rest, false, nil
}

func errorText(err error) string {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return "\n" + string(e.Stderr)
	}
	return ""
}

const testName = "TestLwprtFreestandingCheck"

// source returns the file that is compiled into the package. Imports have
// names that the package will not have.
func (j *job) source(pkg, result string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `package %s

import (
	lwprtFmt "fmt"
	lwprtFreestanding "lwprt/lwp/freestanding"
	lwprtOS "os"
	lwprtTesting "testing"
)

func %s(t *lwprtTesting.T) {
	var options []lwprtFreestanding.Option
`, pkg, testName)
	if j.capacity {
		b.WriteString("\toptions = append(options, lwprtFreestanding.WithinCapacity)\n")
	}
	for _, name := range j.except {
		fmt.Fprintf(&b, "\toptions = append(options, lwprtFreestanding.Except(%q, \"by -except\"))\n", name)
	}
	b.WriteString("\tmark, text := \"clean\\n\", \"\"\n\tfor _, f := range []any{\n")
	for _, f := range j.funcs {
		fmt.Fprintf(&b, "\t\t%s,\n", f)
	}
	fmt.Fprintf(&b, `	} {
		r, err := lwprtFreestanding.Check(f, options...)
		if err != nil {
			mark, text = "", lwprtFmt.Sprintf("%%T: %%v", f, err)
			break
		}
		if !r.OK() {
			mark = "faults\n"
		}
		text += r.String()
	}
	if err := lwprtOS.WriteFile(%q, []byte(mark+text), 0o600); err != nil {
		t.Fatal(err)
	}
}
`, result)
	return b.String()
}
