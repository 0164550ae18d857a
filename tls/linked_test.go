package tls_test

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"lwprt/lwp/lwptest"
)

// TestEveryWayToLink builds a program in every way that decides where the g slot lies,
// and runs it.
func TestEveryWayToLink(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the standard library several times")
	}
	lwptest.SkipRace(t)
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command: ", err)
	}
	// A C program tells whether the machine can link what is asked for.
	canLink := func(t *testing.T, flags ...string) {
		t.Helper()
		if lwptest.Emulated() {
			t.Skip("the C compiler is not for the emulated machine")
		}
		cc, err := exec.LookPath("cc")
		if err != nil {
			t.Skip("no C compiler: ", err)
		}
		cmd := exec.Command(cc, append(flags, "-x", "c", "-", "-o", filepath.Join(t.TempDir(), "c"), "-pthread")...)
		cmd.Stdin = strings.NewReader("#include <stdlib.h>\nint main(void) { return 0; }\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("cc %v: %v\n%s", flags, err, out)
		}
	}
	for _, c := range []struct {
		name, cgo string
		cc        []string // what cc must be able to do
		args      []string
	}{
		{"static", "0", nil, nil},
		{"pie", "0", nil, []string{"-buildmode=pie"}},
		{"cgo", "1", []string{}, nil},
		{"cgo internal linking", "1", []string{}, []string{"-ldflags=-linkmode=internal"}},
		{"cgo pie", "1", []string{"-pie", "-fPIE"}, []string{"-buildmode=pie"}},
		{"cgo static", "1", []string{"-static"}, []string{"-ldflags=-linkmode=external -extldflags=-static"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cc != nil {
				canLink(t, c.cc...)
			}
			program := filepath.Join(t.TempDir(), "linked")
			build := exec.Command(gotool, append(append([]string{"build", "-buildvcs=false", "-o", program}, c.args...), "./testdata/linked")...)
			build.Env = append(build.Environ(), "CGO_ENABLED="+c.cgo, "GOOS=linux", "GOARCH="+runtime.GOARCH)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			out, state := lwptest.Exec(t, nil, program)
			if !state.Success() || !strings.HasPrefix(out, "fine") {
				t.Fatalf("%v\n%s", state, out)
			}
			t.Log(out)
		})
	}
}
