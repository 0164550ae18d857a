package lwptest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childVar tells the process that Child has started what it is.
const childVar = "LWPTEST_CHILD"

// InChild reports whether the test runs in the process that Child has started.
func InChild() bool { return os.Getenv(childVar) != "" }

// Child runs the calling test once more, alone, in a process of its own, and
// returns its combined output and how it ended. setup, which may be nil, can
// change the command. The test begins with
//
//	if !lwptest.InChild() {
//		out, state := lwptest.Child(t, nil)
//		// what is expected of the two
//		return
//	}
func Child(t testing.TB, setup func(*exec.Cmd)) (output string, state *os.ProcessState) {
	t.Helper()
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + p + "$"
	}
	args := []string{"-test.run=" + strings.Join(parts, "/"), "-test.count=1", "-test.v", "-test.timeout=4m"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Exec(t, func(c *exec.Cmd) {
		c.Env = append(c.Env, childVar+"=1")
		if setup != nil {
			setup(c)
		}
	}, self, args...)
}

// MustPass runs the calling test in a process of its own and fails or skips
// where the child does. It reports whether the caller is the parent, which then has
// nothing more to do.
func MustPass(t testing.TB, setup func(*exec.Cmd)) (parent bool) {
	t.Helper()
	if InChild() {
		return false
	}
	out, state := Child(t, setup)
	switch {
	case !state.Success():
		t.Fatalf("the child ended with %v\n%s", state, out)
	case strings.Contains(out, "--- SKIP"):
		t.Skipf("the child skips:\n%s", out)
	case !strings.Contains(out, "--- PASS"):
		t.Fatalf("the child ran no test\n%s", out)
	}
	return true
}

// Exec runs a program that was built for this architecture, and returns its
// combined output and how it ended.
func Exec(t testing.TB, setup func(*exec.Cmd), name string, args ...string) (output string, state *os.ProcessState) {
	t.Helper()
	out, state, err := run(setup, name, args)
	if errors.Is(err, syscall.ENOEXEC) {
		// The program is not for this machine: as this process is emulated, so can the other be.
		emulator, look := exec.LookPath(emulators[runtime.GOARCH])
		if look != nil {
			t.Skip("cannot run another program under emulation: ", look)
		}
		out, state, err = run(setup, emulator, append([]string{name}, args...))
	}
	if err != nil && state == nil {
		t.Fatal(err)
	}
	return out, state
}

var emulators = map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}

func run(setup func(*exec.Cmd), name string, args []string) (string, *os.ProcessState, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = os.Environ()
	if setup != nil {
		setup(c)
	}
	out, err := c.CombinedOutput()
	return string(out), c.ProcessState, err
}
