package examples

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestForkAndCloneDifferByFlags(t *testing.T) {
	lwptest.NotEmulated(t, "processes that share memory")
	out := ran(t, "forkvsclone")
	sight := `variable +(\d+), file (\w+) *, directory (.*)`
	pair := find(t, strings.SplitN(out, "flags  ", 2)[0], sight, 2)
	for i, want := range [][]string{{"1", "open"}, {"42", "closed"}} {
		if pair[i][1] != want[0] || pair[i][2] != want[1] {
			t.Errorf("part %d: %s", i+1, pair[i][0])
		}
	}
	for set := range 8 {
		var flags lwp.Flags
		want := []string{"1", "open", "where it was"}
		for i, f := range []lwp.Flags{lwp.CloneVM, lwp.CloneFiles, lwp.CloneFS} {
			if set&(1<<i) != 0 {
				flags |= f
				want[i] = []string{"42", "closed", "/"}[i]
			}
		}
		got := find1(t, out, strings.ReplaceAll(flags.String(), "|", `\|`)+` +`+sight)
		for i := range want {
			if got[i+1] != want[i] {
				t.Errorf("%v: %s", flags, got[0])
			}
		}
	}
}

func TestHostNameChangesInOneNamespace(t *testing.T) {
	lwptest.NotEmulated(t, "namespaces")
	out, err := run(t, build(t, "newuts"))
	if err != nil && strings.Contains(out, "This program needs CAP_SYS_ADMIN") {
		t.Skip("the program says what it lacks: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := find1(t, out, `parent, before: +host (.*)`)[1]
	child := find1(t, out, `child \d+: host (.*), in (.*)`)
	after := find1(t, out, `parent, meanwhile: host (.*), in (.*)`)
	if host, _ := os.Hostname(); before != host || after[1] != host || child[1] != "inside" || child[2] == after[2] {
		t.Errorf("before %s; child %s in %s; parent %s in %s", before, child[1], child[2], after[1], after[2])
	}
}

func TestFirstOfItsPIDNamespace(t *testing.T) {
	lwptest.NotEmulated(t, "namespaces")
	out, err := run(t, build(t, "pid1"))
	if err != nil && strings.Contains(out, "needs a kernel that gives user namespaces") {
		t.Skip("the program says what it lacks: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	find1(t, out, `child: I am process 1, my parent is 0 .*, my user is 0`)
	find1(t, out, `grandchild: I am process \d, my parent has ended, now it is process 1`)
	find1(t, out, `child: as process 1 I have collected 1 orphan`)
	if pid := number(t, find1(t, out, `parent: to me it is process (\d+)`)[1]); pid <= 1 {
		t.Errorf("to its parent it is process %d", pid)
	}
	if !strings.Contains(out, "has parts hidden") {
		find1(t, out, `child: a /proc of my own lists 1 process`)
	}
}

func TestSpawnedProgramsMakeAPipe(t *testing.T) {
	for _, path := range []string{"/bin/echo", "/usr/bin/tr", "/bin/sh"} {
		if _, err := os.Stat(path); err != nil {
			t.Skip(err)
		}
	}
	out := ran(t, "spawn")
	find1(t, out, `the pipe's end says: HELLO FROM A CHILD`)
	pids := find1(t, out, `process (\d+) is echo, process (\d+) is tr`)
	for _, pid := range pids[1:] {
		find1(t, out, `process `+pid+` ended with exit status 0`)
	}
	find1(t, out, `a shell that kills itself: killed by SIGTERM`)
	find1(t, out, `lwp: execve for /no/such/program: no such file or directory`)
	find1(t, out, `lwp: chdir for /bin/sh: no such file or directory`)
	find1(t, out, `lwp: clone flags: CLONE_NEWNS excludes CLONE_FS: .*`)
}

func TestVForkBorrowsMemoryAndSleeps(t *testing.T) {
	lwptest.NotEmulated(t, "vfork that shares memory")
	out := ran(t, "vfork")
	ms := func(pattern string) float64 {
		var v float64
		fmt.Sscan(find1(t, out, pattern)[1], &v)
		return v
	}
	if fork := ms(`fork: +the call took +([\d.]+) ms; the variable is 0: .*`); fork >= 50 {
		t.Logf("fork took %v ms", fork) // a busy machine
	}
	if vfork := ms(`vfork: the call took +([\d.]+) ms; the variable is 42: .*`); vfork < 50 {
		t.Errorf("vfork came back after %v ms, the child slept for 50", vfork)
	}
	if n := number(t, find1(t, out, `meanwhile another goroutine has counted to (\d+): .*`)[1]); n == 0 {
		t.Error("the other goroutine slept too")
	}
	if fork, vfork := ms(`fork: +([\d.]+) ms`), ms(`vfork: +([\d.]+) ms`); vfork >= fork {
		t.Errorf("of 128 MiB, fork takes %v ms, vfork %v ms", fork, vfork)
	}
}

// TestEveryFlagIsShown fails where a flag has no line, or its line does not say
// that it made a difference.
func TestEveryFlagIsShown(t *testing.T) {
	lwptest.NotEmulated(t, "all of clone(2)")
	out := ran(t, "flags")
	for _, i := range lwp.AllFlags() {
		if !strings.Contains(out, "\n"+i.Name+" ") && !strings.HasPrefix(out, i.Name+" ") {
			t.Errorf("no line for %s", i.Name)
		}
	}
	for _, name := range []string{"CLONE_PID", "CLONE_STOPPED"} {
		find1(t, out, name+` +gone \(.*`)
	}
	for flag, sees := range map[string]string{
		"CLONE_VM": "parent sees 42, without the flag 1", "CLONE_FS": "parent sees umask 0077, without the flag umask 0022",
		"CLONE_FILES": "parent sees it closed, without the flag it open", "CLONE_SIGHAND": "parent sees it ignored, without the flag its own handler",
		"CLONE_PTRACE": ".*: true, without the flag false", "CLONE_UNTRACED": ".*: false, without the flag true",
		"CLONE_DETACHED": "accepted, and nothing is different: true",
	} {
		find1(t, out, flag+` +.*`+sees)
	}
	find(t, out, `kcmp: shared true, without the flag false`, 6)
	find1(t, out, `the child had ended by then: true`)
	find1(t, out, `CLONE_VFORK +child slept 30ms; .*`)
	same := func(pattern string) {
		if m := find1(t, out, pattern); m[1] != m[2] {
			t.Errorf("differs: %s", m[0])
		}
	}
	same(`CLONE_THREAD +child is task \d+ of process (\d+); the parent is process (\d+)`)
	same(`CLONE_PARENT_SETTID +the kernel stored (\d+) for the parent; the child is (\d+)`)
	same(`CLONE_CHILD_SETTID +the kernel stored (\d+) for the child; it is (\d+)`)
	find1(t, out, `CLONE_CHILD_CLEARTID +the child ended, the kernel stored 0 .*`)
	find1(t, out, `termination signal +the child ended, the parent got: user defined signal 1`)
	if m := find1(t, out, `CLONE_SETTLS +the child's thread pointer is (\w+), the parent's (\w+)`); m[1] == m[2] {
		t.Errorf("the same: %s", m[0])
	}
	if m := find1(t, out, `CLONE_CLEAR_SIGHAND +signals with handlers: child (\w+), parent (\w+)`); m[1] == m[2] {
		t.Errorf("the same: %s", m[0])
	}
	if os.Geteuid() == 0 {
		same(`set_tid +asked for process (\d+); the child says that it is (\d+)`)
		find(t, out, `CLONE_NEW\w+ +child \d+ is in a namespace of its own: true.*`, 8)
	}
}
