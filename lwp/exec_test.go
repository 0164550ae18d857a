package lwp_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// sh runs a script by SpawnExec and returns what it has printed, and how it ended.
func sh(t testing.TB, script string, attr lwp.ExecAttr) (string, lwp.State) {
	t.Helper()
	return program(t, []string{"/bin/sh", "-c", script}, attr)
}

func program(t testing.TB, argv []string, attr lwp.ExecAttr) (string, lwp.State) {
	t.Helper()
	if _, err := os.Stat(argv[0]); err != nil {
		t.Skip(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if attr.Files == nil {
		attr.Files = []int{-1, int(w.Fd()), int(w.Fd())}
	} else {
		attr.Files[1] = int(w.Fd())
	}
	p, err := lwp.SpawnExec(argv[0], argv, attr)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	s, err := p.Wait()
	if err != nil {
		t.Error(err)
	}
	return string(out), s
}

func TestSpawnExecRunsAProgram(t *testing.T) {
	begin(t)
	dir := t.TempDir()
	out, s := sh(t, `echo "$A $1 $(pwd)"; exit 7`, lwp.ExecAttr{Env: []string{"A=b", "PATH=/bin:/usr/bin"}, Dir: dir})
	if out != "b  "+dir+"\n" || s.ExitCode() != 7 {
		t.Errorf("printed %q, ended with %v", out, s)
	}
	t.Setenv("LWP_TEST_ENV", "inherited")
	if out, _ := sh(t, `echo $LWP_TEST_ENV`, lwp.ExecAttr{}); out != "inherited\n" {
		t.Errorf("printed %q", out)
	}
	if _, s := sh(t, `kill -TERM $$`, lwp.ExecAttr{}); s.Signal() != unix.SIGTERM {
		t.Errorf("ended with %v", s)
	}
	noChildren(t)
}

func TestSpawnExecReportsWhatFailed(t *testing.T) {
	begin(t)
	plain := t.TempDir() + "/plain"
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range lwptest.Count(100, 5) {
		for _, c := range []struct {
			path  string
			attr  lwp.ExecAttr
			call  string
			errno syscall.Errno
		}{
			{"/no/such/program", lwp.ExecAttr{}, "execve", unix.ENOENT},
			{plain, lwp.ExecAttr{}, "execve", unix.EACCES},
			{"nul\x00byte", lwp.ExecAttr{}, "execve", unix.EINVAL},
			{"/bin/sh", lwp.ExecAttr{Dir: "/no/such/directory"}, "chdir", unix.ENOENT},
			{"/bin/sh", lwp.ExecAttr{Files: []int{999999}}, "dup3", unix.EBADF},
			{"/bin/sh", lwp.ExecAttr{Setpgid: true, Pgid: 1 << 22}, "setpgid", unix.EPERM},
		} {
			if c.call == "dup3" && lwptest.Emulated() {
				continue // another errno
			}
			p, err := lwp.SpawnExec(c.path, nil, c.attr)
			var ee *lwp.ExecError
			if !errors.As(err, &ee) || ee.Call != c.call || !errors.Is(err, c.errno) || p != (lwp.Process{}) {
				if c.call == "setpgid" && errors.Is(err, unix.ESRCH) {
					continue
				}
				t.Fatalf("%s: %v, want %s: %v", c.path, err, c.call, c.errno)
			}
		}
	}
	if _, err := lwp.SpawnExec("/bin/sh", nil, lwp.ExecAttr{ProcessAttr: lwp.ProcessAttr{Flags: lwp.CloneSighand | lwp.CloneThread}}); err == nil {
		t.Error("it takes CLONE_THREAD")
	}
	if n := lwp.Processes(); n != 0 {
		t.Errorf("%d records are in use", n)
	}
	noChildren(t)
}

// TestSpawnExecDescriptors permutes descriptors, with some in each other's way.
func TestSpawnExecDescriptors(t *testing.T) {
	begin(t)
	var files [6]*os.File
	for i := range files {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprint(f, i)
		files[i] = f
	}
	fd := func(i int) int { files[i].Seek(0, 0); return int(files[i].Fd()) }
	// 3 to 8 in the child; the highest of ours first, so that places are taken.
	attr := lwp.ExecAttr{Files: []int{-1, -1, 2, fd(5), fd(4), fd(3), fd(2), fd(1), fd(0)}}
	out, s := sh(t, `cat <&3; cat <&4; cat <&5; cat <&6; cat <&7; cat <&8; echo " " /proc/$$/fd/*`, attr)
	if !strings.HasPrefix(out, "543210") || s.ExitCode() != 0 {
		t.Errorf("printed %q, ended with %v", out, s)
	}
	// Those of this process did not come along under their own numbers.
	for i := range files {
		if n := fd(i); n > 8 && strings.Contains(out+" ", fmt.Sprintf("/fd/%d ", n)) {
			t.Errorf("the program has descriptor %d: %s", n, out)
		}
	}
	fd0, _ := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
	if fd0&unix.FD_CLOEXEC == 0 {
		t.Error("a descriptor of this process is no longer close-on-exec")
	}
}

func TestSpawnExecSignalsAndSession(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "its own signal masks in /proc")
	signal.Ignore(unix.SIGUSR2)
	defer signal.Reset(unix.SIGUSR2)
	status := []string{"/bin/cat", "/proc/self/status"}
	out, _ := program(t, status, lwp.ExecAttr{})
	// What this process was started with ignored, by nohup(1) for one, stays so.
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, ignored, _ := strings.Cut(string(own), "SigIgn:\t")
	ignored, _, _ = strings.Cut(ignored, "\n")
	if mask, err := strconv.ParseUint(ignored, 16, 64); err != nil || mask&(1<<(unix.SIGUSR2-1)) == 0 {
		t.Fatalf("this process ignores %s", ignored)
	}
	for _, want := range []string{"SigBlk:\t0000000000000000", "SigIgn:\t" + ignored, "SigCgt:\t0000000000000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("the program starts with\n%swant %s", out, want)
		}
	}
	out, _ = program(t, status, lwp.ExecAttr{Setsid: true, ProcessAttr: lwp.ProcessAttr{Blocked: 1 << (unix.SIGTERM - 1)}})
	field := func(name string) string {
		_, rest, _ := strings.Cut(out, "\n"+name+":\t")
		v, _, _ := strings.Cut(rest, "\n")
		return v
	}
	if field("SigBlk") != "0000000000004000" || field("NSsid") == "" || field("NSsid") != field("Pid") {
		t.Errorf("with a session of its own and SIGTERM blocked:\n%s", out)
	}
	lwptest.NeedRoot(t)
	out, _ = sh(t, `id -u; id -g`, lwp.ExecAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	if out != "65534\n65534\n" {
		t.Errorf("as another: %q", out)
	}
	out, _ = sh(t, `hostname elsewhere 2>/dev/null; cat /proc/sys/kernel/hostname; id -u`,
		lwp.ExecAttr{ProcessAttr: lwp.ProcessAttr{Flags: lwp.CloneNewUser | lwp.CloneNewUTS, AsRoot: true}})
	if !strings.HasSuffix(out, "\n0\n") {
		t.Errorf("in namespaces: %q", out)
	}
}

// TestSpawnExecByMany has goroutines execute programs side by side with the
// collector, and beside os/exec.
func TestSpawnExecByMany(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range lwptest.Count(40, 10) {
				if g == 0 {
					c, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
					if err != nil {
						t.Error(err)
						return
					}
					c.Wait()
					continue
				}
				p, err := lwp.SpawnExec("/bin/sh", []string{"sh", "-c", fmt.Sprint("exit ", i)}, lwp.ExecAttr{})
				if err != nil {
					t.Error(err)
					return
				}
				ends(t, p, i)
			}
		})
	}
	wg.Wait()
	noChildren(t)
}
